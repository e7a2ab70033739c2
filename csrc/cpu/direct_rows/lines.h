// Copies lines of the source into scratch: padding resolved, 16-bit types widened, strided columns gathered,
// so that the loops over products have no branches.
#pragma once

#include "core/padding.h"
#include "cpu/implicit_gemm/blocking.h"
#include "cpu/scratch.h"

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

// Which part of a line lies inside the source; the same for many lines, so it is worked out once. Element k
// is source position first + k * step.
struct LineSpan {
  int64_t length;
  int64_t first;
  int64_t step;
  int64_t begin;  // elements [begin, end) are inside
  int64_t end;

  LineSpan(const SourceAxis& axis, int64_t line_length, int64_t first_position, int64_t position_step)
      : length(line_length), first(first_position), step(position_step) {
    begin = first >= 0 ? 0 : smaller(length, step == 1 ? -first : ceil_div(-first, step));
    const int64_t ahead = larger(0, axis.size - first);
    end = larger(begin, smaller(length, step == 1 ? ahead : ceil_div(ahead, step)));
  }
};

// Writes whole vectors, so up to a vector more than `span.length`: lines are filled in ascending order, and
// behind the last one there is room.
template <class T>
void fill_line(Compute<T>* target, const T* source, int64_t column_stride, const SourceAxis& axis,
               const LineSpan& span) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  const int64_t stride = span.step * column_stride;
  const T* from = source + (span.first + span.begin * span.step) * column_stride;
  Real* to = target + span.begin;
  const int64_t count = span.end - span.begin;
  for (int64_t k = 0; k < span.begin; k += lanes) store(target + k, zero<Real>());
  copy_widened(to, from, stride, count);
  for (int64_t k = span.end; k < span.length; k += lanes) store(target + k, zero<Real>());
  if (axis.mode == PaddingMode::zeros) return;
  const auto fill_padding = [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t column = axis.resolve(span.first + k * span.step);
      target[k] = column < 0 ? Real{} : widen(source[column * column_stride]);
    }
  };
  fill_padding(0, span.begin);
  fill_padding(span.end, span.length);
}

template <class Real, class T>
CONVEXT_INLINE void store_line(T* target, int64_t column_stride, const Real* line, int64_t count) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  if (column_stride != 1) {
    for (int64_t k = 0; k < count; ++k) target[k * column_stride] = narrow<T>(line[k]);
    return;
  }
  int64_t k = 0;
  for (; k + lanes <= count; k += lanes) store_narrowed(target + k, load(line + k));
  if (k < count) store_narrowed(target + k, load(line + k, count - k), count - k);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
