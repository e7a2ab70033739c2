// The innermost loop of a correlation of few source channels whose results have their channels side by side,
// for one tile of neighbouring pixels of a row x vectors of result channels:
//
//     result[x][channel] = start[channel] + sum over k of lines[places[k] + x * pixel_step] *
//     weights[k][channel]
//
// in chains of equal length, each in one accumulator.
#pragma once

#include "cpu/blocking.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The accumulators of a tile, its vectors and a broadcast fit the registers.
#if defined(__AVX512F__)
constexpr int most_vectors_of_pixel_row = 4;
constexpr int pixels_of_row_tile(int64_t vectors) {
  return vectors <= 2 ? 12 : vectors == 3 ? 8 : 6;
}
#elif defined(__aarch64__)
constexpr int most_vectors_of_pixel_row = 2;
constexpr int pixels_of_row_tile(int64_t) {
  return 8;
}
#else
constexpr int most_vectors_of_pixel_row = 3;
constexpr int pixels_of_row_tile(int64_t vectors) {
  return vectors == 1 ? 8 : vectors == 2 ? 6 : 4;
}
#endif
constexpr int most_pixels_of_row_tile = pixels_of_row_tile(1);

template <class T>
struct PixelRowTile {
  const T* lines;
  const int32_t* places;
  int64_t pixel_step;
  const T* weights;  // [term][channel], in whole vectors, as is
  const T* start;
  int64_t terms;
  int64_t chain;
  T* result;
  int64_t result_pixel;  // from one pixel to the next
  int64_t last_count;    // lanes of the last vector that are channels
  bool streams;
};

template <class T>
using PixelRowKernel = void (*)(const PixelRowTile<T>& tile);

template <class T, int pixels, int vectors>
void pixel_row_kernel(const PixelRowTile<T>& tile) {
  constexpr int64_t lanes = Vector<T>::lanes;
  constexpr int64_t bytes = vectors * sizeof(Vector<T>);
  const int64_t terms = tile.terms;
  // Lines of the cache that will be written are fetched pixel by pixel, beside the products.
  const int64_t between = larger(1, terms / pixels);
  int64_t fetched = tile.streams ? pixels : 0;
  const T* const lines = tile.lines;
  const int32_t* const places = tile.places;
  const int64_t pixel_step = tile.pixel_step;
  const T* weights = tile.weights;
  T chains[pixels][vectors * lanes];
  for (int64_t k = 0;;) {
    const bool is_first = k == 0;
    const int64_t end = smaller(terms, k + tile.chain);
    Vector<T> sum[pixels][vectors];
    CONVEXT_UNROLL
    for (int x = 0; x < pixels; ++x) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[x][v] = zero<T>();
    }
    while (k < end) {
      if (fetched < pixels) {
        const char* const pixel = reinterpret_cast<const char*>(tile.result + fetched++ * tile.result_pixel);
        CONVEXT_UNROLL
        for (int64_t byte = 0; byte < bytes; byte += line_bytes) __builtin_prefetch(pixel + byte, 1);
      }
      for (const int64_t stop = smaller(end, k + between); k < stop; ++k, weights += vectors * lanes) {
        const T* pixel = lines + places[k];
        Vector<T> columns[vectors];
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) columns[v] = load(weights + v * lanes);
        CONVEXT_UNROLL
        for (int x = 0; x < pixels; ++x, pixel += pixel_step) {
          const Vector<T> value = broadcast(*pixel);
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) sum[x][v] = fmadd(value, columns[v], sum[x][v]);
        }
      }
    }
    if (!is_first) {
      CONVEXT_UNROLL
      for (int x = 0; x < pixels; ++x) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[x][v] = add(load(chains[x] + v * lanes), sum[x][v]);
      }
    }
    if (k < terms) {
      CONVEXT_UNROLL
      for (int x = 0; x < pixels; ++x) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) store(chains[x] + v * lanes, sum[x][v]);
      }
      continue;
    }
    if (tile.start != nullptr) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const Vector<T> start = load(tile.start + v * lanes);
        CONVEXT_UNROLL
        for (int x = 0; x < pixels; ++x) sum[x][v] = add(start, sum[x][v]);
      }
    }
    const bool is_whole = tile.last_count == lanes;
    CONVEXT_UNROLL
    for (int x = 0; x < pixels; ++x) {
      T* const result = tile.result + x * tile.result_pixel;
      CONVEXT_UNROLL
      for (int v = 0; v + 1 < vectors; ++v) store_result<T>(result + v * lanes, sum[x][v], tile.streams);
      T* const last = result + (vectors - 1) * lanes;
      if (is_whole) {
        store_result<T>(last, sum[x][vectors - 1], tile.streams);
      } else {
        store(last, sum[x][vectors - 1], tile.last_count);
      }
    }
    return;
  }
}

// Where pixels <= pixels_of_row_tile(vectors).
template <class T, int pixels = most_pixels_of_row_tile, int vectors = most_vectors_of_pixel_row>
PixelRowKernel<T> pixel_row_kernel_of(int64_t wanted_pixels, int64_t wanted_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors)
      return pixel_row_kernel_of<T, pixels, vectors - 1>(wanted_pixels, wanted_vectors);
  }
  if constexpr (pixels > 1) {
    if (pixels > pixels_of_row_tile(vectors) || wanted_pixels < pixels)
      return pixel_row_kernel_of<T, pixels - 1, vectors>(wanted_pixels, wanted_vectors);
  }
  if constexpr (pixels <= pixels_of_row_tile(vectors)) return pixel_row_kernel<T, pixels, vectors>;
  return nullptr;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
