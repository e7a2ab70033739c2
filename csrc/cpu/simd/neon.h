// NEON on AArch64: 32 registers of 16 bytes, fused multiply-add, conversions of float16 in hardware.
#pragma once

#include <arm_neon.h>

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <>
struct Vector<float> {
  static constexpr int64_t lanes = 4;
  float32x4_t native;
};

template <>
struct Vector<double> {
  static constexpr int64_t lanes = 2;
  float64x2_t native;
};

CONVEXT_INLINE Vector<float> load(const float* source) {
  return {vld1q_f32(source)};
}
CONVEXT_INLINE Vector<double> load(const double* source) {
  return {vld1q_f64(source)};
}
CONVEXT_INLINE Vector<float> load(const float* source, int64_t n) {
  float lanes[4] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = source[i];
  return load(lanes);
}
CONVEXT_INLINE Vector<double> load(const double* source, int64_t n) {
  double lanes[2] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = source[i];
  return load(lanes);
}
CONVEXT_INLINE void store(float* target, Vector<float> value) {
  vst1q_f32(target, value.native);
}
CONVEXT_INLINE void store(double* target, Vector<double> value) {
  vst1q_f64(target, value.native);
}
CONVEXT_INLINE void store(float* target, Vector<float> value, int64_t n) {
  float lanes[4];
  store(lanes, value);
  for (int64_t i = 0; i < n; ++i) target[i] = lanes[i];
}
CONVEXT_INLINE void store(double* target, Vector<double> value, int64_t n) {
  double lanes[2];
  store(lanes, value);
  for (int64_t i = 0; i < n; ++i) target[i] = lanes[i];
}

// Which lanes of a vector are read.
template <class Real>
struct LaneMask {
  uint32_t bits;  // of the lanes
};

constexpr bool can_mask_loads = false;  // NEON has none, so lane by lane
constexpr bool can_mask_narrow_loads = false;
template <class Real>
CONVEXT_INLINE LaneMask<Real> lanes_between(int64_t first, int64_t last) {
  return {first >= last ? 0 : ((uint32_t{1} << last) - 1) & ~((uint32_t{1} << first) - 1)};
}
// Lane i if bit i is set.
template <class Real>
CONVEXT_INLINE LaneMask<Real> lanes_of(uint32_t bits) {
  return {bits};
}
// Zeros where the mask has no lane; those are not read.
template <class Real>
CONVEXT_INLINE Vector<Real> load(const Real* source, LaneMask<Real> mask) {
  Real lanes[Vector<Real>::lanes] = {};
  for (int64_t i = 0; i < Vector<Real>::lanes; ++i)
    if ((mask.bits >> i & 1) != 0) lanes[i] = source[i];
  return load(lanes);
}

constexpr bool can_stream = false;
template <class T>
CONVEXT_INLINE void stream(T* target, Vector<T> value) {
  store(target, value);
}
CONVEXT_INLINE void finish_streams() {}

template <>
CONVEXT_INLINE Vector<float> zero<float>() {
  return {vdupq_n_f32(0)};
}
template <>
CONVEXT_INLINE Vector<double> zero<double>() {
  return {vdupq_n_f64(0)};
}
CONVEXT_INLINE Vector<float> broadcast(float value) {
  return {vdupq_n_f32(value)};
}
CONVEXT_INLINE Vector<double> broadcast(double value) {
  return {vdupq_n_f64(value)};
}

CONVEXT_INLINE Vector<float> even_lanes(Vector<float> a, Vector<float> b) {
  return {vuzp1q_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> even_lanes(Vector<double> a, Vector<double> b) {
  return {vuzp1q_f64(a.native, b.native)};
}

CONVEXT_INLINE Vector<float> odd_lanes(Vector<float> a, Vector<float> b) {
  return {vuzp2q_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> odd_lanes(Vector<double> a, Vector<double> b) {
  return {vuzp2q_f64(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> interleave_low(Vector<float> a, Vector<float> b) {
  return {vzip1q_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> interleave_high(Vector<float> a, Vector<float> b) {
  return {vzip2q_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> interleave_low(Vector<double> a, Vector<double> b) {
  return {vzip1q_f64(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> interleave_high(Vector<double> a, Vector<double> b) {
  return {vzip2q_f64(a.native, b.native)};
}

template <>
struct LaneOrder<float> {
  uint8x16_t native;  // of the bytes
};
template <>
struct LaneOrder<double> {
  uint8x16_t native;
};
template <>
CONVEXT_INLINE LaneOrder<float> lane_order<float>(const int32_t* lanes) {
  const uint32x4_t lane = vreinterpretq_u32_s32(vld1q_s32(lanes));
  return {vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32(0x03020100), lane, 0x04040404))};
}
template <>
CONVEXT_INLINE LaneOrder<double> lane_order<double>(const int32_t* lanes) {
  constexpr uint64_t bytes = 0x0706050403020100;
  constexpr uint64_t step = 0x0808080808080808;
  const uint64x2_t first = vdupq_n_u64(bytes + static_cast<uint64_t>(lanes[0]) * step);
  return {vreinterpretq_u8_u64(vsetq_lane_u64(bytes + static_cast<uint64_t>(lanes[1]) * step, first, 1))};
}
CONVEXT_INLINE Vector<float> permute(Vector<float> v, LaneOrder<float> order) {
  return {vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(v.native), order.native))};
}
CONVEXT_INLINE Vector<double> permute(Vector<double> v, LaneOrder<double> order) {
  return {vreinterpretq_f64_u8(vqtbl1q_u8(vreinterpretq_u8_f64(v.native), order.native))};
}

constexpr bool can_permute_pairs = false;

CONVEXT_INLINE Vector<float> add(Vector<float> a, Vector<float> b) {
  return {vaddq_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> add(Vector<double> a, Vector<double> b) {
  return {vaddq_f64(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> mul(Vector<float> a, Vector<float> b) {
  return {vmulq_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> mul(Vector<double> a, Vector<double> b) {
  return {vmulq_f64(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> sub(Vector<float> a, Vector<float> b) {
  return {vsubq_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> sub(Vector<double> a, Vector<double> b) {
  return {vsubq_f64(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> absolute(Vector<float> v) {
  return {vabsq_f32(v.native)};
}
CONVEXT_INLINE Vector<double> absolute(Vector<double> v) {
  return {vabsq_f64(v.native)};
}
CONVEXT_INLINE Vector<float> maximum(Vector<float> a, Vector<float> b) {
  return {vmaxq_f32(a.native, b.native)};
}
CONVEXT_INLINE Vector<double> maximum(Vector<double> a, Vector<double> b) {
  return {vmaxq_f64(a.native, b.native)};
}
CONVEXT_INLINE Vector<float> fmadd(Vector<float> a, Vector<float> b, Vector<float> c) {
  return {vfmaq_f32(c.native, a.native, b.native)};
}
CONVEXT_INLINE Vector<double> fmadd(Vector<double> a, Vector<double> b, Vector<double> c) {
  return {vfmaq_f64(c.native, a.native, b.native)};
}

CONVEXT_INLINE float sum(Vector<float> v) {
  const float32x2_t two = vadd_f32(vget_low_f32(v.native), vget_high_f32(v.native));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
CONVEXT_INLINE double sum(Vector<double> v) {
  return vgetq_lane_f64(v.native, 0) + vgetq_lane_f64(v.native, 1);
}

CONVEXT_INLINE void transpose(Vector<double> (&v)[2]) {
  const float64x2_t first = vtrn1q_f64(v[0].native, v[1].native);
  v[1].native = vtrn2q_f64(v[0].native, v[1].native);
  v[0].native = first;
}
CONVEXT_INLINE void transpose(Vector<float> (&v)[4]) {
  const float64x2_t even_upper = vreinterpretq_f64_f32(vtrn1q_f32(v[0].native, v[1].native));
  const float64x2_t odd_upper = vreinterpretq_f64_f32(vtrn2q_f32(v[0].native, v[1].native));
  const float64x2_t even_lower = vreinterpretq_f64_f32(vtrn1q_f32(v[2].native, v[3].native));
  const float64x2_t odd_lower = vreinterpretq_f64_f32(vtrn2q_f32(v[2].native, v[3].native));
  v[0].native = vreinterpretq_f32_f64(vtrn1q_f64(even_upper, even_lower));
  v[1].native = vreinterpretq_f32_f64(vtrn1q_f64(odd_upper, odd_lower));
  v[2].native = vreinterpretq_f32_f64(vtrn2q_f64(even_upper, even_lower));
  v[3].native = vreinterpretq_f32_f64(vtrn2q_f64(odd_upper, odd_lower));
}

CONVEXT_INLINE Vector<float> load_as_float(const BFloat16* source) {
  return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&source->bits), 16))};
}
CONVEXT_INLINE Vector<float> load_as_float(const Float16* source) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&source->bits)))};
}

CONVEXT_INLINE void store_from_float(BFloat16* target, Vector<float> value) {
  const uint32x4_t bits = vreinterpretq_u32_f32(value.native);
  const uint32x4_t high = vshrq_n_u32(bits, 16);
  const uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
  const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16);
  const uint32x4_t quiet_nan = vorrq_u32(high, vdupq_n_u32(0x40));
  const uint32x4_t is_number = vceqq_f32(value.native, value.native);
  vst1_u16(&target->bits, vmovn_u32(vbslq_u32(is_number, rounded, quiet_nan)));
}
CONVEXT_INLINE void store_from_float(Float16* target, Vector<float> value) {
  vst1_u16(&target->bits, vreinterpret_u16_f16(vcvt_f16_f32(value.native)));
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
