// Floating-point problems with channels enough for products of matrices. docs/cuda.md has the reasoning.
#include "cuda/kernel_list.h"
#include "cuda/tiles/launch.h"
#include "cuda/tiles/limits.h"

namespace convext {
namespace cuda {
namespace {

Reason why_not(const ConvProblem& p, const CudaDevice&) {
  if (p.dtype != DType::float32 && p.dtype != DType::float64 && p.dtype != DType::bfloat16 &&
      p.dtype != DType::float16)
    return "the dtype is an integer";
  // Below this, most of a tile would be empty.
  const int64_t channels = p.pass == Pass::grad_input ? in_channels_per_group(p) : out_channels_per_group(p);
  if (channels < 8) return "a group has fewer than 8 channels in the result";
  return tiles::why_no_tiles(p);
}

int64_t workspace_bytes(const ConvProblem& problem, const CudaDevice&) {
  return problem.pass == Pass::grad_weight ? tiles::weight_gradient_workspace_bytes(problem) : 0;
}

const char* run(const ConvProblem& problem, const ConvData& data, void* workspace, const CudaDevice& device,
                void* stream) {
  return problem.pass == Pass::grad_weight
             ? tiles::launch_weight_gradient(problem, data, workspace, device, stream)
             : tiles::launch_correlation(problem, data, stream);
}

}  // namespace

extern const CudaKernel implicit_gemm{
    "implicit_gemm",
    "a product of matrices whose elements are gathered where they lie",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace cuda
}  // namespace convext
