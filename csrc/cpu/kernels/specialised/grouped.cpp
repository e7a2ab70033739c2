// Groups of a few channels, several of them side by side in a vector: see grouped/layout.h. A single group of
// few channels, too, whose vectors are then read by broadcasts.
#include "cpu/dispatch.h"
#include "cpu/grouped/correlate.h"
#include "cpu/grouped/weight_gradient.h"
#include "cpu/image_lines/tap_sums_plan.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Calls visit(plan) with the plan of the pass.
template <class T, class Visit>
auto with_plan(const ConvProblem& p, const Visit& visit) {
  return p.pass == Pass::grad_weight ? visit(GroupWeightGradientPlan<T>(p))
                                     : visit(GroupCorrelationPlan<T>(p));
}

template <class T>
void run_as(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  if (p.pass == Pass::grad_weight) {
    const GroupWeightGradientPlan<T> plan(p);
    return GroupWeightGradient<T>(plan, p, data, workspace).run(executor);
  }
  const GroupCorrelationPlan<T> plan(p);
  if (!GroupCorrelation<T>(plan, p, data, workspace).run(executor))
    reference_kernel.run(p, data, nullptr, executor);
}

// Where too many lanes stay empty. The limits were measured against direct_rows and implicit_gemm, which have
// full vectors of pixels for contiguous images and only scalars for a few channels of channels_last ones.
template <class T>
Reason empty_lanes(const ConvProblem& p) {
  constexpr Reason reason = "too many lanes of its vectors would be empty";
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
  const bool is_input = p.pass == Pass::grad_input;
  const GroupLayout<T> layout(p.groups, is_input ? out : in, is_input ? in : out);
  const int64_t used = layout.used_lanes();
  const int64_t all = layout.all_lanes();
  if (p.pass == Pass::grad_weight) {
    if (2 * used < all || (layout.vectors_of_group > 1 && 10 * used < 9 * all)) return reason;
    return nullptr;
  }
  if (has_channels_innermost(p.input_strides) && has_channels_innermost(p.output_strides)) {
    if (4 * used < all) return reason;
#if defined(__AVX512F__)
    // Two vectors of half the width take no longer, and on CPUs that split the wider ones half as long.
    if (2 * used <= all) return narrower_vectors_fit;
#endif
    return nullptr;
  }
  if (p.kernel.height == 1 && p.kernel.width == 1) return "transposing planes costs more than one tap";
  return layout.broadcasts ? (5 * used < 4 * all ? reason : nullptr) : (2 * used < all ? reason : nullptr);
}

// A single group needs no permutations. What remains are operands that meet several taps and rows once they
// are in a register, where implicit_gemm reads one for each product of few channels.
template <class T>
Reason single_group(const ConvProblem& p) {
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
  if (p.pass == Pass::grad_weight) return "there is one group only";
  if (p.kernel.height * p.kernel.width == 1) return "there is one group only, and one tap";
  const bool has_pixels = has_channels_innermost(p.input_strides) && has_channels_innermost(p.output_strides);
  const bool is_input = p.pass == Pass::grad_input;
  const int64_t least_in = is_input && has_pixels ? 3 : 5;
  if (in < least_in || out < 5) return "there is one group only, of few channels";
  if (TapSumsPlan<T>::fits(p)) return "a product for all taps at once is faster for so few channels";
  // Up to 1.5 times as fast.
  if (std::is_same_v<T, Compute<T>> && p.pass == Pass::forward && in <= 8 && out >= 16)
    return "lines of the image serve so few channels better";
  const GroupLayout<T> layout(1, is_input ? out : in, is_input ? in : out);
  if (!has_pixels && !layout.broadcasts) {
#if defined(__AVX512F__)
    // Large kernels repay the transposed copy, and meet padding, which implicit_gemm multiplies.
    constexpr int64_t large = 15 * 15;
    const bool is_large = p.kernel.height * p.kernel.width >= large;
    if (is_large && 2 * layout.used_lanes() <= layout.all_lanes()) return narrower_vectors_fit;
#endif
    return "there is one group only, of few channels";
  }
  return nullptr;
}

Reason why_not(const ConvProblem& p) {
  if (!is_floating(p.dtype)) return "it is for floating-point numbers";
  if (is_empty(p)) return "a tensor is empty";
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
  if (in == 1 && out == 1) return "depthwise problems need no permutations";
  // Small maps of contiguous images have few vectors of pixels, so there it is faster for a little longer.
  const bool has_few_vectors =
      !has_channels_innermost(p.input_strides) && p.output.height * p.output.width <= 256;
  const int64_t most_channels = has_few_vectors ? 32 : 31;
  if (p.groups == 1) {
    if (const Reason reason = with_type(p.dtype, [&](auto zero) { return single_group<decltype(zero)>(p); }))
      return reason;
  }
  if (in > most_channels || out > most_channels) return "a group has channels enough to fill vectors";
  const auto has_pixels = [](const ImageStrides& strides) {
    return has_channels_innermost(strides) || strides.column == 1;
  };
  if (!has_pixels(p.input_strides) || !has_pixels(p.output_strides))
    return "neither channels nor columns are adjacent in memory";
  if (collects_padding(p)) return "the padding is filled from the input";
  constexpr int64_t longest = 1 << 20;
  if (p.stride.height > longest || p.stride.width > longest || p.dilation.height > longest ||
      p.dilation.width > longest)
    return "a stride or dilation is larger than 2^20";
  if (p.kernel.height > most_group_taps || p.kernel.width > most_group_taps)
    return "a side of the kernel is longer than 64";
  if (const Reason reason = with_type(p.dtype, [&](auto zero) { return empty_lanes<decltype(zero)>(p); }))
    return reason;
  constexpr int64_t most_scratch = 4 << 20;
  const int64_t scratch = with_type(p.dtype, [&](auto zero) {
    return with_plan<decltype(zero)>(p, [](const auto& plan) { return plan.worker_bytes; });
  });
  if (scratch > most_scratch) return "a worker would need more than 4 MiB of scratch";
  return nullptr;
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  return with_type(p.dtype, [&](auto zero) {
    return with_plan<decltype(zero)>(p, [&](const auto& plan) { return plan.workspace_bytes(workers); });
  });
}

void run(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  with_type(problem.dtype, [&](auto zero) { run_as<decltype(zero)>(problem, data, workspace, executor); });
}

}  // namespace

extern const Kernel grouped{
    "grouped",
    CONVEXT_ISA_ENUMERATOR,
    "groups of a few channels, several side by side in a vector; forward and both gradients",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
