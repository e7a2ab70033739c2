// The tile that all products of bfloat16_pairs go through: `rows` pixels by `vectors` of result channels.
//
//     sum[row][lane] += over taps and pairs of channels: dot(a[row][tap][pair], b[tap][pair][lane])
//
// In a loop of its own on Zen 4 each of 6 x 4, 8 x 3 and 12 x 2 gives 0.94 of the peak, with b in the L2
// cache, too: 24 sums in 32 registers, and the pairs of a pixel are broadcast by the dot product itself.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int most_pair_vectors = 4;
constexpr int pair_rows(int64_t vectors) {
  return vectors <= 2 ? 12 : vectors == 3 ? 8 : 6;
}
constexpr int most_pair_rows = pair_rows(1);

struct PairTile {
  const BFloat16* const* a;  // of each row, where the pixel's first tap finds its first channel
  const int64_t* taps;       // how much further each tap is
  int64_t tap_count;
  int64_t pairs;  // of a tap
  const Pair* b;  // [tap][pair][lane]
  int64_t gap;    // pairs between one tap of b and the next
  float* sums;    // [row][lane]
  int64_t sums_stride;
  bool continues;     // the sums were begun by an earlier block of channels
  const float* bias;  // else: what they begin with, a lane or, with pixels in the lanes, a row; or nullptr
  BFloat16* const* results;  // where each row's channels are neighbours, and this ends the sums; else nullptr
  int64_t first_result;
  int64_t results_of_row;    // from there on
  bool has_pixels_in_lanes;  // out of order: see pointwise.h
};

using PairKernel = void (*)(const PairTile&);

template <int rows, int vectors>
void pair_kernel(const PairTile& tile) {
  constexpr int64_t lanes = PairVector::lanes;
  const BFloat16* a[rows];
  Vector<float> sum[rows][vectors];
  CONVEXT_UNROLL
  for (int r = 0; r < rows; ++r) {
    a[r] = tile.a[r];
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) {
      sum[r][v] = tile.continues             ? load(tile.sums + r * tile.sums_stride + v * lanes)
                  : tile.bias == nullptr     ? zero<float>()
                  : tile.has_pixels_in_lanes ? broadcast(tile.bias[r])
                                             : load(tile.bias + v * lanes);
    }
  }
  const Pair* b = tile.b;
  for (int64_t tap = 0; tap < tile.tap_count; ++tap, b += tile.gap) {
    const int64_t end = tile.taps[tap] + 2 * tile.pairs;
    for (int64_t at = tile.taps[tap]; at < end; at += 2, b += vectors * lanes) {
      PairVector columns[vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) columns[v] = load_pairs(b + v * lanes);
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        const PairVector pair = broadcast_pair(a[r] + at);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = dot(sum[r][v], columns[v], pair);
      }
    }
  }
  if (tile.results == nullptr) {
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) store(tile.sums + r * tile.sums_stride + v * lanes, sum[r][v]);
    }
    return;
  }
  if constexpr (vectors % 2 == 0) {
    if (tile.has_pixels_in_lanes) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        BFloat16* const result = tile.results[r] + tile.first_result;
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; v += 2) {
          store_neighbours(result + v * lanes, round_halves(sum[r][v], sum[r][v + 1]),
                           tile.results_of_row - v * lanes);
        }
      }
      return;
    }
  }
  CONVEXT_UNROLL
  for (int r = 0; r < rows; ++r) {
    BFloat16* const result = tile.results[r] + tile.first_result;
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) {
      store_rounded(result + v * lanes, sum[r][v], tile.results_of_row - v * lanes);
    }
  }
}

// The kernel for a tile of rows x vectors, where rows <= pair_rows(vectors).
template <int rows = most_pair_rows, int vectors = most_pair_vectors>
PairKernel pair_kernel_of(int64_t wanted_rows, int64_t wanted_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors) return pair_kernel_of<rows, vectors - 1>(wanted_rows, wanted_vectors);
  }
  if constexpr (rows > 1) {
    if (rows > pair_rows(vectors) || wanted_rows < rows) {
      return pair_kernel_of<rows - 1, vectors>(wanted_rows, wanted_vectors);
    }
  }
  if constexpr (rows <= pair_rows(vectors)) return pair_kernel<rows, vectors>;
  return nullptr;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
