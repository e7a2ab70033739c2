// Source pixels of a contiguous image, or of one with a few channels and padding, copied for a strip of
// results with some channels side by side, so that channels_in_lanes.h can read them like those of a
// channels_last image: by a pointer to each pixel and one table of positions. Padding is resolved and 16-bit
// types are widened while copying; every number is copied once, however many taps read it.
#pragma once

#include "cpu/implicit_gemm/band_places.h"
#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The results [first_pixel, first_pixel + pixels) of all images, and where they find what they read.
template <class T>
struct ChannelBand : BandPlaces {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  ChannelBand() = default;
  ChannelBand(const Patches<T>& patches, int64_t first_pixel, int64_t pixels, int64_t channels)
      : BandPlaces(patches.rows, patches.columns, first_pixel, pixels, pixel_stride_of(channels)) {}

  // Few channels lie without gaps: whole vectors are stored, and the next pixel over what is too much. Of
  // many, an odd number of vectors, so that pixels do not fall into a few sets of the cache.
  static int64_t pixel_stride_of(int64_t channels) {
    return channels <= lanes ? channels : (ceil_div(channels, lanes) | 1) * lanes;
  }

  // Numbers that a band takes, at most.
  static int64_t capacity(int64_t row_places, int64_t column_places, int64_t images, int64_t channels) {
    return images * row_places * column_places * pixel_stride_of(channels) + lanes;
  }

  // Copies the channels [first, first + count) of those of the patches.
  void fill(const Patches<T>& patches, Real* band, int64_t first, int64_t count) const {
    for_each_line([&](int64_t image, int64_t row, int64_t line) {
      const int64_t source_row = patches.rows.resolve(row);
      if (source_row < 0) return fill_zero_vectors(band + line, line_stride);
      const T* const from = patches.source + image * patches.strides.batch + first * patches.strides.channel +
                            source_row * patches.strides.row;
      for_each_run([&](int64_t place, int64_t column, int64_t step, int64_t places) {
        fill_run(patches, band + line + place * pixel_stride, from, column, step, places, count);
      });
    });
  }

 private:
  // Places whose source columns are `step` apart.
  void fill_run(const Patches<T>& patches, Real* to, const T* source, int64_t column, int64_t step,
                int64_t places, int64_t channels) const {
    const Axis& axis = patches.columns;
    const int64_t begin = Inside::first_at_least(step, -column, places);
    const int64_t end = larger(begin, Inside::first_at_least(step, axis.source_size - column, places));
    fill_padding(patches, to, source, column, step, 0, begin, channels);
    if (patches.strides.channel == 1) {
      copy_pixels(to + begin * pixel_stride, source + (column + begin * step) * patches.strides.column,
                  step * patches.strides.column, end - begin, channels);
      return fill_padding(patches, to, source, column, step, end, places, channels);
    }
    // Behind the last place is what is filled next, or room: one group of channels at a time writes in
    // ascending order, several have a stride of whole vectors.
    for (int64_t first = 0; first < channels; first += lanes) {
      transpose_in(
          to + begin * pixel_stride + first,
          source + (column + begin * step) * patches.strides.column + first * patches.strides.channel,
          patches.strides.channel, step * patches.strides.column, end - begin,
          smaller(lanes, channels - first));
    }
    fill_padding(patches, to, source, column, step, end, places, channels);
  }

  // Pixels whose channels are neighbours already.
  void copy_pixels(Real* to, const T* from, int64_t step, int64_t count, int64_t channels) const {
    if (channels == 1) return copy_widened(to, from, step, count);
    if (step == channels && channels == pixel_stride) return copy_widened(to, from, 1, count * channels);
    for (int64_t x = 0; x < count; ++x, from += step, to += pixel_stride) {
      copy_widened(to, from, 1, channels);
    }
  }

  void fill_padding(const Patches<T>& patches, Real* to, const T* source, int64_t column, int64_t step,
                    int64_t begin, int64_t end, int64_t channels) const {
    for (int64_t x = begin; x < end; ++x) {
      const int64_t at = patches.columns.resolve(column + x * step);
      Real* const pixel = to + x * pixel_stride;
      if (at < 0) {
        fill_zero_vectors(pixel, channels);
      } else {
        const T* from = source + at * patches.strides.column;
        for (int64_t c = 0; c < channels; ++c) pixel[c] = widen(from[c * patches.strides.channel]);
      }
    }
  }

  // to[x][channel] for up to a vector of channels, `stride` apart, of pixels that are `step` apart; whole
  // vectors are stored.
  void transpose_in(Real* to, const T* from, int64_t stride, int64_t step, int64_t count,
                    int64_t channels) const {
    for (int64_t begin = 0; begin < count; begin += lanes) {
      // The last block overlaps the one before: whole vectors are faster than parts.
      const int64_t x = larger(0, smaller(begin, count - lanes));
      const int64_t length = smaller(lanes, count - x);
      const T* const row = from + x * step;
      Vector<Real> square[lanes];
      if (step == 1 && channels == lanes && length == lanes) {
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) square[lane] = load_widened(row + lane * stride);
      } else if (step == 2 && channels == lanes && x + lanes < count) {  // reads one behind what it takes
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] =
              even_lanes(load_widened(row + lane * stride), load_widened(row + lane * stride + lanes));
        }
      } else if (step == 1) {
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] = lane < channels ? load_widened(row + lane * stride, length) : zero<Real>();
        }
      } else {
        Real lines[(lanes + 1) * lanes];  // whole vectors are stored
        for (int64_t lane = 0; lane < channels; ++lane) {
          copy_widened(lines + lane * lanes, row + lane * stride, step, length);
        }
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] = lane < channels ? load(lines + lane * lanes) : zero<Real>();
        }
      }
      transpose(square);
      Real* const pixel = to + x * pixel_stride;
      if (length == lanes) {
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) store(pixel + i * pixel_stride, square[i]);
      } else {
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (i < length) store(pixel + i * pixel_stride, square[i]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
