// The innermost loop of a 1x1 kernel on contiguous images:
//
//     result[row][x] = bias[row] + sum over k of weight(row, k) * source[k][x]
//
// for one tile of rows (channels of the result) x vectors (of pixels). The first tile that meets some pixels
// reads them where they lie, planes of a tensor far from each other, and leaves them side by side in a panel
// for the other tiles. Its loads are those of the products anyway and its stores run beside them, so packing
// costs nothing but what the memory lets it wait.
//
// Every sum is made of the same chains, in the same order, whichever tile it lies in.
#pragma once

#include "cpu/blocking.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The accumulators of a tile, its vectors and a broadcast fit the registers.
#if defined(__AVX512F__)
constexpr int most_tile_vectors = 3;
constexpr int most_tile_rows = 8;
#elif defined(__aarch64__)
constexpr int most_tile_vectors = 2;
constexpr int most_tile_rows = 8;
#else
constexpr int most_tile_vectors = 2;
constexpr int most_tile_rows = 6;
#endif
// Rows are cut into tiles of about equal height, so that none is lower than this where there are so many.
constexpr int fewest_tile_rows = most_tile_rows / 2;

// What is to be fetched during a tile: for each of `rows` rows the lines that hold `bytes` bytes.
struct Ahead {
  const char* first = nullptr;
  int64_t stride = 0;  // in bytes
  int64_t rows = 0;
  int64_t bytes = 0;

  CONVEXT_INLINE void fetch(int64_t row) const {
    const char* const from = first + row * stride;
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(from + byte);
  }
};

// Has the memory bring the lines that a row of results will be written to.
template <int64_t bytes>
CONVEXT_INLINE void fetch_result(const char* row) {
  CONVEXT_UNROLL
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte, 1);
  __builtin_prefetch(row + bytes - 1, 1);
}

template <class T>
struct Tile {
  const T* weight;
  int64_t weight_row;   // from one row to the next
  int64_t weight_term;  // from one term to the next
  const T* source;
  int64_t source_term;
  T* panel;  // where the source is left, by a tile that packs
  T* result;
  int64_t result_row;
  const T* bias;  // of the first row, or nullptr
  int64_t terms;
  int64_t chain;
  bool streams;
  Ahead ahead;
};

template <class T>
using MicroKernel = void (*)(const Tile<T>& tile);

template <class T, int rows, int vectors, bool packs>
void micro_kernel(const Tile<T>& tile) {
  constexpr int64_t lanes = Vector<T>::lanes;
  constexpr int64_t together = 16;  // terms, between which something is fetched ahead
  const T* weight = tile.weight;
  const T* source = tile.source;
  T* panel = tile.panel;
  const int64_t weight_row = tile.weight_row;
  const int64_t weight_term = tile.weight_term;
  const int64_t source_term = packs ? tile.source_term : vectors * lanes;
  const int64_t terms = tile.terms;
  const int64_t fetches_each = ceil_div(tile.ahead.rows, larger(1, terms / together));
  int64_t fetched = 0;
  int64_t fetched_rows = tile.streams ? rows : 0;
  const int64_t rows_each = ceil_div(rows, larger(1, terms / together));
  T chains[rows][vectors * lanes];
  for (int64_t k = 0;;) {
    const bool is_first = k == 0;
    const int64_t end = smaller(terms, k + tile.chain);
    Vector<T> sum[rows][vectors];
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[r][v] = zero<T>();
    }
    while (k < end) {
      for (const int64_t due = smaller(tile.ahead.rows, fetched + fetches_each); fetched < due; ++fetched) {
        tile.ahead.fetch(fetched);
      }
      for (const int64_t due = smaller(rows, fetched_rows + rows_each); fetched_rows < due; ++fetched_rows) {
        fetch_result<vectors * sizeof(Vector<T>)>(
            reinterpret_cast<const char*>(tile.result + fetched_rows * tile.result_row));
      }
      for (const int64_t stop = smaller(end, k + together); k < stop; ++k) {
        Vector<T> pixels[vectors];
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) pixels[v] = load(source + v * lanes);
        if constexpr (packs) {
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) store(panel + v * lanes, pixels[v]);
          panel += vectors * lanes;
        }
        CONVEXT_UNROLL
        for (int r = 0; r < rows; ++r) {
          const Vector<T> value = broadcast(weight[r * weight_row]);
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(value, pixels[v], sum[r][v]);
        }
        weight += weight_term;
        source += source_term;
      }
    }
    if (!is_first) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = add(load(chains[r] + v * lanes), sum[r][v]);
      }
    }
    if (k < terms) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) store(chains[r] + v * lanes, sum[r][v]);
      }
      continue;
    }
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      if (tile.bias != nullptr) {
        const Vector<T> start = broadcast(tile.bias[r]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = add(start, sum[r][v]);
      }
      T* const to = tile.result + r * tile.result_row;
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) store_result<T>(to + v * lanes, sum[r][v], tile.streams);
    }
    return;
  }
}

// The micro-kernel for a tile of rows x vectors.
template <class T, bool packs, int rows = most_tile_rows, int vectors = most_tile_vectors>
MicroKernel<T> micro_kernel_of(int64_t wanted_rows, int64_t wanted_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors)
      return micro_kernel_of<T, packs, rows, vectors - 1>(wanted_rows, wanted_vectors);
  }
  if constexpr (rows > fewest_tile_rows) {
    if (wanted_rows < rows) return micro_kernel_of<T, packs, rows - 1, vectors>(wanted_rows, wanted_vectors);
  }
  return micro_kernel<T, rows, vectors, packs>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
