// The innermost loop: sums[tile][channel] = sum over k of inputs[tile][k] * weights[k][channel] for one of
// the products, one panel of channels and a few tiles. Chains of at most `chain_terms` terms are added up in
// a register in the order of k, and the chains in their order; so it is for every element, wherever it lies.
#pragma once

#include "cpu/winograd/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
using Product = void (*)(const Real* inputs, int64_t inputs_stride, const Real* weights, int64_t terms,
                         Real* sums, int64_t sums_stride, bool accumulate);

template <class Real, int rows, int vectors>
void product(const Real* inputs, int64_t inputs_stride, const Real* weights, int64_t terms, Real* sums,
             int64_t sums_stride, bool accumulate) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  do {
    Vector<Real> sum[rows][vectors];
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[r][v] = zero<Real>();
    }
    for (int64_t k = smaller(terms, chain_terms); k > 0; --k) {
      Vector<Real> columns[vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) columns[v] = load(weights + v * lanes);
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        const Vector<Real> value = broadcast(inputs[r * inputs_stride]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(value, columns[v], sum[r][v]);
      }
      ++inputs;
      weights += panel<Real>;
    }
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) {
        Real* target = sums + r * sums_stride + v * lanes;
        store(target, accumulate ? add(load(target), sum[r][v]) : sum[r][v]);
      }
    }
    accumulate = true;
    terms -= chain_terms;
  } while (terms > 0);
}

template <class Real, int vectors, int rows = block_rows>
Product<Real> product_of_rows(int64_t wanted) {
  if constexpr (rows > 1) {
    if (wanted < rows) return product_of_rows<Real, vectors, rows - 1>(wanted);
  }
  return product<Real, rows, vectors>;
}

template <class Real>
Product<Real> product_of(int64_t rows, int64_t channels) {
  if (channels <= Vector<Real>::lanes) return product_of_rows<Real, 1>(rows);
  return product_of_rows<Real, block_vectors>(rows);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
