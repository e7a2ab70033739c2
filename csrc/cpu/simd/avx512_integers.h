// Vectors of integers with AVX-512 F + BW + DQ. See cpu/simd_integers.h.
#pragma once

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <>
struct Vector<int16_t> {
  static constexpr int64_t lanes = 32;
  __m512i native;
};

template <>
struct Vector<int32_t> {
  static constexpr int64_t lanes = 16;
  __m512i native;
};

template <>
struct Vector<int64_t> {
  static constexpr int64_t lanes = 8;
  __m512i native;
};

CONVEXT_INLINE Vector<int16_t> load(const int16_t* source) {
  return {_mm512_loadu_si512(source)};
}
CONVEXT_INLINE Vector<int32_t> load(const int32_t* source) {
  return {_mm512_loadu_si512(source)};
}
CONVEXT_INLINE Vector<int64_t> load(const int64_t* source) {
  return {_mm512_loadu_si512(source)};
}
CONVEXT_INLINE void store(int16_t* target, Vector<int16_t> value) {
  _mm512_storeu_si512(target, value.native);
}
CONVEXT_INLINE void store(int32_t* target, Vector<int32_t> value) {
  _mm512_storeu_si512(target, value.native);
}
CONVEXT_INLINE void store(int64_t* target, Vector<int64_t> value) {
  _mm512_storeu_si512(target, value.native);
}

template <>
CONVEXT_INLINE Vector<int16_t> zero<int16_t>() {
  return {_mm512_setzero_si512()};
}
template <>
CONVEXT_INLINE Vector<int32_t> zero<int32_t>() {
  return {_mm512_setzero_si512()};
}
template <>
CONVEXT_INLINE Vector<int64_t> zero<int64_t>() {
  return {_mm512_setzero_si512()};
}
CONVEXT_INLINE Vector<int16_t> broadcast(int16_t value) {
  return {_mm512_set1_epi16(value)};
}
CONVEXT_INLINE Vector<int32_t> broadcast(int32_t value) {
  return {_mm512_set1_epi32(value)};
}
CONVEXT_INLINE Vector<int64_t> broadcast(int64_t value) {
  return {_mm512_set1_epi64(value)};
}
CONVEXT_INLINE Vector<int16_t> broadcast_pair(int32_t value) {
  return {_mm512_set1_epi32(value)};
}

CONVEXT_INLINE Vector<int16_t> add(Vector<int16_t> a, Vector<int16_t> b) {
  return {_mm512_add_epi16(a.native, b.native)};
}
CONVEXT_INLINE Vector<int32_t> add(Vector<int32_t> a, Vector<int32_t> b) {
  return {_mm512_add_epi32(a.native, b.native)};
}
CONVEXT_INLINE Vector<int64_t> add(Vector<int64_t> a, Vector<int64_t> b) {
  return {_mm512_add_epi64(a.native, b.native)};
}
CONVEXT_INLINE Vector<int16_t> mul(Vector<int16_t> a, Vector<int16_t> b) {
  return {_mm512_mullo_epi16(a.native, b.native)};
}
CONVEXT_INLINE Vector<int32_t> mul(Vector<int32_t> a, Vector<int32_t> b) {
  return {_mm512_mullo_epi32(a.native, b.native)};
}
CONVEXT_INLINE Vector<int64_t> mul(Vector<int64_t> a, Vector<int64_t> b) {
  return {_mm512_mullo_epi64(a.native, b.native)};
}

CONVEXT_INLINE Vector<int32_t> add_products_of_halves(Vector<int32_t> a, Vector<int32_t> b,
                                                      Vector<int32_t> c) {
  return {_mm512_add_epi32(_mm512_madd_epi16(a.native, b.native), c.native)};
}
CONVEXT_INLINE Vector<int32_t> join_halves(Vector<int32_t> low, Vector<int32_t> high) {
  return {_mm512_mask_blend_epi16(0xaaaaaaaau, low.native, _mm512_slli_epi32(high.native, 16))};
}

CONVEXT_INLINE Vector<int16_t> load_as_int16(const uint8_t* source) {
  return {_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)))};
}
CONVEXT_INLINE Vector<int16_t> load_as_int16(const int8_t* source) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)))};
}
CONVEXT_INLINE Vector<int32_t> load_as_int32(const uint8_t* source) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)))};
}
CONVEXT_INLINE Vector<int32_t> load_as_int32(const int8_t* source) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)))};
}

CONVEXT_INLINE void store_narrowed(uint8_t* target, Vector<int16_t> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtepi16_epi8(value.native));
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
