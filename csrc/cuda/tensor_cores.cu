// Products of matrices of floating-point numbers on tensor cores. docs/cuda.md has the reasoning.
#include "cuda/kernel_list.h"
#include "cuda/tensor_cores/launch.h"
#include "cuda/tensor_cores/packing.h"
#include "cuda/tiles/limits.h"

namespace convext {
namespace cuda {
namespace {

// Of a result of this pass, those that most results have.
int64_t terms(const ConvProblem& p) {
  const int64_t taps = p.kernel.height * p.kernel.width;
  switch (p.pass) {
    case Pass::forward:
      return in_channels_per_group(p) * taps;
    case Pass::grad_input:
      return out_channels_per_group(p) * (taps / (p.stride.height * p.stride.width) + 1);
    default:
      return p.batch * p.output.height * p.output.width;
  }
}

Reason why_not(const ConvProblem& p, const CudaDevice& device) {
  if (p.dtype != DType::bfloat16 && p.dtype != DType::float16 && p.dtype != DType::float32 &&
      p.dtype != DType::float64)
    return "the dtype is an integer";
  if (device.capability < 80) return "the device is older than compute capability 8.0";
  const Reason reason = tiles::why_no_tiles(p);
  if (reason != nullptr) return reason;
  // Of few terms, what is left out of the products of split numbers is more than float32's rounding of sums.
  if (p.dtype == DType::float32 && p.precision == Float32Precision::highest && terms(p) < 16)
    return "a sum has fewer than 16 terms, which float32 adds up with a smaller error";
  return mma::why_no_packing(p);
}

int64_t workspace_bytes(const ConvProblem& problem, const CudaDevice& device) {
  return problem.pass == Pass::grad_weight ? mma::weight_gradient_workspace_bytes(problem, device)
                                           : mma::correlation_workspace_bytes(problem);
}

const char* run(const ConvProblem& problem, const ConvData& data, void* workspace, const CudaDevice& device,
                void* stream) {
  return problem.pass == Pass::grad_weight
             ? mma::launch_weight_gradient(problem, data, workspace, device, stream)
             : mma::launch_correlation(problem, data, workspace, device, stream);
}

}  // namespace

extern const CudaKernel tensor_cores{
    "tensor_cores",
    "a product of matrices on tensor cores; float32 by six products of split numbers",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace cuda
}  // namespace convext
