// The sizes of the products, which the packed operands share.
#pragma once

#include "cpu/blocking.h"
#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The block of a product that stays in registers: tiles x result channels.
#if defined(__AVX512F__)
constexpr int64_t block_rows = 12;
constexpr int64_t cache_bytes = 400 << 10;  // of L2, for the transformed inputs of a block of tiles
#elif defined(__aarch64__)
constexpr int64_t block_rows = 8;
constexpr int64_t cache_bytes = 200 << 10;
#elif defined(__AVX2__)
constexpr int64_t block_rows = 6;
constexpr int64_t cache_bytes = 200 << 10;
#else
constexpr int64_t block_rows = 4;
constexpr int64_t cache_bytes = 200 << 10;
#endif
constexpr int64_t block_vectors = 2;

template <class Real>
constexpr int64_t panel = block_vectors * Vector<Real>::lanes;  // result channels of a block

// Source channels that a cache line holds: transformed inputs[product][line][tile][channel of line].
template <class Real>
constexpr int64_t line_channels = 64 / static_cast<int64_t>(sizeof(Real));

// Rounded up to an odd number of cache lines, so that the same place of all planes is not in the same few
// sets of the cache.
template <class Real>
constexpr int64_t odd_lines(int64_t numbers) {
  return (ceil_div(numbers, line_channels<Real>) | 1) * line_channels<Real>;
}

// Terms of a sum that are added up in one register before the next chain starts from zero. Rounding errors
// grow with the length of the chains: with 64, the rms error was 1.24 times that of F.conv2d at its best.
constexpr int64_t chain_terms = 32;
// Source channels whose weights are transformed at a time, where that is done on the fly. Whole chains.
constexpr int64_t packed_terms = 64;

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
