// The transformed weights, packed for the products: packed[group][panel][product][source channel][lane].
#pragma once

#include "cpu/winograd/plan.h"
#include "cpu/winograd/transforms.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Winograd's products add and subtract taps, so what a small tap contributes could drown in the rounding
// errors of large ones. The size of a tap is the sum of its absolute values over the source channels; that of
// each must be at least the largest one's divided by this, and at least any single weight of the result
// channel. Masked and one-hot kernels are not of this kind.
constexpr int64_t tap_ratio = 32;

constexpr int64_t prefetch_distance = 16;
constexpr int64_t rows_ahead = 8;  // source channels

// Moves `count` neighbouring elements of each of `lanes` rows, whose first `channels` exist, to
// target[element][lane].
template <class T, class Real = Compute<T>>
CONVEXT_INLINE void transpose_rows(const T* source, int64_t row_stride, int64_t channels, int64_t count,
                                   Real* target, int64_t target_stride) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (int64_t i = 0; i < count; i += lanes) {
    const int64_t length = smaller(lanes, count - i);
    Vector<Real> square[lanes];
    CONVEXT_UNROLL
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (lane >= channels) {
        square[lane] = zero<Real>();
      } else if (length == lanes) {
        square[lane] = load_widened(source + lane * row_stride + i);
        // The rows are too many, and read too little at a time, for the hardware to fetch ahead.
        __builtin_prefetch(source + lane * row_stride + i + prefetch_distance);
      } else {
        square[lane] = load_widened(source + lane * row_stride + i, length);
      }
    }
    transpose(square);
    CONVEXT_UNROLL
    for (int64_t k = 0; k < lanes; ++k) {
      if (k < length) store(target + (i + k) * target_stride, square[k]);
    }
  }
}

// Of the result channels of a panel: the size of each tap, and the largest absolute value of all.
template <class Real>
struct TapSizes {
  alignas(64) Real sums[9][panel<Real>] = {};
  alignas(64) Real largest[panel<Real>] = {};

  // False if one of the channels has a weight that is not finite, or, where that matters, taps that differ
  // too much in size.
  bool are_even(int64_t channels, bool size_matters) const {
    bool even = true;
    for (int64_t channel = 0; channel < smaller(channels, panel<Real>); ++channel) {
      Real least = sums[0][channel];
      Real most = sums[0][channel];
      Real product_with_zero = 0;
      for (int t = 0; t < 9; ++t) {
        const Real size = sums[t][channel];
        least = size < least ? size : least;
        most = size > most ? size : most;
        product_with_zero += size * 0;
      }
      even = even && product_with_zero == 0 &&
             (!size_matters || (most <= tap_ratio * least && largest[channel] <= least));
    }
    return even;
  }
};

// Packs source channels [begin, begin + count) of one panel, to packed[product][source channel][lane] with
// `product_stride` numbers from one product to the next.
template <class Tile, class T, class Real = Compute<T>>
void pack_weights(const Correlation& c, const T* weight, int64_t group, int64_t index, int64_t begin,
                  int64_t count, Real* packed, int64_t product_stride, TapSizes<Real>& sizes) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  constexpr int64_t chunk = 16;
  alignas(64) Real taps[chunk * 9 * lanes];
  // In memory, the taps of a pair of channels are neighbours, or source channels are.
  const bool taps_are_neighbours = c.is_forward ? c.tap_column_stride == 1 && c.tap_row_stride == 3
                                                : c.tap_column_stride == -1 && c.tap_row_stride == -3;
  const bool runs_over_taps = taps_are_neighbours && c.weight_source_stride == 9;
  const bool runs_over_channels = c.weight_source_stride == 1;
  // Where the buffer has tap t of source channel k: at k * channel_step + t * tap_step.
  const int64_t channel_step = lanes * (runs_over_channels ? 1 : 9);
  const int64_t tap_step = lanes * (runs_over_channels ? chunk : 1);
  const bool flipped = taps_are_neighbours && !c.is_forward && !runs_over_channels;
  for (int64_t k = 0; k < count; k += chunk) {
    const int64_t length = smaller(chunk, count - k);
    for (int64_t lane = 0; lane < panel<Real>; lane += lanes) {
      const int64_t first = index * panel<Real> + lane;
      const int64_t channels = smaller(lanes, larger(0, c.result_channels - first));
      const T* source = weight + group * c.weight_group_stride + first * c.weight_result_stride +
                        (begin + k) * c.weight_source_stride + c.first_tap;
      const T* first_in_memory = flipped ? source + 2 * (c.tap_row_stride + c.tap_column_stride) : source;
      if (runs_over_taps) {
        transpose_rows(first_in_memory, c.weight_result_stride, channels, 9 * length, taps, lanes);
      } else if (runs_over_channels) {
        for (int64_t t = 0; t < 9; ++t) {
          transpose_rows(source + t / 3 * c.tap_row_stride + t % 3 * c.tap_column_stride,
                         c.weight_result_stride, channels, length, taps + t * tap_step, lanes);
        }
      } else if (taps_are_neighbours) {
        for (int64_t i = 0; i < length; ++i) {
          transpose_rows(first_in_memory + i * c.weight_source_stride, c.weight_result_stride, channels, 9,
                         taps + i * channel_step, lanes);
        }
      } else {
        for (int64_t i = 0; i < length; ++i) {
          for (int64_t t = 0; t < 9; ++t) {
            const T* element =
                source + i * c.weight_source_stride + t / 3 * c.tap_row_stride + t % 3 * c.tap_column_stride;
            Real* to = taps + i * channel_step + t * tap_step;
            if (c.weight_result_stride == 1) {
              // One line of each of thousands of rows: nothing that the hardware would fetch ahead.
              __builtin_prefetch(element + rows_ahead * c.weight_source_stride, 0, 2);
              store(to, channels == lanes ? load_widened(element) : load_widened(element, channels));
            } else {
              for (int64_t l = 0; l < lanes; ++l) {
                to[l] = l < channels ? widen(element[l * c.weight_result_stride]) : Real{0};
              }
            }
          }
        }
      }
      Vector<Real> size[9];
      CONVEXT_UNROLL
      for (int t = 0; t < 9; ++t) size[t] = load(sizes.sums[t] + lane);
      Vector<Real> largest = load(sizes.largest + lane);
      for (int64_t i = 0; i < length; ++i) {
        Vector<Real> g[3][3];
        CONVEXT_UNROLL
        for (int t = 0; t < 9; ++t) {
          g[t / 3][t % 3] = load(taps + i * channel_step + (flipped ? 8 - t : t) * tap_step);
          size[t] = add(size[t], absolute(g[t / 3][t % 3]));
          largest = maximum(largest, absolute(g[t / 3][t % 3]));
          if (c.block.shares(t / 3, t % 3)) g[t / 3][t % 3] = zero<Real>();
        }
        Vector<Real> u[Tile::inputs][Tile::inputs];
        transform_weights<Tile>(g, u);
        Real* to = packed + (k + i) * panel<Real> + lane;
        CONVEXT_UNROLL
        for (int row = 0; row < Tile::inputs; ++row) {
          CONVEXT_UNROLL
          for (int column = 0; column < Tile::inputs; ++column) {
            store(to + (row * Tile::inputs + column) * product_stride, u[row][column]);
          }
        }
      }
      CONVEXT_UNROLL
      for (int t = 0; t < 9; ++t) store(sizes.sums[t] + lane, size[t]);
      store(sizes.largest + lane, largest);
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
