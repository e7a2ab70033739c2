// bfloat16 by products of whole tiles, on processors with AMX: bfloat16_tiles/correlation.h for forward and
// the gradient of the input, bfloat16_tiles/weight_gradient.h for the gradient of the weight.
#include "cpu/bfloat16_tiles/correlation.h"
#include "cpu/bfloat16_tiles/pointwise.h"
#include "cpu/bfloat16_tiles/weight_gradient.h"
#include "cpu/dispatch.h"
#include "cpu/image_lines/tap_sums_plan.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Leaving out zeros of padding pays more than tiles where most of what windows read are such.
bool reads_little_but_padding(const Correlation& c) {
  return source_share(c) < 0.1;
}

Reason why_not_gradient(const ConvProblem& p) {
  if (out_channels_per_group(p) < 8) return "a group has too few output channels for a tile";
  if (in_channels_per_group(p) * p.kernel.height * p.kernel.width < 8)
    return "a group has too few weights for an output channel";
  if (reads_little_but_padding(forward_of(p)))
    return "most of what the windows read is padding, which is left out elsewhere";
  return nullptr;
}

Reason why_not(const ConvProblem& p) {
  if (p.dtype != DType::bfloat16) return "it is for bfloat16";
  if (is_empty(p) || p.output.height * p.output.width == 0) return "a tensor is empty";
  if (has_few_neighbours(p)) return "groups of so few channels are faster several side by side";
  if (p.pass == Pass::grad_weight) return why_not_gradient(p);
  if (collects_padding(p)) return "the padding is filled from the input";
  const Correlation c(p);
  if (c.source_channels < 3 && (!TilesPlan::can_join_columns(c) || c.result_channels < tile_width))
    return "products of so few channels would be nearly empty";
  if (c.result_channels < 4 && c.source_channels < tile_height)
    return "a group has so few channels that products would be nearly empty";
  // Results far apart are written one at a time.
  if (p.stride.width > 3 && TapSumsPlan<BFloat16>::fits(p))
    return "image_lines adds the products of all taps where they fall";
  if (c.classes() > 16) return "the stride is so large that the result falls into very many phases";
  if (reads_little_but_padding(c))
    return "most of what the windows read is padding, which is left out elsewhere";
  if (TilesPlan(c, 1).is_too_large()) return "a copy of so many channels would be too large";
  return nullptr;
}

ConvProblem with_single_image(ConvProblem p) {
  p.batch = 1;
  return p;
}

// Run what this kernel cannot: where a number that is not finite met a zero that is no term of the sum.
const Kernel& kernel_of_float32 = avx512_isa::implicit_gemm;

// Flags of images, in front of the workspace of a plan.
int64_t flags_bytes(const ConvProblem& p) {
  return p.pass == Pass::forward ? round_up(p.batch, 64) : 0;
}

int64_t workspace_bytes(const ConvProblem& problem, int workers) {
  const ConvProblem p = with_rows_joined(problem);
  if (p.pass == Pass::grad_weight) {
    return larger(TilesGradientPlan(p, workers).workspace_bytes(workers),
                  kernel_of_float32.workspace_bytes(problem, workers));
  }
  const Correlation c(p);
  if (PointwiseTilesPlan::fits(p)) return PointwiseTilesPlan(c, workers).workspace_bytes(workers);
  const TilesPlan plan(c, workers);
  int64_t bytes = plan.workspace_bytes(workers);
  if (plan.reads_behind_windows(c)) {
    bytes = larger(bytes, kernel_of_float32.workspace_bytes(with_single_image(problem), workers));
  }
  bytes += flags_bytes(p);
  const bool may_meet_zeros = p.pass == Pass::grad_input && PairsPlan::finds_padding(c);
  return may_meet_zeros ? larger(bytes, kernel_of_float32.workspace_bytes(problem, workers)) : bytes;
}

void run(const ConvProblem& problem, const ConvData& data, void* memory, const Executor& executor) {
  const ConvProblem p = with_rows_joined(problem);
  if (p.pass == Pass::grad_weight) {
    const TilesGradientPlan plan(p, executor.workers);
    if (!TilesGradient(plan, p, data, memory).run(executor)) {
      kernel_of_float32.run(problem, data, memory, executor);
    }
    return;
  }
  const Correlation c(p);
  if (PointwiseTilesPlan::fits(p)) {
    const PointwiseTilesPlan plan(c, executor.workers);
    PointwiseTiles(c, plan, data, memory).run(executor);
    return;
  }
  const TilesPlan plan(c, executor.workers);
  auto* const images = static_cast<uint8_t*>(memory);
  void* const workspace = images + flags_bytes(p);
  if (!TilesCorrelation(c, plan, data, images, workspace).run(executor)) {
    return kernel_of_float32.run(problem, data, memory, executor);
  }
  if (!plan.reads_behind_windows(c)) return;
  // Those images alone, since no sample's result may depend on another sample.
  const ConvProblem single = with_single_image(problem);
  for (int64_t image = 0; image < p.batch; ++image) {
    if (images[image] == 0) continue;
    ConvData of_image = data;
    of_image.input = static_cast<BFloat16*>(data.input) + image * p.input_strides.batch;
    of_image.output = static_cast<BFloat16*>(data.output) + image * p.output_strides.batch;
    kernel_of_float32.run(single, of_image, workspace, executor);
  }
}

}  // namespace

extern const Kernel bfloat16_tiles{
    "bfloat16_tiles",
    CONVEXT_ISA_ENUMERATOR,
    "products of whole tiles of bfloat16, pixels by channels, by the processor's matrix unit",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
