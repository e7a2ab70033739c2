// Source pixels, or padding in their place, copied so that their channels are side by side whatever the
// layout is. Behind them are zeros, up to a vector or the next pixel.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"
#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct PixelCopy {
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t numbers = 2 * lanes;  // of a vector

  int64_t pixel_stride;  // in the copy

  // Up to a vector more.
  static void clear(BFloat16* to, int64_t count) {
    for (int64_t i = 0; i < count; i += numbers) _mm512_storeu_si512(to + i, _mm512_setzero_si512());
  }

  // Places whose source columns are `step` apart. What is written behind one is filled next, or room.
  void fill_run(const Patches<BFloat16>& patches, BFloat16* to, const BFloat16* source, int64_t column,
                int64_t step, int64_t places, int64_t channels) const {
    const int64_t size = patches.columns.source_size;
    const int64_t begin = Inside::first_at_least(step, -column, places);
    const int64_t end = larger(begin, Inside::first_at_least(step, size - column, places));
    fill_padding(patches, to, source, column, step, 0, begin, channels);
    const int64_t pixel_step = step * patches.strides.column;
    const BFloat16* const from = source + (column + begin * step) * patches.strides.column;
    BFloat16* const inside = to + begin * pixel_stride;
    if (patches.strides.channel == 1 && pixel_step == channels && pixel_stride == channels) {
      copy_pixel(inside, from, (end - begin) * channels);
    } else if (channels == 3 && pixel_stride == 3 && pixel_step == 1) {
      interleave(inside, from, patches.strides.channel, end - begin);
    } else if (patches.strides.channel == 1) {
      for (int64_t x = 0; x < end - begin; ++x) {
        copy_pixel(inside + x * pixel_stride, from + x * pixel_step, channels);
      }
    } else {
      // Of few channels, the vectors of one pixel reach into the next ones: one group in ascending order.
      for (int64_t first = 0; first < channels; first += numbers) {
        transpose_in(inside + first, from + first * patches.strides.channel, patches.strides.channel,
                     pixel_step, end - begin, smaller(numbers, channels - first));
      }
    }
    fill_padding(patches, to, source, column, step, end, places, channels);
  }

 private:
  void fill_padding(const Patches<BFloat16>& patches, BFloat16* to, const BFloat16* source, int64_t column,
                    int64_t step, int64_t begin, int64_t end, int64_t channels) const {
    for (int64_t x = begin; x < end; ++x) {
      const int64_t at = patches.columns.resolve(column + x * step);
      BFloat16* const pixel = to + x * pixel_stride;
      if (at < 0) {
        clear(pixel, channels);
        continue;
      }
      const BFloat16* const from = source + at * patches.strides.column;
      for (int64_t c = 0; c < channels; ++c) pixel[c] = from[c * patches.strides.channel];
      const int64_t end_of_pixel = smaller(round_up(channels, numbers), pixel_stride);
      for (int64_t c = channels; c < end_of_pixel; ++c) pixel[c] = BFloat16{0};
    }
  }

  // Three channels, which is what images have.
  static void interleave(BFloat16* to, const BFloat16* from, int64_t stride, int64_t count) {
    // Of each of the three vectors that are written, where its numbers lie in the first two channels, and in
    // the third.
    struct Orders {
      uint16_t of_two[3][numbers] = {};
      uint16_t of_third[3][numbers] = {};
      uint32_t is_third[3] = {};
      constexpr Orders() {
        for (int64_t k = 0; k < 3 * numbers; ++k) {
          const int64_t x = k / 3;
          const int64_t channel = k % 3;
          const int64_t at = k % numbers;
          if (channel == 2) {
            of_third[k / numbers][at] = static_cast<uint16_t>(x);
            is_third[k / numbers] |= uint32_t{1} << at;
          } else {
            of_two[k / numbers][at] = static_cast<uint16_t>(channel * numbers + x);
          }
        }
      }
    };
    static constexpr Orders orders;
    for (int64_t x = 0; x < count; x += numbers) {
      PairVector channels[3];
      CONVEXT_UNROLL
      for (int64_t channel = 0; channel < 3; ++channel) {
        channels[channel] = load_neighbours(from + channel * stride + x, count - x);
      }
      CONVEXT_UNROLL
      for (int64_t v = 0; v < 3; ++v) {
        const PairVector two = permute_numbers(channels[0], channels[1], orders.of_two[v]);
        const PairVector all = replace_numbers(two, orders.is_third[v], channels[2], orders.of_third[v]);
        store_neighbours(to + 3 * x + v * numbers, all, 3 * (count - x) - v * numbers);
      }
    }
  }

  static void copy_pixel(BFloat16* to, const BFloat16* from, int64_t channels) {
    for (int64_t c = 0; c < channels; c += numbers) {
      _mm512_storeu_si512(to + c, load_neighbours(from + c, channels - c).native);
    }
  }

  // to[x][channel] for up to a vector of channels, `stride` apart, of pixels that are `step` apart.
  void transpose_in(BFloat16* to, const BFloat16* from, int64_t stride, int64_t step, int64_t count,
                    int64_t channels) const {
    // Neighbouring pixels may not be stored out of order if their vectors overlap.
    if (step == 1 && pixel_stride >= numbers) {
      for (int64_t x = 0; x < count; x += numbers) {
        transpose_half<false>(to + x * pixel_stride, from + x, stride, count - x, channels);
        transpose_half<true>(to + x * pixel_stride, from + x, stride, count - x, channels);
      }
      return;
    }
    for (int64_t x = 0; x < count; x += lanes) {
      const int64_t length = smaller(lanes, count - x);
      const BFloat16* row = from + x * step;
      int64_t row_stride = stride;
      BFloat16 lines[numbers * lanes];
      if (step != 1) {
        for (int64_t channel = 0; channel < channels; ++channel) {
          for (int64_t i = 0; i < length; ++i) {
            lines[channel * lanes + i] = row[channel * stride + i * step];
          }
        }
        row = lines;
        row_stride = lanes;
      }
      PairVector square[lanes];
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t channel = 2 * lane;
        square[lane] = no_pairs();
        if (channel >= channels) continue;
        const BFloat16* const low = row + channel * row_stride;
        square[lane] = zip(low, channel + 1 < channels ? low + row_stride : nullptr, length);
      }
      transpose(square);
      BFloat16* const pixel = to + x * pixel_stride;
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        if (i < length) _mm512_storeu_si512(pixel + i * pixel_stride, square[i].native);
      }
    }
  }

  // Of up to 32 neighbouring pixels, those of the first or of the last halves of blocks of eight.
  template <bool is_last>
  CONVEXT_INLINE void transpose_half(BFloat16* to, const BFloat16* from, int64_t stride, int64_t count,
                                     int64_t channels) const {
    PairVector square[lanes];
    CONVEXT_UNROLL
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t channel = 2 * lane;
      square[lane] = no_pairs();
      if (channel >= channels) continue;
      const BFloat16* const at = from + channel * stride;
      const PairVector low = load_neighbours(at, count);
      const PairVector high = channel + 1 < channels ? load_neighbours(at + stride, count) : no_pairs();
      square[lane] = is_last ? zip_last_halves(low, high) : zip_first_halves(low, high);
    }
    transpose(square);
    CONVEXT_UNROLL
    for (int64_t i = 0; i < lanes; ++i) {
      const int64_t x = i / 4 * 8 + i % 4 + (is_last ? 4 : 0);
      if (x < count) _mm512_storeu_si512(to + x * pixel_stride, square[i].native);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
