// Whether what the outputs of a tile read is even enough in size for Winograd's products, whose rounding
// errors are relative to the largest value of a window, not to what it is multiplied with: one value must not
// make up more than 1 / spread_limit of the absolute values that an output reads, over the whole kernel.
#pragma once

#include "cpu/winograd/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t spread_limit = 4;

// 1 for each place of a tile that all of its outputs read with taps of this block of the kernel, else 0.
template <class Tile, class Real>
struct CommonPlaces {
  Real counted[Tile::Rows::inputs][Tile::Columns::inputs];

  explicit CommonPlaces(const KernelBlock& kernel) {
    for (int64_t row = 0; row < Tile::Rows::inputs; ++row) {
      for (int64_t column = 0; column < Tile::Columns::inputs; ++column) {
        // Taps by which the last and the first output read it; a block owns none past the edges of a tile's.
        const bool is_common =
            kernel.owns(row - (Tile::Rows::outputs - 1), column - (Tile::Columns::outputs - 1)) &&
            kernel.owns(row, column);
        counted[row][column] = is_common ? Real{1} : Real{0};
      }
    }
  }
};

// `spread` takes in the largest absolute value of a tile, and the sum of the absolute values of the pixels at
// common places: two vectors.
template <class Tile, class Real>
CONVEXT_INLINE void measure_spread(const Vector<Real> (&d)[Tile::Rows::inputs][Tile::Columns::inputs],
                                   const CommonPlaces<Tile, Real>& common, Real* spread, bool is_first) {
  using Rows = typename Tile::Rows;
  using Columns = typename Tile::Columns;
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> largest = is_first ? zero<Real>() : load(spread);
  Vector<Real> total = is_first ? zero<Real>() : load(spread + lanes);
  CONVEXT_UNROLL
  for (int place = 0; place < Tile::products; ++place)
    largest = maximum(largest, absolute(d[place / Columns::inputs][place % Columns::inputs]));
  // Other places are common with no block.
  constexpr int first_row = Rows::outputs - 1;
  constexpr int first_column = Columns::outputs - 1;
  constexpr int width = Columns::taps - first_column;
  CONVEXT_UNROLL
  for (int place = 0; place < (Rows::taps - first_row) * width; ++place) {
    const int row = first_row + place / width;
    const int column = first_column + place % width;
    total = fmadd(absolute(d[row][column]), broadcast(common.counted[row][column]), total);
  }
  store(spread, largest);
  store(spread + lanes, total);
}

// True only if all windows of the tile are even.
template <class Real>
bool is_even(const Real* spread) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Real largest[lanes];
  store(largest, load(spread));
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i)
      largest[i] = largest[i] > largest[i + half] ? largest[i] : largest[i + half];
  }
  return spread_limit * largest[0] <= sum(load(spread + lanes));
}

// The windows of each output of a tile, one by one.
template <class Tile, class T>
bool has_even_windows(const Correlation& c, const T* first_channel, const Segment& segment, int64_t tile) {
  using Real = Compute<T>;
  const T* const image = first_channel + segment.image * c.source_strides.batch;
  const Side rows = c.rows.of_phase(segment.row_phase);
  const Side columns = c.columns.of_phase(segment.column_phase);
  const int64_t first_row = segment.tile_row * Tile::Rows::outputs;
  const int64_t first_column = (segment.tile_column + tile) * Tile::Columns::outputs;
  const auto is_even_window = [&](int64_t row, int64_t column) {
    Real most = 0;
    Real all = 0;
    for (int64_t i = 0; i < c.kernel.height; ++i) {
      const int64_t y = rows.from_tap(i).source(row);
      for (int64_t j = 0; y >= 0 && j < c.kernel.width; ++j) {
        const int64_t x = columns.from_tap(j).source(column);
        const T* const pixel = image + y * c.source_strides.row + x * c.source_strides.column;
        for (int64_t channel = 0; x >= 0 && channel < c.source_channels; ++channel) {
          const Real value = widen(pixel[channel * c.source_strides.channel]);
          const Real size = value < 0 ? -value : value;
          most = size > most ? size : most;
          all += size;
        }
      }
    }
    return spread_limit * most <= all;
  };
  for (int64_t row = first_row; row < smaller(first_row + Tile::Rows::outputs, rows.results); ++row) {
    for (int64_t column = first_column;
         column < smaller(first_column + Tile::Columns::outputs, columns.results); ++column) {
      if (!is_even_window(row, column)) return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
