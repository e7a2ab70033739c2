// The product that everything of bfloat16_tiles goes through,
//
//     sums[row][lane] += over taps and pairs: a[row][tap][pair] . b[tap][pair][lane]
//
// in blocks of two tiles of rows by two of lanes, or of a row or a column of four: each tile that is loaded
// is used twice, and four chains of products, whose latency is 52 cycles, keep the unit busy. All tiles of a
// step are loaded before its products: 24 ns for four products where loading between them took 28, and 20 is
// the floor.
//
// What `b` has for 64 rows and all terms would stream from the second cache for every block, at 28 to 36 ns.
// So terms are cut into chunks whose part of `b` stays in the first cache while all rows use it: 25 to 27,
// though sums go through memory between chunks.
#pragma once

#include "cpu/bfloat16_tiles/tile_registers.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct TileProduct {
  const BFloat16* a;      // row 0 at tap offset 0
  int64_t row_stride;     // numbers from one row of `a` to the next
  const int64_t* a_taps;  // numbers from the first tap to each
  int64_t tap_count;
  TileSteps steps{1};  // of a tap
  const Pair* b;
  int64_t pair_stride;    // pairs from one pair of `b` to the next
  const int64_t* b_taps;  // pairs from the first tap to each

  float* sums;
  int64_t sums_stride;
  bool continues;     // the sums were begun before
  const float* bias;  // else: what they begin with, of each lane; or nullptr
};

template <int row_tiles, int lane_tiles>
void tile_product(const TileProduct& product) {
  static_assert(row_tiles * lane_tiles <= 4, "four tiles are sums");
  constexpr int sums = row_tiles * lane_tiles;
  const int64_t row_stride = product.row_stride * static_cast<int64_t>(sizeof(BFloat16));
  const int64_t pair_stride = product.pair_stride * static_cast<int64_t>(sizeof(Pair));
  const int64_t sums_stride = product.sums_stride * static_cast<int64_t>(sizeof(float));
  const auto sums_of = [&](int tile) {
    return product.sums + tile / lane_tiles * tile_height * product.sums_stride +
           tile % lane_tiles * tile_width;
  };
  if (product.continues) {
    load_tile<0>(sums_of(0), sums_stride);
    if constexpr (sums > 1) load_tile<1>(sums_of(1), sums_stride);
    if constexpr (sums > 2) load_tile<2>(sums_of(2), sums_stride);
    if constexpr (sums > 3) load_tile<3>(sums_of(3), sums_stride);
  } else if (product.bias != nullptr) {
    // A stride of zero reads the bias into every row.
    const auto bias_of = [&](int tile) { return product.bias + tile % lane_tiles * tile_width; };
    load_tile<0>(bias_of(0), 0);
    if constexpr (sums > 1) load_tile<1>(bias_of(1), 0);
    if constexpr (sums > 2) load_tile<2>(bias_of(2), 0);
    if constexpr (sums > 3) load_tile<3>(bias_of(3), 0);
  } else {
    clear_tile<0>();
    if constexpr (sums > 1) clear_tile<1>();
    if constexpr (sums > 2) clear_tile<2>();
    if constexpr (sums > 3) clear_tile<3>();
  }
  const int64_t tile_of_rows = tile_height * product.row_stride;
  const int64_t numbers_of_step = 2 * product.steps.pairs;
  const int64_t pairs_of_step = product.steps.pairs * product.pair_stride;
  for (int64_t tap = 0; tap < product.tap_count; ++tap) {
    const BFloat16* a = product.a + product.a_taps[tap];
    const Pair* b = product.b + product.b_taps[tap];
    for (int64_t step = 0; step < product.steps.count; ++step) {
      load_tile<6>(b, pair_stride);
      if constexpr (lane_tiles > 1) load_tile<7>(b + tile_width, pair_stride);
      load_tile<4>(a, row_stride);
      if constexpr (row_tiles > 1) load_tile<5>(a + tile_of_rows, row_stride);
      dot<0, 4, 6>();
      if constexpr (lane_tiles > 1) dot<1, 4, 7>();
      if constexpr (row_tiles > 1) dot<lane_tiles, 5, 6>();
      if constexpr (row_tiles > 1 && lane_tiles > 1) dot<3, 5, 7>();
      // Of a long row or column of tiles, the last two.
      if constexpr (row_tiles > 2) load_tile<4>(a + 2 * tile_of_rows, row_stride);
      if constexpr (row_tiles > 3) load_tile<5>(a + 3 * tile_of_rows, row_stride);
      if constexpr (row_tiles > 2) dot<2, 4, 6>();
      if constexpr (row_tiles > 3) dot<3, 5, 6>();
      if constexpr (lane_tiles > 2) load_tile<6>(b + 2 * tile_width, pair_stride);
      if constexpr (lane_tiles > 3) load_tile<7>(b + 3 * tile_width, pair_stride);
      if constexpr (lane_tiles > 2) dot<2, 4, 6>();
      if constexpr (lane_tiles > 3) dot<3, 4, 7>();
      a += numbers_of_step;
      b += pairs_of_step;
    }
  }
  store_tile<0>(sums_of(0), sums_stride);
  if constexpr (sums > 1) store_tile<1>(sums_of(1), sums_stride);
  if constexpr (sums > 2) store_tile<2>(sums_of(2), sums_stride);
  if constexpr (sums > 3) store_tile<3>(sums_of(3), sums_stride);
}

// In blocks of up to four sums.
inline void tile_blocks(const TileProduct& product, int64_t row_tiles, int64_t lane_tiles) {
  constexpr void (*kernels[4][4])(const TileProduct&) = {
      {tile_product<1, 1>, tile_product<1, 2>, tile_product<1, 3>, tile_product<1, 4>},
      {tile_product<2, 1>, tile_product<2, 2>},
      {tile_product<3, 1>},
      {tile_product<4, 1>},
  };
  TileProduct block = product;
  for (int64_t row = 0, rows = 0; row < row_tiles; row += rows) {
    rows = smaller(row_tiles - row, lane_tiles == 1 ? 4 : 2);
    block.a = product.a + row * tile_height * product.row_stride;
    for (int64_t lane = 0, lanes = 0; lane < lane_tiles; lane += lanes) {
      lanes = smaller(lane_tiles - lane, 4 / rows == 1 ? 1 : rows == 1 ? 4 : 2);
      block.b = product.b + lane * tile_width;
      block.sums = product.sums + row * tile_height * product.sums_stride + lane * tile_width;
      if (product.bias != nullptr) block.bias = product.bias + lane * tile_width;
      kernels[rows - 1][lanes - 1](block);
    }
  }
}

// All sums of `row_tiles` tiles of rows by `lane_tiles` of lanes.
inline void tile_products(const TileProduct& product, int64_t row_tiles, int64_t lane_tiles) {
  constexpr int64_t most_products = 18;  // of a chunk: 36 KB of `b`
  const int64_t taps = smaller(product.tap_count, most_products);
  const int64_t steps = larger(1, most_products / taps);
  TileProduct chunk = product;
  for (int64_t step = 0; step < product.steps.count; step += steps) {
    chunk.steps.count = smaller(steps, product.steps.count - step);
    for (int64_t tap = 0; tap < product.tap_count; tap += taps) {
      chunk.tap_count = smaller(taps, product.tap_count - tap);
      chunk.a_taps = product.a_taps + tap;
      chunk.b_taps = product.b_taps + tap;

      chunk.a = product.a + step * 2 * product.steps.pairs;
      chunk.b = product.b + step * product.steps.pairs * product.pair_stride;
      chunk.continues = product.continues || step + tap > 0;
      tile_blocks(chunk, row_tiles, lane_tiles);
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
