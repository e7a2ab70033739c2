// The innermost loop of a correlation of few source channels, for one tile of result channels x vectors of
// neighbouring pixels of a row:
//
//     result[channel][x] = start[channel] + sum over k of weights[k][channel] * lines[places[k] + x]
//
// in chains of equal length, each in one accumulator. A tile has few terms, so what stands around its loop
// counts: results go straight to where they belong, of the last vector of a row only those that exist.
#pragma once

#include "cpu/blocking.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The accumulators of a tile, its vectors and a broadcast fit the registers.
#if defined(__AVX512F__)
constexpr int most_vectors_of_plane_tile = 3;
constexpr int most_channels_of_plane_tile = 8;
#elif defined(__aarch64__)
constexpr int most_vectors_of_plane_tile = 2;
constexpr int most_channels_of_plane_tile = 8;
#else
constexpr int most_vectors_of_plane_tile = 2;
constexpr int most_channels_of_plane_tile = 6;
#endif
constexpr int fewest_channels_of_plane_tile = most_channels_of_plane_tile / 2;

template <class T>
struct PlaneTile {
  const T* weights;  // [term][channel of the tile]
  const T* lines;
  const int32_t* places;
  int64_t terms;
  int64_t chain;
  const T* start;  // or nullptr
  T* result;
  int64_t result_channel;  // from one channel to the next
  int64_t last_count;      // lanes of the last vector that are pixels
  bool streams;
};

template <class T>
using PlaneKernel = void (*)(const PlaneTile<T>& tile);

template <class T, int rows, int vectors>
void plane_kernel(const PlaneTile<T>& tile) {
  constexpr int64_t lanes = Vector<T>::lanes;
  constexpr int64_t bytes = vectors * sizeof(Vector<T>);
  const int64_t terms = tile.terms;
  // Lines of the cache that will be written are fetched row by row, beside the products.
  const int64_t between = larger(1, terms / rows);
  int64_t fetched = tile.streams ? rows : 0;
  const T* const lines = tile.lines;
  const int32_t* const places = tile.places;
  const T* weights = tile.weights;
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
      if (fetched < rows) {
        const char* const row = reinterpret_cast<const char*>(tile.result + fetched++ * tile.result_channel);
        CONVEXT_UNROLL
        for (int64_t byte = 0; byte < bytes; byte += line_bytes) __builtin_prefetch(row + byte, 1);
        __builtin_prefetch(row + bytes - 1, 1);
      }
      for (const int64_t stop = smaller(end, k + between); k < stop; ++k, weights += rows) {
        const T* const line = lines + places[k];
        Vector<T> columns[vectors];
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) columns[v] = load(line + v * lanes);
        CONVEXT_UNROLL
        for (int r = 0; r < rows; ++r) {
          const Vector<T> weight = broadcast(weights[r]);
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(weight, columns[v], sum[r][v]);
        }
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
    if (tile.start != nullptr) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        const Vector<T> start = broadcast(tile.start[r]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = add(start, sum[r][v]);
      }
    }
    const bool is_whole = tile.last_count == lanes;
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      T* const result = tile.result + r * tile.result_channel;
      CONVEXT_UNROLL
      for (int v = 0; v + 1 < vectors; ++v) store_result<T>(result + v * lanes, sum[r][v], tile.streams);
      T* const last = result + (vectors - 1) * lanes;
      if (is_whole) {
        store_result<T>(last, sum[r][vectors - 1], tile.streams);
      } else {
        store(last, sum[r][vectors - 1], tile.last_count);
      }
    }
    return;
  }
}

template <class T, int rows = most_channels_of_plane_tile, int vectors = most_vectors_of_plane_tile>
PlaneKernel<T> plane_kernel_of(int64_t wanted_rows, int64_t wanted_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors) return plane_kernel_of<T, rows, vectors - 1>(wanted_rows, wanted_vectors);
  }
  if constexpr (rows > fewest_channels_of_plane_tile) {
    if (wanted_rows < rows) return plane_kernel_of<T, rows - 1, vectors>(wanted_rows, wanted_vectors);
  }
  return plane_kernel<T, rows, vectors>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
