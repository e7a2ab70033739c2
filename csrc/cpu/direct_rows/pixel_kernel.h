// The innermost loops of depthwise problems whose vectors run along the channels: forward and the gradient of
// the input. One or two rows of eight neighbouring pixels are summed in registers. The weights of a few taps
// of a line are loaded once, then each pixel of the line, and multiplied by every tap that it meets:
//
//     sum[q][x] += weight[m][j] * line[q + m][x * step + j]
//
// Each result is the sum over runs of taps, taps down, taps across, in that order wherever it lies. After
// `block_terms` terms at most the sum starts anew and the parts are added up. Taps that meet only zeros of
// the padding may be left out, which changes no bit.
#pragma once

#include "cpu/direct_rows/pixel_lines.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int pixels_of_kernel = 8;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int rows_of_kernel = 2;  // 16 sums and up to 14 weights of 32 registers
#else
constexpr int rows_of_kernel = 1;  // 8 sums and up to 7 weights of 16 registers
#endif

// The part of a line or of a column of lines that is not zeros.
struct Extent {
  int64_t begin;
  int64_t end;

  // Which of `count` positions first, first + step, ... are inside, if each covers `reach` more behind it.
  Extent inside(int64_t first, int64_t step, int64_t count, int64_t reach) const {
    Extent result{0, count};
    while (result.begin < count && first + result.begin * step + reach < begin) ++result.begin;
    while (result.end > result.begin && first + (result.end - 1) * step >= end) --result.end;
    return result;
  }
};

template <class Real>
struct PixelRows {
  const Real* lines;   // of the first tap, at the first pixel
  int64_t tap_stride;  // from the line of a tap to that of the next one of its run
  int64_t run_stride;
  int64_t runs;
  int64_t long_runs;  // this many runs have long_taps taps, the others one fewer
  int64_t long_taps;
  int64_t columns;   // taps across
  int64_t tap_step;  // from tap to tap across
  bool is_dense;     // neighbouring taps read neighbouring pixels
  int64_t pixel_step;
  int64_t block;        // channels side by side in the weights
  const Real* weights;  // [run][tap down][tap across][block]
  const Real* bias;     // [block]
  Real* target;
  int64_t target_stride;  // from row to row
  int64_t target_step;    // from pixel to pixel
  int64_t pixels;         // at most pixels_of_kernel
  int64_t channels;       // if less than a vector, only so many are stored
  bool streams;           // whole vectors, which begin a line of the cache each, past the caches

  // In lines: where the first tap reads, and from line to line, to know which lines are not zeros.
  Extent inside_rows;
  int64_t row;
  int64_t run_rows;
  int64_t tap_rows;
  Extent inside_taps;  // taps across that are not zeros for all the pixels
};

// `taps` taps across that rows lowest..highest find in one line, of neighbouring pixels (step 1), of every
// other one (2), or of any (0, for a single tap).
template <class Real, int rows, int lowest, int highest, int taps, int step>
CONVEXT_INLINE void add_taps(Vector<Real> (&sum)[rows][pixels_of_kernel], const Real* line,
                             const Real* weights, int64_t row_weights, const PixelRows<Real>& all) {
  static_assert(step > 0 || taps == 1, "taps that are not neighbours are added one at a time");
  Vector<Real> weight[rows][taps];
  CONVEXT_UNROLL
  for (int q = lowest; q <= highest; ++q) {
    CONVEXT_UNROLL
    for (int j = 0; j < taps; ++j) weight[q][j] = load(weights - q * row_weights + j * all.block);
  }
  constexpr int stride = step == 0 ? 1 : step;
  const int64_t distance = all.pixel_step / stride;  // from pixel to pixel of the line
  CONVEXT_UNROLL
  for (int k = 0; k < pixels_of_kernel + (taps - 1) / stride; ++k) {
    CONVEXT_UNROLL
    for (int r = 0; r < stride; ++r, line += distance) {
      if (r >= taps || k >= pixels_of_kernel + (taps - 1 - r) / stride) continue;  // no tap meets it
      const Vector<Real> value = load(line);
      CONVEXT_UNROLL
      for (int j = r; j < taps; j += stride) {
        const int x = k - (j - r) / stride;
        if (x < 0 || x >= pixels_of_kernel) continue;
        CONVEXT_UNROLL
        for (int q = lowest; q <= highest; ++q) sum[q][x] = fmadd(weight[q][j], value, sum[q][x]);
      }
    }
  }
}

// All the taps across, `columns` of them if that is not 0.
template <class Real, int rows, int lowest, int highest, int columns, int step>
CONVEXT_INLINE void add_pixels(Vector<Real> (&sum)[rows][pixels_of_kernel], const Real* line,
                               const Real* weights, int64_t row_weights, const PixelRows<Real>& all) {
  if constexpr (columns > 0) {
    add_taps<Real, rows, lowest, highest, columns, step>(sum, line, weights, row_weights, all);
  } else {
    int64_t j = all.inside_taps.begin;
    const int64_t end = all.inside_taps.end;
    constexpr int together = step == 0 ? 1 : 4;
    for (; j + together <= end; j += together) {
      add_taps<Real, rows, lowest, highest, together, step>(sum, line + j * all.tap_step,
                                                            weights + j * all.block, row_weights, all);
    }
    for (; j < end; ++j) {
      add_taps<Real, rows, lowest, highest, 1, step>(sum, line + j * all.tap_step, weights + j * all.block,
                                                     row_weights, all);
    }
  }
}

template <class Real, int rows, int columns, int step>
void pixel_kernel(const PixelRows<Real>& all) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  constexpr int pixels = pixels_of_kernel;
  Vector<Real> sum[rows][pixels];
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q) {
    CONVEXT_UNROLL
    for (int x = 0; x < pixels; ++x) sum[q][x] = zero<Real>();
  }
  // In memory on purpose: only long sums use it, and they have kernels of no fixed width.
  Real parts[columns > 0 ? 1 : rows * pixels * lanes];
  const bool has_parts = columns == 0 && all.runs * all.long_taps * all.columns > block_terms;
  const int64_t chain_taps = larger(1, block_terms / larger(1, all.columns));
  int64_t chain_end[rows];
  for (int q = 0; q < rows; ++q) chain_end[q] = chain_taps;
  if (has_parts) fill_zeros(parts, 0, rows * pixels * lanes);
  const int64_t row_weights = (columns > 0 ? columns : all.columns) * all.block;
  const Real* run_lines = all.lines;
  const Real* weights = all.weights;
  int64_t taps_before = 0;
  for (int64_t u = 0; u < all.runs; ++u, run_lines += all.run_stride) {
    const int64_t taps = all.long_taps - (u < all.long_runs ? 0 : 1);
    const Extent extent =
        all.inside_rows.inside(all.row + u * all.run_rows, all.tap_rows, taps == 0 ? 0 : taps + rows - 1, 0);
    for (int64_t k = extent.begin; k < extent.end; ++k) {
      if (has_parts) {
        CONVEXT_UNROLL
        for (int q = 0; q < rows; ++q) {
          if (k < q || taps_before + k - q < chain_end[q]) continue;
          while (chain_end[q] <= taps_before + k - q) chain_end[q] += chain_taps;
          CONVEXT_UNROLL
          for (int x = 0; x < pixels; ++x) {
            Real* part = parts + (q * pixels + x) * lanes;
            store(part, add(load(part), sum[q][x]));
            sum[q][x] = zero<Real>();
          }
        }
      }
      const Real* line = run_lines + k * all.tap_stride;
      const Real* first = weights + k * row_weights;
      if constexpr (rows == 1) {
        add_pixels<Real, rows, 0, 0, columns, step>(sum, line, first, row_weights, all);
      } else {
        static_assert(rows == 2, "a line is read by one row or by both");
        if (k == 0) {
          add_pixels<Real, rows, 0, 0, columns, step>(sum, line, first, row_weights, all);
        } else if (k < taps) {
          add_pixels<Real, rows, 0, 1, columns, step>(sum, line, first, row_weights, all);
        } else {
          add_pixels<Real, rows, 1, 1, columns, step>(sum, line, first, row_weights, all);
        }
      }
    }
    weights += taps * row_weights;
    taps_before += taps;
  }
  const Vector<Real> bias = load(all.bias);
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q) {
    Real* target = all.target + q * all.target_stride;
    CONVEXT_UNROLL
    for (int x = 0; x < pixels; ++x, target += all.target_step) {
      if (x >= all.pixels) continue;
      if constexpr (columns == 0) {
        if (has_parts) sum[q][x] = add(load(parts + (q * pixels + x) * lanes), sum[q][x]);
      }
      const Vector<Real> total = add(sum[q][x], bias);
      if (all.channels >= lanes) {
        store_result(target, total, all.streams);
      } else {
        store(target, total, all.channels);
      }
    }
  }
}

template <class Real>
using PixelKernel = void (*)(const PixelRows<Real>& rows);

template <class Real, int rows>
PixelKernel<Real> pixel_kernel_of(const PixelRows<Real>& all) {
  const int64_t columns = all.runs * all.long_taps * all.columns > block_terms ? 0 : all.columns;
  if (all.pixel_step == all.tap_step && all.is_dense) {
    switch (columns) {
      case 1:
        return pixel_kernel<Real, rows, 1, 1>;
      case 2:
        return pixel_kernel<Real, rows, 2, 1>;
      case 3:
        return pixel_kernel<Real, rows, 3, 1>;
      case 5:
        return pixel_kernel<Real, rows, 5, 1>;
      case 7:
        return pixel_kernel<Real, rows, 7, 1>;
      default:
        return pixel_kernel<Real, rows, 0, 1>;
    }
  }
  if constexpr (rows == 1) {  // two rows that share lines seldom step over columns
    if (all.pixel_step == 2 * all.tap_step && all.is_dense) {
      switch (columns) {
        case 3:
          return pixel_kernel<Real, rows, 3, 2>;
        case 5:
          return pixel_kernel<Real, rows, 5, 2>;
        default:
          return pixel_kernel<Real, rows, 0, 2>;
      }
    }
  }
  return pixel_kernel<Real, rows, 0, 0>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
