// 1x1 kernels that step over nothing, on contiguous images of some channels, forward and the gradient of the
// input: pointwise/correlation.h.
#include "cpu/kernel_list.h"
#include "cpu/pointwise/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t fewest_channels = most_tile_rows;

// Whether an image is planes of neighbouring pixels.
bool has_planes(const ConvProblem& p, const ImageStrides& strides) {
  return strides.column == 1 && (p.input.height == 1 || strides.row == p.input.width);
}

template <class T>
Reason why_not_as(const ConvProblem& p) {
  constexpr int64_t lanes = Vector<T>::lanes;
  const int64_t pixels = p.input.height * p.input.width;
  if (smaller(in_channels_per_group(p), out_channels_per_group(p)) < fewest_channels)
    return "a group has few channels";
  // Channels in the lanes leave none of them empty.
  if (10 * pixels < 9 * round_up(pixels, lanes)) return "the images' pixels leave too many lanes empty";
  return nullptr;
}

Reason why_not(const ConvProblem& p) {
  const Padding& padding = p.padding;
  if (p.dtype != DType::float32 && p.dtype != DType::float64) return "it is for float32 and float64";
  if (p.pass == Pass::grad_weight) return "it computes no gradient of the weight";
  if (is_empty(p)) return "a tensor is empty";
  if (p.kernel.height != 1 || p.kernel.width != 1 || p.stride.height != 1 || p.stride.width != 1 ||
      padding.top + padding.bottom + padding.left + padding.right != 0)
    return "the kernel is not 1x1 with stride 1 and no padding";
  if (!has_planes(p, p.input_strides) || !has_planes(p, p.output_strides))
    return "the images are not contiguous";
  return p.dtype == DType::float64 ? why_not_as<double>(p) : why_not_as<float>(p);
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  return p.dtype == DType::float64 ? PointwisePlan<double>(p, workers).workspace_bytes(workers)
                                   : PointwisePlan<float>(p, workers).workspace_bytes(workers);
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  const auto run_as = [&](auto zero) {
    using T = decltype(zero);
    const PointwisePlan<T> plan(p, executor.workers);
    PointwiseCorrelation<T>(plan, p, data, workspace).run(executor);
  };
  p.dtype == DType::float64 ? run_as(double{}) : run_as(float{});
}

}  // namespace

extern const Kernel pointwise{
    "pointwise",
    CONVEXT_ISA_ENUMERATOR,
    "1x1 kernels of contiguous images as a product of matrices, packed by its first tile",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
