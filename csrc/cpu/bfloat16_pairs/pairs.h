// Vectors of pairs of bfloat16 numbers, as the processor's dot product takes them: each lane of 32 bits has
// two numbers, and dot(sum, a, b) adds both products of a lane to its float32 sum, one after the other. Two
// products in the place of one fused multiply-add; each is exact, and each addition rounded to nearest even.
//
// The instruction takes subnormal numbers for zeros, operands and sums alike. So it loses what is below
// 2^-126, as PyTorch does on the same processors.
#pragma once

#include "cpu/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

using Pair = uint32_t;  // the number of the lower place in the lower half

struct PairVector {
  static constexpr int64_t lanes = 16;
  __m512i native;
};

CONVEXT_INLINE PairVector load_pairs(const Pair* source) {
  return {_mm512_loadu_si512(source)};
}

// Two neighbours, in each lane.
CONVEXT_INLINE PairVector broadcast_pair(const BFloat16* source) {
  int32_t both;
  std::memcpy(&both, source, sizeof(both));
  return {_mm512_set1_epi32(both)};
}

CONVEXT_INLINE void store(Pair* target, PairVector value) {
  _mm512_storeu_si512(target, value.native);
}

// The first `count` pairs.
CONVEXT_INLINE void store_lanes(Pair* target, PairVector value, int64_t count) {
  if (count >= PairVector::lanes) return store(target, value);
  _mm512_mask_storeu_epi32(target, static_cast<__mmask16>(0xffff >> (16 - count)), value.native);
}

CONVEXT_INLINE PairVector no_pairs() {
  return {_mm512_setzero_si512()};
}

// 16 pairs from memory; of the numbers, `count` are there, the others are zero.
CONVEXT_INLINE PairVector load_neighbours(const BFloat16* source, int64_t count) {
  if (count >= 32) return {_mm512_loadu_si512(source)};
  const __mmask32 mask = count <= 0 ? 0 : ~__mmask32{0} >> (32 - count);
  return {_mm512_maskz_loadu_epi16(mask, source)};
}

// 16 numbers of each of two places, number by number side by side; of each, `count` are there. A place that
// there is not is nullptr.
CONVEXT_INLINE PairVector zip(const BFloat16* low, const BFloat16* high, int64_t count) {
  const __mmask16 mask = static_cast<__mmask16>(count >= 16  ? 0xffff
                                                : count <= 0 ? 0
                                                             : 0xffff >> (16 - count));
  const __m512i lower = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low));
  if (high == nullptr) return {lower};
  const __m512i upper = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, high));
  return {_mm512_or_si512(lower, _mm512_slli_epi32(upper, 16))};
}

CONVEXT_INLINE Vector<float> dot(Vector<float> sum, PairVector a, PairVector b) {
  return {_mm512_dpbf16_ps(sum.native, (__m512bh)a.native, (__m512bh)b.native)};
}

// Lane j of row i becomes lane i of row j.
CONVEXT_INLINE void transpose(PairVector (&rows)[PairVector::lanes]) {
  Vector<float> square[PairVector::lanes];
  CONVEXT_UNROLL
  for (int64_t i = 0; i < PairVector::lanes; ++i) square[i].native = _mm512_castsi512_ps(rows[i].native);
  transpose(square);
  CONVEXT_UNROLL
  for (int64_t i = 0; i < PairVector::lanes; ++i) rows[i].native = _mm512_castps_si512(square[i].native);
}

// 32 numbers of which the first `count` are stored.
CONVEXT_INLINE void store_neighbours(BFloat16* target, PairVector value, int64_t count) {
  if (count >= 32) return _mm512_storeu_si512(target, value.native);
  if (count <= 0) return;
  _mm512_mask_storeu_epi16(target, ~__mmask32{0} >> (32 - count), value.native);
}

// Numbers of two vectors, rounded to nearest even, side by side.
CONVEXT_INLINE PairVector round_and_zip(Vector<float> low, Vector<float> high) {
  const auto both = (__m512i)_mm512_cvtne2ps_pbh(high.native, low.native);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return {_mm512_permutexvar_epi16(order, both)};
}

// Rounded to nearest even, one vector behind the other.
CONVEXT_INLINE PairVector round_neighbours(Vector<float> first, Vector<float> last) {
  return {(__m512i)_mm512_cvtne2ps_pbh(last.native, first.native)};
}

// Pairs of 32 numbers of two places each: of each block of eight the first four, or the last four.
CONVEXT_INLINE PairVector zip_first_halves(PairVector low, PairVector high) {
  return {_mm512_unpacklo_epi16(low.native, high.native)};
}
CONVEXT_INLINE PairVector zip_last_halves(PairVector low, PairVector high) {
  return {_mm512_unpackhi_epi16(low.native, high.native)};
}

// Of the 64 numbers of two vectors, those at `order`.
CONVEXT_INLINE PairVector permute_numbers(PairVector a, PairVector b, const uint16_t (&order)[32]) {
  return {_mm512_permutex2var_epi16(a.native, _mm512_loadu_si512(order), b.native)};
}

// Where the mask says so, the numbers of b at `order` in place of those of a.
CONVEXT_INLINE PairVector replace_numbers(PairVector a, uint32_t mask, PairVector b,
                                          const uint16_t (&order)[32]) {
  return {_mm512_mask_permutexvar_epi16(a.native, mask, _mm512_loadu_si512(order), b.native)};
}

// The lower, or the upper numbers of two vectors of pairs, as neighbours.
CONVEXT_INLINE PairVector lower_numbers(PairVector a, PairVector b) {
  const __m512i order = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30,
                                         28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return {_mm512_permutex2var_epi16(a.native, order, b.native)};
}
CONVEXT_INLINE PairVector upper_numbers(PairVector a, PairVector b) {
  const __m512i order = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31,
                                         29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return {_mm512_permutex2var_epi16(a.native, order, b.native)};
}

// Rounded to nearest even; of blocks of eight numbers, the first halves and the last ones come together
// again.
CONVEXT_INLINE PairVector round_halves(Vector<float> first, Vector<float> last) {
  const auto both = (__m512i)_mm512_cvtne2ps_pbh(last.native, first.native);
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  return {_mm512_permutexvar_epi64(order, both)};
}

// 32 numbers of which the first `count` are stored, each `step` behind the other: 2 or 4. What lies between
// stays as it is.
CONVEXT_INLINE void store_every(BFloat16* target, int64_t step, PairVector value, int64_t count) {
  const __m512i ascending = _mm512_set_epi16(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16,
                                             15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __mmask32 every = step == 2 ? 0x55555555 : 0x11111111;
  const unsigned shift = step == 2 ? 1 : 2;
  const int64_t of_vector = 32 / step;
  for (int64_t part = 0; part < step; ++part) {
    const int64_t left = count - part * of_vector;
    if (left <= 0) return;
    const __mmask32 mask = left >= of_vector ? every : every & ((__mmask32{1} << (left * step)) - 1);
    const __m512i order = _mm512_add_epi16(_mm512_srli_epi16(ascending, shift),
                                           _mm512_set1_epi16(static_cast<int16_t>(part * of_vector)));
    _mm512_mask_storeu_epi16(target + part * 32, mask, _mm512_permutexvar_epi16(order, value.native));
  }
}

// Whether some number of any vector that was looked at is infinite or NaN.
struct NonFinite {
  __mmask32 found = 0;

  CONVEXT_INLINE void look_at(PairVector value) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    found |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(value.native, exponent), exponent);
  }
  CONVEXT_INLINE void look_at(BFloat16 value) { found |= (value.bits & 0x7f80) == 0x7f80 ? 1 : 0; }
};

// The first `count` lanes, rounded to nearest even.
CONVEXT_INLINE void store_rounded(BFloat16* target, Vector<float> value, int64_t count) {
  const auto halves = (__m256i)_mm512_cvtneps_pbh(value.native);
  if (count >= PairVector::lanes) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), halves);
  _mm256_mask_storeu_epi16(target, static_cast<__mmask16>(0xffff >> (16 - count)), halves);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
