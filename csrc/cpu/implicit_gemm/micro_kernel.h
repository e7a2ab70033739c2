// The innermost loop where pixels are in the lanes, and of the gradient of the weight:
//
//     c[row][column] (+)= sum over k of a(row, k) * b(k, column)
//     a(row, k) = a[row * a_row + a_terms[k]],   b(k, column) = b[b_terms[k] + column]
//
// for one tile of rows x columns: chains of `chain` terms, each added up in a register in the order of k; the
// chains in order; their sum to c. Every element is made by the same operations in the same order wherever it
// lies in a tile.
//
// The tables of positions let both operands stay where they are: weights in their tensor, patches as shifted
// views of lines that were copied once. A table costs one load for a whole row of products.
#pragma once

#include "cpu/implicit_gemm/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// What a later tile will read, to be fetched meanwhile: for each of `count` terms, `lines` pieces that are
// `stride` numbers apart.
template <class T>
struct Ahead {
  const T* base = nullptr;
  const int32_t* terms = nullptr;
  int64_t step = 1;  // of `terms` from one to the next
  int64_t count = 0;
  int64_t stride = 0;
  int64_t lines = 0;
};

template <class T>
struct TileOperands {
  const T* a;
  int64_t a_row;
  const int32_t* a_terms;
  const T* b;
  const int32_t* b_terms;
  int64_t terms;
  int64_t chain;
  const T* start;  // of each row, where nothing is accumulated; or nullptr
  bool streams;    // c, where nothing is accumulated
  Ahead<T> ahead;
};

template <class T>
using MicroKernel = void (*)(const TileOperands<T>& operands, T* c, int64_t c_row, bool accumulate);

template <class T, int rows, int vectors>
void micro_kernel(const TileOperands<T>& operands, T* c, int64_t c_row, bool accumulate) {
  constexpr int64_t lanes = Vector<T>::lanes;
  const T* const a = operands.a;
  const T* const b = operands.b;
  const int64_t a_row = operands.a_row;
  const int64_t terms = operands.terms;
  T chains[rows][vectors * lanes];
  const Ahead<T>& ahead = operands.ahead;
  int64_t fetched = 0;
  for (int64_t k = 0;;) {
    const bool is_first = k == 0;
    const int64_t end = smaller(terms, k + operands.chain);
    // In proportion, so that the memory has time for each.
    for (const int64_t due = end * ahead.count / larger(1, terms); fetched < due; ++fetched) {
      const T* const from = ahead.base + ahead.terms[fetched * ahead.step];
      for (int64_t line = 0; line < ahead.lines; ++line) __builtin_prefetch(from + line * ahead.stride);
    }
    Vector<T> sum[rows][vectors];
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[r][v] = zero<T>();
    }
    for (; k < end; ++k) {
      const T* const a_term = a + operands.a_terms[k];
      const T* const b_term = b + operands.b_terms[k];
      Vector<T> columns[vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) columns[v] = load(b_term + v * lanes);
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        const Vector<T> value = broadcast(a_term[r * a_row]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(value, columns[v], sum[r][v]);
      }
    }
    if (!is_first) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = add(load(chains[r] + v * lanes), sum[r][v]);
      }
    }
    if (k >= terms) {
      if (!accumulate && operands.start != nullptr) {
        CONVEXT_UNROLL
        for (int r = 0; r < rows; ++r) {
          const Vector<T> start = broadcast(operands.start[r]);
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) sum[r][v] = add(start, sum[r][v]);
        }
      }
      if (operands.streams) {
        CONVEXT_UNROLL
        for (int r = 0; r < rows; ++r) {
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) stream(c + r * c_row + v * lanes, sum[r][v]);
        }
        return;
      }
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) {
          T* target = c + r * c_row + v * lanes;
          store(target, accumulate ? add(load(target), sum[r][v]) : sum[r][v]);
        }
      }
      return;
    }
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) store(chains[r] + v * lanes, sum[r][v]);
    }
  }
}

// The micro-kernel for a tile of rows x vectors, where rows <= tile_rows(vectors).
template <class T, int rows = most_tile_rows, int vectors = most_tile_vectors>
MicroKernel<T> micro_kernel_of(int64_t wanted_rows, int64_t wanted_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors) return micro_kernel_of<T, rows, vectors - 1>(wanted_rows, wanted_vectors);
  }
  if constexpr (rows > 1) {
    if (rows > tile_rows(vectors) || wanted_rows < rows) {
      return micro_kernel_of<T, rows - 1, vectors>(wanted_rows, wanted_vectors);
    }
  }
  if constexpr (rows <= tile_rows(vectors)) return micro_kernel<T, rows, vectors>;
  return nullptr;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
