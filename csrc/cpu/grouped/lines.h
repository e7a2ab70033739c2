// Lines of pixels in scratch, each the vectors of one tile's channels side by side (see layout.h), whatever
// the layout of the tensor: channels_last is copied, contiguous planes are transposed on the way.
#pragma once

#include "cpu/grouped/layout.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The channels of one tile of an image. `data` below is the image at the tile's first channel.
template <class T>
struct GroupImage {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  ImageStrides strides;
  Pieces pieces;
  int64_t pixel_stride;

  GroupImage(const ImageStrides& image_strides, const Pieces& tile_pieces)
      : strides(image_strides), pieces(tile_pieces), pixel_stride(tile_pieces.pixel_stride()) {}

  // Source rows first_row, first_row + 1, ... (count of them), pixels from first_column on. Writes nothing
  // behind the lines. Of channels_last, what is `ahead` of each pixel may be fetched for a later tile: pixels
  // lie up to a page apart, so the hardware does not foresee it. It pays where few rows are read at a time.
  void read(const T* data, Real* lines, int64_t line_pixels, const SourceAxis& rows,
            const SourceAxis& columns, int64_t first_row, int64_t count, int64_t first_column,
            int64_t ahead = 0) const {
    const int64_t line_stride = line_pixels * pixel_stride;
    const int64_t begin = larger(0, smaller(line_pixels, -first_column));  // pixels [begin, end) are inside
    const int64_t end = larger(begin, smaller(line_pixels, columns.size - first_column));
    const bool is_last = has_channels_innermost(strides);
    const auto pad = [&](Real* line, const T* row, int64_t from, int64_t to) {
      if (columns.mode == PaddingMode::zeros)
        return fill_zero_vectors(line + from * pixel_stride, (to - from) * pixel_stride);
      for (int64_t k = from; k < to; ++k) {
        const int64_t column = columns.resolve(first_column + k);
        if (column < 0) {
          fill_zero_vectors(line + k * pixel_stride, pixel_stride);
        } else {
          gather_pixel(line + k * pixel_stride, row + column * strides.column);
        }
      }
    };
    for (int64_t k = 0; k < count; ++k) {
      Real* line = lines + k * line_stride;
      const int64_t row = rows.resolve(first_row + k);
      if (row < 0) {
        fill_zero_vectors(line, line_stride);
        continue;
      }
      const T* from = data + row * strides.row;
      pad(line, from, 0, begin);
      pad(line, from, end, line_pixels);
      if (begin == end) continue;
      if (is_last) {
        const T* const pixels = from + (first_column + begin) * strides.column;
        copy(line + begin * pixel_stride, pixels, end - begin);
        if (ahead != 0) {
          for (int64_t x = 0; x < end - begin; ++x)
            __builtin_prefetch(pixels + x * strides.column + ahead, 0, 2);
        }
        continue;
      }
      // Rows inside the image that lie one behind the other in memory are transposed as one.
      const int64_t width = end - begin;
      const bool adjacent = width == columns.size && strides.row == width;
      if (adjacent && first_row + k > 0 && k > 0 && first_row + k < rows.size) continue;
      const int64_t rows_here = adjacent && first_row + k >= 0 && first_row + k < rows.size
                                    ? smaller(count - k, rows.size - first_row - k)
                                    : 1;
      transpose_in(line + begin * pixel_stride, line_stride, from + first_column + begin, rows_here * width,
                   width);
    }
  }

  // Writes `rows` x `columns` pixels, which lie side by side in scratch.
  void write(T* to, const Real* pixels, int64_t rows, int64_t columns) const {
    if (has_channels_innermost(strides)) {
      for (int64_t y = 0; y < rows; ++y, to += strides.row) {
        for (int64_t x = 0; x < columns; ++x) {
          T* target = to + x * strides.column;
          for (int64_t piece = 0; piece < pieces.count(); ++piece, pixels += lanes)
            store_part(target + pieces.first(piece), load(pixels), pieces.size(piece));
        }
      }
    } else if (strides.row == columns) {
      transpose_out(to, pixels, rows * columns);
    } else {
      for (int64_t y = 0; y < rows; ++y, to += strides.row, pixels += columns * pixel_stride)
        transpose_out(to, pixels, columns);
    }
  }

 private:
  CONVEXT_INLINE static void store_part(T* target, Vector<Real> value, int64_t size) {
    if (size == lanes) {
      store_narrowed(target, value);
    } else {
      store_narrowed(target, value, size);
    }
  }

  void gather_pixel(Real* target, const T* from) const {
    for (int64_t piece = 0; piece < pieces.count(); ++piece, target += lanes) {
      const int64_t first = pieces.first(piece);
      const int64_t size = pieces.size(piece);
      for (int64_t lane = 0; lane < lanes; ++lane)
        target[lane] = lane < size ? widen(from[(first + lane) * strides.channel]) : Real{0};
    }
  }

  // Pixels of a row, channels innermost.
  void copy(Real* target, const T* source, int64_t count) const {
    for (int64_t piece = 0; piece < pieces.count(); ++piece) {
      const T* from = source + pieces.first(piece);
      Real* to = target + piece * lanes;
      const int64_t size = pieces.size(piece);
      if (size == lanes) {
        for (int64_t x = 0; x < count; ++x, to += pixel_stride, from += strides.column) {
          store(to, load_widened(from));
        }
      } else {
        for (int64_t x = 0; x < count; ++x, to += pixel_stride, from += strides.column)
          store(to, load_widened(from, size));
      }
    }
  }

  // `count` pixels that are adjacent in each channel's plane. In scratch, lines of `width` of them are
  // `line_stride` apart. Lanes without a channel repeat the last one.
  void transpose_in(Real* target, int64_t line_stride, const T* source, int64_t count, int64_t width) const {
    const int64_t jump = line_stride - width * pixel_stride;
    for_each_pixel_group(lanes, count, [&](int64_t k, int64_t n) {
      const int64_t line = count == width ? 0 : k / width;
      const int64_t first = k - line * width;
      for (int64_t piece = 0; piece < pieces.count(); ++piece) {
        const T* from = source + pieces.first(piece) * strides.channel + k;
        const int64_t size = pieces.size(piece);
        Vector<Real> v[lanes];
        if (n == lanes && size == lanes) {
          CONVEXT_UNROLL
          for (int64_t i = 0; i < lanes; ++i) v[i] = load_widened(from + i * strides.channel);
        } else {
          CONVEXT_UNROLL
          for (int64_t i = 0; i < lanes; ++i)
            v[i] = load_widened(from + smaller(i, size - 1) * strides.channel, n);
        }
        transpose(v);
        Real* to = target + line * line_stride + first * pixel_stride + piece * lanes;
        int64_t left = width - first;
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (i < n) store(to, v[i]);
          to += pixel_stride;
          if (--left == 0) {
            left = width;
            to += jump;
          }
        }
      }
    });
  }

  // The way back: `count` pixels side by side in scratch to adjacent ones in each channel's plane.
  void transpose_out(T* target, const Real* source, int64_t count) const {
    for_each_pixel_group(lanes, count, [&](int64_t k, int64_t n) {
      for (int64_t piece = 0; piece < pieces.count(); ++piece) {
        const int64_t size = pieces.size(piece);
        const Real* from = source + k * pixel_stride + piece * lanes;
        Vector<Real> v[lanes];
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) v[i] = load(from + smaller(i, n - 1) * pixel_stride);
        transpose(v);
        T* to = target + pieces.first(piece) * strides.channel + k;
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (i >= size) continue;
          if (n == lanes) {
            store_narrowed(to + i * strides.channel, v[i]);
          } else {
            store_narrowed(to + i * strides.channel, v[i], n);
          }
        }
      }
    });
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
