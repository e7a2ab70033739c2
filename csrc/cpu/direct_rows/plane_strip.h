// The innermost loops of plane_window.h: one vector of columns of the result, from top to bottom.
#pragma once

#include "cpu/element.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Results of one vector of columns.
template <class T>
struct Strip {
  using Real = Compute<T>;

  const T* source;  // row 0, what the first tap of the first result meets, be it inside or not
  int64_t source_row;
  int64_t source_height;
  int64_t tap_step;     // across
  int64_t ahead;        // likewise, or 0 if another strip fetches that line of the cache
  const Real* weights;  // [tap]
  Real bias;
  T* target;  // of the first row
  int64_t target_row;
  int64_t first_line;  // source row of the first tap of the first row
  int64_t rows;
  int64_t count;  // results of a row, at most a vector
  bool streams;
  LaneMask<Real> masks[7][2];  // for each tap across: of the first and, with stride 2, the second vector
};

template <class T, int taps, int step, bool is_masked, bool is_dilated = false>
struct StripKernel {
  using Real = Compute<T>;

  const Strip<T>& strip;

  // What each tap across meets in a line.
  CONVEXT_INLINE void read(Vector<Real> (&values)[taps], int64_t line) const {
    if (line < 0 || line >= strip.source_height) {
      CONVEXT_UNROLL
      for (int j = 0; j < taps; ++j) values[j] = zero<Real>();
      return;
    }
    const T* from = strip.source + line * strip.source_row;
    if (strip.ahead != 0) {
      constexpr int64_t line_numbers = line_bytes / static_cast<int64_t>(sizeof(T));
      CONVEXT_UNROLL
      for (int64_t k = 0; k < Vector<Real>::lanes * step; k += line_numbers)
        __builtin_prefetch(from + strip.ahead + k, 0, 2);
    }
    if constexpr (step == 1) {
      CONVEXT_UNROLL
      for (int j = 0; j < taps; ++j) values[j] = in_register(read(from, j, 0));
    } else {
      CONVEXT_UNROLL
      for (int j = 0; j < taps; j += 2) {
        const Vector<Real> first = read(from, j, 0);
        const Vector<Real> second = read(from, j, 1);
        values[j] = even_lanes(first, second);
        if (j + 1 < taps) values[j + 1] = odd_lanes(first, second);
      }
    }
  }

  CONVEXT_INLINE Vector<Real> read(const T* line, int tap, int vector) const {
    const T* from = line + (is_dilated ? tap * strip.tap_step : tap) + vector * Vector<Real>::lanes;
    return is_masked ? load_widened(from, strip.masks[tap][vector]) : load_widened(from);
  }

  CONVEXT_INLINE void write(int64_t row, Vector<Real> sum) const {
    T* to = strip.target + row * strip.target_row;
    sum = add(sum, broadcast(strip.bias));
    if (is_masked && strip.count < Vector<Real>::lanes) {
      store_narrowed(to, sum, strip.count);
    } else {
      store_result(to, sum, strip.streams);
    }
  }

  // Row y of a 3 x 3 kernel, from what its three lines hold; those that the row before has not read are read.
  CONVEXT_INLINE void row_3x3(int64_t y, const Vector<Real> (&weight)[9], const Vector<Real> (&top)[taps],
                              Vector<Real> (&middle)[taps], Vector<Real> (&bottom)[taps]) const {
    const int64_t line = strip.first_line + y * step;
    if (step == 2) read(middle, line + 1);
    read(bottom, line + 2);
    Vector<Real> sum = zero<Real>();
    CONVEXT_UNROLL
    for (int j = 0; j < 3; ++j) sum = fmadd(weight[j], top[j], sum);
    CONVEXT_UNROLL
    for (int j = 0; j < 3; ++j) sum = fmadd(weight[3 + j], middle[j], sum);
    CONVEXT_UNROLL
    for (int j = 0; j < 3; ++j) sum = fmadd(weight[6 + j], bottom[j], sum);
    write(y, sum);
  }

  // Lines stay in registers for the next rows.
  void run_3x3() const {
    static_assert(taps == 3, "three lines are named below");
    Vector<Real> weight[9];
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) weight[k] = broadcast(strip.weights[k]);
    Vector<Real> a[taps];
    Vector<Real> b[taps];
    Vector<Real> c[taps];
    read(a, strip.first_line);
    int64_t y = 0;
    if constexpr (step == 1) {
      read(b, strip.first_line + 1);
      while (true) {
        if (y == strip.rows) break;
        row_3x3(y++, weight, a, b, c);
        if (y == strip.rows) break;
        row_3x3(y++, weight, b, c, a);
        if (y == strip.rows) break;
        row_3x3(y++, weight, c, a, b);
      }
    } else {
      while (true) {
        if (y == strip.rows) break;
        row_3x3(y++, weight, a, b, c);
        if (y == strip.rows) break;
        row_3x3(y++, weight, c, b, a);
      }
    }
  }

  // A line is added to all the rows that it belongs to, whose sums stay in registers.
  void run_rolling() const {
    static_assert(step == 1, "every line belongs to as many rows as there are taps");
    Vector<Real> sums[taps];  // of the row whose last, last but one, ... line comes next
    CONVEXT_UNROLL
    for (int i = 0; i < taps; ++i) sums[i] = zero<Real>();
    for (int64_t row = 1 - taps; row < strip.rows; ++row) {
      const int64_t line = strip.first_line + row + taps - 1;
      if (line >= 0 && line < strip.source_height) {
        Vector<Real> values[taps];
        read(values, line);
        CONVEXT_UNROLL
        for (int i = 0; i < taps; ++i) {
          CONVEXT_UNROLL
          for (int j = 0; j < taps; ++j)
            sums[i] = fmadd(broadcast(strip.weights[(taps - 1 - i) * taps + j]), values[j], sums[i]);
        }
      }
      if (row >= 0) write(row, sums[0]);
      CONVEXT_UNROLL
      for (int i = 0; i + 1 < taps; ++i) sums[i] = sums[i + 1];
      sums[taps - 1] = zero<Real>();
    }
  }

  // The same with stride 2: a pair of lines is added, the first to the rows of even taps, the other to those
  // of odd ones.
  void run_rolling_stride2() const {
    static_assert(step == 2 && taps % 2 == 1, "the last tap meets the first line of a pair");
    constexpr int half = taps / 2;
    Vector<Real> sums[half + 1];  // of the row whose last, last but one, ... pair comes next
    CONVEXT_UNROLL
    for (int k = 0; k <= half; ++k) sums[k] = zero<Real>();
    for (int64_t row = -half; row < strip.rows; ++row) {
      const int64_t line = strip.first_line + 2 * (row + half);
      add_line<0>(sums, line);
      if (row >= 0) write(row, sums[0]);
      CONVEXT_UNROLL
      for (int k = 0; k < half; ++k) sums[k] = sums[k + 1];
      sums[half] = zero<Real>();
      if (row + 1 < strip.rows) add_line<1>(sums, line + 1);
    }
  }

  // To the sums of the rows of which it is the line of tap taps - 1, taps - 3, ... or taps - 2, taps - 4, ...
  template <int odd>
  CONVEXT_INLINE void add_line(Vector<Real> (&sums)[taps / 2 + 1], int64_t line) const {
    if (line < 0 || line >= strip.source_height) return;
    Vector<Real> values[taps];
    read(values, line);
    CONVEXT_UNROLL
    for (int k = 0; k <= taps / 2 - odd; ++k) {
      CONVEXT_UNROLL
      for (int j = 0; j < taps; ++j)
        sums[k] = fmadd(broadcast(strip.weights[(taps - 1 - odd - 2 * k) * taps + j]), values[j], sums[k]);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
