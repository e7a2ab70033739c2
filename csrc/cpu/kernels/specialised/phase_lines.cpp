// Forward on contiguous images of few channels: lines of the image in the caches, pixels in the lanes
// (phase_lines/correlation.h).
#include "cpu/dispatch.h"
#include "cpu/kernel_list.h"
#include "cpu/phase_lines/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The limits are where other kernels were equally fast: with patches copied across rows, which fills lanes
// where rows are short, and past the caches where rows are no whole lines of them.
template <class T>
Reason why_not_correlate(const ConvProblem& p) {
  using Plan = PhaseLinesPlan<T>;
  constexpr int64_t lanes = Vector<T>::lanes;
  const int64_t channels = in_channels_per_group(p);
  const int64_t taps = p.kernel.height * p.kernel.width;
  if (channels > 16) return "a group has many input channels";
  if (channels >= 8 && out_channels_per_group(p) < 16) return "a group has few output channels";
  if (p.output.width < (channels < 8 ? lanes * 3 / 2 : 2 * lanes)) return "the results are too narrow";
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

Reason why_not(const ConvProblem& p) {
  if (p.dtype != DType::float32 && p.dtype != DType::float64) return "it is for float32 and float64";
  if (p.pass != Pass::forward) return "it computes the forward pass only";
  if (is_empty(p) || p.output.height * p.output.width == 0) return "a tensor is empty";
  if (p.input_strides.column != 1 || p.output_strides.column != 1) return "the images are not contiguous";
  if (out_channels_per_group(p) < most_rows_of_lines) return "a group has few output channels";
  if (p.kernel.height * p.kernel.width == 1) return "the kernel is 1x1";
  return p.dtype == DType::float64 ? why_not_correlate<double>(p) : why_not_correlate<float>(p);
}

template <class Visit>
auto with_real(DType dtype, const Visit& visit) {
  return dtype == DType::float64 ? visit(double{}) : visit(float{});
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  return with_real(p.dtype, [&](auto zero) {
    return PhaseLinesPlan<decltype(zero)>(p, workers).workspace_bytes(workers);
  });
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  with_real(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    const PhaseLinesPlan<T> plan(p, executor.workers);
    PhaseLines<T>(plan, p, data, workspace).run(executor);
  });
}

}  // namespace

extern const Kernel phase_lines{
    "phase_lines",
    CONVEXT_ISA_ENUMERATOR,
    "few channels, contiguous: lines of the image, a phase of the stride in each, pixels in the lanes",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
