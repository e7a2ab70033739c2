// Products of matrices in panels: forward and the gradient of the input on contiguous images, with pixels in
// the lanes (panel_gemm/correlation.h), and the gradient of a 1x1 kernel's weight on channels_last ones
// (panel_gemm/weight_gradient.h).
#include "cpu/kernel_list.h"
#include "cpu/panel_gemm/correlation.h"
#include "cpu/panel_gemm/weight_gradient.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Whether all images are one row of pixels, each of neighbouring channels.
bool has_pixels(const ConvProblem& p, const ImageStrides& strides) {
  const int64_t row = p.input.width * strides.column;
  return strides.channel == 1 && (p.input.height == 1 || strides.row == row) &&
         (p.batch == 1 || strides.batch == p.input.height * row);
}

// Whether several taps repay copying the patches. With channels in the lanes nothing is copied for a tap, and
// taps that read padding are left out; but few source channels leave those lanes empty. The limits are where
// the two ways were equally fast.
template <class T>
Reason why_not_patches(const ConvProblem& p) {
  constexpr int64_t lanes = Vector<T>::lanes;
  const int64_t taps = p.kernel.height * p.kernel.width;
  const bool has_stride = p.stride.height * p.stride.width > 1;
  // Rows of whole vectors are read from a band of lines, shifted.
  const bool has_odd_rows = lanes > 8 && p.output.width % lanes != 0;
  if (in_channels_per_group(p) >= 8 || !(has_stride || has_odd_rows))
    return "kernels of several taps are faster with channels in the lanes, unless those would be few";
  if (taps > 32) return "the kernel is so large that copying patches takes too long";
  if (taps * in_channels_per_group(p) < 9) return "sums of so few terms do not repay a panel";
  if (out_channels_per_group(p) < (lanes > 8 ? 32 : 48))
    return "so few result channels do not repay copying patches";
  return nullptr;
}

template <class T>
Reason why_not_correlate(const ConvProblem& p) {
  const auto are_planes = [](const ImageStrides& strides) { return strides.column == 1; };
  if (!are_planes(p.input_strides) || !are_planes(p.output_strides)) return "the images are not contiguous";
  if (collects_padding(p)) return "the padding is filled from the input";
  const int64_t taps = p.kernel.height * p.kernel.width;
  if (taps > 1) {
    if (p.pass == Pass::grad_input && !has_windows_side_by_side(p))
      return "the gradient of the input is for kernels that are 1x1 or step by their own size";
    const Reason reason = p.pass == Pass::forward ? why_not_patches<T>(p) : nullptr;
    if (reason != nullptr) return reason;
  }
  // Channels in the lanes leave none of them empty.
  constexpr int64_t lanes = PanelPlan<T>::lanes;
  const int64_t pixels = PanelPlan<T>(p, 1).grid.pixels();
  if (10 * pixels < 9 * ceil_div(pixels, lanes) * lanes)
    return "an image's pixels would leave too many lanes empty";
  // 256 <- 1024 and 512 <- 1024 channels at 14^2: 0.8 times implicit_gemm's speed for one image, 1.0 for
  // eight.
  constexpr int64_t many_channels = 1024;
  constexpr int64_t few_pixels = 256;
  if (p.pass == Pass::grad_input && out_channels_per_group(p) >= many_channels && pixels <= few_pixels)
    return "so few pixels do not repay packing the weights of so many channels";
  return nullptr;
}

Reason why_not(const ConvProblem& p) {
  if (p.dtype != DType::float32 && p.dtype != DType::float64) return "it is for float32 and float64";
  if (is_empty(p) || p.output.height * p.output.width == 0) return "a tensor is empty";
  const bool has_patches = p.kernel.height * p.kernel.width > 1;
  if (out_channels_per_group(p) < most_rows_of_tile ||
      (!has_patches && in_channels_per_group(p) < most_rows_of_tile))
    return "a group has few channels";
  if (p.pass == Pass::grad_weight) {
    if (!is_pointwise(p)) return "the gradient of the weight is for 1x1 kernels with stride 1 and no padding";
    if (!has_pixels(p, p.input_strides) || !has_pixels(p, p.output_strides))
      return "the gradient of the weight is for channels_last images, one after the other";
    return nullptr;
  }
  return p.dtype == DType::float64 ? why_not_correlate<double>(p) : why_not_correlate<float>(p);
}

template <class Visit>
auto with_real(DType dtype, const Visit& visit) {
  return dtype == DType::float64 ? visit(double{}) : visit(float{});
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  return with_real(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    return p.pass == Pass::grad_weight ? PointwiseGradientPlan<T>(p, workers).workspace_bytes(workers)
                                       : PanelPlan<T>(p, workers).workspace_bytes(workers);
  });
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  with_real(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (p.pass == Pass::grad_weight) {
      const PointwiseGradientPlan<T> plan(p, executor.workers);
      PointwiseGradient<T>(plan, data, workspace).run(executor);
    } else {
      const PanelPlan<T> plan(p, executor.workers);
      PanelCorrelation<T>(plan, p, data, workspace).run(executor);
    }
  });
}

}  // namespace

extern const Kernel panel_gemm{
    "panel_gemm",
    CONVEXT_ISA_ENUMERATOR,
    "products of matrices in panels: contiguous images, pixels in the lanes; grad_weight of 1x1, "
    "channels_last",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
