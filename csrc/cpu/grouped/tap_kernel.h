// The innermost loops of the gradient of the weight: a block of 1 or 3 by 1 or 3 taps for some source
// channels of one vector of result channels, summed over the pixels of a unit:
//
//     sum[a][b][k] += gradient[y][x] * operand(line[y + a * spread][x + b * spread], k)
//
// A broadcast is a load, so with broadcasts the loop goes over the pixels of the gradient, two at a time,
// which share the operands of neighbouring taps. A permutation is an instruction more, so with permutations
// the loop goes over the pixels of the source: each is permuted once and multiplied by the gradients of all
// the outputs that read it. Only outputs that exist take part, so that no zero meets an infinite pixel.
#pragma once

#include "cpu/grouped/layout.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int taps_of_block = 3;  // or a single one, down as across

// Source channels whose sums are in registers together.
constexpr int channels_together(int taps) {
#if defined(__AVX512F__) || defined(__aarch64__)
  return taps > 4 ? 2 : taps > 1 ? 4 : 8;
#else
  return taps > 4 ? 1 : taps > 2 ? 2 : taps > 1 ? 4 : 8;
#endif
}

template <class Real>
struct TapBlock {
  const Real* lines;  // that the block's first tap reads, at the first pixel and channel of the groups
  int64_t line_stride;
  int64_t pixel_stride;
  const Real* gradient;
  int64_t gradient_row;
  int64_t gradient_pixel;
  int64_t rows;  // of the gradient
  int64_t columns;
  int64_t spread_down;  // from tap to tap, in rows of the gradient
  int64_t spread_across;
  int64_t chain_lines;  // added up in registers
  const int32_t* orders;
  int64_t channel;  // the first one
  Real* sums;
  int64_t sums_down;  // from tap to tap
  int64_t sums_across;
  int64_t sums_channel;
};

template <class Real, int down, int across, int channels>
using TapSums = Vector<Real>[down][across][channels];

template <class Real, int down, int across, int channels>
CONVEXT_INLINE void clear_tap_sums(TapSums<Real, down, across, channels>& sum) {
  CONVEXT_UNROLL
  for (int a = 0; a < down; ++a) {
    CONVEXT_UNROLL
    for (int b = 0; b < across; ++b) {
      CONVEXT_UNROLL
      for (int k = 0; k < channels; ++k) sum[a][b][k] = zero<Real>();
    }
  }
}

template <class Real, int down, int across, int channels>
CONVEXT_INLINE void end_tap_chain(TapSums<Real, down, across, channels>& sum, const TapBlock<Real>& block) {
  CONVEXT_UNROLL
  for (int a = 0; a < down; ++a) {
    CONVEXT_UNROLL
    for (int b = 0; b < across; ++b) {
      CONVEXT_UNROLL
      for (int k = 0; k < channels; ++k) {
        Real* to = block.sums + a * block.sums_down + b * block.sums_across + k * block.sums_channel;
        store(to, add(load(to), sum[a][b][k]));
      }
    }
  }
  clear_tap_sums<Real>(sum);
}

// `pixels` neighbouring ones of the gradient. Where there are two, taps are as far apart as they are.
template <class Real, int pixels, int down, int across, int channels>
CONVEXT_INLINE void add_broadcast_pixels(TapSums<Real, down, across, channels>& sum,
                                         const TapBlock<Real>& block, const Real* line,
                                         const Real* gradient) {
  Vector<Real> at[pixels];
  CONVEXT_UNROLL
  for (int x = 0; x < pixels; ++x) at[x] = load(gradient + x * block.gradient_pixel);
  CONVEXT_UNROLL
  for (int a = 0; a < down; ++a) {
    const Real* const source = line + a * block.spread_down * block.line_stride;
    CONVEXT_UNROLL
    for (int column = 0; column < across + pixels - 1; ++column) {
      const Real* const pixel = source + column * block.spread_across * block.pixel_stride;
      CONVEXT_UNROLL
      for (int k = 0; k < channels; ++k) {
        const Vector<Real> value = broadcast(pixel[k]);
        CONVEXT_UNROLL
        for (int x = 0; x < pixels; ++x) {
          const int b = column - x;
          if (b >= 0 && b < across) sum[a][b][k] = fmadd(at[x], value, sum[a][b][k]);
        }
      }
    }
  }
}

template <class Real, int down, int across, int channels>
void broadcast_tap_block_kernel(const TapBlock<Real>& block) {
  TapSums<Real, down, across, channels> sum;
  clear_tap_sums<Real>(sum);
  for (int64_t y = 0; y < block.rows; ++y) {
    const Real* pixel = block.lines + block.channel + y * block.line_stride;
    const Real* gradient = block.gradient + y * block.gradient_row;
    int64_t x = 0;
    if (across > 1 && block.spread_across == 1) {
      for (; x + 2 <= block.columns; x += 2) {
        add_broadcast_pixels<Real, 2>(sum, block, pixel, gradient);
        pixel += 2 * block.pixel_stride;
        gradient += 2 * block.gradient_pixel;
      }
    }
    for (; x < block.columns; ++x) {
      add_broadcast_pixels<Real, 1>(sum, block, pixel, gradient);
      pixel += block.pixel_stride;
      gradient += block.gradient_pixel;
    }
    if ((y + 1) % block.chain_lines == 0 || y + 1 == block.rows) end_tap_chain<Real>(sum, block);
  }
}

// The pixels [begin, end) of source line y, which taps a_first..a_last and b_first..b_last meet.
template <class Real, int a_first, int a_last, int b_first, int b_last, int down, int across, int channels>
CONVEXT_INLINE void add_tap_pixels(TapSums<Real, down, across, channels>& sum, const TapBlock<Real>& block,
                                   int64_t y, int64_t begin, int64_t end) {
  const Real* pixel = block.lines + y * block.line_stride + begin * block.pixel_stride;
  const Real* gradient = block.gradient + y * block.gradient_row + begin * block.gradient_pixel;
  const int64_t row = block.spread_down * block.gradient_row;
  const int64_t column = block.spread_across * block.gradient_pixel;
  for (int64_t x = begin; x < end; ++x, pixel += block.pixel_stride, gradient += block.gradient_pixel) {
    Vector<Real> value[channels];
    CONVEXT_UNROLL
    for (int k = 0; k < channels; ++k)
      value[k] = Operand<Real, false>(block.orders, block.channel + k)(pixel);
    CONVEXT_UNROLL
    for (int a = a_first; a <= a_last; ++a) {
      CONVEXT_UNROLL
      for (int b = b_first; b <= b_last; ++b) {
        const Vector<Real> at = load(gradient - a * row - b * column);
        CONVEXT_UNROLL
        for (int k = 0; k < channels; ++k) sum[a][b][k] = fmadd(at, value[k], sum[a][b][k]);
      }
    }
  }
}

// All the pixels of source line y, which taps a_first..a_last meet.
template <class Real, int a_first, int a_last, int down, int across, int channels>
CONVEXT_INLINE void add_tap_line(TapSums<Real, down, across, channels>& sum, const TapBlock<Real>& block,
                                 int64_t y) {
  constexpr int last = across - 1;
  const int64_t spread = block.spread_across;
  const int64_t end = block.columns;
  if constexpr (across > 1) add_tap_pixels<Real, a_first, a_last, 0, 0>(sum, block, y, 0, spread);
  if constexpr (across > 2) add_tap_pixels<Real, a_first, a_last, 0, 1>(sum, block, y, spread, 2 * spread);
  add_tap_pixels<Real, a_first, a_last, 0, last>(sum, block, y, last * spread, end);
  if constexpr (across > 1) add_tap_pixels<Real, a_first, a_last, 1, last>(sum, block, y, end, end + spread);
  if constexpr (across > 2)
    add_tap_pixels<Real, a_first, a_last, 2, 2>(sum, block, y, end + spread, end + 2 * spread);
}

// There are at least as many rows and columns as between the first tap and the last.
template <class Real, int down, int across, int channels>
void permuting_tap_block_kernel(const TapBlock<Real>& block) {
  static_assert(down <= 3 && across <= 3, "the lines and pixels that not all taps meet are listed");
  constexpr int last = down - 1;
  TapSums<Real, down, across, channels> sum;
  clear_tap_sums<Real>(sum);
  const int64_t spread = block.spread_down;
  const int64_t lines = block.rows + last * spread;
  for (int64_t y = 0; y < lines; ++y) {
    if (y >= last * spread && y < block.rows) {
      add_tap_line<Real, 0, last>(sum, block, y);
    } else if (y < spread) {
      if constexpr (down > 1) add_tap_line<Real, 0, 0>(sum, block, y);
    } else if (y < block.rows) {
      if constexpr (down > 2) add_tap_line<Real, 0, 1>(sum, block, y);
    } else if (y < block.rows + spread) {
      if constexpr (down > 1) add_tap_line<Real, 1, last>(sum, block, y);
    } else {
      if constexpr (down > 2) add_tap_line<Real, 2, 2>(sum, block, y);
    }
    if ((y + 1) % block.chain_lines == 0 || y + 1 == lines) end_tap_chain<Real>(sum, block);
  }
}

template <class Real>
using TapBlockKernel = void (*)(const TapBlock<Real>& block);

// For down x across taps and either channels_together or, if not `together`, one channel.
template <class Real, bool broadcasts, int down = taps_of_block, int across = taps_of_block>
TapBlockKernel<Real> tap_block_kernel_of(int64_t wanted_down, int64_t wanted_across, bool together) {
  if constexpr (across > 1) {
    if (wanted_across < across)
      return tap_block_kernel_of<Real, broadcasts, down, 1>(wanted_down, wanted_across, together);
  }
  if constexpr (down > 1) {
    if (wanted_down < down)
      return tap_block_kernel_of<Real, broadcasts, 1, across>(wanted_down, wanted_across, together);
  }
  constexpr int most_channels = channels_together(down * across);
  if constexpr (broadcasts) {
    return together ? broadcast_tap_block_kernel<Real, down, across, most_channels>
                    : broadcast_tap_block_kernel<Real, down, across, 1>;
  } else {
    return together ? permuting_tap_block_kernel<Real, down, across, most_channels>
                    : permuting_tap_block_kernel<Real, down, across, 1>;
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
