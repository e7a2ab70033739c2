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
  // Where there are tiles, dot products are no faster than those of float32.
  if (has_few_neighbours(p) && isa_available(Isa::amxbf16))
    return "groups of so few channels are faster several side by side";
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

ConvProblem with_single_image(ConvProblem p) {
  p.batch = 1;
  return p;
}

// Runs what this kernel cannot: where a number that is not finite met a zero that is no term of the sum.
const Kernel& kernel_of_float32 = avx512_isa::implicit_gemm;

int64_t own_workspace_bytes(const ConvProblem& p, int workers) {
  const ConvProblem joined = with_rows_joined(p);
  if (p.pass == Pass::grad_weight) return PairsGradientPlan(joined, workers).workspace_bytes(workers);
  const Correlation c(joined);
  if (PairsPointwisePlan::fits(joined)) return PairsPointwisePlan(c, workers).workspace_bytes(workers);
  if (c.result_channels < PairVector::lanes) return FewResultsPlan(c, workers).workspace_bytes(workers);
  const PairsPlan plan(c, workers);
  const int64_t bytes = plan.workspace_bytes(workers);
  if (!plan.reads_behind_windows(c)) return bytes;
  const Correlation single(with_single_image(joined));
  return larger(bytes, PairsPlan(single, workers, false).workspace_bytes(workers));
}

// Flags of images, in front of the workspace of a plan.
int64_t flags_bytes(const ConvProblem& p) {
  return p.pass == Pass::forward ? round_up(p.batch, 64) : 0;
}

// Whether the kernel of float32 may have to run.
bool may_meet_zeros(const ConvProblem& p) {
  if (p.pass == Pass::forward) return false;
  if (p.pass == Pass::grad_input) return PairsPlan::finds_padding(Correlation(p));
  const PairStrips chunks = PairsGradientPlan(p, 1).strips();
  return p.output.width % 2 != 0 || chunks.columns % 2 != 0;
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  const int64_t own = flags_bytes(p) + own_workspace_bytes(p, workers);
  return may_meet_zeros(with_rows_joined(p)) ? larger(own, kernel_of_float32.workspace_bytes(p, workers))
                                             : own;
}

// Images where a pair held a number behind its window that is not finite: those alone, since no sample's
// result may depend on another sample.
void pair_channels_apart(const ConvProblem& p, const ConvData& data, const uint8_t* images, void* workspace,
                         const Executor& executor) {
  const Correlation c(with_single_image(p));
  const PairsPlan plan(c, executor.workers, false);
  for (int64_t image = 0; image < p.batch; ++image) {
    if (images[image] == 0) continue;
    ConvData of_image = data;
    of_image.input = static_cast<BFloat16*>(data.input) + image * p.input_strides.batch;
    of_image.output = static_cast<BFloat16*>(data.output) + image * p.output_strides.batch;
    PairsCorrelation(c, plan, of_image, nullptr, workspace).run(executor);
  }
}

bool run_pairs(const ConvProblem& p, const ConvData& data, void* memory, const Executor& executor) {
  auto* const images = static_cast<uint8_t*>(memory);
  void* const workspace = images + flags_bytes(p);
  if (p.pass == Pass::grad_weight) {
    const PairsGradientPlan plan(p, executor.workers);
    return PairsGradient(plan, p, data, workspace).run(executor);
  }
  const Correlation c(p);
  if (PairsPointwisePlan::fits(p)) {
    const PairsPointwisePlan plan(c, executor.workers);
    PairsPointwise(c, plan, data, workspace).run(executor);
    return true;
  }
  if (c.result_channels < PairVector::lanes) {
    const FewResultsPlan plan(c, executor.workers);
    return FewResults(c, plan, data, workspace).run(executor);
  }
  const PairsPlan plan(c, executor.workers);
  if (!PairsCorrelation(c, plan, data, images, workspace).run(executor)) return false;
  if (plan.reads_behind_windows(c)) pair_channels_apart(p, data, images, workspace, executor);
  return true;
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  if (!run_pairs(with_rows_joined(p), data, workspace, executor)) {
    kernel_of_float32.run(p, data, workspace, executor);
  }
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
