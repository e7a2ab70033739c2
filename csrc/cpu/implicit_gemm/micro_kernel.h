// The innermost loop, the only place where products are added:
//
//     c[row][column] (+)= sum over k of a(row, k) * b[k][column]
//
// for one tile of rows x columns: chains of `chain` terms, each added up in a register in the order of k; the
// chains in order; their sum to c. Every element of every result of the three passes is made here, by the
// same operations in the same order wherever it lies in a tile.
#pragma once

#include "cpu/implicit_gemm/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Where a(row, k) lies.
enum class Operand {
  interleaved,  // a[k * a_stride + row]
  rows,         // a[row * a_stride + k]
};

template <class T>
using MicroKernel = void (*)(const T* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t terms,
                             int64_t chain, T* c, int64_t c_stride, bool accumulate);

template <class T, Operand operand, int rows, int vectors>
void micro_kernel(const T* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t terms, int64_t chain,
                  T* c, int64_t c_stride, bool accumulate) {
  constexpr int64_t lanes = Vector<T>::lanes;
  T chains[rows][vectors * lanes];
  bool has_chains = false;
  while (true) {
    Vector<T> sum[rows][vectors];
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[r][v] = zero<T>();
    }
    for (int64_t k = smaller(terms, chain); k > 0; --k) {
      Vector<T> columns[vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) columns[v] = load(b + v * lanes);
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        const Vector<T> value = broadcast(operand == Operand::interleaved ? a[r] : a[r * a_stride]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(value, columns[v], sum[r][v]);
      }
      a += operand == Operand::interleaved ? a_stride : 1;
      b += b_stride;
    }
    if (has_chains) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = add(load(chains[r] + v * lanes), sum[r][v]);
      }
    }
    terms -= chain;
    if (terms <= 0) {
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) {
          T* target = c + r * c_stride + v * lanes;
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
    has_chains = true;
  }
}

// A full tile with fewer rows, for operands that have no more.
template <class T, Operand operand, int rows = tile_shape.rows>
MicroKernel<T> micro_kernel_of_rows(int64_t wanted) {
  if constexpr (rows > 1) {
    if (wanted < rows) return micro_kernel_of_rows<T, operand, rows - 1>(wanted);
  }
  return micro_kernel<T, operand, rows, tile_shape.vectors>;
}

// A full tile with fewer vectors of columns.
template <class T, Operand operand, int vectors = tile_shape.vectors>
MicroKernel<T> micro_kernel_of_vectors(int64_t wanted) {
  if constexpr (vectors > 1) {
    if (wanted < vectors) return micro_kernel_of_vectors<T, operand, vectors - 1>(wanted);
  }
  return micro_kernel<T, operand, tile_shape.rows, vectors>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
