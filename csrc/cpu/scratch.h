// Loops over numbers in scratch that several kernels need.
#pragma once

#include "cpu/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Zeros, up to a vector's lanes more.
template <class Real>
CONVEXT_INLINE void fill_zero_vectors(Real* target, int64_t count) {
  for (int64_t i = 0; i < count; i += Vector<Real>::lanes) store(target + i, zero<Real>());
}

template <class Real>
bool all_finite(const Real* values, int64_t count) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  constexpr int64_t together = 8;  // one chain would wait for itself
  Vector<Real> product[together];  // 0 * finite is 0, anything else is NaN
  CONVEXT_UNROLL
  for (int64_t v = 0; v < together; ++v) product[v] = zero<Real>();
  int64_t i = 0;
  for (; i + together * lanes <= count; i += together * lanes) {
    CONVEXT_UNROLL
    for (int64_t v = 0; v < together; ++v) {
      product[v] = fmadd(load(values + i + v * lanes), zero<Real>(), product[v]);
    }
  }
  for (; i < count; i += lanes) {
    product[0] = fmadd(load(values + i, smaller(lanes, count - i)), zero<Real>(), product[0]);
  }
  CONVEXT_UNROLL
  for (int64_t v = 1; v < together; ++v) product[0] = add(product[0], product[v]);
  return sum(product[0]) == 0;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
