// The innermost loop of the products of matrices that a 1x1 kernel is:
//
//     c[row][x] (+)= start[row] + sum over k of a(row, k) * b(k)[x]
//     a(row, k) = a[row * a_row + k * a_term],   b(k) = b + k * b_term
//
// for one tile of rows x vectors. The first tile that meets a strip of b reads it where it lies, in pieces of
// a tensor that are far from each other, and leaves it side by side in a panel for the other tiles. Its loads
// are those of the products anyway and its stores run beside them, so packing costs nothing but what the
// memory lets it wait.
//
// Every sum is made of the same chains, in the same order, whichever tile it lies in.
#pragma once

#include <cstring>

#include "cpu/blocking.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The accumulators of a tile, its vectors and a broadcast fit the registers.
#if defined(__AVX512F__)
constexpr int most_vectors_of_tile = 3;
constexpr int most_rows_of_tile = 8;
#elif defined(__aarch64__)
constexpr int most_vectors_of_tile = 2;
constexpr int most_rows_of_tile = 8;
#else
constexpr int most_vectors_of_tile = 2;
constexpr int most_rows_of_tile = 6;
#endif
// Rows are cut into tiles of about equal height, so that none is lower than this where there are so many.
constexpr int fewest_rows_of_tile = most_rows_of_tile / 2;

// What is to be fetched during a tile, evenly: for each of `rows` rows the lines that hold `bytes` bytes.
struct Ahead {
  const char* first = nullptr;
  int64_t stride = 0;  // in bytes
  int64_t rows = 0;
  int64_t bytes = 0;

  // The `part`-th of `parts` parts of the rows.
  Ahead slice(int64_t part, int64_t parts) const {
    const int64_t begin = part * rows / parts;
    return {first + begin * stride, stride, (part + 1) * rows / parts - begin, bytes};
  }

  CONVEXT_INLINE void fetch(int64_t row) const {
    const char* const from = first + row * stride;
    for (int64_t byte = 0; byte < bytes; byte += line_bytes) __builtin_prefetch(from + byte);
  }
};

// Has the memory bring the lines that a row of a tile will be written to.
template <int64_t bytes>
CONVEXT_INLINE void fetch_result(const char* row) {
  CONVEXT_UNROLL
  for (int64_t byte = 0; byte < bytes; byte += line_bytes) __builtin_prefetch(row + byte, 1);
  __builtin_prefetch(row + bytes - 1, 1);
}

template <class T>
struct PanelTile {
  const T* a;
  int64_t a_row;
  int64_t a_term;
  const T* b;
  int64_t b_term;
  T* panel;  // where b is left, by a tile that packs, and is read from by the others
  T* c;
  int64_t c_row;
  const T* start = nullptr;  // of each row
  int64_t terms;
  int64_t chain;
  bool accumulate = false;
  bool streams = false;
  Ahead next_b{};  // of the tiles that come after
  Ahead next_a{};
};

template <class T>
using MicroKernel = void (*)(const PanelTile<T>& tile);

template <class T, int rows, int vectors, bool packs>
void micro_kernel(const PanelTile<T>& tile) {
  constexpr int64_t lanes = Vector<T>::lanes;
  constexpr int64_t together = 16;  // terms, between which something is fetched
  const int64_t terms = tile.terms;
  const int64_t steps = larger(1, terms / together);
  const int64_t b_rows = ceil_div(tile.next_b.rows, steps);
  const int64_t a_rows = ceil_div(tile.next_a.rows, steps);
  const int64_t c_rows = ceil_div(rows, steps);
  int64_t b_fetched = 0;
  int64_t a_fetched = 0;
  int64_t c_fetched = tile.streams ? rows : 0;
  const T* a = tile.a;
  const T* b = packs ? tile.b : tile.panel;
  T* panel = tile.panel;
  const int64_t a_row = tile.a_row;
  const int64_t b_term = packs ? tile.b_term : vectors * lanes;
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
      for (const int64_t due = smaller(tile.next_b.rows, b_fetched + b_rows); b_fetched < due; ++b_fetched)
        tile.next_b.fetch(b_fetched);
      for (const int64_t due = smaller(tile.next_a.rows, a_fetched + a_rows); a_fetched < due; ++a_fetched)
        tile.next_a.fetch(a_fetched);
      for (const int64_t due = smaller(rows, c_fetched + c_rows); c_fetched < due; ++c_fetched) {
        fetch_result<vectors * sizeof(Vector<T>)>(
            reinterpret_cast<const char*>(tile.c + c_fetched * tile.c_row));
      }
      for (const int64_t stop = smaller(end, k + together); k < stop; ++k) {
        Vector<T> columns[vectors];
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) columns[v] = load(b + v * lanes);
        if constexpr (packs) {
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) store(panel + v * lanes, columns[v]);
          panel += vectors * lanes;
        }
        CONVEXT_UNROLL
        for (int r = 0; r < rows; ++r) {
          const Vector<T> value = broadcast(a[r * a_row]);
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(value, columns[v], sum[r][v]);
        }
        a += tile.a_term;
        b += b_term;
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
      T* const c = tile.c + r * tile.c_row;
      if (tile.start != nullptr) {
        const Vector<T> start = broadcast(tile.start[r]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = add(start, sum[r][v]);
      }
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) {
        if (tile.accumulate) sum[r][v] = add(load(c + v * lanes), sum[r][v]);
        store_result<T>(c + v * lanes, sum[r][v], tile.streams);
      }
    }
    return;
  }
}

// A tile's row of the packed operand a, of fewest_rows_of_tile numbers or more: in two pieces of a fixed
// size, which may overlap.
template <class T>
CONVEXT_INLINE void copy_tile_row(const T* from, int64_t rows, T* to) {
  std::memcpy(to, from, fewest_rows_of_tile * sizeof(T));
  const int64_t second = rows - fewest_rows_of_tile;
  std::memcpy(to + second, from + second, fewest_rows_of_tile * sizeof(T));
}

// The micro-kernel for a tile of rows x vectors.
template <class T, bool packs, int rows = most_rows_of_tile, int vectors = most_vectors_of_tile>
MicroKernel<T> micro_kernel_of(int64_t wanted_rows, int64_t wanted_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors)
      return micro_kernel_of<T, packs, rows, vectors - 1>(wanted_rows, wanted_vectors);
  }
  if constexpr (rows > fewest_rows_of_tile) {
    if (wanted_rows < rows) return micro_kernel_of<T, packs, rows - 1, vectors>(wanted_rows, wanted_vectors);
  }
  return micro_kernel<T, rows, vectors, packs>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
