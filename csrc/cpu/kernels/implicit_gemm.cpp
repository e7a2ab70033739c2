// All three passes as blocked matrix products whose patch matrix is made piece by piece, in the caches:
// implicit_gemm/pixels_in_lanes.h and channels_in_lanes.h for forward and the gradient of the input,
// implicit_gemm/weight_gradient.h for the gradient of the weight. Any strides, padding mode, stride, dilation
// and groups; float32, float64, and bfloat16 and float16 widened to float32 while packing.
#include "cpu/dispatch.h"
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
  return correlation.prefers_channels_in_lanes() &&
         2 * correlation.result_channels >= Vector<Compute<T>>::lanes;
}

// The gradient of the input of a kernel that steps by its own width: each column of the gradient of the
// output makes kernel.width columns of the result, which lie next to each other, channels and all, as do
// their weights if both tensors are channels_last. So those columns are further channels of a kernel one
// column wide, instead of as many classes with few channels each.
ConvProblem with_columns_as_channels(const ConvProblem& problem) {
  const int64_t width = problem.kernel.width;
  const bool fits = problem.pass == Pass::grad_input && width > 1 && problem.stride.width == width &&
                    problem.dilation.width == 1 && problem.padding.left == 0 && problem.padding.right == 0 &&
                    problem.input.width == problem.output.width * width && problem.groups == 1 &&
                    problem.input_strides.channel == 1 && problem.output_strides.channel == 1 &&
                    problem.input_strides.column == problem.in_channels &&
                    problem.weight_strides.in_channel == 1 &&
                    problem.weight_strides.column == problem.in_channels;
  ConvProblem merged = problem;
  if (!fits) return merged;
  merged.in_channels *= width;
  merged.input.width = problem.output.width;
  merged.input_strides.column *= width;
  merged.kernel.width = 1;
  merged.stride.width = 1;
  return merged;
}

template <class T>
int64_t workspace_bytes_as(const ConvProblem& problem, int workers) {
  if (problem.pass == Pass::grad_weight) return WeightGradientPlan<T>(problem).workspace_bytes(workers);
  const Correlation correlation(with_columns_as_channels(problem));
  return has_channels_in_lanes<T>(correlation)
             ? ChannelsInLanesPlan<T>(correlation, workers).workspace_bytes(workers)
             : PixelsInLanesPlan<T>(correlation).workspace_bytes(workers);
}

// False where the kernel finds that it cannot run the problem.
template <class T>
bool correlate(const ConvProblem& given, const ConvData& data, void* workspace, const Executor& executor) {
  const ConvProblem problem = with_columns_as_channels(given);
  const Correlation correlation(problem);
  if (has_channels_in_lanes<T>(correlation)) {
    const ChannelsInLanesPlan<T> plan(correlation, executor.workers);
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
  return is_floating(problem.dtype) ? nullptr : "integers have no SIMD kernel";
}

int64_t workspace_bytes(const ConvProblem& problem, int workers) {
  return with_type(problem.dtype,
                   [&](auto zero) { return workspace_bytes_as<decltype(zero)>(problem, workers); });
}

void run(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  with_type(problem.dtype, [&](auto zero) { run_as<decltype(zero)>(problem, data, workspace, executor); });
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
