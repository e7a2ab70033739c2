// Where a strip of results finds what it reads in a copy of its source pixels: places, lines or columns of
// the copy, each of which holds some channels of one source position, padding included.
#pragma once

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

// Of the results [first_pixel, first_pixel + pixels) of all images.
struct BandPlaces {
  int64_t rows_of_image;
  int64_t first_image;
  int64_t first_row;  // of the first image
  int64_t images;
  int64_t last_row;  // of the last image, behind the last row
  int64_t first_column;
  PlaceAxis rows;
  PlaceAxis columns;
  int64_t pixel_stride;  // in the copy, from one place of a line to the next
  int64_t line_stride;
  int64_t image_stride;

  BandPlaces() = default;
  BandPlaces(const Axis& row_axis, const Axis& column_axis, int64_t first_pixel, int64_t pixels,
             int64_t stride_of_pixel)
      : rows_of_image(row_axis.count), pixel_stride(stride_of_pixel) {
    const int64_t row_count = rows_of_image;
    const int64_t column_count = column_axis.count;
    const int64_t begin = first_pixel / column_count;  // rows of all images
    const int64_t end = ceil_div(first_pixel + pixels, column_count);
    first_image = begin / row_count;
    images = (end - 1) / row_count + 1 - first_image;
    first_row = begin % row_count;
    last_row = (end - 1) % row_count + 1;
    const bool is_piece = end - begin == 1;
    first_column = is_piece ? first_pixel % column_count : 0;
    rows = PlaceAxis(row_axis, images == 1   ? last_row - first_row
                               : images == 2 ? larger(row_count - first_row, last_row)
                                             : row_count);
    columns = PlaceAxis(column_axis, is_piece ? pixels : column_count);
    line_stride = columns.places * pixel_stride;
    image_stride = rows.places * line_stride;
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

  // Calls visit(image, source_row, line) for each line that a result reads; the source row is not resolved,
  // the line is where the copy has it.
  template <class Visit>
  CONVEXT_INLINE void for_each_line(const Visit& visit) const {
    for (int64_t image = first_image; image < first_image + images; ++image) {
      const int64_t row = first_row_of(image);
      const int64_t wanted = last_row_of(image) - row;
      int64_t line = (image - first_image) * image_stride;
      for (int64_t place = 0; place < rows.places; ++place, line += line_stride) {
        const bool is_wanted = rows.is_shared ? place < rows.places - (rows.count - wanted) * rows.stride
                                              : place % rows.count < wanted;
        if (is_wanted) visit(image, rows.source(row, place), line);
      }
    }
  }

  // Calls visit(place, column, step, places) for the places of a line, a run of source columns at a time.
  template <class Visit>
  CONVEXT_INLINE void for_each_run(const Visit& visit) const {
    if (columns.is_shared) return visit(0, columns.source(first_column, 0), 1, columns.places);
    for (int64_t place = 0; place < columns.places; place += columns.count) {
      visit(place, columns.source(first_column, place), columns.stride, columns.count);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
