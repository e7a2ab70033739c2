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

// Copies `count` numbers that are `step` apart to neighbouring places. May write up to a vector's lanes past
// the last one: in a block those places are written afterwards, or never read. (Stores of part of a vector
// are slow on many CPUs.)
template <class T>
CONVEXT_INLINE void copy_widened(Compute<T>* target, const T* source, int64_t step, int64_t count) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  // Whole vectors of the source are read as long as an element follows that is taken, too.
  if (step == 2) {
    int64_t i = 0;
    for (; i + lanes < count; i += lanes) {
      store(target + i, even_lanes(load_widened(source + 2 * i), load_widened(source + 2 * i + lanes)));
    }
    if (i < count) {
      const int64_t rest = 2 * (count - i) - 1;
      const auto first = load_widened(source + 2 * i, smaller(rest, lanes));
      store(target + i, even_lanes(first, rest > lanes ? load_widened(source + 2 * i + lanes, rest - lanes)
                                                       : zero<Compute<T>>()));
    }
  } else if (step == 4) {
    int64_t i = 0;
    for (; i + lanes < count; i += lanes) {
      const T* const from = source + 4 * i;
      const auto low = even_lanes(load_widened(from), load_widened(from + lanes));
      const auto high = even_lanes(load_widened(from + 2 * lanes), load_widened(from + 3 * lanes));
      store(target + i, even_lanes(low, high));
    }
    for (; i < count; ++i) target[i] = widen(source[4 * i]);
  } else if (step != 1) {
    for (int64_t i = 0; i < count; ++i) target[i] = widen(source[i * step]);
  } else if (count >= lanes) {
    for (int64_t i = 0; i + lanes <= count; i += lanes) store(target + i, load_widened(source + i));
    store(target + count - lanes, load_widened(source + count - lanes));
  } else if (count > 0) {
    store(target, load_widened(source, count));
  }
}

// Whether all numbers that it was shown are finite.
template <class T>
class FiniteCheck {
 public:
  FiniteCheck() {
    CONVEXT_UNROLL
    for (int64_t v = 0; v < together; ++v) product[v] = zero<Real>();
  }

  void add(const T* values, int64_t count, int64_t step = 1) {
    if (step != 1) {
      for (int64_t i = 0; i < count; ++i) add(values + i * step, 1);
      return;
    }
    int64_t i = 0;
    for (; i + together * lanes <= count; i += together * lanes) {
      CONVEXT_UNROLL
      for (int64_t v = 0; v < together; ++v) {
        product[v] = fmadd(load_widened(values + i + v * lanes), zero<Real>(), product[v]);
      }
    }
    for (; i < count; i += lanes) {
      const int64_t rest = smaller(lanes, count - i);
      product[0] = fmadd(load_widened(values + i, rest), zero<Real>(), product[0]);
    }
  }

  bool all() const {
    Vector<Real> total = product[0];
    CONVEXT_UNROLL
    for (int64_t v = 1; v < together; ++v) total = CONVEXT_ISA_NAMESPACE::add(total, product[v]);
    return sum(total) == 0;
  }

 private:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t together = 8;  // one chain would wait for itself

  Vector<Real> product[together];  // 0 * finite is 0, anything else is NaN
};

template <class T>
bool all_finite(const T* values, int64_t count) {
  FiniteCheck<T> check;
  check.add(values, count);
  return check.all();
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
