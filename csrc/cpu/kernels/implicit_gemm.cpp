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

// Of contiguous images, whether a copy that has channels side by side pays: a rough count of cycles for each
// pixel of the result, as measured. Nothing here depends on the batch.
template <class T>
bool channel_band_pays(const Correlation& c) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  if (c.source_strides.channel == 1 || c.source_strides.column != 1 || c.source_channels < lanes / 2 ||
      c.result_channels < lanes || ChannelsInLanesPlan<T>::band_block_channels(c) == 0) {
    return false;
  }
  const auto source = static_cast<double>(c.source_channels);
  const auto result = static_cast<double>(round_up(c.result_channels, lanes));
  const auto source_pixels = static_cast<double>(c.is_forward ? c.rows.p.input * c.columns.p.input
                                                              : c.rows.p.output * c.columns.p.output);
  const int64_t pixels =
      c.is_forward ? c.rows.p.output * c.columns.p.output : c.rows.p.input * c.columns.p.input;
  const auto result_pixels = static_cast<double>(larger(1, pixels));
  // Of the gradient of the input, a pixel has its share of the taps.
  const auto area = static_cast<double>(c.rows.p.kernel * c.columns.p.kernel);
  const double taps = c.is_forward ? area : area / static_cast<double>(c.rows.p.stride * c.columns.p.stride);
  const double products = source * result * taps / static_cast<double>(2 * lanes);
  const double pixels_in_lanes =
      products / 0.62 * static_cast<double>(round_up(larger(1, pixels), lanes)) / result_pixels;
  constexpr double cached = 1024 * 1024 / sizeof(Compute<T>);
  const bool is_cached = source * source_pixels + result * result_pixels < cached;
  const bool is_scattered = !c.is_forward && c.columns.p.stride > 1;
  const double copying = source * source_pixels / result_pixels * (is_cached ? 0.3 : 0.6) +
                         result * ((is_cached ? 0.4 : 0.9) + (is_scattered ? 0.8 : 0.0));
  return products / 0.85 + copying < pixels_in_lanes;
}

// Where channels lie side by side, even two of them in a vector of 16 are faster than pixels gathered one by
// one.
template <class T>
bool has_channels_in_lanes(const Correlation& c) {
  return c.result_channels > 0 && (c.prefers_channels_in_lanes() || channel_band_pays<T>(c));
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
  const Correlation correlation(with_columns_as_channels(with_rows_joined(problem)));
  return has_channels_in_lanes<T>(correlation)
             ? ChannelsInLanesPlan<T>(correlation, workers).workspace_bytes(workers)
             : PixelsInLanesPlan<T>(correlation).workspace_bytes(workers);
}

// False where the kernel finds that it cannot run the problem.
template <class T>
bool correlate(const ConvProblem& given, const ConvData& data, void* workspace, const Executor& executor) {
  const ConvProblem problem = with_columns_as_channels(with_rows_joined(given));
  const Correlation correlation(problem);
  if (has_channels_in_lanes<T>(correlation)) {
    ChannelsInLanesPlan<T> plan(correlation, executor.workers);
    const auto run = [&] {
      return ChannelsInLanes<T>(correlation, plan, problem, data, workspace).run(executor);
    };
    if (run()) return true;
    if (!correlation.is_forward) return false;
    plan.read_padding();
    return run();
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
  return is_floating(problem.dtype) ? nullptr : "it is for floating-point numbers";
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
