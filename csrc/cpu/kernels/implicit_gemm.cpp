// All three passes as blocked matrix products whose patch matrix is made piece by piece, in the caches:
// implicit_gemm/pixels_in_lanes.h and channels_in_lanes.h for forward and the gradient of the input,
// implicit_gemm/weight_gradient.h for the gradient of the weight. Any strides, padding mode, stride, dilation
// and groups; float32, float64, and bfloat16 and float16 widened to float32 while packing.
#include "cpu/implicit_gemm/channels_in_lanes.h"
#include "cpu/implicit_gemm/pixels_in_lanes.h"
#include "cpu/implicit_gemm/weight_gradient.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Vectors of channels are worth it if there are channels to fill them.
template <class T>
bool has_channels_in_lanes(const Correlation& correlation) {
  return correlation.prefers_channels_in_lanes() && correlation.result_channels >= Vector<Compute<T>>::lanes;
}

template <class T>
int64_t workspace_bytes_as(const ConvProblem& problem, int workers) {
  if (problem.pass == Pass::grad_weight) return WeightGradientPlan<T>(problem).workspace_bytes(workers);
  const Correlation correlation(problem);
  return has_channels_in_lanes<T>(correlation) ? ChannelsInLanesPlan<T>(correlation).workspace_bytes(workers)
                                               : PixelsInLanesPlan<T>(correlation).workspace_bytes(workers);
}

// False where the kernel finds that it cannot run the problem.
template <class T>
bool correlate(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  const Correlation correlation(problem);
  if (has_channels_in_lanes<T>(correlation)) {
    const ChannelsInLanesPlan<T> plan(correlation);
    return ChannelsInLanes<T>(correlation, plan, problem, data, workspace).run(executor);
  }
  const PixelsInLanesPlan<T> plan(correlation);
  return PixelsInLanes<T>(correlation, plan, problem, data, workspace).run(executor);
}

template <class T>
void run_as(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  if (problem.pass == Pass::grad_weight) {
    const WeightGradientPlan<T> plan(problem);
    return WeightGradientRun<T>(plan, data, workspace).run(executor);
  }
  if (!correlate<T>(problem, data, workspace, executor)) {
    reference_kernel.run(problem, data, nullptr, executor);
  }
}

Reason why_not(const ConvProblem& problem) {
  switch (problem.dtype) {
    case DType::float32:
    case DType::float64:
    case DType::bfloat16:
    case DType::float16:
      return nullptr;
    default:
      return "integers have no SIMD kernel";
  }
}

int64_t workspace_bytes(const ConvProblem& problem, int workers) {
  switch (problem.dtype) {
    case DType::float64:
      return workspace_bytes_as<double>(problem, workers);
    case DType::bfloat16:
      return workspace_bytes_as<BFloat16>(problem, workers);
    case DType::float16:
      return workspace_bytes_as<Float16>(problem, workers);
    default:
      return workspace_bytes_as<float>(problem, workers);
  }
}

void run(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  switch (problem.dtype) {
    case DType::float64:
      return run_as<double>(problem, data, workspace, executor);
    case DType::bfloat16:
      return run_as<BFloat16>(problem, data, workspace, executor);
    case DType::float16:
      return run_as<Float16>(problem, data, workspace, executor);
    default:
      return run_as<float>(problem, data, workspace, executor);
  }
}

}  // namespace

extern const Kernel implicit_gemm{
    "implicit_gemm",
    CONVEXT_ISA_ENUMERATOR,
    "blocked matrix product with patches packed on the fly; any layout, stride, dilation, padding and groups",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
