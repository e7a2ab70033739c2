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

// Terms of a sum that are packed at a time. Longer sums are cut into equal blocks, which are added up in
// order: 256 rows of one tile of columns (16 KiB) stay in the L1 cache.
constexpr int64_t block_terms = 256;

// Terms of a block that are added up in one accumulator before the next chain starts from zero. The rounding
// error of a sum grows with the length of its chains: chains of 64 keep it at or below that of the summation
// orders that F.conv2d's CPU kernels use (chains of 256 were up to 1.4 times worse), at a cost of some 4 %.
constexpr int64_t chain_terms = 64;

// How a reduction over `terms` is cut into blocks; depends on nothing else.
struct ReductionBlocks {
  int64_t terms;
  int64_t count;  // at least 1: the sum of no terms must be written, too
  int64_t size;

  explicit ReductionBlocks(int64_t total)
      : terms(total), count(larger(1, ceil_div(total, block_terms))), size(ceil_div(total, count)) {}

  int64_t first(int64_t block) const { return smaller(block * size, terms); }
  int64_t length(int64_t block) const { return smaller(size, terms - first(block)); }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
