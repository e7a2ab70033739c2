// bfloat16 by the processor's dot products of pairs, two products in the place of one:
// bfloat16_pairs/correlation.h, pointwise.h and few_results.h for forward and the gradient of the input,
// bfloat16_pairs/weight_gradient.h for the gradient of the weight.
#include "cpu/bfloat16_pairs/correlation.h"
#include "cpu/bfloat16_pairs/few_results.h"
#include "cpu/bfloat16_pairs/pointwise.h"
#include "cpu/bfloat16_pairs/weight_gradient.h"
#include "cpu/dispatch.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Whether leaving out zeros of padding pays more than two products in the place of one. The limits are where
// the two ways were equally fast.
bool reads_little_but_padding(const ConvProblem& p) {
  const double least_share = p.pass == Pass::grad_weight ? 0.4 : 0.15;
  const Correlation c = p.pass == Pass::grad_weight ? forward_of(p) : Correlation(p);
  return source_share(c) < least_share;
}

Reason why_not_gradient(const ConvProblem& p) {
  if (out_channels_per_group(p) < PairVector::lanes)
    return "a group has too few output channels for a vector";
  if (in_channels_per_group(p) * p.kernel.height * p.kernel.width < most_pair_rows)
    return "a group has too few weights for an output channel";
  return nullptr;
}

Reason why_not(const ConvProblem& p) {
  if (p.dtype != DType::bfloat16) return "it is for bfloat16";
  if (is_empty(p) || p.output.height * p.output.width == 0) return "a tensor is empty";
  if (reads_little_but_padding(p))
    return "most of what the windows read is padding, which is left out elsewhere";
  if (p.pass == Pass::grad_weight) return why_not_gradient(p);
  if (collects_padding(p)) return "the padding is filled from the input";
  const Correlation c(p);
  if (c.source_channels < 3) return "pairs of so few source channels would be half empty";
  if (c.result_channels < 4 || (c.result_channels < PairVector::lanes && !FewResultsPlan::fits(c)))
    return "a group has too few result channels";
  if (c.classes() > 16) return "the stride is so large that the result falls into very many phases";
  return nullptr;
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  if (p.pass == Pass::grad_weight)
    return PairsGradientPlan(with_rows_joined(p), workers).workspace_bytes(workers);
  const ConvProblem joined = with_rows_joined(p);
  const Correlation c(joined);
  if (PairsPointwisePlan::fits(joined)) return PairsPointwisePlan(c, workers).workspace_bytes(workers);
  if (c.result_channels < PairVector::lanes) return FewResultsPlan(c, workers).workspace_bytes(workers);
  return larger(PairsPlan(c, workers).workspace_bytes(workers),
                PairsPlan(c, workers, false).workspace_bytes(workers));
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  const ConvProblem joined = with_rows_joined(p);
  const auto runs = [&] {
    if (p.pass == Pass::grad_weight) {
      const PairsGradientPlan plan(joined, executor.workers);
      return PairsGradient(plan, joined, data, workspace).run(executor);
    }
    const Correlation c(joined);
    if (PairsPointwisePlan::fits(joined)) {
      const PairsPointwisePlan plan(c, executor.workers);
      PairsPointwise(c, plan, data, workspace).run(executor);
      return true;
    }
    if (c.result_channels < PairVector::lanes) {
      const FewResultsPlan plan(c, executor.workers);
      return FewResults(c, plan, data, workspace).run(executor);
    }
    const PairsPlan plan(c, executor.workers);
    if (PairsCorrelation(c, plan, data, workspace).run(executor)) return true;
    if (!plan.joins_columns) return false;
    const PairsPlan apart(c, executor.workers, false);
    return PairsCorrelation(c, apart, data, workspace).run(executor);
  };
  if (!runs()) reference_kernel.run(p, data, nullptr, executor);
}

}  // namespace

extern const Kernel bfloat16_pairs{
    "bfloat16_pairs",
    CONVEXT_ISA_ENUMERATOR,
    "blocked matrix product by dot products of pairs of bfloat16, channels in the lanes",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
