// Copies lines of the source into scratch: padding resolved, 16-bit types widened, strided columns gathered,
// so that the loops over products have no branches.
#pragma once

#include "core/padding.h"
#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// One axis of the source as scratch sees it. Positions outside [-before, size + after) are read by lanes
// whose results are dropped; they are zeros.
struct SourceAxis {
  int64_t size;
  int64_t before;
  int64_t after;
  PaddingMode mode;

  // -1: a zero.
  int64_t resolve(int64_t position) const {
    if (position < -before || position >= size + after) return -1;
    return padded_source(position, size, mode);
  }
};

template <class Real>
CONVEXT_INLINE void fill_zeros(Real* target, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; ++k) target[k] = 0;
}

// target[k] = source[position first + k * step], k in [0, length).
template <class T>
void fill_line(Compute<T>* target, int64_t length, const T* source, int64_t column_stride,
               const SourceAxis& axis, int64_t first, int64_t step) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  const int64_t begin = first >= 0 ? 0 : smaller(length, ceil_div(-first, step));
  const int64_t end =
      first >= axis.size ? begin : larger(begin, smaller(length, ceil_div(axis.size - first, step)));
  const auto fill_padding = [&](int64_t from, int64_t to) {
    if (axis.mode == PaddingMode::zeros) return fill_zeros(target, from, to);
    for (int64_t k = from; k < to; ++k) {
      const int64_t column = axis.resolve(first + k * step);
      target[k] = column < 0 ? Real{} : widen(source[column * column_stride]);
    }
  };
  fill_padding(0, begin);
  const int64_t stride = step * column_stride;
  const T* from = source + (first + begin * step) * column_stride;
  Real* to = target + begin;
  const int64_t count = end - begin;
  if (stride == 1) {
    int64_t k = 0;
    for (; k + lanes <= count; k += lanes) store(to + k, load_widened(from + k));
    if (k < count) store(to + k, load_widened(from + k, count - k), count - k);
  } else if (stride == 2) {  // a constant that the compiler turns into shuffles
    for (int64_t k = 0; k < count; ++k) to[k] = widen(from[2 * k]);
  } else {
    for (int64_t k = 0; k < count; ++k) to[k] = widen(from[k * stride]);
  }
  fill_padding(end, length);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
