// The gradient of the input of a 3 x 3 kernel with stride 2. Of the padded positions, even ones are reached
// by taps 0 and 2, odd ones by tap 1. Two neighbouring lines of the output's gradient give two rows, and both
// phases of a row's columns are interleaved in registers, so that each line of the cache is written once.
#pragma once

#include "cpu/direct_rows/lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
struct PhaseRows {
  const Real* lines;  // two, at what the first result column reads
  int64_t line_stride;
  const Real* weights;  // by pairs of residues of row and column, in reverse: 22 20 02 00, 21 01, 12 10, 11
  Real* even_row;       // or nullptr where that row is none of the result's
  Real* odd_row;
  int64_t columns;
};

template <class Real>
CONVEXT_INLINE void store_interleaved(Real* target, Vector<Real> first, Vector<Real> second, int64_t count) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  const Vector<Real> low = interleave_low(first, second);
  if (count < lanes) return store(target, low, count);
  store(target, low);
  if (count == lanes) return;
  const Vector<Real> high = interleave_high(first, second);
  if (count < 2 * lanes) return store(target + lanes, high, count - lanes);
  store(target + lanes, high);
}

// `is_odd`: the first result column is an odd position, else an even one.
template <class Real, bool is_odd>
void phase_kernel(const PhaseRows<Real>& rows) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> weights[9];
  CONVEXT_UNROLL
  for (int k = 0; k < 9; ++k) weights[k] = broadcast(rows.weights[k]);
  const Vector<Real> none = zero<Real>();
  const Real* line = rows.lines;
  for (int64_t x = 0; x < rows.columns; x += 2 * lanes, line += lanes) {
    const Vector<Real> left = load(line);
    const Vector<Real> right = load(line + 1);
    const Vector<Real> next_left = load(line + rows.line_stride);
    const Vector<Real> next_right = load(line + rows.line_stride + 1);
    const int64_t count = rows.columns - x;
    if (rows.even_row != nullptr) {
      const Vector<Real> middle = is_odd ? left : right;
      const Vector<Real> next_middle = is_odd ? next_left : next_right;
      const Vector<Real> even =
          fmadd(weights[3], next_right,
                fmadd(weights[2], next_left, fmadd(weights[1], right, fmadd(weights[0], left, none))));
      const Vector<Real> odd = fmadd(weights[5], next_middle, fmadd(weights[4], middle, none));
      store_interleaved(rows.even_row + x, is_odd ? odd : even, is_odd ? even : odd, count);
    }
    if (rows.odd_row != nullptr) {
      const Vector<Real> even = fmadd(weights[7], next_right, fmadd(weights[6], next_left, none));
      const Vector<Real> odd = fmadd(weights[8], is_odd ? next_left : next_right, none);
      store_interleaved(rows.odd_row + x, is_odd ? odd : even, is_odd ? even : odd, count);
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
