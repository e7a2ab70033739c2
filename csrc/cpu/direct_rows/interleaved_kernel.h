// The innermost loop of interleaved_correlation.h: a block of four rows x three vectors of numbers in
// registers, where neighbouring numbers belong to different channels:
//
//     sum[q][v] += weight[m][j][v % period] * line[q + m][number + offset[j]][v]
//
// A vector of a line is loaded once for all the rows that read it. Each result is the sum over taps down,
// then taps across, in that order wherever it lies in a block.
#pragma once

#include "cpu/direct_rows/lines.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int interleaved_rows = 4;
constexpr int interleaved_vectors = 3;  // with four rows: 12 sums, 3 vectors of a line, and AVX2 has 16

template <class Real>
struct InterleavedRows {
  const Real* lines;  // the first line that the first row reads, at its first tap
  int64_t line_stride;
  int64_t row_taps;
  int64_t column_taps;
  int64_t tap_step;     // from tap to tap, in a line
  const Real* weights;  // [tap down][tap across][vector of the period][lane]
  const Real* bias;     // [vector of the period][lane]
  Real* target;
  int64_t target_stride;
  int64_t valid_rows;
  int64_t valid_numbers;
  bool streams = false;  // rows that begin a line of the cache, past the caches
};

template <class Real>
using InterleavedSums = Vector<Real>[interleaved_rows][interleaved_vectors];

// The line that rows lowest..highest of the block read, each with another tap; `weights` are those of row
// `highest`.
template <class Real, int period, int lowest, int highest>
CONVEXT_INLINE void add_interleaved_line(InterleavedSums<Real>& sum, const Real* line, const Real* weights,
                                         int64_t row_weights, const InterleavedRows<Real>& all) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (int64_t j = 0; j < all.column_taps; ++j, line += all.tap_step, weights += period * lanes) {
    Vector<Real> values[interleaved_vectors];
    CONVEXT_UNROLL
    for (int v = 0; v < interleaved_vectors; ++v) values[v] = in_register(load(line + v * lanes));
    CONVEXT_UNROLL
    for (int q = lowest; q <= highest; ++q) {
      const Real* const tap = weights + (highest - q) * row_weights;
      CONVEXT_UNROLL
      for (int v = 0; v < interleaved_vectors; ++v)
        sum[q][v] = fmadd(values[v], load(tap + v % period * lanes), sum[q][v]);
    }
  }
}

template <class Real, int period>
void interleaved_kernel(const InterleavedRows<Real>& all) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  InterleavedSums<Real> sum;
  CONVEXT_UNROLL
  for (int q = 0; q < interleaved_rows; ++q) {
    CONVEXT_UNROLL
    for (int v = 0; v < interleaved_vectors; ++v) sum[q][v] = zero<Real>();
  }
  const int64_t row_weights = all.column_taps * period * lanes;
  const Real* line = all.lines;
  for (int64_t k = 0; k < interleaved_rows + all.row_taps - 1; ++k, line += all.line_stride) {
    const int64_t lowest = larger(0, k - all.row_taps + 1);
    const int64_t highest = smaller(interleaved_rows - 1, k);
    const Real* const weights = all.weights + (k - highest) * row_weights;
#define CONVEXT_LINE(low, high)                                                          \
  case (low) * interleaved_rows + (high):                                                \
    add_interleaved_line<Real, period, low, high>(sum, line, weights, row_weights, all); \
    break;
    switch (lowest * interleaved_rows + highest) {
      CONVEXT_LINE(0, 0)
      CONVEXT_LINE(0, 1)
      CONVEXT_LINE(0, 2)
      CONVEXT_LINE(0, 3)
      CONVEXT_LINE(1, 1)
      CONVEXT_LINE(1, 2)
      CONVEXT_LINE(1, 3)
      CONVEXT_LINE(2, 2)
      CONVEXT_LINE(2, 3)
      CONVEXT_LINE(3, 3)
    }
#undef CONVEXT_LINE
  }
  const bool whole = all.valid_numbers >= interleaved_vectors * lanes;
  Real* target = all.target;
  CONVEXT_UNROLL
  for (int q = 0; q < interleaved_rows; ++q, target += all.target_stride) {
    if (q >= all.valid_rows) return;
    const bool streams = all.streams && begins_line(target);
    CONVEXT_UNROLL
    for (int v = 0; v < interleaved_vectors; ++v) {
      const Vector<Real> total = add(sum[q][v], load(all.bias + v % period * lanes));
      if (whole) {
        store_result(target + v * lanes, total, streams);
      } else {
        store(target + v * lanes, total, larger(0, smaller(lanes, all.valid_numbers - v * lanes)));
      }
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
