// Where the pixels of a strip lie in a copy of what they read, so that the rows of every tile are one
// distance apart, whatever row of the image they are in: pixels are counted along lines of the copy, and
// between the last of a row and the first of the next are as many that are no results as a kernel is wider
// than its stride. Those are computed with the others, and thrown away: 2 of 58 for 3x3 kernels and rows of
// 56, 2 of 9 for rows of 7.
//
// Taps whose source positions are a stride apart share a plane of the copy, so that a tap only moves the
// start: a plane for each phase of the stride, or, where taps do not meet (dilation, strides larger than the
// kernel), for each tap.
#pragma once

#include "cpu/bfloat16_pairs/pixel_copy.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Of rows, or of columns.
struct PlaneAxis {
  int64_t count;  // results
  int64_t taps;
  int64_t stride;  // of source positions, from one place of a plane to the next
  int64_t step;    // of source positions, from one tap to the next
  int64_t offset;  // source position of the first result and the first tap
  int64_t period;  // taps t and t + period share a plane
  int64_t planes;
  int64_t tap_step;  // places from t to t + period; negative if taps go backwards
  int64_t length;    // places of a plane
  int64_t start;     // place of the first result's tap in the first `period` ones

  PlaneAxis() = default;
  // If `are_apart`, each tap has a plane of its own, though it be the same as another's but for a shift.
  PlaneAxis(const Axis& axis, int64_t first, int64_t results, bool are_apart = false)
      : count(results),
        taps(axis.taps),
        stride(axis.stride),
        step(axis.step),
        offset(first * axis.stride + axis.offset) {
    int64_t a = stride;
    int64_t b = step < 0 ? -step : step;
    while (b != 0) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    period = stride / a;
    tap_step = period * step / stride;
    const int64_t of_plane = ceil_div(axis.taps, period);
    const int64_t reach = (of_plane - 1) * (tap_step < 0 ? -tap_step : tap_step);
    length = count + reach;
    start = tap_step < 0 ? reach : 0;
    if (are_apart || length > of_plane * count) {
      period = axis.taps;
      tap_step = start = 0;
      length = count;
    }
    planes = smaller(axis.taps, period);
  }

  int64_t plane_of(int64_t tap) const { return tap % period; }
  int64_t place_of(int64_t tap) const { return start + tap / period * tap_step; }
  // The places that some tap reads: planes may have a tap less than others.
  int64_t first_used(int64_t plane) const { return tap_step < 0 ? start - reach_of(plane) : 0; }
  int64_t last_used(int64_t plane) const { return first_used(plane) + count + reach_of(plane); }
  bool is_used(int64_t plane, int64_t place) const {
    return place >= first_used(plane) && place < last_used(plane);
  }

  // Not resolved.
  int64_t source(int64_t plane, int64_t place) const {
    return offset + (place - start) * stride + plane * step;
  }

 private:
  int64_t reach_of(int64_t plane) const {
    return (ceil_div(taps - plane, period) - 1) * (tap_step < 0 ? -tap_step : tap_step);
  }
};

struct TilePlaces {
  static constexpr int64_t numbers = PixelCopy::numbers;

  PlaneAxis rows;
  PlaneAxis columns;
  int64_t images;
  int64_t pixel_stride;    // numbers from one place of a line to the next
  int64_t joined_columns;  // if not 0, a line holds so many neighbours, `columns.stride` of them in a place
  int64_t copy_stride;     // numbers from one source column to the next

  // `channels` of each place; joined columns have one plane, and taps are inside a window.
  TilePlaces(const PlaneAxis& row_axis, const PlaneAxis& column_axis, int64_t image_count, int64_t channels)
      : rows(row_axis),
        columns(column_axis),
        images(image_count),
        pixel_stride(stride_of(channels)),
        joined_columns(0),
        copy_stride(pixel_stride) {}

  // Of a single number each, a plane for each channel: see channel_planes.h.
  static TilePlaces of_one_channel(const PlaneAxis& row_axis, const PlaneAxis& column_axis,
                                   int64_t image_count) {
    TilePlaces places(row_axis, column_axis, image_count, 1);
    places.pixel_stride = places.copy_stride = 1;
    return places;
  }

  static TilePlaces joined(const PlaneAxis& row_axis, PlaneAxis column_axis, int64_t image_count,
                           int64_t channels, int64_t kernel_width, int64_t columns_read) {
    column_axis.planes = column_axis.period = 1;
    column_axis.start = 0;
    column_axis.length = column_axis.count - 1 + ceil_div(columns_read, column_axis.stride);
    TilePlaces places(row_axis, column_axis, image_count, channels);
    places.joined_columns = (column_axis.count - 1) * column_axis.stride + kernel_width;
    places.copy_stride = channels;
    places.pixel_stride = channels * column_axis.stride;
    return places;
  }

  // Not a multiple of eight vectors: the rows of a tile would fall into a few sets of the cache.
  static int64_t stride_of(int64_t channels) {
    const int64_t vectors = ceil_div(channels, numbers);
    return (vectors % 8 == 0 ? vectors + 1 : vectors) * numbers;
  }

  int64_t image_places() const { return rows.length * columns.length; }
  int64_t plane_numbers() const { return images * image_places() * pixel_stride; }
  // Numbers of a copy: products read up to two tiles of rows behind the last result, and a vector more is
  // stored behind the last place, and read behind a window.
  int64_t size() const {
    constexpr int64_t behind = 32;
    return rows.planes * columns.planes * plane_numbers() + behind * pixel_stride + 2 * numbers;
  }

  // Results are counted along the lines of a plane; those that are behind a line's results are none.
  int64_t counted() const { return (images - 1) * image_places() + counted_of_image(); }
  int64_t counted_of_image() const { return (rows.count - 1) * columns.length + columns.count; }
  bool has_no_gaps() const { return rows.length == rows.count && columns.length == columns.count; }
  int64_t all_places() const { return rows.planes * columns.planes * images * image_places(); }
  int64_t index_of(int64_t image, int64_t row, int64_t column) const {
    return (image * rows.length + row) * columns.length + column;
  }

  // How far from the first result's place a tap begins. Of joined columns, that of a row of the kernel.
  int64_t tap(int64_t i, int64_t j) const {
    const int64_t plane = rows.plane_of(i) * columns.planes + columns.plane_of(j);
    return plane * plane_numbers() + (rows.place_of(i) * columns.length + columns.place_of(j)) * pixel_stride;
  }

  // Copies `channels` channels of the images from `first_image` on.
  void fill(const Patches<BFloat16>& patches, int64_t first_image, int64_t channels, BFloat16* copy) const {
    const PixelCopy pixels{copy_stride};
    for (int64_t row_plane = 0; row_plane < rows.planes; ++row_plane) {
      BFloat16* const planes = copy + row_plane * columns.planes * plane_numbers();
      for (int64_t line = 0; line < images * rows.length; ++line) {
        BFloat16* const to = planes + line * columns.length * pixel_stride;
        const int64_t place = line % rows.length;
        const int64_t row =
            rows.is_used(row_plane, place) ? patches.rows.resolve(rows.source(row_plane, place)) : -1;
        const int64_t image = first_image + line / rows.length;
        const BFloat16* const from =
            row < 0 ? nullptr : patches.source + image * patches.strides.batch + row * patches.strides.row;
        for (int64_t plane = 0; plane < columns.planes; ++plane) {
          BFloat16* const target = to + plane * plane_numbers();
          if (from == nullptr) {
            PixelCopy::clear(target, columns.length * pixel_stride);
          } else if (joined_columns > 0) {
            // What products read behind the last window is no source position, or another's.
            const int64_t end = joined_columns * channels;
            pixels.fill_run(patches, target, from, columns.source(0, 0), 1, joined_columns, channels);
            PixelCopy::clear(target + end, columns.length * pixel_stride - end);
          } else {
            const int64_t first = columns.first_used(plane);
            const int64_t last = columns.last_used(plane);
            PixelCopy::clear(target, first * pixel_stride);
            pixels.fill_run(patches, target + first * pixel_stride, from, columns.source(plane, first),
                            columns.stride, last - first, channels);
            PixelCopy::clear(target + last * pixel_stride, (columns.length - last) * pixel_stride);
          }
        }
      }
    }
    if (joined_columns > 0) PixelCopy::clear(copy + rows.planes * plane_numbers(), numbers);
  }

  // Whether all numbers of an image's lines are finite.
  bool is_image_finite(const BFloat16* copy, int64_t image) const {
    NonFinite non_finite;
    for (int64_t plane = 0; plane < rows.planes * columns.planes; ++plane) {
      const BFloat16* const from = copy + plane * plane_numbers() + image * image_places() * pixel_stride;
      for (int64_t i = 0; i < image_places() * pixel_stride; i += numbers) {
        non_finite.look_at(load_neighbours(from + i, image_places() * pixel_stride - i));
      }
    }
    return non_finite.found == 0;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
