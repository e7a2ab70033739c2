// Sizes of the blocks that the work is cut into. None of them changes a result: they decide what is in which
// cache at a time, and the order in which an element's terms are added follows from the problem alone.
#pragma once

#include "cpu/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The micro-kernel's tile: `rows` broadcast operands times `vectors` registers. rows * vectors accumulators,
// the vectors and one broadcast must fit the register file, and rows * vectors should be at least 10 to hide
// the latency of the FMA.
struct TileShape {
  int rows;
  int vectors;
};
#if defined(__AVX512F__)
constexpr TileShape tile_shape{12, 2};  // 24 accumulators of 32 registers
#elif defined(__aarch64__)
constexpr TileShape tile_shape{8, 2};  // 16 of 32: compilers spill some of 24, for want of a memory operand
#elif defined(__AVX2__)
constexpr TileShape tile_shape{6, 2};  // 12 accumulators of 16 registers
#else
constexpr TileShape tile_shape{4, 2};  // 8 of 16: without FMA the product needs a register too
#endif

template <class T>
constexpr int64_t tile_columns = tile_shape.vectors * Vector<T>::lanes;
constexpr int64_t tile_rows = tile_shape.rows;

// Terms of a sum that are packed at a time, at most: 256 rows of one tile of columns (16 KiB) stay in the L1
// cache.
constexpr int64_t block_terms = 256;

// How the terms of a sum are added up: in chains of equal length, each in one accumulator; the chains of a
// block in order; the blocks in order. Depends on the number of terms and the pass alone.
//
// Chains of length L, m of them one after the other, leave a squared error of about (L + m) / 2 final
// roundings, and every chain costs an addition for each accumulator, so chains are as long as F.conv2d's
// error allows. Its forward pass adds up long chains, its gradient of the weight often eight interleaved
// ones, which for few terms takes short chains and a third level to match.
struct ReductionBlocks {
  int64_t terms;
  int64_t chain;  // terms of a chain
  int64_t count;  // at least 1: the sum of no terms must be written, too
  int64_t size;   // terms of a block

  ReductionBlocks(int64_t total, Pass pass) : terms(total) {
    const bool is_short = pass == Pass::grad_weight && total <= 192;
    int64_t longest = total <= 16 ? 8 : total <= 64 ? 16 : total <= 256 ? 32 : 64;
    if (pass == Pass::grad_weight) longest = total <= 16 ? 8 : is_short ? 12 : total <= 1024 ? 32 : 64;
    const int64_t chains = larger(1, ceil_div(total, longest));
    chain = larger(1, ceil_div(total, chains));
    const int64_t chains_of_block = is_short ? 4 : block_terms / chain;
    count = ceil_div(chains, chains_of_block);
    size = ceil_div(chains, count) * chain;
  }

  int64_t first(int64_t block) const { return smaller(block * size, terms); }
  int64_t length(int64_t block) const { return smaller(size, terms - first(block)); }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
