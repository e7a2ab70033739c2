// Integers, of every layout, stride, dilation, padding and number of channels. Their sums wrap around, so
// there is no order of additions to keep.
#include "cpu/dispatch.h"
#include "cpu/integer_rows/correlation.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Calls visit(arithmetic, an element of the source's type, an unsigned or the only type of the result's
// width).
template <class Visit>
auto with_integers(const ConvProblem& p, const Visit& visit) {
  const bool widens = p.out_dtype != p.dtype;
  switch (p.dtype) {
    case DType::uint8:
      return widens ? visit(SumsOfPairs{}, uint8_t{}, int32_t{}) : visit(Sums16{}, uint8_t{}, uint8_t{});
    case DType::int8:
      return widens ? visit(SumsOfPairs{}, int8_t{}, int32_t{}) : visit(Sums16{}, int8_t{}, uint8_t{});
    case DType::int16:
      return visit(Sums16{}, int16_t{}, int16_t{});
    case DType::int64:
      return visit(Sums64{}, int64_t{}, int64_t{});
    default:
      return visit(Sums32{}, int32_t{}, int32_t{});
  }
}

IntegerRowsPlan plan_of(const ConvProblem& p) {
  return with_integers(
      p, [&](auto arithmetic, auto, auto) { return IntegerRowsPlan(p, lane_shape<decltype(arithmetic)>()); });
}

Reason why_not(const ConvProblem& p) {
  if (is_floating(p.dtype)) return "it is for integers";
  if (p.pass != Pass::forward) return "it computes the forward pass only";
  if (is_empty(p)) return "a tensor is empty";
  constexpr int64_t longest = 1 << 20;
  if (p.stride.height > longest || p.stride.width > longest || p.dilation.height > longest ||
      p.dilation.width > longest)
    return "a stride or dilation is larger than 2^20";
  if (p.kernel.height > 4096 || p.kernel.width > 4096) return "the kernel is higher or wider than 4096";
  // Beyond any that fits into the scratch; within these, sizes do not overflow.
  if (p.kernel.width * p.dilation.width > 1 << 22) return "the kernel reaches over more than 2^22 columns";
  if (in_channels_per_group(p) > 1 << 16) return "a group reads more than 2^16 channels";
  constexpr int64_t most_scratch = 4 << 20;
  if (plan_of(p).worker_bytes > most_scratch) return "a worker would need more than 4 MiB of scratch";
  return nullptr;
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  return plan_of(p).workspace_bytes(workers);
}

void run(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  const IntegerRowsPlan plan = plan_of(p);
  with_integers(p, [&](auto arithmetic, auto element, auto result) {
    IntegerRows<decltype(arithmetic), decltype(result)>(plan, p, data, workspace)
        .template run<decltype(element)>(executor);
  });
}

}  // namespace

extern const Kernel integer_rows{
    "integer_rows",
    CONVEXT_ISA_ENUMERATOR,
    "bands of image lines, correlated in place; every integer problem, forward",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
