// The innermost loops of forward and the gradient of the input. One or two rows of seven or eight
// neighbouring pixels of one vector of result channels are summed in registers. For each line and each source
// channel of a group the weights of up to three taps across are loaded once, then the operand of each pixel
// of the line is made, and multiplied by every tap that it meets:
//
//     sum[q][x] += weight[m][k][j] * operand(line[q + m][x * step + j], k)
//
// The terms of a result are added taps down first, then source channels, then taps across, wherever it lies.
// After `chain` terms or a few more the sum starts anew and the parts are added up.
#pragma once

#include <type_traits>

#include "cpu/grouped/layout.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int most_group_pixels = 8;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int most_group_rows = 2;  // 16 sums and 6 weights of 32 registers
#else
constexpr int most_group_rows = 1;  // 8 sums and 3 weights of 16 registers
#endif

template <class Real>
struct GroupRows {
  const Real* lines;  // of the first tap, at the first pixel and the first channel of the vector's groups
  int64_t
      line_stride;  // from the line of a tap to that of the next, and of a row to the next if there are two
  int64_t taps_down;
  // Lines [first_line, end_line), counted from `lines`, hold more than the zeros of padding.
  int64_t first_line;
  int64_t end_line;
  int64_t taps_across;
  int64_t tap_step;  // from tap to tap across
  int64_t pixel_step;
  int64_t channels;        // of the source, in a group
  const int32_t* orders;   // see GroupLayout
  const Real* weights;     // [tap down][channel][tap across][lane]
  int64_t chain_taps;      // taps down of a chain of additions; if 1, the chain has so many channels:
  int64_t chain_channels;  // else it has all
  Real* parts;             // scratch for group_parts<Real> numbers
  Vector<Real> bias;
  Real* target;
  int64_t target_stride;  // from row to row
  int64_t target_step;    // from pixel to pixel
  int64_t pixels;         // of a row
  int64_t size;           // lanes that are stored
  bool streams;           // rows that begin a line of the cache, past the caches
};

template <class Real>
constexpr int64_t group_parts = most_group_rows * most_group_pixels * Vector<Real>::lanes;

// `taps` taps across that rows lowest..highest find in one line, of neighbouring pixels (step 1), of every
// other one (2), or of any (0, for a single tap).
template <class Real, class Operands, int rows, int pixels, int lowest, int highest, int taps, int step>
CONVEXT_INLINE void add_group_taps(Vector<Real> (&sum)[rows][pixels], const Real* line, const Real* weights,
                                   int64_t row_weights, int64_t pixel_step, const Operands& operand) {
  static_assert(step > 0 || taps == 1, "taps that are not neighbours are added one at a time");
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> weight[rows][taps];
  CONVEXT_UNROLL
  for (int q = lowest; q <= highest; ++q) {
    CONVEXT_UNROLL
    for (int j = 0; j < taps; ++j) weight[q][j] = load(weights - q * row_weights + j * lanes);
  }
  constexpr int stride = step == 0 ? 1 : step;
  const int64_t distance = pixel_step / stride;  // from pixel to pixel of the line
  CONVEXT_UNROLL
  for (int k = 0; k < pixels + (taps - 1) / stride; ++k) {
    CONVEXT_UNROLL
    for (int r = 0; r < stride; ++r, line += distance) {
      if (r >= taps) continue;
      const Vector<Real> value = operand(line);
      CONVEXT_UNROLL
      for (int j = r; j < taps; j += stride) {
        const int x = k - (j - r) / stride;
        if (x < 0 || x >= pixels) continue;
        CONVEXT_UNROLL
        for (int q = lowest; q <= highest; ++q) sum[q][x] = fmadd(weight[q][j], value, sum[q][x]);
      }
    }
  }
}

// All the taps across (`columns` of them if that is not 0) of channels [first, last).
template <class Real, bool broadcasts, int rows, int pixels, int lowest, int highest, int columns, int step>
CONVEXT_INLINE void add_group_line(Vector<Real> (&sum)[rows][pixels], const Real* line, const Real* weights,
                                   int64_t row_weights, int64_t first, int64_t last,
                                   const GroupRows<Real>& all) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (int64_t k = first; k < last; ++k) {
    const Operand<Real, broadcasts> operand(all.orders, k);
    if constexpr (columns > 0) {
      add_group_taps<Real, Operand<Real, broadcasts>, rows, pixels, lowest, highest, columns, step>(
          sum, line, weights + k * columns * lanes, row_weights, all.pixel_step, operand);
    } else {
      constexpr int together = step == 0 ? 1 : 3;
      const Real* from = line;
      const Real* weight = weights + k * all.taps_across * lanes;
      int64_t left = all.taps_across;
      for (; left >= together; left -= together) {
        add_group_taps<Real, Operand<Real, broadcasts>, rows, pixels, lowest, highest, together, step>(
            sum, from, weight, row_weights, all.pixel_step, operand);
        from += together * all.tap_step;
        weight += together * lanes;
      }
      for (; left > 0; --left) {
        add_group_taps<Real, Operand<Real, broadcasts>, rows, pixels, lowest, highest, 1, step>(
            sum, from, weight, row_weights, all.pixel_step, operand);
        from += all.tap_step;
        weight += lanes;
      }
    }
  }
}

// One block of pixels; of the last one only `valid` are stored.
template <class Real, bool broadcasts, int rows, int pixels, int columns, int step>
CONVEXT_INLINE void group_block(const GroupRows<Real>& all, const Real* line, Real* target, int64_t valid) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sum[rows][pixels];
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q) {
    CONVEXT_UNROLL
    for (int x = 0; x < pixels; ++x) sum[q][x] = zero<Real>();
  }
  Real* const parts = all.parts;  // the sums of the chains before the present one
  const bool has_parts = all.chain_taps < all.taps_down || all.chain_channels < all.channels;
  int64_t chain_left[rows];
  bool is_first[rows];
  for (int q = 0; q < rows; ++q) {
    chain_left[q] = all.chain_taps;
    is_first[q] = true;
  }

  const int64_t row_weights = all.channels * (columns > 0 ? columns : all.taps_across) * lanes;
  const Real* weights = all.weights;
  for (int64_t tap = 0; tap < all.taps_down + rows - 1;
       ++tap, line += all.line_stride, weights += row_weights) {
    for (int64_t first = 0; first < all.channels; first += all.chain_channels) {
      const int64_t last = smaller(all.channels, first + all.chain_channels);
      if (tap < all.first_line || tap >= all.end_line) {
        // Zeros would be added.
      } else if constexpr (rows == 1) {
        add_group_line<Real, broadcasts, rows, pixels, 0, 0, columns, step>(sum, line, weights, row_weights,
                                                                            first, last, all);
      } else {
        static_assert(rows == 2, "a line is read by one row or by both");
        if (tap == 0) {
          add_group_line<Real, broadcasts, rows, pixels, 0, 0, columns, step>(sum, line, weights, row_weights,
                                                                              first, last, all);
        } else if (tap < all.taps_down) {
          add_group_line<Real, broadcasts, rows, pixels, 0, 1, columns, step>(sum, line, weights, row_weights,
                                                                              first, last, all);
        } else {
          add_group_line<Real, broadcasts, rows, pixels, 1, 1, columns, step>(sum, line, weights, row_weights,
                                                                              first, last, all);
        }
      }
      if (!has_parts) continue;
      CONVEXT_UNROLL
      for (int q = 0; q < rows; ++q) {
        if (tap < q || tap - q >= all.taps_down || (last == all.channels && --chain_left[q] > 0)) continue;
        chain_left[q] = all.chain_taps;
        Real* const part = parts + q * pixels * lanes;
        if (is_first[q]) {
          CONVEXT_UNROLL
          for (int x = 0; x < pixels; ++x) store(part + x * lanes, sum[q][x]);
        } else {
          CONVEXT_UNROLL
          for (int x = 0; x < pixels; ++x) store(part + x * lanes, add(load(part + x * lanes), sum[q][x]));
        }
        is_first[q] = false;
        CONVEXT_UNROLL
        for (int x = 0; x < pixels; ++x) sum[q][x] = zero<Real>();
      }
    }
  }
  if (has_parts) {
    CONVEXT_UNROLL
    for (int q = 0; q < rows; ++q) {
      CONVEXT_UNROLL
      for (int x = 0; x < pixels; ++x) sum[q][x] = add(load(parts + (q * pixels + x) * lanes), sum[q][x]);
    }
  }
  const Vector<Real> bias = all.bias;
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q, target += all.target_stride) {
    Real* to = target;
    const bool streams = all.streams && begins_line(to);
    if (valid == pixels && all.size == lanes) {
      CONVEXT_UNROLL
      for (int x = 0; x < pixels; ++x, to += all.target_step) store_result(to, add(sum[q][x], bias), streams);
    } else {
      CONVEXT_UNROLL
      for (int x = 0; x < pixels; ++x, to += all.target_step) {
        if (x >= valid) continue;
        if (all.size == lanes) {
          store(to, add(sum[q][x], bias));
        } else {
          store(to, add(sum[q][x], bias), all.size);
        }
      }
    }
  }
}

template <class Real, bool broadcasts, int rows, int pixels, int columns, int step>
void group_kernel(const GroupRows<Real>& all) {
  const Real* line = all.lines;
  Real* target = all.target;
  for (int64_t left = all.pixels; left > 0; left -= pixels) {
    group_block<Real, broadcasts, rows, pixels, columns, step>(all, line, target, smaller(left, pixels));
    line += pixels * all.pixel_step;
    target += pixels * all.target_step;
  }
}

template <class Real>
using GroupKernel = void (*)(const GroupRows<Real>& rows);

// Seven pixels at a time where that leaves fewer places empty.
inline int64_t group_pixels(int64_t count) {
  return round_up(count, 7) < round_up(count, most_group_pixels) ? 7 : most_group_pixels;
}

template <class Real, bool broadcasts, int rows, int columns, int step>
GroupKernel<Real> group_kernel_for_pixels(int64_t count) {
  if constexpr (std::is_same_v<Real, float>) {  // others do without, for the time that compiling takes
    if (group_pixels(count) == 7) return group_kernel<Real, broadcasts, rows, 7, columns, step>;
  }
  return group_kernel<Real, broadcasts, rows, most_group_pixels, columns, step>;
}

// What is common has a kernel of its own: up to three neighbouring taps across; and, of single rows where
// there could be two, three taps of every other pixel. Any kernel gives the same bits.
template <class Real, bool broadcasts, int rows>
GroupKernel<Real> group_kernel_of(const GroupRows<Real>& all) {
  constexpr int pixels = most_group_pixels;
  if (all.pixel_step == all.tap_step || all.taps_across == 1) {
    if constexpr (rows == most_group_rows) {
      if (all.taps_across == 1) return group_kernel_for_pixels<Real, broadcasts, rows, 1, 1>(all.pixels);
      if (all.taps_across == 2) return group_kernel_for_pixels<Real, broadcasts, rows, 2, 1>(all.pixels);
      if (all.taps_across == 3) return group_kernel_for_pixels<Real, broadcasts, rows, 3, 1>(all.pixels);
    } else if (all.taps_across == 3) {
      return group_kernel<Real, broadcasts, rows, pixels, 3, 1>;
    }
    return group_kernel<Real, broadcasts, rows, pixels, 0, 1>;
  }
  if constexpr (rows == 1) {
    if (all.pixel_step == 2 * all.tap_step) {
      return all.taps_across == 3 ? group_kernel_for_pixels<Real, broadcasts, rows, 3, 2>(all.pixels)
                                  : group_kernel<Real, broadcasts, rows, pixels, 0, 2>;
    }
  }
  return group_kernel<Real, broadcasts, rows, pixels, 0, 0>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
