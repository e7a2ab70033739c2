// The eight tile registers of AMX: matrices of up to 16 rows of 64 bytes. dot<c, a, b> adds to the float32
// numbers of c the product of a, whose rows are pairs of bfloat16 numbers of a sum's terms, and b, which has
// a row for each such pair:
//
//     c[row][lane] += over pairs: a[row][pair] . b[pair][lane]
//
// It takes 16 cycles for 16 rows, 16 pairs and 16 lanes: 512 multiply-adds a cycle. Loading a tile from the
// first cache takes 8, so a kernel has to use each tile that it loads for two products.
//
// A thread sets the tiles' sizes before it uses them, and gives them up afterwards: their 8 KB would be saved
// at every switch of threads, and other libraries expect to find them free. (Not by a destructor: that would
// bring tables for exceptions into the object, under a name that other instruction sets share.) Subnormal
// numbers are zeros to the instruction, and rounding is to nearest even.
//
// Where CONVEXT_EMULATE_TILES is defined, plain code stands in, for tests on other processors and for
// sanitizers, which do not see what the instructions read and write.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t tile_height = 16;
constexpr int64_t tile_width = 16;
constexpr int64_t most_tile_pairs = 16;

// Tiles 0 to 3 are sums; 4 and 5 are left factors, 6 and 7 right ones.
constexpr int first_left_tile = 4;
constexpr int first_right_tile = 6;

// What the instruction reads from memory.
struct TileSizes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_of_row[16] = {};
  uint8_t rows[16] = {};

  // For products of `pairs` pairs.
  explicit TileSizes(int64_t pairs) {
    for (int tile = 0; tile < 8; ++tile) {
      const bool is_left = tile == first_left_tile || tile == first_left_tile + 1;
      const bool is_right = tile >= first_right_tile;
      bytes_of_row[tile] = static_cast<uint16_t>(4 * (is_left ? pairs : tile_width));
      rows[tile] = static_cast<uint8_t>(is_right ? pairs : tile_height);
    }
  }
};

#if defined(CONVEXT_EMULATE_TILES)

struct EmulatedTiles {
  TileSizes sizes{0};
  uint32_t numbers[8][tile_height][tile_width];
};
thread_local EmulatedTiles emulated_tiles;

inline void configure_tiles(int64_t pairs) {
  emulated_tiles = {TileSizes(pairs), {}};
}
inline void release_tiles() {
  emulated_tiles = {TileSizes(0), {}};
}

template <int tile>
void load_tile(const void* source, int64_t stride) {
  for (int row = 0; row < emulated_tiles.sizes.rows[tile]; ++row) {
    std::memcpy(emulated_tiles.numbers[tile][row], static_cast<const char*>(source) + row * stride,
                emulated_tiles.sizes.bytes_of_row[tile]);
  }
}

template <int tile>
void store_tile(void* target, int64_t stride) {
  for (int row = 0; row < emulated_tiles.sizes.rows[tile]; ++row) {
    std::memcpy(static_cast<char*>(target) + row * stride, emulated_tiles.numbers[tile][row],
                emulated_tiles.sizes.bytes_of_row[tile]);
  }
}

template <int tile>
void clear_tile() {
  std::memset(emulated_tiles.numbers[tile], 0, sizeof(emulated_tiles.numbers[tile]));
}

// A vector for each row of sums; sanitizers are for what is loaded and stored, not for this.
template <int sum, int left, int right>
__attribute__((no_sanitize("address", "undefined", "thread"))) void dot() {
  const auto lower = [](__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); };
  const auto upper = [](__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
  };
  EmulatedTiles& tiles = emulated_tiles;
  for (int64_t row = 0; row < tile_height; ++row) {
    __m512 sums = _mm512_loadu_ps(tiles.numbers[sum][row]);
    for (int64_t pair = 0; pair < tiles.sizes.rows[right]; ++pair) {
      const __m512i a = _mm512_set1_epi32(static_cast<int>(tiles.numbers[left][row][pair]));
      const __m512i b = _mm512_loadu_si512(tiles.numbers[right][pair]);
      sums = _mm512_add_ps(sums, _mm512_mul_ps(lower(a), lower(b)));
      sums = _mm512_add_ps(sums, _mm512_mul_ps(upper(a), upper(b)));
    }
    _mm512_storeu_ps(tiles.numbers[sum][row], sums);
  }
}

#else

// For products of `pairs` pairs; clears all tiles.
inline void configure_tiles(int64_t pairs) {
  const TileSizes sizes(pairs);
  asm volatile("ldtilecfg %0" : : "m"(sizes));
}
inline void release_tiles() {
  asm volatile("tilerelease");
}

// Rows are `stride` bytes apart.
template <int tile>
CONVEXT_INLINE void load_tile(const void* source, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(source), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
CONVEXT_INLINE void store_tile(void* target, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(target), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
CONVEXT_INLINE void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}

template <int sum, int left, int right>
CONVEXT_INLINE void dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(left), "i"(right));
}

#endif

// Number by number side by side: the first sixteen of each, and the last sixteen.
CONVEXT_INLINE PairVector zip_lower_half(PairVector low, PairVector high) {
  const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  return {_mm512_permutex2var_epi16(low.native, order, high.native)};
}
CONVEXT_INLINE PairVector zip_upper_half(PairVector low, PairVector high) {
  const __m512i order = _mm512_set_epi16(63, 31, 62, 30, 61, 29, 60, 28, 59, 27, 58, 26, 57, 25, 56, 24, 55,
                                         23, 54, 22, 53, 21, 52, 20, 51, 19, 50, 18, 49, 17, 48, 16);
  return {_mm512_permutex2var_epi16(low.native, order, high.native)};
}

// Those in the mask, one after the other.
CONVEXT_INLINE PairVector compress(uint32_t mask, PairVector places) {
  return {_mm512_maskz_compress_epi16(mask, places.native)};
}

// The next of `numbers` to each place in the mask.
CONVEXT_INLINE void expand_into(PairVector& places, uint32_t mask, PairVector numbers) {
  places.native = _mm512_mask_expand_epi16(places.native, mask, numbers.native);
}

// How the pairs of a term run are cut into products: as few as there can be, all of the same size. What is
// beyond the pairs is zeros.
struct TileSteps {
  int64_t count;
  int64_t pairs;  // of each

  explicit TileSteps(int64_t all_pairs)
      : count(ceil_div(all_pairs, most_tile_pairs)), pairs(ceil_div(all_pairs, count)) {}

  int64_t all_pairs() const { return count * pairs; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
