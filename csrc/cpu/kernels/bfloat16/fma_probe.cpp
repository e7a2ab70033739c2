// As ../fma_probe.cpp, with dot products of pairs.
#include "cpu/fma_probe.h"

#include "cpu/bfloat16_pairs/pairs.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

double multiply_and_add_pairs(int64_t steps) {
  constexpr int chains = 16;
  const BFloat16 numbers[2] = {to_bfloat16(1.0f), to_bfloat16(-1.0f)};  // no overflow
  const PairVector pair = broadcast_pair(numbers);
  Vector<float> chain[chains];
  CONVEXT_UNROLL
  for (int i = 0; i < chains; ++i) chain[i] = broadcast(static_cast<float>(i));
  for (int64_t step = 0; step < steps; ++step) {
    CONVEXT_UNROLL
    for (int i = 0; i < chains; ++i) chain[i] = dot(chain[i], pair, pair);
  }
  Vector<float> total = chain[0];
  CONVEXT_UNROLL
  for (int i = 1; i < chains; ++i) total = add(total, chain[i]);
  volatile float sink = sum(total);
  static_cast<void>(sink);
  return 4.0 * chains * PairVector::lanes * static_cast<double>(steps);
}

}  // namespace

extern const FmaProbe fma_probe;
const FmaProbe fma_probe = {nullptr, nullptr, multiply_and_add_pairs};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
