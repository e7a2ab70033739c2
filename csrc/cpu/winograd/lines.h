// Lines of pixels with `lanes` channels side by side, line[column][lane]: what the transforms read and write,
// whatever the layout and the element type of the tensors.
#pragma once

#include "cpu/streaming.h"
#include "cpu/winograd/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Reads positions [first, first + count) of a row that starts at `row` (null: a row of zeros). The line has
// room for a vector of columns behind the last one.
template <class T, class Real = Compute<T>>
CONVEXT_INLINE void read_line(const T* row, const ImageStrides& strides, const Side& side, int64_t first,
                              int64_t count, int64_t channels, Real* line) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  if (row == nullptr) {
    for (int64_t x = 0; x < count; ++x) store(line + x * lanes, zero<Real>());
    return;
  }
  const int64_t shift = first * side.step + side.offset;  // source of the first position
  const int64_t begin = smaller(count, ceil_div(larger(0, -shift), side.step));
  const int64_t end = larger(begin, smaller(count, ceil_div(larger(0, side.sources - shift), side.step)));
  const int64_t stride = side.step * strides.column;
  const T* source = row + shift * strides.column + begin * stride;
  if (strides.channel == 1) {
    for (int64_t x = begin; x < end; ++x, source += stride) {
      store(line + x * lanes, channels == lanes ? load_widened(source) : load_widened(source, channels));
    }
  } else if (stride == 1) {
    for (int64_t x = begin; x < end; x += lanes, source += lanes) {
      const int64_t length = smaller(lanes, end - x);
      Vector<Real> square[lanes];
      if (channels == lanes && length == lanes) {
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] = load_widened(source + lane * strides.channel);
        }
      } else {
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] =
              lane < channels ? load_widened(source + lane * strides.channel, length) : zero<Real>();
        }
      }
      transpose(square);
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) store(line + (x + i) * lanes, square[i]);
    }
  } else {
    for (int64_t x = begin; x < end; ++x, source += stride) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        line[x * lanes + lane] = lane < channels ? widen(source[lane * strides.channel]) : Real{0};
      }
    }
  }
  const auto read_padding = [&](int64_t x) {
    const int64_t column = side.source(first + x);
    if (column < 0) return store(line + x * lanes, zero<Real>());
    for (int64_t lane = 0; lane < lanes; ++lane) {
      line[x * lanes + lane] =
          lane < channels ? widen(row[column * strides.column + lane * strides.channel]) : Real{0};
    }
  };
  for (int64_t x = 0; x < begin; ++x) read_padding(x);
  for (int64_t x = end; x < count; ++x) read_padding(x);
}

// Writes `count` pixels of a row of the result, every `step`-th. The line may be read a vector of columns
// past the last one. `streams`: past the caches where the row begins a line of the cache; channels
// (contiguous) or pixels (channels_last) must be whole lines apart.
template <class T, class Real = Compute<T>>
CONVEXT_INLINE void write_line(const Real* line, int64_t count, int64_t channels, const ImageStrides& strides,
                               int64_t step, T* target, bool streams) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  const int64_t stride = step * strides.column;
  streams = streams && begins_line(target) && channels == lanes;
  const auto write = [&](T* to, Vector<Real> value, int64_t numbers) {
    numbers == lanes ? store_result(to, value, streams) : store_narrowed(to, value, numbers);
  };
  if (strides.channel == 1) {
    for (int64_t x = 0; x < count; ++x, target += stride) write(target, load(line + x * lanes), channels);
  } else if (stride == 1) {
    for (int64_t x = 0; x < count; x += lanes, target += lanes) {
      const int64_t length = smaller(lanes, count - x);
      Vector<Real> square[lanes];
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) square[i] = load(line + (x + i) * lanes);
      transpose(square);
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < lanes; ++lane) {
        if (lane < channels) write(target + lane * strides.channel, square[lane], length);
      }
    }
  } else {
    for (int64_t x = 0; x < count; ++x, target += stride) {
      for (int64_t lane = 0; lane < channels; ++lane) {
        target[lane * strides.channel] = narrow<T>(line[x * lanes + lane]);
      }
    }
  }
}

// The lines that tiles of OfRows::inputs x OfColumns::inputs pixels read, as many pixels apart as they have
// outputs. The first lines of tiles are the last ones of those above them, and are not read again.
template <class OfRows, class OfColumns, class T>
class TileLines {
 public:
  using Real = Compute<T>;
  static constexpr int inputs = OfRows::inputs;
  static constexpr int outputs = OfRows::outputs;

  const Real* rows[inputs];

  // `first_pixel`: of the first channel, of the first image.
  TileLines(const T* first_pixel, const ImageStrides& image_strides, const Side& row_side,
            const Side& column_side, Real* numbers)
      : source(first_pixel),
        strides(image_strides),
        row_positions(row_side),
        column_positions(column_side),
        lines(numbers) {}

  CONVEXT_INLINE void read(const Segment& segment, int64_t channels) {
    const bool is_below = segment.image == above.image && segment.tile_row == above.tile_row + 1 &&
                          segment.tile_column == above.tile_column && segment.tiles <= above.tiles;
    above = segment;
    const Side of_rows = row_positions.of_phase(segment.row_phase);
    const Side of_columns = column_positions.of_phase(segment.column_phase);
    const T* const image = source + segment.image * strides.batch;
    for (int row = 0; row < inputs; ++row) {
      const int64_t position = segment.tile_row * outputs + row;
      Real* const line = lines + position % inputs * line_numbers<Real>;
      rows[row] = line;
      if (is_below && row < inputs - outputs) continue;
      const int64_t at = of_rows.source(position);
      read_line(at < 0 ? nullptr : image + at * strides.row, strides, of_columns,
                segment.tile_column * OfColumns::outputs,
                segment.tiles * OfColumns::outputs + OfColumns::inputs - OfColumns::outputs, channels, line);
    }
  }

 private:
  const T* source;
  const ImageStrides& strides;
  Side row_positions;
  Side column_positions;
  Real* lines;
  Segment above{-1, 0, 0, 0, 0, 0, 0};
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
