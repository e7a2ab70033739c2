// Lines of pixels, each a block of channels side by side, so that vectors run along the channels whatever the
// layout of the tensor: channels_last is copied, contiguous planes are transposed on the way. A block is one
// cache line of the tensor's type.
#pragma once

#include "cpu/direct_rows/lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
constexpr int64_t channel_block = 64 / static_cast<int64_t>(sizeof(T));

inline bool has_channels_innermost(const ImageStrides& strides) {
  return strides.channel == 1 && strides.column != 1;
}

// target[c] = source[c], c in [0, channels), the rest of the block zero.
template <class T>
CONVEXT_INLINE void copy_block(Compute<T>* target, const T* source, int64_t channels) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  if (channels == channel_block<T>) {
    CONVEXT_UNROLL
    for (int64_t c = 0; c < channel_block<T>; c += lanes) store(target + c, load_widened(source + c));
    return;
  }
  for (int64_t c = 0; c < channel_block<T>; c += lanes) {
    const int64_t valid = larger(0, smaller(lanes, channels - c));
    store(target + c, load_widened(source + c, valid));
  }
}

template <class T>
void copy_pixels(Compute<T>* target, const T* source, int64_t stride, int64_t channels, int64_t count,
                 int64_t ahead) {
  constexpr int64_t block = channel_block<T>;
  if (channels == block) {
    for (int64_t x = 0; x < count; ++x, target += block, source += stride) {
      __builtin_prefetch(source + ahead);
      copy_block<T>(target, source, block);
    }
  } else {
    for (int64_t x = 0; x < count; ++x, target += block, source += stride)
      copy_block<T>(target, source, channels);
  }
}

template <class T>
CONVEXT_INLINE void fill_zero_pixels(Compute<T>* target, int64_t count) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  for (int64_t k = 0; k < count * channel_block<T>; k += lanes) store(target + k, zero<Compute<T>>());
}

template <class T>
CONVEXT_INLINE void store_block_of(T* target, const Compute<T>* source, int64_t channels) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  for (int64_t c = 0; c < channels; c += lanes) {
    if (c + lanes <= channels) {
      store_narrowed(target + c, load(source + c));
    } else {
      store_narrowed(target + c, load(source + c), channels - c);
    }
  }
}

// Calls group(k, n) for groups of n pixels from k on that cover [0, count): whole vectors, the last one moved
// back if need be, so that only less than a vector in all needs masks.
template <class Group>
CONVEXT_INLINE void for_each_pixel_group(int64_t lanes, int64_t count, const Group& group) {
  if (count < lanes) {
    if (count > 0) group(0, count);
    return;
  }
  int64_t k = 0;
  for (; k + lanes <= count; k += lanes) group(k, lanes);
  if (k < count) group(count - lanes, lanes);
}

// `count` pixels that are adjacent in each channel's plane. In scratch, lines of `width` of them are
// `line_stride` apart. Channels behind the last one repeat it. Unless `ahead` is 0, what is so far behind
// each line of the cache is fetched meanwhile.
template <class T>
void transpose_in(Compute<T>* target, int64_t line_stride, const T* source, int64_t channel_stride,
                  int64_t channels, int64_t count, int64_t width, int64_t ahead = 0) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  constexpr int64_t block = channel_block<T>;
  const int64_t jump = line_stride - width * block;
  for_each_pixel_group(lanes, count, [&](int64_t k, int64_t n) {
    const int64_t line = count == width ? 0 : k / width;
    const int64_t first = k - line * width;
    for (int64_t c = 0; c < channels; c += lanes) {
      Vector<Real> v[lanes];
      const T* from = source + c * channel_stride + k;
      if (n == lanes && c + lanes <= channels) {
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (ahead != 0) __builtin_prefetch(from + i * channel_stride + ahead, 0, 2);
          v[i] = load_widened(from + i * channel_stride);
        }
      } else {
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i)
          v[i] = load_widened(from + smaller(i, channels - 1 - c) * channel_stride, n);
      }
      transpose(v);
      Real* to = target + line * line_stride + first * block + c;
      int64_t left = width - first;
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        if (i < n) store(to, v[i]);
        to += block;
        if (--left == 0) {
          left = width;
          to += jump;
        }
      }
    }
  });
}

// The way back: `count` pixels side by side in scratch to adjacent ones in each channel's plane.
template <class T>
void transpose_out(T* target, int64_t channel_stride, int64_t channels, const Compute<T>* source,
                   int64_t count, int64_t ahead = 0) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  constexpr int64_t block = channel_block<T>;
  for_each_pixel_group(lanes, count, [&](int64_t k, int64_t n) {
    for (int64_t c = 0; c < channels; c += lanes) {
      Vector<Real> v[lanes];
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) v[i] = load(source + (k + smaller(i, n - 1)) * block + c);
      transpose(v);
      T* to = target + c * channel_stride + k;
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        if (c + i >= channels) continue;
        if (ahead != 0) __builtin_prefetch(to + i * channel_stride + ahead, 1, 2);
        if (n == lanes) {
          store_narrowed(to + i * channel_stride, v[i]);
        } else {
          store_narrowed(to + i * channel_stride, v[i], n);
        }
      }
    }
  });
}

// How one block of channels of an image lies in memory.
template <class T>
struct PixelImage {
  using Real = Compute<T>;
  static constexpr int64_t block = channel_block<T>;

  ImageStrides strides;
  int64_t channels;
  int64_t ahead = 0;  // from planes to those of the next tile, or 0

  // Fills lines with source rows first_row, first_row + 1, ... (count of them) and pixels from first_column
  // on. Rows of zeros are left out if `skips_zeros`.
  void read(const T* data, Real* lines, int64_t line_pixels, const SourceAxis& rows,
            const SourceAxis& columns, int64_t first_row, int64_t count, int64_t first_column,
            bool skips_zeros) const {
    const int64_t line_stride = line_pixels * block;
    const int64_t begin = larger(0, smaller(line_pixels, -first_column));  // pixels [begin, end) are inside
    const int64_t end = larger(begin, smaller(line_pixels, columns.size - first_column));
    const bool is_last = has_channels_innermost(strides);
    const auto read_pixels = [&](Real* line, const T* row, int64_t from, int64_t to) {
      for (int64_t k = from; k < to; ++k) {
        const int64_t column = columns.resolve(first_column + k);
        if (column < 0) {
          fill_zero_pixels<T>(line + k * block, 1);
        } else if (is_last) {
          copy_block<T>(line + k * block, row + column * strides.column, channels);
        } else {
          for (int64_t c = 0; c < channels; ++c)
            line[k * block + c] = widen(row[c * strides.channel + column]);
        }
      }
    };
    for (int64_t k = 0; k < count; ++k) {
      Real* line = lines + k * line_stride;
      const int64_t row = rows.resolve(first_row + k);
      if (row < 0) {
        if (!skips_zeros) fill_zero_pixels<T>(line, line_pixels);
        continue;
      }
      const T* from = data + row * strides.row;
      if (columns.mode == PaddingMode::zeros) {
        fill_zero_pixels<T>(line, begin);
        fill_zero_pixels<T>(line + end * block, line_pixels - end);
      } else {
        read_pixels(line, from, 0, begin);
        read_pixels(line, from, end, line_pixels);
      }
      if (begin == end) continue;
      if (is_last) {
        copy_pixels<T>(line + begin * block, from + (first_column + begin) * strides.column, strides.column,
                       channels, end - begin, strides.row);
        continue;
      }
      // Rows inside the image that lie one behind the other in memory are transposed as one.
      const int64_t width = end - begin;
      const bool adjacent = width == columns.size && strides.row == width;
      if (adjacent && first_row + k > 0 && k > 0 && first_row + k < rows.size) continue;
      const int64_t rows_here = adjacent && first_row + k >= 0 && first_row + k < rows.size
                                    ? smaller(count - k, rows.size - first_row - k)
                                    : 1;
      transpose_in<T>(line + begin * block, line_stride, from + first_column + begin, strides.channel,
                      channels, rows_here * width, width, ahead);
    }
  }

  // Writes `rows` x `columns` pixels, which lie side by side in scratch.
  void write(T* to, const Real* pixels, int64_t rows, int64_t columns) const {
    if (has_channels_innermost(strides)) {
      for (int64_t y = 0; y < rows; ++y, to += strides.row) {
        for (int64_t x = 0; x < columns; ++x, pixels += block)
          store_block_of<T>(to + x * strides.column, pixels, channels);
      }
    } else if (strides.row == columns) {
      transpose_out<T>(to, strides.channel, channels, pixels, rows * columns, ahead);
    } else {
      for (int64_t y = 0; y < rows; ++y, to += strides.row, pixels += columns * block)
        transpose_out<T>(to, strides.channel, channels, pixels, columns, ahead);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
