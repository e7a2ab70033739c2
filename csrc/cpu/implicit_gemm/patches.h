// The matrix of patches that a correlation multiplies the weights with, which never exists as a whole: one
// row for each pixel of the result (n, y, x), one column for each term k of its sum: (c, i, j) where pixels
// are packed side by side, as weights lie in contiguous tensors; (i, j, c) where channels are. Blocks of it
// are made in a worker's scratch when they are needed; that is where strides, dilation, padding, layout and
// element type are dealt with, so that the micro-kernel knows of none of them.
#pragma once

#include "cpu/implicit_gemm/axis.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct Patches {
  const T* source;  // at the first channel of the group
  ImageStrides strides;
  int64_t batch;
  int64_t channels;
  Axis rows;
  Axis columns;

  int64_t pixels() const { return batch * rows.count * columns.count; }
  int64_t terms() const { return rows.taps * columns.taps * channels; }
  bool in_border() const { return rows.is_border || columns.is_border; }
};

// A 1x1 kernel that steps over neither rows nor columns sees each image as one long row, if it lies so.
// True if so.
template <class T>
bool flatten(Patches<T>& patches) {
  Axis& rows = patches.rows;
  Axis& columns = patches.columns;
  const auto reads_itself = [](const Axis& axis) {
    return !axis.is_border && axis.taps == 1 && axis.stride == 1 && axis.offset == 0 && axis.spacing == 1 &&
           axis.count == axis.source_size;
  };
  if (!reads_itself(rows) || !reads_itself(columns)) return false;
  if (patches.strides.row != columns.count * patches.strides.column) return false;
  columns.count = columns.source_size = rows.count * columns.count;
  rows.count = rows.source_size = 1;
  return true;
}

// Result pixels that are neighbours in one row.
struct Segment {
  int64_t image;
  int64_t row;
  int64_t column;
  int64_t length;
  int64_t begin;  // counted from the first pixel of the block
};

// Calls visit(segment) for the pixels [first, first + count) of images of rows x columns.
template <class Visit>
CONVEXT_INLINE void for_each_segment(int64_t rows, int64_t columns, int64_t first, int64_t count,
                                     const Visit& visit) {
  if (count <= 0) return;
  Segment segment;
  segment.column = first % columns;
  segment.row = first / columns % rows;
  segment.image = first / columns / rows;
  segment.begin = 0;
  while (true) {
    segment.length = smaller(columns - segment.column, count - segment.begin);
    visit(segment);
    segment.begin += segment.length;
    if (segment.begin == count) return;
    segment.column = 0;
    if (++segment.row == rows) {
      segment.row = 0;
      ++segment.image;
    }
  }
}

// Terms with the same tap and neighbouring channels.
struct TapRun {
  int64_t row_tap;
  int64_t column_tap;
  int64_t channel;
  int64_t length;
  int64_t begin;  // counted from the first term of the block
};

// Of terms (c, i, j): every `row_taps * column_taps`-th term from `begin` on.
template <class Visit>
CONVEXT_INLINE void for_each_tap(int64_t row_taps, int64_t column_taps, int64_t first, int64_t count,
                                 const Visit& visit) {
  const int64_t taps = row_taps * column_taps;
  for (int64_t tap = 0; tap < taps; ++tap) {
    TapRun run;
    run.row_tap = tap / column_taps;
    run.column_tap = tap % column_taps;
    run.channel = ceil_div(larger(0, first - tap), taps);
    run.length = ceil_div(larger(0, first + count - tap), taps) - run.channel;
    run.begin = run.channel * taps + tap - first;
    if (run.length > 0) visit(run);
  }
}

// Of terms (i, j, c).
template <class Visit>
CONVEXT_INLINE void for_each_tap_run(int64_t channels, int64_t column_taps, int64_t first, int64_t count,
                                     const Visit& visit) {
  if (count <= 0) return;
  TapRun run;
  run.channel = first % channels;
  run.column_tap = first / channels % column_taps;
  run.row_tap = first / channels / column_taps;
  run.begin = 0;
  while (true) {
    run.length = smaller(channels - run.channel, count - run.begin);
    visit(run);
    run.begin += run.length;
    if (run.begin == count) return;
    run.channel = 0;
    if (++run.column_tap == column_taps) {
      run.column_tap = 0;
      ++run.row_tap;
    }
  }
}

// The pixels [begin, end) of a segment whose source column, at + x * axis.stride for its x-th pixel, is
// real and not padding. Not for borders.
struct Inside {
  int64_t at;
  int64_t begin;
  int64_t end;

  Inside(const Axis& axis, const Segment& segment, int64_t tap)
      : at(segment.column * axis.stride + tap * axis.step + axis.offset),
        begin(first_at_least(axis.stride, -at, segment.length)),
        end(first_at_least(axis.stride, axis.source_size - at, segment.length)) {}

  // The first x in [0, length] with x * stride >= distance.
  static int64_t first_at_least(int64_t stride, int64_t distance, int64_t length) {
    if (distance <= 0) return 0;
    return smaller(length, stride == 1 ? distance : (distance - 1) / stride + 1);
  }
};

template <class T>
CONVEXT_INLINE void fill_zero(T* target, int64_t count) {
  constexpr int64_t lanes = Vector<T>::lanes;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(target + i, zero<T>());
  for (; i < count; ++i) target[i] = 0;
}

// block[term][pixel], terms (c, i, j): pixels are neighbours, as they are in contiguous tensors. Pixels up to
// `width` that do not exist are zero.
template <class T>
void pack_pixels_fastest(const Patches<T>& patches, int64_t first_pixel, int64_t pixels, int64_t width,
                         int64_t first_term, int64_t terms, Compute<T>* block, int64_t block_stride) {
  const Axis& rows = patches.rows;
  const Axis& columns = patches.columns;
  const ImageStrides& strides = patches.strides;
  for_each_tap(rows.taps, columns.taps, first_term, terms, [&](const TapRun& run) {
    Compute<T>* run_block = block + run.begin * block_stride;
    const int64_t channel_stride = rows.taps * columns.taps * block_stride;
    for_each_segment(rows.count, columns.count, first_pixel, pixels, [&](const Segment& segment) {
      Compute<T>* target = run_block + segment.begin;
      const T* image = patches.source + segment.image * strides.batch + run.channel * strides.channel;
      if (patches.in_border()) {
        for (int64_t c = 0; c < run.length; ++c) fill_zero(target + c * channel_stride, segment.length);
        for_each_source(rows, segment.row, run.row_tap, [&](int64_t row) {
          for (int64_t x = 0; x < segment.length; ++x) {
            for_each_source(columns, segment.column + x, run.column_tap, [&](int64_t column) {
              const T* source = image + row * strides.row + column * strides.column;
              for (int64_t c = 0; c < run.length; ++c) {
                target[c * channel_stride + x] += widen(source[c * strides.channel]);
              }
            });
          }
        });
        return;
      }
      const int64_t row = rows.source(segment.row, run.row_tap);
      if (row < 0) {
        for (int64_t c = 0; c < run.length; ++c) fill_zero(target + c * channel_stride, segment.length);
        return;
      }
      const Inside inside(columns, segment, run.column_tap);
      const auto copy_padding = [&](Compute<T>* line, const T* source, int64_t begin, int64_t end) {
        for (int64_t x = begin; x < end; ++x) {
          const int64_t column = columns.resolve(inside.at + x * columns.stride);
          line[x] = column < 0 ? Compute<T>{0} : widen(source[column * strides.column]);
        }
      };
      const T* source = image + row * strides.row;
      const int64_t first_inside = (inside.at + inside.begin * columns.stride) * strides.column;
      const int64_t step = columns.stride * strides.column;
      for (int64_t c = 0; c < run.length; ++c) {
        copy_padding(target, source, 0, inside.begin);
        if (inside.begin < inside.end) {
          copy_widened(target + inside.begin, source + first_inside, step, inside.end - inside.begin);
        }
        copy_padding(target, source, inside.end, segment.length);
        target += channel_stride;
        source += strides.channel;
      }
    });
  });
  if (pixels < width) {
    for (int64_t k = 0; k < terms; ++k) fill_zero(block + k * block_stride + pixels, width - pixels);
  }
}

// block[pixel][channel] for one row of pixels, where neither pixels nor channels are in order: a few channels
// at a time, so that every line of the source is used up while it is in the cache.
template <class T>
CONVEXT_INLINE void transpose_widened(Compute<T>* target, int64_t target_stride, const T* source,
                                      int64_t pixel_stride, int64_t channel_stride, int64_t pixels,
                                      int64_t channels) {
  constexpr int64_t together = 8;
  int64_t c = 0;
  for (; c + together <= channels; c += together) {
    for (int64_t x = 0; x < pixels; ++x) {
      const T* from = source + x * pixel_stride + c * channel_stride;
      Compute<T>* to = target + x * target_stride + c;
      CONVEXT_UNROLL
      for (int64_t k = 0; k < together; ++k) to[k] = widen(from[k * channel_stride]);
    }
  }
  for (; c < channels; ++c) {
    for (int64_t x = 0; x < pixels; ++x) {
      target[x * target_stride + c] = widen(source[x * pixel_stride + c * channel_stride]);
    }
  }
}

// block[pixel][term], terms (i, j, c): terms are neighbours, as channels are in channels_last tensors.
template <class T>
void pack_terms_fastest(const Patches<T>& patches, int64_t first_pixel, int64_t pixels, int64_t first_term,
                        int64_t terms, Compute<T>* block, int64_t block_stride) {
  const Axis& rows = patches.rows;
  const Axis& columns = patches.columns;
  const ImageStrides& strides = patches.strides;
  // Where the channels of neighbouring columns follow each other, so do the terms of a row of taps.
  const bool taps_are_neighbours = !patches.in_border() && columns.taps > 1 && strides.channel == 1 &&
                                   columns.step * strides.column == patches.channels;
  const int64_t run_channels = taps_are_neighbours ? patches.channels * columns.taps : patches.channels;
  const int64_t run_taps = taps_are_neighbours ? 1 : columns.taps;
  for_each_tap_run(run_channels, run_taps, first_term, terms, [&](const TapRun& run) {
    for_each_segment(rows.count, columns.count, first_pixel, pixels, [&](const Segment& segment) {
      Compute<T>* target = block + segment.begin * block_stride + run.begin;
      const T* image = patches.source + segment.image * strides.batch;
      if (patches.in_border()) {
        image += run.channel * strides.channel;
        for (int64_t x = 0; x < segment.length; ++x) fill_zero(target + x * block_stride, run.length);
        for_each_source(rows, segment.row, run.row_tap, [&](int64_t row) {
          for (int64_t x = 0; x < segment.length; ++x) {
            for_each_source(columns, segment.column + x, run.column_tap, [&](int64_t column) {
              const T* source = image + row * strides.row + column * strides.column;
              for (int64_t c = 0; c < run.length; ++c) {
                target[x * block_stride + c] += widen(source[c * strides.channel]);
              }
            });
          }
        });
        return;
      }
      const int64_t row = rows.source(segment.row, run.row_tap);
      if (row < 0) {
        for (int64_t x = 0; x < segment.length; ++x) fill_zero(target + x * block_stride, run.length);
        return;
      }
      image += row * strides.row;
      // The taps of this run: one, or the part of a row of taps that lies in this block.
      const int64_t first_tap = taps_are_neighbours ? run.channel / patches.channels : run.column_tap;
      const int64_t last_tap =
          taps_are_neighbours ? (run.channel + run.length - 1) / patches.channels : run.column_tap;
      const int64_t first_channel = run.channel - (taps_are_neighbours ? first_tap * patches.channels : 0);
      const Inside inside(columns, segment, first_tap);
      const Inside last_inside(columns, segment, last_tap);
      const int64_t begin = larger(inside.begin, last_inside.begin);
      const int64_t end = larger(begin, smaller(inside.end, last_inside.end));
      const auto copy_padding = [&](int64_t x) {
        Compute<T>* to = target + x * block_stride;
        int64_t channel = first_channel;
        for (int64_t tap = first_tap, left = run.length; tap <= last_tap; ++tap, channel = 0) {
          const int64_t length = smaller(left, patches.channels - channel);
          const int64_t column =
              columns.resolve(inside.at + x * columns.stride + (tap - first_tap) * columns.step);
          if (column < 0) {
            fill_zero(to, length);
          } else {
            copy_widened(to, image + column * strides.column + channel * strides.channel, strides.channel,
                         length);
          }
          to += length;
          left -= length;
        }
      };
      for (int64_t x = 0; x < begin; ++x) copy_padding(x);
      const int64_t step = columns.stride * strides.column;
      if (begin < end) {
        const T* source =
            image + (inside.at + begin * columns.stride) * strides.column + first_channel * strides.channel;
        Compute<T>* to = target + begin * block_stride;
        if (strides.channel == 1) {
          for (int64_t x = begin; x < end; ++x, to += block_stride, source += step) {
            copy_widened(to, source, 1, run.length);
          }
        } else {
          transpose_widened(to, block_stride, source, step, strides.channel, end - begin, run.length);
        }
      }
      for (int64_t x = end; x < segment.length; ++x) copy_padding(x);
    });
  });
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
