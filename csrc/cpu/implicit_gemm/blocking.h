// Sizes of the blocks that the work is cut into. None of them changes a result: they decide what is in which
// cache at a time, and the order in which an element's terms are added follows from the problem alone.
#pragma once

#include "cpu/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The micro-kernel's tile: `rows` broadcast operands times `vectors` registers. rows * vectors accumulators,
// the vectors and one broadcast must fit the register file, and rows * vectors should be at least 8 to hide
// the latency of the FMA. This is the largest number of rows for a number of vectors.
#if defined(__AVX512F__)
constexpr int most_tile_vectors = 4;
constexpr int tile_rows(int64_t vectors) {  // 24 accumulators of 32 registers
  return vectors <= 2 ? 12 : vectors == 3 ? 8 : 6;
}
#elif defined(__aarch64__)
constexpr int most_tile_vectors = 2;
constexpr int tile_rows(int64_t) {  // 16 of 32: compilers spill some of 24, for want of a memory operand
  return 8;
}
#elif defined(__AVX2__)
constexpr int most_tile_vectors = 3;
constexpr int tile_rows(int64_t vectors) {  // 12 accumulators of 16 registers
  return vectors == 1 ? 8 : vectors == 2 ? 6 : 4;
}
#else
constexpr int most_tile_vectors = 2;
constexpr int tile_rows(int64_t) {  // 8 of 16: without FMA the product needs a register too
  return 4;
}
#endif
constexpr int most_tile_rows = tile_rows(1);

// Vectors of a tile with that many rows.
inline int64_t tile_vectors(int64_t rows) {
  int64_t vectors = most_tile_vectors;
  while (vectors > 1 && tile_rows(vectors) < rows) --vectors;
  return vectors;
}

// Rows of the tiles that `rows` are cut into: tiles of about equal height, 8 rows are 4 + 4 and not 6 + 2.
inline int64_t rows_of_tile(int64_t rows) {
  int64_t best = 1;
  int64_t least_cost = 0;
  for (int64_t height = 1; height <= tile_rows(smaller(2, most_tile_vectors)); ++height) {
    // Latency shows below eight accumulators; loads run beside the products, but not for nothing.
    const int64_t products = height * tile_vectors(height);
    const int64_t cost_of_row =
        (1024 * larger(8, products) + 256 * (height + tile_vectors(height))) / products;
    const int64_t cost = ceil_div(rows, height) * height * cost_of_row;
    if (height == 1 || cost <= least_cost) {
      best = height;
      least_cost = cost;
    }
  }
  return best;
}

// Terms of a sum that are packed at a time, at most: as many rows of one tile of columns stay in the L1
// cache, 36 KiB of 48 with AVX-512 and 18 of 32 with AVX2.
constexpr int64_t block_terms = 192;

// How the terms of a sum are added up: in chains, each in one accumulator; the chains of a block in order;
// the blocks in order. Depends on the number of terms and the pass alone.
//
// Chains of length L, m of them one after the other, leave a squared error of about (L + m) / 2 final
// roundings, and every chain costs an addition for each accumulator, so chains are as long as F.conv2d's
// error allows. Its forward pass adds up long chains, its gradient of the weight often eight interleaved
// ones, which takes short chains to match.
struct SumShape {
  int64_t chain;  // at most
  int64_t block;  // at most
};

inline SumShape sum_shape(int64_t terms, Pass pass) {
  if (terms <= 16) return {8, block_terms};
  if (pass == Pass::grad_weight) {
    return {terms <= 64 ? 17 : terms <= 192 ? 12 : terms <= 512 ? 24 : 64, block_terms};
  }
  return {terms <= 64 ? 16 : terms <= 256 ? 32 : 64, block_terms};
}

// The terms of a correlation, in chains of equal length.
struct ReductionBlocks {
  int64_t terms;
  int64_t chain;  // terms of a chain
  int64_t count;  // at least 1: the sum of no terms must be written, too
  int64_t size;   // terms of a block

  explicit ReductionBlocks(int64_t total) : terms(total) {
    const SumShape shape = sum_shape(total, Pass::forward);
    const int64_t chains = larger(1, ceil_div(total, shape.chain));
    chain = larger(1, ceil_div(total, chains));
    count = ceil_div(chains, shape.block / chain);
    size = ceil_div(chains, count) * chain;
  }

  int64_t first(int64_t block) const { return smaller(block * size, terms); }
  int64_t length(int64_t block) const { return smaller(size, terms - first(block)); }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
