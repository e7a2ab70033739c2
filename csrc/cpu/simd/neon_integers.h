// Vectors of integers with NEON. See cpu/simd_integers.h.
#pragma once

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <>
struct Vector<int16_t> {
  static constexpr int64_t lanes = 8;
  int16x8_t native;
};

template <>
struct Vector<int32_t> {
  static constexpr int64_t lanes = 4;
  int32x4_t native;
};

template <>
struct Vector<int64_t> {
  static constexpr int64_t lanes = 2;
  int64x2_t native;
};

CONVEXT_INLINE Vector<int16_t> load(const int16_t* source) {
  return {vld1q_s16(source)};
}
CONVEXT_INLINE Vector<int32_t> load(const int32_t* source) {
  return {vld1q_s32(source)};
}
CONVEXT_INLINE Vector<int64_t> load(const int64_t* source) {
  return {vld1q_s64(source)};
}
CONVEXT_INLINE void store(int16_t* target, Vector<int16_t> value) {
  vst1q_s16(target, value.native);
}
CONVEXT_INLINE void store(int32_t* target, Vector<int32_t> value) {
  vst1q_s32(target, value.native);
}
CONVEXT_INLINE void store(int64_t* target, Vector<int64_t> value) {
  vst1q_s64(target, value.native);
}

template <>
CONVEXT_INLINE Vector<int16_t> zero<int16_t>() {
  return {vdupq_n_s16(0)};
}
template <>
CONVEXT_INLINE Vector<int32_t> zero<int32_t>() {
  return {vdupq_n_s32(0)};
}
template <>
CONVEXT_INLINE Vector<int64_t> zero<int64_t>() {
  return {vdupq_n_s64(0)};
}
CONVEXT_INLINE Vector<int16_t> broadcast(int16_t value) {
  return {vdupq_n_s16(value)};
}
CONVEXT_INLINE Vector<int32_t> broadcast(int32_t value) {
  return {vdupq_n_s32(value)};
}
CONVEXT_INLINE Vector<int64_t> broadcast(int64_t value) {
  return {vdupq_n_s64(value)};
}
CONVEXT_INLINE Vector<int16_t> broadcast_pair(int32_t value) {
  return {vreinterpretq_s16_s32(vdupq_n_s32(value))};
}

CONVEXT_INLINE Vector<int16_t> add(Vector<int16_t> a, Vector<int16_t> b) {
  return {vaddq_s16(a.native, b.native)};
}
CONVEXT_INLINE Vector<int32_t> add(Vector<int32_t> a, Vector<int32_t> b) {
  return {vaddq_s32(a.native, b.native)};
}
CONVEXT_INLINE Vector<int64_t> add(Vector<int64_t> a, Vector<int64_t> b) {
  return {vaddq_s64(a.native, b.native)};
}
CONVEXT_INLINE Vector<int16_t> mul(Vector<int16_t> a, Vector<int16_t> b) {
  return {vmulq_s16(a.native, b.native)};
}
CONVEXT_INLINE Vector<int32_t> mul(Vector<int32_t> a, Vector<int32_t> b) {
  return {vmulq_s32(a.native, b.native)};
}
// Of halves: the product of the high ones is beyond the result.
CONVEXT_INLINE Vector<int64_t> mul(Vector<int64_t> a, Vector<int64_t> b) {
  const uint32x2_t a_low = vmovn_u64(vreinterpretq_u64_s64(a.native));
  const uint32x2_t b_low = vmovn_u64(vreinterpretq_u64_s64(b.native));
  const uint32x2_t a_high = vshrn_n_u64(vreinterpretq_u64_s64(a.native), 32);
  const uint32x2_t b_high = vshrn_n_u64(vreinterpretq_u64_s64(b.native), 32);
  const uint64x2_t mixed = vmlal_u32(vmull_u32(a_high, b_low), a_low, b_high);
  return {vreinterpretq_s64_u64(vmlal_u32(vshlq_n_u64(mixed, 32), a_low, b_low))};
}

CONVEXT_INLINE Vector<int32_t> add_products_of_halves(Vector<int32_t> a, Vector<int32_t> b,
                                                      Vector<int32_t> c) {
  const int16x8_t a_halves = vreinterpretq_s16_s32(a.native);
  const int16x8_t b_halves = vreinterpretq_s16_s32(b.native);
  const int32x4_t first = vmull_s16(vget_low_s16(a_halves), vget_low_s16(b_halves));
  return {vaddq_s32(vpaddq_s32(first, vmull_high_s16(a_halves, b_halves)), c.native)};
}
CONVEXT_INLINE Vector<int32_t> join_halves(Vector<int32_t> low, Vector<int32_t> high) {
  return {vsliq_n_s32(low.native, high.native, 16)};
}

CONVEXT_INLINE Vector<int16_t> load_as_int16(const uint8_t* source) {
  return {vreinterpretq_s16_u16(vmovl_u8(vld1_u8(source)))};
}
CONVEXT_INLINE Vector<int16_t> load_as_int16(const int8_t* source) {
  return {vmovl_s8(vld1_s8(source))};
}
CONVEXT_INLINE Vector<int32_t> load_as_int32(const uint8_t* source) {
  uint32_t bytes;
  std::memcpy(&bytes, source, sizeof(bytes));
  const uint16x8_t halves = vmovl_u8(vcreate_u8(bytes));
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(halves)))};
}
CONVEXT_INLINE Vector<int32_t> load_as_int32(const int8_t* source) {
  uint32_t bytes;
  std::memcpy(&bytes, source, sizeof(bytes));
  return {vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(bytes))))};
}

CONVEXT_INLINE void store_narrowed(uint8_t* target, Vector<int16_t> value) {
  vst1_u8(target, vmovn_u16(vreinterpretq_u16_s16(value.native)));
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
