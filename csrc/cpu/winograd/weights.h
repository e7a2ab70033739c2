// The transformed weights, packed for the products: packed[block of the kernel][product][source
// channel][lane] of each group and panel of result channels.
#pragma once

#include "cpu/winograd/plan.h"
#include "cpu/winograd/transforms.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t prefetch_distance = 16;
constexpr int64_t rows_ahead = 8;  // source channels

// Moves `count` neighbouring elements of each of `lanes` rows, whose first `channels` exist, to
// target[element][lane].
template <class T, class Real = Compute<T>>
CONVEXT_INLINE void transpose_rows(const T* source, int64_t row_stride, int64_t channels, int64_t count,
                                   Real* target, int64_t target_stride) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (int64_t i = 0; i < count; i += lanes) {
    const int64_t length = smaller(lanes, count - i);
    Vector<Real> square[lanes];
    CONVEXT_UNROLL
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (lane >= channels) {
        square[lane] = zero<Real>();
      } else if (length == lanes) {
        square[lane] = load_widened(source + lane * row_stride + i);
        // The rows are too many, and read too little at a time, for the hardware to fetch ahead.
        __builtin_prefetch(source + lane * row_stride + i + prefetch_distance);
      } else {
        square[lane] = load_widened(source + lane * row_stride + i, length);
      }
    }
    transpose(square);
    CONVEXT_UNROLL
    for (int64_t k = 0; k < lanes; ++k) {
      if (k < length) store(target + (i + k) * target_stride, square[k]);
    }
  }
}

// What is packed at a time: source channels of a panel, and blocks of the kernel in one row of them.
struct WeightPart {
  int64_t group;
  int64_t panel;
  int64_t first_source;
  int64_t sources;
  int64_t block_row;
  int64_t first_block;  // of the row
  int64_t blocks;
};

// The taps in the rows of a block of the kernel, of some source channels and `lanes` result channels, in the
// order that they have in memory: taps[source][tap][lane] or taps[tap][source][lane].
template <class Tile, class T>
class TapLines {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  TapLines(const Correlation& correlation, const TapBlock& rows, Real* buffer)
      : c(correlation),
        width(c.kernel.width),
        count(Tile::Rows::taps * width),
        first_row(c.is_forward ? rows.first : c.kernel.height - Tile::Rows::taps - rows.first),
        taps(buffer),
        taps_are_neighbours((width == 1 || c.weight_column_stride == 1) &&
                            (Tile::Rows::taps == 1 || c.weight_row_stride == width)),
        runs_over_taps(taps_are_neighbours && c.weight_source_stride == count),
        runs_over_sources(c.weight_source_stride == 1 && !runs_over_taps),
        source_step(lanes * (runs_over_sources ? 1 : count)),
        tap_step(lanes * (runs_over_sources ? sources_at_a_time<Tile>(c.kernel) : 1)) {}

  // `weight`: of the first source and result channel.
  CONVEXT_INLINE void read(const T* weight, int64_t sources, int64_t channels) const {
    const T* const first = weight + first_row * c.weight_row_stride;
    const int64_t row_stride = c.weight_result_stride;
    const auto tap_at = [&](int64_t tap) {
      return first + tap / width * c.weight_row_stride + tap % width * c.weight_column_stride;
    };
    if (runs_over_taps) return transpose_rows(first, row_stride, channels, count * sources, taps, lanes);
    if (runs_over_sources) {
      for (int64_t t = 0; t < count; ++t)
        transpose_rows(tap_at(t), row_stride, channels, sources, taps + t * tap_step, lanes);
      return;
    }
    for (int64_t i = 0; i < sources; ++i) {
      const int64_t source = i * c.weight_source_stride;
      Real* const to = taps + i * source_step;
      if (taps_are_neighbours) {
        transpose_rows(first + source, row_stride, channels, count, to, lanes);
        continue;
      }
      for (int64_t t = 0; t < count; ++t) {
        const T* const element = tap_at(t) + source;
        if (row_stride == 1) {
          // One line of each of thousands of rows: nothing that the hardware would fetch ahead.
          __builtin_prefetch(element + rows_ahead * c.weight_source_stride, 0, 2);
          store(to + t * tap_step,
                channels == lanes ? load_widened(element) : load_widened(element, channels));
        } else {
          for (int64_t l = 0; l < lanes; ++l)
            to[t * tap_step + l] = l < channels ? widen(element[l * row_stride]) : Real{0};
        }
      }
    }
  }

  // Taps of a block with these columns, counted from its first: `g` is at from + row * row_step + column *
  // column_step for the first source, and source_step further for each next one.
  const Real* first_of(const TapBlock& columns) const {
    const int64_t tap = c.is_forward ? columns.first : count - 1 - columns.first;
    return taps + tap * tap_step;
  }
  int64_t row_step() const { return c.is_forward ? width * tap_step : -width * tap_step; }
  int64_t column_step() const { return c.is_forward ? tap_step : -tap_step; }
  int64_t next_source() const { return source_step; }

 private:
  const Correlation& c;
  int64_t width;
  int64_t count;
  int64_t first_row;  // in memory
  Real* taps;
  bool taps_are_neighbours;  // in memory, those of a pair of channels
  bool runs_over_taps;       // and those of the next source channel behind them
  bool runs_over_sources;
  int64_t source_step;
  int64_t tap_step;
};

// Transforms the taps of one block of the kernel. `tap_sums` and `largest_tap`: of TapSizes.
template <class Tile, class T, class Real = Compute<T>>
CONVEXT_INLINE void pack_block(const TapLines<Tile, T>& lines, const TapBlock& rows, const TapBlock& columns,
                               int64_t sources, Real* packed, int64_t product_stride, Real* tap_sums,
                               Real* largest_tap) {
  constexpr int height = Tile::Rows::taps;
  constexpr int width = Tile::Columns::taps;
  const Real* from = lines.first_of(columns);
  Vector<Real> size[height][width];
  CONVEXT_UNROLL
  for (int t = 0; t < Tile::taps; ++t) size[t / width][t % width] = load(tap_sums + t * panel<Real>);
  Vector<Real> largest = load(largest_tap);
  for (int64_t i = 0; i < sources; ++i, from += lines.next_source(), packed += panel<Real>) {
    Vector<Real> g[height][width];
    CONVEXT_UNROLL
    for (int row = 0; row < height; ++row) {
      CONVEXT_UNROLL
      for (int column = 0; column < width; ++column) {
        const Vector<Real> tap = load(from + row * lines.row_step() + column * lines.column_step());
        size[row][column] = add(size[row][column], absolute(tap));
        largest = maximum(largest, absolute(tap));
        g[row][column] = rows.owns(row) && columns.owns(column) ? tap : zero<Real>();
      }
    }
    Vector<Real> u[Tile::Rows::inputs][Tile::Columns::inputs];
    transform_weights<Tile>(g, u);
    CONVEXT_UNROLL
    for (int product = 0; product < Tile::products; ++product)
      store(packed + product * product_stride,
            u[product / Tile::Columns::inputs][product % Tile::Columns::inputs]);
  }
  CONVEXT_UNROLL
  for (int t = 0; t < Tile::taps; ++t) store(tap_sums + t * panel<Real>, size[t / width][t % width]);
  store(largest_tap, largest);
}

// Packs to packed[block][product][source][lane] with these strides from one block or product to the next;
// adds to `sizes` of each block. `taps`: see Plan::taps_offset.
template <class Tile, class T, class Real = Compute<T>>
void pack_weights(const Correlation& c, const KernelBlocks<Tile>& blocks, const T* weight,
                  const WeightPart& part, Real* taps, Real* packed, int64_t block_stride,
                  int64_t product_stride, TapSizes<Tile, Real>* sizes) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  const TapBlock rows = blocks.rows.at(part.block_row);
  const TapLines<Tile, T> lines(c, rows, taps);
  const int64_t chunk = sources_at_a_time<Tile>(c.kernel);
  for (int64_t k = 0; k < part.sources; k += chunk) {
    const int64_t length = smaller(chunk, part.sources - k);
    for (int64_t lane = 0; lane < panel<Real>; lane += lanes) {
      const int64_t first = part.panel * panel<Real> + lane;
      lines.read(weight + part.group * c.weight_group_stride + first * c.weight_result_stride +
                     (part.first_source + k) * c.weight_source_stride,
                 length, smaller(lanes, larger(0, c.result_channels - first)));
      for (int64_t block = 0; block < part.blocks; ++block) {
        pack_block<Tile>(lines, rows, blocks.columns.at(part.first_block + block), length,
                         packed + block * block_stride + k * panel<Real> + lane, product_stride,
                         sizes[block].sums[0] + lane, sizes[block].largest + lane);
      }
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
