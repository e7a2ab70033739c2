// The innermost loop: sums[tile][channel] = sum over k of inputs[tile][k] * weights[k][channel] for one of
// the products, one panel of channels and a few tiles. Chains of at most `chain_terms` terms are added up in
// a register in the order of k, and the chains in their order; so it is for every element, wherever it lies.
//
// All distances but one are known to the compiler: the inputs of a tile are `line_channels` of them at a
// time, those of the tiles side by side, and so are the sums of a panel.
#pragma once

#include "cpu/winograd/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
using Product = void (*)(const Real* inputs, int64_t inputs_step, const Real* weights, int64_t terms,
                         Real* sums, bool accumulate, int64_t blocks, const Real* ahead, int64_t ahead_step);

// Of `blocks` blocks of so many tiles, one after the other. Meanwhile the weights at `ahead` are fetched into
// the L2 cache, `ahead_step` numbers in the time of a chain: the first block of the next product would else
// wait for them.
template <class Real, int rows, int vectors>
void product(const Real* inputs, int64_t inputs_step, const Real* weights, int64_t terms, Real* sums,
             bool accumulate, int64_t blocks, const Real* ahead, int64_t ahead_step) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (; blocks > 0; --blocks, inputs += rows * line_channels<Real>, sums += rows * panel<Real>) {
    const Real* input = inputs;
    const Real* weight = weights;
    bool adds = accumulate;
    for (int64_t left = terms; left > 0; left -= chain_terms, adds = true) {
      const Real* const fetched = ahead + ahead_step;
      for (; ahead < fetched; ahead += line_channels<Real>) __builtin_prefetch(ahead, 0, 2);
      Vector<Real> sum[rows][vectors];
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[r][v] = zero<Real>();
      }
      for (int64_t chain = smaller(left, chain_terms); chain > 0; chain -= line_channels<Real>) {
        const int64_t count = smaller(chain, line_channels<Real>);
        for (int64_t k = 0; k < count; ++k, weight += panel<Real>) {
          Vector<Real> columns[vectors];
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) columns[v] = load(weight + v * lanes);
          CONVEXT_UNROLL
          for (int r = 0; r < rows; ++r) {
            const Vector<Real> value = broadcast(input[r * line_channels<Real> + k]);
            CONVEXT_UNROLL
            for (int v = 0; v < vectors; ++v) sum[r][v] = fmadd(value, columns[v], sum[r][v]);
          }
        }
        input += inputs_step;
      }
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) {
          Real* target = sums + r * panel<Real> + v * lanes;
          store(target, adds ? add(load(target), sum[r][v]) : sum[r][v]);
        }
      }
    }
  }
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
