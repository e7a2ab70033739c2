// Source pixels copied for a strip of results: padding resolved, channels side by side whatever the layout,
// and an even number of them. Every number is copied once, however many taps read it.
#pragma once

#include "cpu/bfloat16_pairs/pixel_copy.h"
#include "cpu/implicit_gemm/band_places.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct PairBand : BandPlaces {
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t numbers = 2 * lanes;  // of a vector

  PairBand() = default;
  PairBand(const Patches<BFloat16>& patches, int64_t first_pixel, int64_t pixels, int64_t stride_of_pixel)
      : BandPlaces(patches.rows, patches.columns, first_pixel, pixels, stride_of_pixel) {}

  // Few channels lie without gaps: whole vectors are stored, and the next pixel over what is too much. Of
  // many, an odd number of vectors, so that pixels do not fall into a few sets of the cache.
  static int64_t pixel_stride_of(int64_t channels) {
    return channels <= numbers ? round_up(channels, 2) : (ceil_div(channels, numbers) | 1) * numbers;
  }

  // Numbers that a band of so many places takes.
  static int64_t capacity(int64_t places, int64_t channels) {
    return places * pixel_stride_of(channels) + numbers;
  }

  // Copies the channels [first, first + count) of those of the patches. Behind each line is a zero, or the
  // next line.
  void fill(const Patches<BFloat16>& patches, BFloat16* band, int64_t first, int64_t count) const {
    const PixelCopy copy{pixel_stride};
    for_each_line([&](int64_t image, int64_t row, int64_t line) {
      const int64_t source_row = patches.rows.resolve(row);
      if (source_row < 0) return PixelCopy::clear(band + line, line_stride);
      const BFloat16* const from = patches.source + image * patches.strides.batch +
                                   first * patches.strides.channel + source_row * patches.strides.row;
      for_each_run([&](int64_t place, int64_t column, int64_t step, int64_t places) {
        copy.fill_run(patches, band + line + place * pixel_stride, from, column, step, places, count);
      });
      band[line + line_stride] = BFloat16{0};
    });
  }

  // Whether all numbers of a filled line are finite.
  bool is_line_finite(const BFloat16* line) const {
    NonFinite non_finite;
    for (int64_t i = 0; i < line_stride; i += numbers) {
      non_finite.look_at(load_neighbours(line + i, line_stride - i));
    }
    return non_finite.found == 0;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
