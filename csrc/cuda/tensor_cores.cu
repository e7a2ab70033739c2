// bfloat16 and float16 problems with channels enough for products of matrices, on tensor cores. docs/cuda.md
// has the reasoning.
#include "cuda/kernel_list.h"
#include "cuda/tensor_cores/launch.h"
#include "cuda/tiles/limits.h"

namespace convext {
namespace cuda {
namespace {

Reason why_not(const ConvProblem& p, const CudaDevice& device) {
  if (p.dtype != DType::bfloat16 && p.dtype != DType::float16) return "it is for bfloat16 and float16";
  if (device.capability < 80) return "the device is older than compute capability 8.0";
  return tiles::why_no_tiles(p);
}

int64_t workspace_bytes(const ConvProblem& problem, const CudaDevice&) {
  return problem.pass == Pass::grad_weight ? mma::weight_gradient_workspace_bytes(problem) : 0;
}

const char* run(const ConvProblem& problem, const ConvData& data, void* workspace, const CudaDevice& device,
                void* stream) {
  return problem.pass == Pass::grad_weight
             ? mma::launch_weight_gradient(problem, data, workspace, device, stream)
             : mma::launch_correlation(problem, data, stream);
}

}  // namespace

extern const CudaKernel tensor_cores{
    "tensor_cores",
    "a product of matrices of 16-bit numbers, gathered where they lie, on tensor cores",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace cuda
}  // namespace convext
