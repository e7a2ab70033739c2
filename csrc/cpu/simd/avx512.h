// AVX-512 F + BW + DQ + VL: 32 registers of 64 bytes, masks for parts of a register.
#pragma once

// GCC 12's own definitions of the intrinsics start from a deliberately undefined register and then warn of
// it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <>
struct Vector<float> {
  static constexpr int64_t lanes = 16;
  __m512 native;
};

template <>
struct Vector<double> {
  static constexpr int64_t lanes = 8;
  __m512d native;
};

CONVEXT_INLINE __mmask16 first_16(int64_t n) {
  return static_cast<__mmask16>((uint32_t{1} << n) - 1);
}
CONVEXT_INLINE __mmask8 first_8(int64_t n) {
  return static_cast<__mmask8>((uint32_t{1} << n) - 1);
}

CONVEXT_INLINE Vector<float> load(const float* source) {
  return {_mm512_loadu_ps(source)};
}
CONVEXT_INLINE Vector<double> load(const double* source) {
  return {_mm512_loadu_pd(source)};
}
CONVEXT_INLINE Vector<float> load(const float* source, int64_t n) {
  return {_mm512_maskz_loadu_ps(first_16(n), source)};
}
CONVEXT_INLINE Vector<double> load(const double* source, int64_t n) {
  return {_mm512_maskz_loadu_pd(first_8(n), source)};
}
CONVEXT_INLINE void store(float* target, Vector<float> value) {
  _mm512_storeu_ps(target, value.native);
}
CONVEXT_INLINE void store(double* target, Vector<double> value) {
  _mm512_storeu_pd(target, value.native);
}
CONVEXT_INLINE void store(float* target, Vector<float> value, int64_t n) {
  _mm512_mask_storeu_ps(target, first_16(n), value.native);
}
CONVEXT_INLINE void store(double* target, Vector<double> value, int64_t n) {
  _mm512_mask_storeu_pd(target, first_8(n), value.native);
}

// Which lanes of a vector are read.
template <class Real>
struct LaneMask;
template <>
struct LaneMask<float> {
  __mmask16 native;
};
template <>
struct LaneMask<double> {
  __mmask8 native;
};

constexpr bool can_mask_loads = true;
template <class Real>
CONVEXT_INLINE LaneMask<Real> lanes_between(int64_t first, int64_t last) {
  const uint32_t lanes = first >= last ? 0 : ((uint32_t{1} << last) - 1) & ~((uint32_t{1} << first) - 1);
  return {static_cast<decltype(LaneMask<Real>::native)>(lanes)};
}
// Lane i if bit i is set.
template <class Real>
CONVEXT_INLINE LaneMask<Real> lanes_of(uint32_t bits) {
  return {static_cast<decltype(LaneMask<Real>::native)>(bits)};
}
// Zeros where the mask has no lane; those are not read.
CONVEXT_INLINE Vector<float> load(const float* source, LaneMask<float> mask) {
  return {_mm512_maskz_loadu_ps(mask.native, source)};
}
CONVEXT_INLINE Vector<double> load(const double* source, LaneMask<double> mask) {
  return {_mm512_maskz_loadu_pd(mask.native, source)};
}
constexpr bool can_mask_narrow_loads = true;

constexpr bool can_stream = true;
CONVEXT_INLINE void stream(float* target, Vector<float> value) {
  _mm512_stream_ps(target, value.native);
}
CONVEXT_INLINE void stream(double* target, Vector<double> value) {
  _mm512_stream_pd(target, value.native);
}
CONVEXT_INLINE void finish_streams() {
  _mm_sfence();
}

template <>
CONVEXT_INLINE Vector<float> zero<float>() {
  return {_mm512_setzero_ps()};
}
template <>
CONVEXT_INLINE Vector<double> zero<double>() {
  return {_mm512_setzero_pd()};
}
CONVEXT_INLINE Vector<float> broadcast(float value) {
  return {_mm512_set1_ps(value)};
}
CONVEXT_INLINE Vector<double> broadcast(double value) {
  return {_mm512_set1_pd(value)};
}

CONVEXT_INLINE Vector<float> even_lanes(Vector<float> a, Vector<float> b) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return {_mm512_permutex2var_ps(a.native, even, b.native)};
}
CONVEXT_INLINE Vector<double> even_lanes(Vector<double> a, Vector<double> b) {
  const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
  return {_mm512_permutex2var_pd(a.native, even, b.native)};
}

CONVEXT_INLINE Vector<float> odd_lanes(Vector<float> a, Vector<float> b) {
  const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return {_mm512_permutex2var_ps(a.native, odd, b.native)};
}
CONVEXT_INLINE Vector<double> odd_lanes(Vector<double> a, Vector<double> b) {
  const __m512i odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
  return {_mm512_permutex2var_pd(a.native, odd, b.native)};
}
CONVEXT_INLINE Vector<float> interleave_low(Vector<float> a, Vector<float> b) {
  const __m512i order = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return {_mm512_permutex2var_ps(a.native, order, b.native)};
}
CONVEXT_INLINE Vector<float> interleave_high(Vector<float> a, Vector<float> b) {
  const __m512i order = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  return {_mm512_permutex2var_ps(a.native, order, b.native)};
}
CONVEXT_INLINE Vector<double> interleave_low(Vector<double> a, Vector<double> b) {
  const __m512i order = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
  return {_mm512_permutex2var_pd(a.native, order, b.native)};
}
CONVEXT_INLINE Vector<double> interleave_high(Vector<double> a, Vector<double> b) {
  const __m512i order = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
  return {_mm512_permutex2var_pd(a.native, order, b.native)};
}

template <>
struct LaneOrder<float> {
  __m512i native;
};
template <>
struct LaneOrder<double> {
  __m512i native;
};
template <>
CONVEXT_INLINE LaneOrder<float> lane_order<float>(const int32_t* lanes) {
  return {_mm512_loadu_si512(lanes)};
}
template <>
CONVEXT_INLINE LaneOrder<double> lane_order<double>(const int32_t* lanes) {
  return {_mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes)))};
}
CONVEXT_INLINE Vector<float> permute(Vector<float> v, LaneOrder<float> order) {
  return {_mm512_permutexvar_ps(order.native, v.native)};
}
CONVEXT_INLINE Vector<double> permute(Vector<double> v, LaneOrder<double> order) {
  return {_mm512_permutexvar_pd(order.native, v.native)};
}

constexpr bool can_permute_pairs = true;
CONVEXT_INLINE Vector<float> permute_pair(Vector<float> a, Vector<float> b, LaneOrder<float> order) {
  return {_mm512_permutex2var_ps(a.native, order.native, b.native)};
}
CONVEXT_INLINE Vector<double> permute_pair(Vector<double> a, Vector<double> b, LaneOrder<double> order) {
  return {_mm512_permutex2var_pd(a.native, order.native, b.native)};
}

CONVEXT_INLINE Vector<float> add(Vector<float> a, Vector<float> b) {
  return {_mm512_add_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> add(Vector<double> a, Vector<double> b) {
  return {_mm512_add_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> mul(Vector<float> a, Vector<float> b) {
  return {_mm512_mul_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> mul(Vector<double> a, Vector<double> b) {
  return {_mm512_mul_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> sub(Vector<float> a, Vector<float> b) {
  return {_mm512_sub_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> sub(Vector<double> a, Vector<double> b) {
  return {_mm512_sub_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> absolute(Vector<float> v) {
  return {_mm512_abs_ps(v.native)};
}
CONVEXT_INLINE Vector<double> absolute(Vector<double> v) {
  return {_mm512_abs_pd(v.native)};
}
CONVEXT_INLINE Vector<float> maximum(Vector<float> a, Vector<float> b) {
  return {_mm512_max_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> maximum(Vector<double> a, Vector<double> b) {
  return {_mm512_max_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> fmadd(Vector<float> a, Vector<float> b, Vector<float> c) {
  return {_mm512_fmadd_ps(a.native, b.native, c.native)};
}
CONVEXT_INLINE Vector<double> fmadd(Vector<double> a, Vector<double> b, Vector<double> c) {
  return {_mm512_fmadd_pd(a.native, b.native, c.native)};
}

// Not _mm512_reduce_add: its order is the compiler's choice.
CONVEXT_INLINE float sum(Vector<float> v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v.native), _mm512_extractf32x8_ps(v.native, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
CONVEXT_INLINE double sum(Vector<double> v) {
  const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(v.native), _mm512_extractf64x4_pd(v.native, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

CONVEXT_INLINE void transpose(Vector<float> (&v)[16]) {
  __m512 pairs[16];
  __m512 fours[16];  // [4 * g + c]: columns c, c + 4, c + 8, c + 12 of rows 4 * g ... 4 * g + 3
  CONVEXT_UNROLL
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(v[i].native, v[i + 1].native);
    pairs[i + 1] = _mm512_unpackhi_ps(v[i].native, v[i + 1].native);
  }
  CONVEXT_UNROLL
  for (int i = 0; i < 16; i += 4) {
    CONVEXT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const __m512d upper = _mm512_castps_pd(pairs[i + half]);
      const __m512d lower = _mm512_castps_pd(pairs[i + 2 + half]);
      fours[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
      fours[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
    }
  }
  CONVEXT_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512 even_upper = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0x88);
    const __m512 even_lower = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0x88);
    const __m512 odd_upper = _mm512_shuffle_f32x4(fours[c], fours[4 + c], 0xdd);
    const __m512 odd_lower = _mm512_shuffle_f32x4(fours[8 + c], fours[12 + c], 0xdd);
    v[c].native = _mm512_shuffle_f32x4(even_upper, even_lower, 0x88);
    v[c + 4].native = _mm512_shuffle_f32x4(odd_upper, odd_lower, 0x88);
    v[c + 8].native = _mm512_shuffle_f32x4(even_upper, even_lower, 0xdd);
    v[c + 12].native = _mm512_shuffle_f32x4(odd_upper, odd_lower, 0xdd);
  }
}
CONVEXT_INLINE void transpose(Vector<double> (&v)[8]) {
  __m512d pairs[8];  // [2 * g + c]: columns c, c + 2, c + 4, c + 6 of rows 2 * g and 2 * g + 1
  CONVEXT_UNROLL
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm512_unpacklo_pd(v[i].native, v[i + 1].native);
    pairs[i + 1] = _mm512_unpackhi_pd(v[i].native, v[i + 1].native);
  }
  CONVEXT_UNROLL
  for (int c = 0; c < 2; ++c) {
    const __m512d even_upper = _mm512_shuffle_f64x2(pairs[c], pairs[2 + c], 0x88);
    const __m512d even_lower = _mm512_shuffle_f64x2(pairs[4 + c], pairs[6 + c], 0x88);
    const __m512d odd_upper = _mm512_shuffle_f64x2(pairs[c], pairs[2 + c], 0xdd);
    const __m512d odd_lower = _mm512_shuffle_f64x2(pairs[4 + c], pairs[6 + c], 0xdd);
    v[c].native = _mm512_shuffle_f64x2(even_upper, even_lower, 0x88);
    v[c + 2].native = _mm512_shuffle_f64x2(odd_upper, odd_lower, 0x88);
    v[c + 4].native = _mm512_shuffle_f64x2(even_upper, even_lower, 0xdd);
    v[c + 6].native = _mm512_shuffle_f64x2(odd_upper, odd_lower, 0xdd);
  }
}

CONVEXT_INLINE Vector<float> widen_halves(const BFloat16*, __m256i halves) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}
CONVEXT_INLINE Vector<float> widen_halves(const Float16*, __m256i halves) {
  return {_mm512_cvtph_ps(halves)};
}
template <class T>
CONVEXT_INLINE Vector<float> load_as_float(const T* source) {
  return widen_halves(source, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}
template <class T>
CONVEXT_INLINE Vector<float> load_as_float(const T* source, LaneMask<float> mask) {
  return widen_halves(source, _mm256_maskz_loadu_epi16(mask.native, source));
}
template <class T>
CONVEXT_INLINE Vector<float> load_as_float(const T* source, int64_t n) {
  return load_as_float(source, LaneMask<float>{first_16(n)});
}

CONVEXT_INLINE __m256i narrow_to_halves(BFloat16*, Vector<float> value) {
  const __m512i bits = _mm512_castps_si512(value.native);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i below_half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i quiet_nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_number = _mm512_cmp_ps_mask(value.native, value.native, _CMP_ORD_Q);
  const __m512i rounded = _mm512_mask_add_epi32(quiet_nan, is_number, bits, below_half);
  const __m512i upper_halves = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27,
                                                25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper_halves, rounded));
}
CONVEXT_INLINE __m256i narrow_to_halves(Float16*, Vector<float> value) {
  return _mm512_cvtps_ph(value.native, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
template <class T>
CONVEXT_INLINE void store_from_float(T* target, Vector<float> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), narrow_to_halves(target, value));
}
template <class T>
CONVEXT_INLINE void store_from_float(T* target, Vector<float> value, int64_t n) {
  _mm256_mask_storeu_epi16(target, first_16(n), narrow_to_halves(target, value));
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
