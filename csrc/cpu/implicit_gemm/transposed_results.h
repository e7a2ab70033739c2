// Sums [pixel][channel] of neighbouring results on their way into a tensor whose channels are not neighbours.
#pragma once

#include "cpu/implicit_gemm/patches.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// `count` results of one row, `step` apart in memory. Streams if channels are whole vectors apart, too.
template <class T>
void transpose_out(const Compute<T>* sums, int64_t sums_stride, int64_t count, int64_t channels, T* to,
                   int64_t channel_stride, int64_t step, bool streams) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (int64_t x = 0; x < count; x += lanes, sums += lanes * sums_stride, to += lanes * step) {
    const int64_t length = smaller(lanes, count - x);
    for (int64_t channel = 0; channel < channels; channel += lanes) {
      const int64_t wanted = smaller(lanes, channels - channel);
      Vector<Real> square[lanes];
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) square[i] = load(sums + i * sums_stride + channel);
      transpose(square);
      T* const first = to + channel * channel_stride;
      if (step == 1 && length == lanes && wanted == lanes) {
        const bool streams_here = streams && begins_line(first);
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane)
          store_result(first + lane * channel_stride, square[lane], streams_here);
      } else if (step == 1) {
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          if (lane < wanted) store_narrowed(first + lane * channel_stride, square[lane], length);
        }
      } else {
        Real lines[lanes * lanes];
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) store(lines + lane * lanes, square[lane]);
        for (int64_t lane = 0; lane < wanted; ++lane) {
          T* const line = first + lane * channel_stride;
          for (int64_t i = 0; i < length; ++i) line[i * step] = narrow<T>(lines[lane * lanes + i]);
        }
      }
    }
  }
}

// Where the first channel of a result lies, counted from that of the first image.
template <class T>
int64_t position_of(const Patches<T>& patches, const ImageStrides& strides, int64_t pixel) {
  const Axis& rows = patches.rows;
  const Axis& columns = patches.columns;
  const int64_t row = pixel / columns.count;
  return row / rows.count * strides.batch + rows.result_position(row % rows.count) * strides.row +
         columns.result_position(pixel % columns.count) * strides.column;
}

// Calls visit(begin, count, to, step) for runs of the results [first_pixel, first_pixel + pixels) of a class
// of positions: `count` pixels from the begin-th on, whose first channels lie at `to` and `step` apart.
template <class T, class Visit>
void for_each_result_run(const Patches<T>& patches, const ImageStrides& strides, int64_t first_pixel,
                         int64_t pixels, T* result, const Visit& visit) {
  const Axis& rows = patches.rows;
  const Axis& columns = patches.columns;
  const int64_t step = columns.spacing * strides.column;
  // Rows that follow each other in memory are one long row.
  const bool is_flat = !patches.in_border() && rows.spacing == 1 && columns.spacing == 1 &&
                       columns.first == 0 && strides.row == columns.count * strides.column;
  if (is_flat) {
    return for_each_segment(1, rows.count * columns.count, first_pixel, pixels, [&](const Segment& segment) {
      visit(
          segment.begin, segment.length,
          result + segment.image * strides.batch + rows.first * strides.row + segment.column * strides.column,
          step);
    });
  }
  for_each_segment(rows.count, columns.count, first_pixel, pixels, [&](const Segment& segment) {
    T* const row = result + segment.image * strides.batch + rows.result_position(segment.row) * strides.row;
    const int64_t together = columns.is_border ? 1 : segment.length;
    for (int64_t x = 0; x < segment.length; x += together) {
      visit(segment.begin + x, together, row + columns.result_position(segment.column + x) * strides.column,
            step);
    }
  });
}

// The results [first_pixel, first_pixel + pixels) of a class of positions. Sums of up to a vector's lanes of
// pixels more are read.
template <class T>
void write_transposed(const Patches<T>& patches, const ImageStrides& strides, int64_t first_pixel,
                      int64_t pixels, const Compute<T>* sums, int64_t sums_stride, int64_t channels,
                      T* result, bool streams) {
  for_each_result_run(patches, strides, first_pixel, pixels, result,
                      [&](int64_t begin, int64_t count, T* to, int64_t step) {
                        transpose_out(sums + begin * sums_stride, sums_stride, count, channels, to,
                                      strides.channel, step, streams);
                      });
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
