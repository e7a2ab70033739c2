// Source pixels of a contiguous image, or of one with a few channels and padding, copied for a strip of
// results with some channels side by side, so that channels_in_lanes.h can read them like those of a
// channels_last image: by a pointer to each pixel and one table of positions. Padding is resolved and 16-bit
// types are widened while copying; every number is copied once, however many taps read it.
#pragma once

#include "cpu/implicit_gemm/correlation.h"
#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Which places, lines or columns, some neighbouring result positions read along one axis. Where taps of
// neighbours meet, places are neighbouring source positions and shared; else (dilation, a stride larger than
// the kernel) each tap has places of its own, so that none is copied in vain.
struct PlaceAxis {
  int64_t count;  // result positions
  int64_t stride;
  int64_t step;
  int64_t offset;
  bool is_shared;
  int64_t places;
  int64_t pixel_step;  // in places, from a result position to the next
  int64_t tap_step;
  int64_t start;  // where the first result position finds its first tap

  PlaceAxis() = default;
  PlaceAxis(const Axis& axis, int64_t positions)
      : count(positions), stride(axis.stride), step(axis.step), offset(axis.offset) {
    const int64_t reach = (axis.taps - 1) * (step < 0 ? -step : step);
    const int64_t shared = (count - 1) * stride + reach + 1;
    is_shared = shared <= axis.taps * count;
    places = is_shared ? shared : axis.taps * count;
    pixel_step = is_shared ? stride : 1;
    tap_step = is_shared ? step : count;
    start = is_shared && step < 0 ? reach : 0;
  }

  // The position that a place is read from, not resolved, if results begin at `first`.
  int64_t source(int64_t first, int64_t place) const {
    if (is_shared) return first * stride + offset + place - start;
    return (first + place % count) * stride + place / count * step + offset;
  }
};

// The results [first_pixel, first_pixel + pixels) of all images, and where they find what they read.
template <class T>
struct ChannelBand {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  int64_t rows_of_image;
  int64_t first_image;
  int64_t first_row;  // of the first image
  int64_t images;
  int64_t last_row;  // of the last image, behind the last row
  int64_t first_column;
  PlaceAxis rows;
  PlaceAxis columns;
  int64_t pixel_stride;
  int64_t line_stride;
  int64_t image_stride;

  ChannelBand() = default;
  ChannelBand(const Patches<T>& patches, int64_t first_pixel, int64_t pixels, int64_t channels)
      : rows_of_image(patches.rows.count) {
    const int64_t row_count = rows_of_image;
    const int64_t column_count = patches.columns.count;
    const int64_t begin = first_pixel / column_count;  // rows of all images
    const int64_t end = ceil_div(first_pixel + pixels, column_count);
    first_image = begin / row_count;
    images = (end - 1) / row_count + 1 - first_image;
    first_row = begin % row_count;
    last_row = (end - 1) % row_count + 1;
    const bool is_piece = end - begin == 1;
    first_column = is_piece ? first_pixel % column_count : 0;
    rows = PlaceAxis(patches.rows, images == 1   ? last_row - first_row
                                   : images == 2 ? larger(row_count - first_row, last_row)
                                                 : row_count);
    columns = PlaceAxis(patches.columns, is_piece ? pixels : column_count);
    pixel_stride = pixel_stride_of(channels);
    line_stride = columns.places * pixel_stride;
    image_stride = rows.places * line_stride;
  }

  // Few channels lie without gaps: whole vectors are stored, and the next pixel over what is too much. Of
  // many, an odd number of vectors, so that pixels do not fall into a few sets of the cache.
  static int64_t pixel_stride_of(int64_t channels) {
    return channels <= lanes ? channels : (ceil_div(channels, lanes) | 1) * lanes;
  }

  // Numbers that a band takes, at most.
  static int64_t capacity(int64_t row_places, int64_t column_places, int64_t images, int64_t channels) {
    return images * row_places * column_places * pixel_stride_of(channels) + lanes;
  }

  int64_t first_row_of(int64_t image) const { return image == first_image ? first_row : 0; }
  int64_t last_row_of(int64_t image) const {
    return image + 1 == first_image + images ? last_row : rows_of_image;
  }

  // Where the first tap of a result finds its first channel.
  int64_t at(int64_t image, int64_t row, int64_t column) const {
    return (image - first_image) * image_stride +
           ((row - first_row_of(image)) * rows.pixel_step + rows.start) * line_stride +
           ((column - first_column) * columns.pixel_step + columns.start) * pixel_stride;
  }

  // How much further a tap is.
  int64_t tap(int64_t i, int64_t j) const {
    return i * rows.tap_step * line_stride + j * columns.tap_step * pixel_stride;
  }

  // Copies the channels [first, first + count) of those of the patches.
  void fill(const Patches<T>& patches, Real* band, int64_t first, int64_t count) const {
    for (int64_t image = first_image; image < first_image + images; ++image) {
      const T* from = patches.source + image * patches.strides.batch + first * patches.strides.channel;
      const int64_t row = first_row_of(image);
      const int64_t wanted = last_row_of(image) - row;
      Real* line = band + (image - first_image) * image_stride;
      for (int64_t place = 0; place < rows.places; ++place, line += line_stride) {
        const bool is_wanted = rows.is_shared ? place < rows.places - (rows.count - wanted) * rows.stride
                                              : place % rows.count < wanted;
        if (!is_wanted) continue;
        const int64_t source_row = patches.rows.resolve(rows.source(row, place));
        if (source_row < 0) {
          fill_zero_vectors(line, line_stride);
          continue;
        }
        fill_line(patches, line, from + source_row * patches.strides.row, count);
      }
    }
  }

 private:
  void fill_line(const Patches<T>& patches, Real* line, const T* source, int64_t channels) const {
    if (columns.is_shared)
      return fill_run(patches, line, source, columns.source(first_column, 0), 1, columns.places, channels);
    for (int64_t place = 0; place < columns.places; place += columns.count) {
      fill_run(patches, line + place * pixel_stride, source, columns.source(first_column, place),
               columns.stride, columns.count, channels);
    }
  }

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
