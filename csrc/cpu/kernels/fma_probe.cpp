// Latency times throughput of the multiply-add is 8 on current x86 cores and 16 on wide Arm cores. Sixteen
// registers hold twelve chains beside the operands; 32 registers hold all that is needed.
#include "cpu/fma_probe.h"

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int chains = 16;
#else
constexpr int chains = 12;
#endif

template <class T>
double multiply_and_add(int64_t steps) {
  // x -> x / 2 + 1 stays near 2: no overflow, no denormal numbers.
  const Vector<T> half = broadcast(T(0.5));
  const Vector<T> one = broadcast(T(1));
  Vector<T> chain[chains];
  CONVEXT_UNROLL
  for (int i = 0; i < chains; ++i) chain[i] = broadcast(T(i));
  for (int64_t step = 0; step < steps; ++step) {
    CONVEXT_UNROLL
    for (int i = 0; i < chains; ++i) chain[i] = fmadd(chain[i], half, one);
  }
  Vector<T> total = chain[0];
  CONVEXT_UNROLL
  for (int i = 1; i < chains; ++i) total = add(total, chain[i]);
  volatile T sink = sum(total);
  static_cast<void>(sink);
  return 2.0 * chains * Vector<T>::lanes * static_cast<double>(steps);
}

}  // namespace

extern const FmaProbe fma_probe;
const FmaProbe fma_probe = {multiply_and_add<float>, multiply_and_add<double>, nullptr};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
