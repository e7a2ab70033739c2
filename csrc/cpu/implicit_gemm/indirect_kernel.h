// A micro-kernel whose rows may lie anywhere: each row of a tile has a pointer of its own to what it reads
// and to where its results go, so that pixels are read in place, wherever one line or image ends and the next
// begins, and results are written to the tensor itself.
//
//     c[row][column] = before[row][column] + sum over k of a[row][a_terms[k]] * b[k * b_stride + column]
//
// in chains of `chain` terms, each added up in a register in the order of k; the chains in order, after what
// came before: the sum of earlier terms, the bias or nothing. So the result does not depend on how many terms
// one call takes, as long as those are whole chains.
#pragma once

#include "cpu/implicit_gemm/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Cache lines that something later will read, fetched bit by bit between products: `lines` of each row.
struct Fetch {
  const char* row = nullptr;
  int64_t pitch = 0;  // bytes from one row to the next
  int64_t lines = 1;
  int64_t left = 0;  // lines of all rows
  int64_t rate = 0;  // lines at a time
  int64_t line = 0;

  CONVEXT_INLINE void advance() {
    const int64_t count = smaller(rate, left);
    left -= count;
    for (int64_t i = 0; i < count; ++i) {
      __builtin_prefetch(row + line * 64, 0, 2);
      if (++line == lines) {
        line = 0;
        row += pitch;
      }
    }
  }
};

// Rows of a tile with that many vectors, at most: each row holds a general register.
constexpr int indirect_rows(int64_t vectors) {
  return tile_rows(vectors) < 8 ? tile_rows(vectors) : 8;
}
constexpr int most_indirect_rows = indirect_rows(1);

template <class T>
struct IndirectTile {
  const T* const* a;  // of each row, and after those as many more that will be read next
  const int32_t* a_terms;
  const T* b;
  int64_t b_stride;
  int64_t terms;
  int64_t chain;
  T* const* c;
  int64_t column;  // of c
  bool accumulate;
  bool streams;   // c, which then is not in the caches and nobody's to accumulate on
  const T* bias;  // where nothing is accumulated; or nullptr
  bool fetches_next_rows;
  Fetch* fetch;          // weights
  Fetch* fetch_results;  // where results will be stored that do not go to c, or nullptr
  T* chains;  // scratch for a tile; a local array would be taken apart into registers that are needed
};

template <class T>
using IndirectKernel = void (*)(const IndirectTile<T>& tile);

template <class T, int rows, int vectors>
void indirect_kernel(const IndirectTile<T>& tile) {
  constexpr int64_t lanes = Vector<T>::lanes;
  constexpr int64_t line_of_cache = 64 / static_cast<int64_t>(sizeof(T));
  const T* a[rows];
  CONVEXT_UNROLL
  for (int r = 0; r < rows; ++r) {
    a[r] = tile.a[r];
    if (tile.streams) continue;
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(tile.c[r] + tile.column + v * lanes, 1);
  }
  const T* b = tile.b;
  const int64_t b_stride = tile.b_stride;
  const int64_t terms = tile.terms;
  const int32_t* const a_terms = tile.a_terms;
  T* const chains = tile.chains;
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
      const int64_t pause = smaller(end, k + line_of_cache);
      if (tile.fetches_next_rows) {
        for (int r = 0; r < rows; ++r) __builtin_prefetch(tile.a[rows + r] + a_terms[k]);
      }
      tile.fetch->advance();
      if (tile.fetch_results != nullptr) tile.fetch_results->advance();
      for (; k < pause; ++k, b += b_stride) {
        const int64_t at = a_terms[k];
        Vector<T> columns[vectors];
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) columns[v] = load(b + v * lanes);
        CONVEXT_UNROLL
        for (int r = 0; r < rows; ++r) {
          const Vector<T> value = broadcast(a[r][at]);
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(value, columns[v], sum[r][v]);
        }
      }
    }
    const bool is_last = k >= terms;
    if (!is_first) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v)
          sum[r][v] = add(load(chains + (r * vectors + v) * lanes), sum[r][v]);
      }
    } else if (tile.accumulate) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) {
          sum[r][v] = add(load(tile.c[r] + tile.column + v * lanes), sum[r][v]);
        }
      }
    } else if (tile.bias != nullptr) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = add(load(tile.bias + v * lanes), sum[r][v]);
      }
    }
    if (is_last && tile.streams) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        T* const c = tile.c[r] + tile.column;
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) stream(c + v * lanes, sum[r][v]);
      }
      return;
    }
    if (is_last) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        T* const c = tile.c[r] + tile.column;
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) store(c + v * lanes, sum[r][v]);
      }
      return;
    }
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) store(chains + (r * vectors + v) * lanes, sum[r][v]);
    }
  }
}

// The kernel for a tile of rows x vectors, where rows <= indirect_rows(vectors).
template <class T, int rows = most_indirect_rows, int vectors = most_tile_vectors>
IndirectKernel<T> indirect_kernel_of(int64_t wanted_rows, int64_t wanted_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors) {
      return indirect_kernel_of<T, rows, vectors - 1>(wanted_rows, wanted_vectors);
    }
  }
  if constexpr (rows > 1) {
    if (rows > indirect_rows(vectors) || wanted_rows < rows) {
      return indirect_kernel_of<T, rows - 1, vectors>(wanted_rows, wanted_vectors);
    }
  }
  if constexpr (rows <= indirect_rows(vectors)) return indirect_kernel<T, rows, vectors>;
  return nullptr;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
