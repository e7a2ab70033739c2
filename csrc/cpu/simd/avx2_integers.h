// Vectors of integers with AVX2. See cpu/simd_integers.h.
#pragma once

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <>
struct Vector<int16_t> {
  static constexpr int64_t lanes = 16;
  __m256i native;
};

template <>
struct Vector<int32_t> {
  static constexpr int64_t lanes = 8;
  __m256i native;
};

template <>
struct Vector<int64_t> {
  static constexpr int64_t lanes = 4;
  __m256i native;
};

CONVEXT_INLINE Vector<int16_t> load(const int16_t* source) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))};
}
CONVEXT_INLINE Vector<int32_t> load(const int32_t* source) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))};
}
CONVEXT_INLINE Vector<int64_t> load(const int64_t* source) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))};
}
CONVEXT_INLINE void store(int16_t* target, Vector<int16_t> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), value.native);
}
CONVEXT_INLINE void store(int32_t* target, Vector<int32_t> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), value.native);
}
CONVEXT_INLINE void store(int64_t* target, Vector<int64_t> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), value.native);
}

template <>
CONVEXT_INLINE Vector<int16_t> zero<int16_t>() {
  return {_mm256_setzero_si256()};
}
template <>
CONVEXT_INLINE Vector<int32_t> zero<int32_t>() {
  return {_mm256_setzero_si256()};
}
template <>
CONVEXT_INLINE Vector<int64_t> zero<int64_t>() {
  return {_mm256_setzero_si256()};
}
CONVEXT_INLINE Vector<int16_t> broadcast(int16_t value) {
  return {_mm256_set1_epi16(value)};
}
CONVEXT_INLINE Vector<int32_t> broadcast(int32_t value) {
  return {_mm256_set1_epi32(value)};
}
CONVEXT_INLINE Vector<int64_t> broadcast(int64_t value) {
  return {_mm256_set1_epi64x(value)};
}
CONVEXT_INLINE Vector<int16_t> broadcast_pair(int32_t value) {
  return {_mm256_set1_epi32(value)};
}

CONVEXT_INLINE Vector<int16_t> add(Vector<int16_t> a, Vector<int16_t> b) {
  return {_mm256_add_epi16(a.native, b.native)};
}
CONVEXT_INLINE Vector<int32_t> add(Vector<int32_t> a, Vector<int32_t> b) {
  return {_mm256_add_epi32(a.native, b.native)};
}
CONVEXT_INLINE Vector<int64_t> add(Vector<int64_t> a, Vector<int64_t> b) {
  return {_mm256_add_epi64(a.native, b.native)};
}
CONVEXT_INLINE Vector<int16_t> mul(Vector<int16_t> a, Vector<int16_t> b) {
  return {_mm256_mullo_epi16(a.native, b.native)};
}
CONVEXT_INLINE Vector<int32_t> mul(Vector<int32_t> a, Vector<int32_t> b) {
  return {_mm256_mullo_epi32(a.native, b.native)};
}
// Of halves: the product of the high ones is beyond the result.
CONVEXT_INLINE Vector<int64_t> mul(Vector<int64_t> a, Vector<int64_t> b) {
  const __m256i a_high = _mm256_srli_epi64(a.native, 32);
  const __m256i b_high = _mm256_srli_epi64(b.native, 32);
  const __m256i mixed =
      _mm256_add_epi64(_mm256_mul_epu32(a_high, b.native), _mm256_mul_epu32(a.native, b_high));
  return {_mm256_add_epi64(_mm256_mul_epu32(a.native, b.native), _mm256_slli_epi64(mixed, 32))};
}

CONVEXT_INLINE Vector<int32_t> add_products_of_halves(Vector<int32_t> a, Vector<int32_t> b,
                                                      Vector<int32_t> c) {
  return {_mm256_add_epi32(_mm256_madd_epi16(a.native, b.native), c.native)};
}
CONVEXT_INLINE Vector<int32_t> join_halves(Vector<int32_t> low, Vector<int32_t> high) {
  return {_mm256_blend_epi16(low.native, _mm256_slli_epi32(high.native, 16), 0xaa)};
}

CONVEXT_INLINE Vector<int16_t> load_as_int16(const uint8_t* source) {
  return {_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)))};
}
CONVEXT_INLINE Vector<int16_t> load_as_int16(const int8_t* source) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)))};
}
CONVEXT_INLINE Vector<int32_t> load_as_int32(const uint8_t* source) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)))};
}
CONVEXT_INLINE Vector<int32_t> load_as_int32(const int8_t* source) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)))};
}

CONVEXT_INLINE void store_narrowed(uint8_t* target, Vector<int16_t> value) {
  const __m256i low = _mm256_and_si256(value.native, _mm256_set1_epi16(0xff));
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), bytes);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
