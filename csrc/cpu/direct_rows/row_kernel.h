// The innermost loops of forward and the gradient of the input: a block of `rows` x `vectors` results in
// registers. A vector of a line is loaded once for all the rows that read it, each with its own tap:
//
//     sum[q][x] += weight[m][j] * line[q + m][x + offset[j]]
//
// Each result is the sum over channels, runs of taps, taps down, taps across, in that order wherever it lies
// in a block. After `most_chain_terms` of them at most, the sum starts anew and the parts are added up.
#pragma once

#include "cpu/direct_rows/lines.h"
#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int row_kernel_vectors = 4;  // 16 sums of 32 registers
#elif defined(__AVX2__)
constexpr int row_kernel_vectors = 3;  // 12 sums, 3 vectors of a line, 1 weight: all 16 registers
#else
constexpr int row_kernel_vectors = 2;
#endif
constexpr int row_kernel_rows = 4;

// A sum of n terms that is cut into chains of L has a squared error of about (L + n / L) / 2 final roundings,
// least for L = sqrt(n). Chains end where a channel does, so that a single channel's sum, which F.conv2d adds
// up in one chain as well, stays in registers. (Of a few terms only, one chain is best: fused multiply-adds
// round its products once.)
inline int64_t most_chain_terms(int64_t channels, int64_t terms_of_channel) {
  if (channels <= 1 || terms_of_channel == 0) return block_terms;
  int64_t of_chain = 1;
  while ((of_chain + 1) * (of_chain + 1) * terms_of_channel <= channels) ++of_chain;
  return smaller(block_terms, larger(8, of_chain * terms_of_channel));
}

template <class Real>
struct RowBlock {
  const Real* lines;  // the first line that the block's first row reads, at its first column
  int64_t line_stride;
  int64_t run_stride;  // from the lines of one run to those of the next, and so on through the channels
  int64_t channels;
  int64_t runs;
  int64_t long_runs;  // this many runs have long_taps taps, the others one fewer
  int64_t long_taps;
  const int64_t* offsets;
  int64_t columns;      // taps across
  int64_t chain_terms;  // see most_chain_terms
  const Real* weights;  // [channel][run][tap down][tap across]
  Real bias;
  Real* target;
  int64_t target_stride;
  int64_t valid_rows;
  int64_t valid_columns;
  bool streams = false;  // rows that begin a line of the cache, past the caches
};

// The line that rows lowest..highest of the block read, each with another tap; `weights` are those of row
// `highest`.
template <class Real, int rows, int vectors, int lowest, int highest>
CONVEXT_INLINE void add_line(Vector<Real> (&sum)[rows][vectors], const Real* line, const int64_t* offsets,
                             int64_t columns, const Real* weights) {
  for (int64_t j = 0; j < columns; ++j) {
    const Real* from = line + offsets[j];
    Vector<Real> values[vectors];
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) values[v] = load(from + v * Vector<Real>::lanes);
    CONVEXT_UNROLL
    for (int q = lowest; q <= highest; ++q) {
      const Vector<Real> weight = broadcast(weights[(highest - q) * columns + j]);
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[q][v] = fmadd(weight, values[v], sum[q][v]);
    }
  }
}

// Lines first..last - 1 of a run of `taps` taps down.
template <class Real, int rows, int vectors>
CONVEXT_INLINE void add_lines(Vector<Real> (&sum)[rows][vectors], const RowBlock<Real>& block,
                              const Real* lines, int64_t first, int64_t last, int64_t taps,
                              const Real* weights) {
  const int64_t columns = block.columns;
  const Real* line_values = lines + first * block.line_stride;
  for (int64_t line = first; line < last; ++line, line_values += block.line_stride) {
    const int64_t lowest = larger(0, line - taps + 1);
    const int64_t highest = smaller(rows - 1, line);
    const Real* of_highest = weights + (line - highest) * columns;
#define CONVEXT_LINE(low, high)                                                                         \
  case (low) * 4 + (high):                                                                              \
    if constexpr ((high) < rows)                                                                        \
      add_line<Real, rows, vectors, low, ((high) < rows ? (high) : 0)>(sum, line_values, block.offsets, \
                                                                       columns, of_highest);            \
    break;
    switch (lowest * 4 + highest) {
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
}

// Adds the bias and stores what is inside the result.
template <class Real, int rows, int vectors>
CONVEXT_INLINE void store_block(const RowBlock<Real>& block, const Vector<Real> (&sum)[rows][vectors]) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  const Vector<Real> bias = broadcast(block.bias);
  const bool whole = block.valid_columns >= vectors * lanes;
  Real* target = block.target;
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q, target += block.target_stride) {
    if (q >= block.valid_rows) return;
    const bool streams = block.streams && begins_line(target);
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const Vector<Real> total = add(sum[q][v], bias);
      if (whole || v + 1 < vectors) {
        store_result(target + v * lanes, total, streams);
      } else {
        store(target + v * lanes, total, block.valid_columns - v * lanes);
      }
    }
  }
}

template <class Real, int rows, int vectors>
void row_kernel(const RowBlock<Real>& block) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sum[rows][vectors];
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q) {
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) sum[q][v] = zero<Real>();
  }
  // In memory on purpose: only long sums use it.
  Real parts[rows * vectors * lanes];
  const bool has_parts = block.channels * block.runs * block.long_taps * block.columns > block.chain_terms;
  if (has_parts) fill_zeros(parts, 0, rows * vectors * lanes);
  int64_t terms = 0;
  const int64_t most_taps = larger(1, block_terms / larger(1, block.columns));
  const Real* lines = block.lines;
  const Real* weights = block.weights;
  for (int64_t c = 0; c < block.channels; ++c) {
    for (int64_t u = 0; u < block.runs; ++u, lines += block.run_stride) {
      const int64_t taps = block.long_taps - (u < block.long_runs ? 0 : 1);
      // Before which line row q starts its next chain: all rows together before a run's first line, else each
      // before the line that its tap most_taps (2 * most_taps, ...) reads.
      const bool starts_chain =
          has_parts && terms + smaller(taps, most_taps) * block.columns > block.chain_terms;
      int64_t next_chain[rows];
      for (int q = 0; q < rows; ++q) next_chain[q] = starts_chain ? 0 : q + most_taps;
      const int64_t end = rows + taps - 1;
      for (int64_t line = 0, next = 0; line < end; line = next) {
        next = end;
        CONVEXT_UNROLL
        for (int q = 0; q < rows; ++q) {
          if (next_chain[q] == line && line < q + taps) {
            next_chain[q] = line == 0 ? q + most_taps : line + most_taps;
            CONVEXT_UNROLL
            for (int v = 0; v < vectors; ++v) {
              Real* part = parts + (q * vectors + v) * lanes;
              store(part, add(load(part), sum[q][v]));
              sum[q][v] = zero<Real>();
            }
          }
          if (next_chain[q] < q + taps) next = smaller(next, next_chain[q]);
        }
        add_lines(sum, block, lines, line, next, taps, weights);
      }
      weights += taps * block.columns;
      terms = taps > most_taps ? ((taps - 1) % most_taps + 1) * block.columns
                               : (starts_chain ? 0 : terms) + taps * block.columns;
    }
  }
  if (has_parts) {
    CONVEXT_UNROLL
    for (int q = 0; q < rows; ++q) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[q][v] = add(load(parts + (q * vectors + v) * lanes), sum[q][v]);
    }
  }
  store_block(block, sum);
}

template <class Real>
using RowKernel = void (*)(const RowBlock<Real>& block);

// The same for the one kernel size that is most common, 3 x 3, with every loop unrolled. Row q of the block
// begins with line q * stride.
template <class Real, int rows, int vectors, int stride>
void row_kernel_3x3(const RowBlock<Real>& block) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sum[rows][vectors];
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q) {
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) sum[q][v] = zero<Real>();
  }
  const Real* line = block.lines;
  const Real* weights = block.weights;
  CONVEXT_UNROLL
  for (int k = 0; k < (rows - 1) * stride + 3; ++k, line += block.line_stride) {
    CONVEXT_UNROLL
    for (int j = 0; j < 3; ++j) {
      const Real* from = line + block.offsets[j];
      Vector<Real> values[vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) values[v] = in_register(load(from + v * lanes));
      CONVEXT_UNROLL
      for (int q = 0; q < rows; ++q) {
        const int tap = k - q * stride;
        if (tap < 0 || tap > 2) continue;
        const Vector<Real> weight = broadcast(weights[tap * 3 + j]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sum[q][v] = fmadd(weight, values[v], sum[q][v]);
      }
    }
  }
  store_block(block, sum);
}

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int vectors_3x3 = 2;  // 8 sums and all 9 weights in registers; with more, GCC reads lines twice
#else
constexpr int vectors_3x3 = row_kernel_vectors;
#endif

template <class Real, int stride, int vectors = vectors_3x3>
RowKernel<Real> row_kernel_3x3_of(int64_t wanted) {
  if constexpr (vectors > 1) {
    if (wanted < vectors) return row_kernel_3x3_of<Real, stride, vectors - 1>(wanted);
  }
  return row_kernel_3x3<Real, row_kernel_rows, vectors, stride>;
}

// Up to four rows of `columns` results. There must be lines for four.
template <class Real, int stride>
void row_block_3x3(RowBlock<Real>& block, int64_t columns) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  const Real* lines = block.lines;
  Real* target = block.target;
  int64_t vectors = ceil_div(columns, lanes);
  int64_t column = 0;
  for (int64_t blocks = ceil_div(vectors, vectors_3x3); blocks > 0; --blocks) {
    const int64_t across = (vectors + blocks - 1) / blocks;
    block.lines = lines + column;
    block.target = target + column;
    block.valid_columns = smaller(across * lanes, columns - column);
    row_kernel_3x3_of<Real, stride>(across)(block);
    vectors -= across;
    column += across * lanes;
  }
  block.lines = lines;
}

// For results of a single vector: more rows, to have as many sums at a time; each line is loaded for each row
// that reads it.
constexpr int narrow_rows = 8;

template <class Real>
void narrow_kernel(const RowBlock<Real>& block) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sum[narrow_rows][1];
  CONVEXT_UNROLL
  for (int q = 0; q < narrow_rows; ++q) sum[q][0] = zero<Real>();
  Real parts[narrow_rows * lanes];
  const bool has_parts = block.channels * block.runs * block.long_taps * block.columns > block.chain_terms;
  if (has_parts) fill_zeros(parts, 0, narrow_rows * lanes);
  int64_t terms = 0;
  const int64_t stride = block.line_stride;
  const Real* lines = block.lines;
  const Real* weights = block.weights;
  for (int64_t c = 0; c < block.channels; ++c) {
    for (int64_t u = 0; u < block.runs; ++u, lines += block.run_stride) {
      const int64_t taps = block.long_taps - (u < block.long_runs ? 0 : 1);
      const Real* line = lines;
      for (int64_t m = 0; m < taps; ++m, line += stride, weights += block.columns) {
        if (has_parts && terms + block.columns > block.chain_terms) {
          CONVEXT_UNROLL
          for (int q = 0; q < narrow_rows; ++q) {
            store(parts + q * lanes, add(load(parts + q * lanes), sum[q][0]));
            sum[q][0] = zero<Real>();
          }
          terms = 0;
        }
        terms += block.columns;
        for (int64_t j = 0; j < block.columns; ++j) {
          const Vector<Real> weight = broadcast(weights[j]);
          const Real* from = line + block.offsets[j];
          CONVEXT_UNROLL
          for (int q = 0; q < narrow_rows; ++q) sum[q][0] = fmadd(weight, load(from + q * stride), sum[q][0]);
        }
      }
    }
  }
  if (has_parts) {
    CONVEXT_UNROLL
    for (int q = 0; q < narrow_rows; ++q) sum[q][0] = add(load(parts + q * lanes), sum[q][0]);
  }
  store_block(block, sum);
}

template <class Real, int rows, int vectors = row_kernel_vectors>
RowKernel<Real> row_kernel_of(int64_t wanted) {
  if constexpr (vectors > 1) {
    if (wanted < vectors) return row_kernel_of<Real, rows, vectors - 1>(wanted);
  }
  return row_kernel<Real, rows, vectors>;
}

// Fills `block.valid_rows` x `block.valid_columns` results, whatever these are. The scratch must have lines
// for up to a multiple of four rows, of eight if there are more than four, and columns up to a whole vector.
template <class Real>
void row_blocks(const RowBlock<Real>& all) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  RowBlock<Real> block = all;
  if (all.channels == 1 && all.runs == 1 && all.long_taps == 3 && all.columns == 3) {
    for (int64_t row = 0; row < all.valid_rows; row += row_kernel_rows) {
      block.valid_rows = smaller(row_kernel_rows, all.valid_rows - row);
      block.lines = all.lines + row * all.line_stride;
      block.target = all.target + row * all.target_stride;
      row_block_3x3<Real, 1>(block, all.valid_columns);
    }
    return;
  }
  // The last vector of the columns, if it stands alone.
  const int64_t vectors = ceil_div(all.valid_columns, lanes);
  const bool ends_narrow = all.valid_rows > row_kernel_rows && vectors % row_kernel_vectors == 1;
  const int64_t wide_columns = ends_narrow ? (vectors - 1) * lanes : all.valid_columns;
  for (int64_t row = 0; ends_narrow && row < all.valid_rows; row += narrow_rows) {
    block.lines = all.lines + row * all.line_stride + wide_columns;
    block.target = all.target + row * all.target_stride + wide_columns;
    block.valid_rows = smaller(narrow_rows, all.valid_rows - row);
    block.valid_columns = all.valid_columns - wide_columns;
    narrow_kernel(block);
  }
  for (int64_t row = 0; row < all.valid_rows; row += row_kernel_rows) {
    block.valid_rows = smaller(row_kernel_rows, all.valid_rows - row);
    for (int64_t column = 0; column < wide_columns; column += row_kernel_vectors * lanes) {
      const int64_t columns = smaller(row_kernel_vectors * lanes, wide_columns - column);
      const int64_t across = ceil_div(columns, lanes);
      block.lines = all.lines + row * all.line_stride + column;
      block.target = all.target + row * all.target_stride + column;
      block.valid_columns = columns;
      if (block.valid_rows > 2) {
        row_kernel_of<Real, row_kernel_rows>(across)(block);
      } else if (block.valid_rows == 2) {
        row_kernel_of<Real, 2>(across)(block);
      } else {
        row_kernel_of<Real, 1>(across)(block);
      }
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
