// 1x1 kernels that step over nothing: forward and the gradient of the input on contiguous images
// (pointwise/correlation.h), the gradient of the weight on channels_last ones (pointwise/weight_gradient.h).
#include "cpu/kernel_list.h"
#include "cpu/pointwise/correlation.h"
#include "cpu/pointwise/weight_gradient.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Whether an image is planes of neighbouring pixels.
bool has_planes(const ConvProblem& p, const ImageStrides& strides) {
  return strides.column == 1 && (p.input.height == 1 || strides.row == p.input.width);
}

// Whether all images are one row of pixels, each of neighbouring channels.
bool has_pixels(const ConvProblem& p, const ImageStrides& strides) {
  const int64_t row = p.input.width * strides.column;
  return strides.channel == 1 && (p.input.height == 1 || strides.row == row) &&
         (p.batch == 1 || strides.batch == p.input.height * row);
}

template <class T>
bool fills_lanes(const ConvProblem& p) {
  const int64_t pixels = p.input.height * p.input.width;
  return 10 * pixels >= 9 * round_up(pixels, Vector<T>::lanes);
}

Reason why_not(const ConvProblem& p) {
  const Padding& padding = p.padding;
  if (p.dtype != DType::float32 && p.dtype != DType::float64) return "it is for float32 and float64";
  if (is_empty(p)) return "a tensor is empty";
  if (p.kernel.height != 1 || p.kernel.width != 1 || p.stride.height != 1 || p.stride.width != 1 ||
      padding.top + padding.bottom + padding.left + padding.right != 0)
    return "the kernel is not 1x1 with stride 1 and no padding";
  if (smaller(in_channels_per_group(p), out_channels_per_group(p)) < most_tile_rows)
    return "a group has few channels";
  if (p.pass == Pass::grad_weight) {
    return has_pixels(p, p.input_strides) && has_pixels(p, p.output_strides)
               ? nullptr
               : "the gradient of the weight is for channels_last images, one after the other";
  }
  if (!has_planes(p, p.input_strides) || !has_planes(p, p.output_strides))
    return "the images are not contiguous";
  const bool is_double = p.dtype == DType::float64;
  return (is_double ? fills_lanes<double>(p) : fills_lanes<float>(p))
             ? nullptr
             : "the images' pixels would leave too many lanes empty";
}

template <class Visit>
auto with_real(DType dtype, const Visit& visit) {
  return dtype == DType::float64 ? visit(double{}) : visit(float{});
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  return with_real(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    return p.pass == Pass::grad_weight ? PointwiseGradientPlan<T>(p, workers).workspace_bytes(workers)
                                       : PointwisePlan<T>(p, workers).workspace_bytes(workers);
  });
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  with_real(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (p.pass == Pass::grad_weight) {
      const PointwiseGradientPlan<T> plan(p, executor.workers);
      PointwiseGradient<T>(plan, data, workspace).run(executor);
    } else {
      const PointwisePlan<T> plan(p, executor.workers);
      PointwiseCorrelation<T>(plan, p, data, workspace).run(executor);
    }
  });
}

}  // namespace

extern const Kernel pointwise{
    "pointwise",
    CONVEXT_ISA_ENUMERATOR,
    "1x1 kernels as a product of matrices that its first tile packs; contiguous, grad_weight channels_last",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
