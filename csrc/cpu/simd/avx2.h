// AVX2 + FMA + F16C: 16 registers of 32 bytes.
//
// Of the CPUs this runs on (Haswell and later, Zen and later): two FMAs a cycle, latency 4 or 5, so 8 to 10
// independent accumulators keep them busy; two or three loads a cycle, and a broadcast from memory is a load.
#pragma once

#include <immintrin.h>

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <>
struct Vector<float> {
  static constexpr int64_t lanes = 8;
  __m256 native;
};

template <>
struct Vector<double> {
  static constexpr int64_t lanes = 4;
  __m256d native;
};

// All ones in the first n of 8 lanes of 32 bits: a window into eight ones followed by eight zeros.
CONVEXT_INLINE __m256i first_lanes(int64_t n) {
  alignas(64) static const int32_t ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones_then_zeros + 8 - n));
}

CONVEXT_INLINE Vector<float> load(const float* source) {
  return {_mm256_loadu_ps(source)};
}
CONVEXT_INLINE Vector<double> load(const double* source) {
  return {_mm256_loadu_pd(source)};
}
CONVEXT_INLINE Vector<float> load(const float* source, int64_t n) {
  return {_mm256_maskload_ps(source, first_lanes(n))};
}
CONVEXT_INLINE Vector<double> load(const double* source, int64_t n) {
  return {_mm256_maskload_pd(source, first_lanes(2 * n))};
}
CONVEXT_INLINE void store(float* target, Vector<float> value) {
  _mm256_storeu_ps(target, value.native);
}
CONVEXT_INLINE void store(double* target, Vector<double> value) {
  _mm256_storeu_pd(target, value.native);
}
CONVEXT_INLINE void store(float* target, Vector<float> value, int64_t n) {
  _mm256_maskstore_ps(target, first_lanes(n), value.native);
}
CONVEXT_INLINE void store(double* target, Vector<double> value, int64_t n) {
  _mm256_maskstore_pd(target, first_lanes(2 * n), value.native);
}

// Which lanes of a vector are read.
template <class Real>
struct LaneMask {
  __m256i native;
};

constexpr bool can_mask_loads = true;
constexpr bool can_mask_narrow_loads = false;
template <class Real>
CONVEXT_INLINE LaneMask<Real> lanes_between(int64_t first, int64_t last) {
  constexpr int64_t words = sizeof(Real) / 4;
  return {_mm256_andnot_si256(first_lanes(words * first), first_lanes(words * last))};
}
// Lane i if bit i is set.
template <class Real>
CONVEXT_INLINE LaneMask<Real> lanes_of(uint32_t bits) {
  const __m256i bit = sizeof(Real) == 4 ? _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1)
                                        : _mm256_set_epi32(8, 8, 4, 4, 2, 2, 1, 1);
  const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
  return {_mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit)};
}
// Zeros where the mask has no lane; those are not read.
CONVEXT_INLINE Vector<float> load(const float* source, LaneMask<float> mask) {
  return {_mm256_maskload_ps(source, mask.native)};
}
CONVEXT_INLINE Vector<double> load(const double* source, LaneMask<double> mask) {
  return {_mm256_maskload_pd(source, mask.native)};
}

constexpr bool can_stream = true;
CONVEXT_INLINE void stream(float* target, Vector<float> value) {
  _mm256_stream_ps(target, value.native);
}
CONVEXT_INLINE void stream(double* target, Vector<double> value) {
  _mm256_stream_pd(target, value.native);
}
CONVEXT_INLINE void finish_streams() {
  _mm_sfence();
}

template <>
CONVEXT_INLINE Vector<float> zero<float>() {
  return {_mm256_setzero_ps()};
}
template <>
CONVEXT_INLINE Vector<double> zero<double>() {
  return {_mm256_setzero_pd()};
}
CONVEXT_INLINE Vector<float> broadcast(float value) {
  return {_mm256_set1_ps(value)};
}
CONVEXT_INLINE Vector<double> broadcast(double value) {
  return {_mm256_set1_pd(value)};
}

CONVEXT_INLINE Vector<float> even_lanes(Vector<float> a, Vector<float> b) {
  const __m256d halves = _mm256_castps_pd(_mm256_shuffle_ps(a.native, b.native, 0x88));
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(halves, 0xd8))};
}
CONVEXT_INLINE Vector<double> even_lanes(Vector<double> a, Vector<double> b) {
  return {_mm256_permute4x64_pd(_mm256_unpacklo_pd(a.native, b.native), 0xd8)};
}

CONVEXT_INLINE Vector<float> odd_lanes(Vector<float> a, Vector<float> b) {
  const __m256d halves = _mm256_castps_pd(_mm256_shuffle_ps(a.native, b.native, 0xdd));
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(halves, 0xd8))};
}
CONVEXT_INLINE Vector<double> odd_lanes(Vector<double> a, Vector<double> b) {
  return {_mm256_permute4x64_pd(_mm256_unpackhi_pd(a.native, b.native), 0xd8)};
}
CONVEXT_INLINE Vector<float> interleave_low(Vector<float> a, Vector<float> b) {
  return {_mm256_permute2f128_ps(_mm256_unpacklo_ps(a.native, b.native),
                                 _mm256_unpackhi_ps(a.native, b.native), 0x20)};
}
CONVEXT_INLINE Vector<float> interleave_high(Vector<float> a, Vector<float> b) {
  return {_mm256_permute2f128_ps(_mm256_unpacklo_ps(a.native, b.native),
                                 _mm256_unpackhi_ps(a.native, b.native), 0x31)};
}
CONVEXT_INLINE Vector<double> interleave_low(Vector<double> a, Vector<double> b) {
  return {_mm256_permute2f128_pd(_mm256_unpacklo_pd(a.native, b.native),
                                 _mm256_unpackhi_pd(a.native, b.native), 0x20)};
}
CONVEXT_INLINE Vector<double> interleave_high(Vector<double> a, Vector<double> b) {
  return {_mm256_permute2f128_pd(_mm256_unpacklo_pd(a.native, b.native),
                                 _mm256_unpackhi_pd(a.native, b.native), 0x31)};
}

template <>
struct LaneOrder<float> {
  __m256i native;
};
template <>
struct LaneOrder<double> {
  __m256i native;  // of the halves of the lanes
};
template <>
CONVEXT_INLINE LaneOrder<float> lane_order<float>(const int32_t* lanes) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes))};
}
template <>
CONVEXT_INLINE LaneOrder<double> lane_order<double>(const int32_t* lanes) {
  const __m256i wide = _mm256_cvtepi32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(lanes)));
  const __m256i even = _mm256_slli_epi64(wide, 1);
  const __m256i odd = _mm256_add_epi64(even, _mm256_set1_epi64x(1));
  return {_mm256_or_si256(even, _mm256_slli_epi64(odd, 32))};
}
CONVEXT_INLINE Vector<float> permute(Vector<float> v, LaneOrder<float> order) {
  return {_mm256_permutevar8x32_ps(v.native, order.native)};
}
CONVEXT_INLINE Vector<double> permute(Vector<double> v, LaneOrder<double> order) {
  return {_mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(v.native), order.native))};
}

constexpr bool can_permute_pairs = false;

CONVEXT_INLINE Vector<float> add(Vector<float> a, Vector<float> b) {
  return {_mm256_add_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> add(Vector<double> a, Vector<double> b) {
  return {_mm256_add_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> mul(Vector<float> a, Vector<float> b) {
  return {_mm256_mul_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> mul(Vector<double> a, Vector<double> b) {
  return {_mm256_mul_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> sub(Vector<float> a, Vector<float> b) {
  return {_mm256_sub_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> sub(Vector<double> a, Vector<double> b) {
  return {_mm256_sub_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> absolute(Vector<float> v) {
  return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), v.native)};
}
CONVEXT_INLINE Vector<double> absolute(Vector<double> v) {
  return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), v.native)};
}
CONVEXT_INLINE Vector<float> maximum(Vector<float> a, Vector<float> b) {
  return {_mm256_max_ps(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> maximum(Vector<double> a, Vector<double> b) {
  return {_mm256_max_pd(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> fmadd(Vector<float> a, Vector<float> b, Vector<float> c) {
  return {_mm256_fmadd_ps(a.native, b.native, c.native)};
}
CONVEXT_INLINE Vector<double> fmadd(Vector<double> a, Vector<double> b, Vector<double> c) {
  return {_mm256_fmadd_pd(a.native, b.native, c.native)};
}

CONVEXT_INLINE float sum(Vector<float> v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v.native), _mm256_extractf128_ps(v.native, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
CONVEXT_INLINE double sum(Vector<double> v) {
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v.native), _mm256_extractf128_pd(v.native, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

CONVEXT_INLINE void transpose(Vector<float> (&v)[8]) {
  __m256 pairs[8];
  __m256 fours[8];  // [4 * g + c]: columns c and c + 4 of rows 4 * g ... 4 * g + 3
  CONVEXT_UNROLL
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(v[i].native, v[i + 1].native);
    pairs[i + 1] = _mm256_unpackhi_ps(v[i].native, v[i + 1].native);
  }
  CONVEXT_UNROLL
  for (int i = 0; i < 8; i += 4) {
    CONVEXT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const __m256d upper = _mm256_castps_pd(pairs[i + half]);
      const __m256d lower = _mm256_castps_pd(pairs[i + 2 + half]);
      fours[i + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(upper, lower));
      fours[i + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(upper, lower));
    }
  }
  CONVEXT_UNROLL
  for (int c = 0; c < 4; ++c) {
    v[c].native = _mm256_permute2f128_ps(fours[c], fours[4 + c], 0x20);
    v[c + 4].native = _mm256_permute2f128_ps(fours[c], fours[4 + c], 0x31);
  }
}
CONVEXT_INLINE void transpose(Vector<double> (&v)[4]) {
  __m256d pairs[4];
  CONVEXT_UNROLL
  for (int i = 0; i < 4; i += 2) {
    pairs[i] = _mm256_unpacklo_pd(v[i].native, v[i + 1].native);
    pairs[i + 1] = _mm256_unpackhi_pd(v[i].native, v[i + 1].native);
  }
  CONVEXT_UNROLL
  for (int c = 0; c < 2; ++c) {
    v[c].native = _mm256_permute2f128_pd(pairs[c], pairs[2 + c], 0x20);
    v[c + 2].native = _mm256_permute2f128_pd(pairs[c], pairs[2 + c], 0x31);
  }
}

CONVEXT_INLINE Vector<float> load_as_float(const BFloat16* source) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
}
CONVEXT_INLINE Vector<float> load_as_float(const Float16* source) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)))};
}

CONVEXT_INLINE void store_from_float(BFloat16* target, Vector<float> value) {
  const __m256i bits = _mm256_castps_si256(value.native);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet_nan = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value.native, value.native, _CMP_UNORD_Q));
  const __m256i halves = _mm256_blendv_epi8(rounded, quiet_nan, is_nan);
  // The pack works within 16-byte halves; both parts that matter are in quarters 0 and 2.
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(halves, halves), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_castsi256_si128(packed));
}
CONVEXT_INLINE void store_from_float(Float16* target, Vector<float> value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target),
                   _mm256_cvtps_ph(value.native, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
