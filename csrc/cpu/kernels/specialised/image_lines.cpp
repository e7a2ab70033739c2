// Few channels of the input: forward, on lines of the image that stay in the caches: with pixels in the lanes
// on wide contiguous images (image_lines/plane_correlation.h), else with result channels
// (image_lines/pixel_correlation.h); the gradient of the input, with taps (tap_sums.h).
#include "cpu/dispatch.h"
#include "cpu/image_lines/pixel_correlation.h"
#include "cpu/image_lines/plane_correlation.h"
#include "cpu/image_lines/tap_sums.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The limits are where other kernels were equally fast: with patches copied across rows, which fills lanes
// where rows are short, and past the caches where rows are no whole lines of them.
template <class T>
Reason why_not_planes(const ConvProblem& p) {
  using Plan = ImagePlanesPlan<T>;
  const int64_t channels = in_channels_per_group(p);
  const int64_t taps = p.kernel.height * p.kernel.width;
  if (out_channels_per_group(p) < most_channels_of_plane_tile) return "a group has few output channels";
  if (channels > 16) return "a group has many input channels";
  if (channels >= 8 && out_channels_per_group(p) < 16) return "a group has few output channels";
  if (taps * channels < 16) return "sums of so few terms do not repay copying lines";
  if (out_channels_per_group(p) >= 96 && taps <= 16 && p.stride.width > 1 &&
      !are_whole_lines<T>(p.output_strides.row) && are_whole_lines<T>(p.output_strides.channel))
    return "rows of so many results are no whole lines of the cache, but the planes are";
  const Plan plan(p, 1);
  if (plan.terms > Plan::most_terms) return "the kernel is too large for a table of its taps";
  if (plan.row_stride > Plan::most_phases * plan.pitch) return "the stride is too large";
  if (plan.numbers() > Plan::most_numbers)
    return "the lines that a row of results reads do not fit the cache";
  return nullptr;
}

template <class T>
Reason why_not_pixels(const ConvProblem& p) {
  using Plan = ImagePixelsPlan<T>;
  if (p.in_channels > 8) return "there are many input channels";
  if (p.out_channels < 16) return "there are few output channels";
  if (p.in_channels == 8 && p.output.width < 10 && p.input_strides.channel != 1)
    return "the results are so narrow that patches serve them better";
  if (p.stride.width >= p.kernel.width && p.stride.width > 1) return "no two windows of a row overlap";
  if (p.kernel.height * p.kernel.width * p.in_channels < 16 && p.out_channels >= 128)
    return "sums of so few terms do not repay copying lines";
  const Plan plan(p, 1);
  if (plan.terms > Plan::most_terms) return "the kernel is too large for a table of its taps";
  if (plan.lines * plan.line_stride > Plan::most_numbers)
    return "the lines that a row of results reads do not fit the cache";
  return nullptr;
}

template <class Visit>
auto with_real(DType dtype, const Visit& visit) {
  return dtype == DType::float64 ? visit(double{}) : visit(float{});
}

// Whether pixels of contiguous images fill the lanes.
template <class T>
bool has_wide_planes(const ConvProblem& p) {
  constexpr int64_t lanes = Vector<T>::lanes;
  return p.input_strides.column == 1 && p.output_strides.column == 1 &&
         p.output.width >= (in_channels_per_group(p) < 8 ? lanes * 3 / 2 : 2 * lanes);
}

Reason why_not(const ConvProblem& p) {
  if (!is_floating(p.dtype)) return "it is for floating-point numbers";
  if (p.pass == Pass::grad_weight) return "it computes no gradient of the weight";
  if (p.pass == Pass::grad_input) {
    const bool fits = with_type(p.dtype, [&](auto zero) { return TapSumsPlan<decltype(zero)>::fits(p); });
    return fits ? nullptr : "the gradient of the input is for few channels and taps";
  }
  if (p.dtype != DType::float32 && p.dtype != DType::float64) return "forward is for float32 and float64";
  if (is_empty(p) || p.output.height * p.output.width == 0) return "a tensor is empty";
  if (p.kernel.height * p.kernel.width == 1) return "the kernel is 1x1";
  return with_real(p.dtype, [&](auto zero) -> Reason {
    using T = decltype(zero);
    if (has_wide_planes<T>(p)) return why_not_planes<T>(p);
    if (ImagePixels<T>::fits(p)) return why_not_pixels<T>(p);
    return "the images are neither contiguous nor channels_last, or in groups";
  });
}

// Calls visit(plan) with the plan of the layout.
template <class Visit>
auto with_plan(const ConvProblem& p, int workers, const Visit& visit) {
  return with_real(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    return has_wide_planes<T>(p) ? visit(ImagePlanesPlan<T>(p, workers))
                                 : visit(ImagePixelsPlan<T>(p, workers));
  });
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  if (p.pass == Pass::grad_input) {
    return with_type(
        p.dtype, [&](auto zero) { return TapSumsPlan<decltype(zero)>(p, workers).workspace_bytes(workers); });
  }
  return with_plan(p, workers, [&](const auto& plan) { return plan.workspace_bytes(workers); });
}

template <class T>
void run_as(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  if (has_wide_planes<T>(p)) {
    const ImagePlanesPlan<T> plan(p, executor.workers);
    ImagePlanes<T>(plan, p, data, workspace).run(executor);
  } else {
    const ImagePixelsPlan<T> plan(p, executor.workers);
    ImagePixels<T>(plan, p, data, workspace).run(executor);
  }
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  if (p.pass == Pass::grad_input) {
    return with_type(p.dtype, [&](auto zero) {
      using T = decltype(zero);
      const TapSumsPlan<T> plan(p, executor.workers);
      TapSums<T>(plan, p, data, workspace).run(executor);
    });
  }
  with_real(p.dtype, [&](auto zero) { run_as<decltype(zero)>(p, data, workspace, executor); });
}

}  // namespace

extern const Kernel image_lines{
    "image_lines",
    CONVEXT_ISA_ENUMERATOR,
    "few channels: lines of the image in the caches, pixels in the lanes, or channels of channels_last "
    "results",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
