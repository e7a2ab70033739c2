// Any architecture, through the compiler's own 16-byte vectors: SSE2 on x86-64 (16 registers, no fused
// multiply-add), plain scalars where there is nothing better.
#pragma once

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

using Float4 = float __attribute__((vector_size(16)));
using Double2 = double __attribute__((vector_size(16)));
using Bits4 = uint32_t __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));
using Half4 = uint16_t __attribute__((vector_size(8)));

template <>
struct Vector<float> {
  static constexpr int64_t lanes = 4;
  Float4 native;
};

template <>
struct Vector<double> {
  static constexpr int64_t lanes = 2;
  Double2 native;
};

// Unaligned access in a way that every compiler turns into one move.
template <class To, class From>
CONVEXT_INLINE To copy_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the same number of bytes");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

CONVEXT_INLINE Vector<float> load(const float* source) {
  Vector<float> result;
  std::memcpy(&result.native, source, sizeof(result.native));
  return result;
}
CONVEXT_INLINE Vector<double> load(const double* source) {
  Vector<double> result;
  std::memcpy(&result.native, source, sizeof(result.native));
  return result;
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
  std::memcpy(target, &value.native, sizeof(value.native));
}
CONVEXT_INLINE void store(double* target, Vector<double> value) {
  std::memcpy(target, &value.native, sizeof(value.native));
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

constexpr bool can_stream = false;
template <class T>
CONVEXT_INLINE void stream(T* target, Vector<T> value) {
  store(target, value);
}
CONVEXT_INLINE void finish_streams() {}

template <>
CONVEXT_INLINE Vector<float> zero<float>() {
  return {Float4{0, 0, 0, 0}};
}
template <>
CONVEXT_INLINE Vector<double> zero<double>() {
  return {Double2{0, 0}};
}
CONVEXT_INLINE Vector<float> broadcast(float value) {
  return {Float4{value, value, value, value}};
}
CONVEXT_INLINE Vector<double> broadcast(double value) {
  return {Double2{value, value}};
}

CONVEXT_INLINE Vector<float> even_lanes(Vector<float> a, Vector<float> b) {
  return {Float4{a.native[0], a.native[2], b.native[0], b.native[2]}};
}
CONVEXT_INLINE Vector<double> even_lanes(Vector<double> a, Vector<double> b) {
  return {Double2{a.native[0], b.native[0]}};
}

CONVEXT_INLINE Vector<float> add(Vector<float> a, Vector<float> b) {
  return {a.native + b.native};
}
CONVEXT_INLINE Vector<double> add(Vector<double> a, Vector<double> b) {
  return {a.native + b.native};
}
CONVEXT_INLINE Vector<float> mul(Vector<float> a, Vector<float> b) {
  return {a.native * b.native};
}
CONVEXT_INLINE Vector<double> mul(Vector<double> a, Vector<double> b) {
  return {a.native * b.native};
}
CONVEXT_INLINE Vector<float> fmadd(Vector<float> a, Vector<float> b, Vector<float> c) {
  return {a.native * b.native + c.native};
}
CONVEXT_INLINE Vector<double> fmadd(Vector<double> a, Vector<double> b, Vector<double> c) {
  return {a.native * b.native + c.native};
}

CONVEXT_INLINE float sum(Vector<float> v) {
  return (v.native[0] + v.native[2]) + (v.native[1] + v.native[3]);
}
CONVEXT_INLINE double sum(Vector<double> v) {
  return v.native[0] + v.native[1];
}

CONVEXT_INLINE void transpose(Vector<float> (&v)[4]) {
  const Float4 a = v[0].native, b = v[1].native, c = v[2].native, d = v[3].native;
  v[0].native = Float4{a[0], b[0], c[0], d[0]};
  v[1].native = Float4{a[1], b[1], c[1], d[1]};
  v[2].native = Float4{a[2], b[2], c[2], d[2]};
  v[3].native = Float4{a[3], b[3], c[3], d[3]};
}
CONVEXT_INLINE void transpose(Vector<double> (&v)[2]) {
  const Double2 a = v[0].native, b = v[1].native;
  v[0].native = Double2{a[0], b[0]};
  v[1].native = Double2{a[1], b[1]};
}

// Lanes of `yes` where the mask is all ones, of `no` where it is zero.
CONVEXT_INLINE Bits4 select(Bits4 mask, Bits4 yes, Bits4 no) {
  return (mask & yes) | (~mask & no);
}
// Magnitudes (no sign bit) compare alike as signed integers, which SSE2 has an instruction for.
CONVEXT_INLINE Bits4 at_least(Bits4 magnitude, uint32_t bound) {
  const int32_t below = static_cast<int32_t>(bound) - 1;
  return copy_bits<Bits4>(copy_bits<Int4>(magnitude) > Int4{below, below, below, below});
}

CONVEXT_INLINE Bits4 load_halves(const void* source) {
  Half4 halves;
  std::memcpy(&halves, source, sizeof(halves));
  return __builtin_convertvector(halves, Bits4);
}
CONVEXT_INLINE void store_halves(void* target, Bits4 bits) {
  const Half4 halves = __builtin_convertvector(bits, Half4);
  std::memcpy(target, &halves, sizeof(halves));
}

CONVEXT_INLINE Vector<float> load_as_float(const BFloat16* source) {
  return {copy_bits<Float4>(load_halves(source) << 16)};
}

// The four cases of to_float(Float16), selected by lane.
CONVEXT_INLINE Vector<float> load_as_float(const Float16* source) {
  const Bits4 halves = load_halves(source);
  const Bits4 sign = (halves & 0x8000u) << 16;
  const Bits4 magnitude = halves & 0x7fffu;
  const Bits4 normal = (magnitude << 13) + 0x38000000u;
  const Bits4 not_finite = (magnitude << 13) | 0x7f800000u;
  const Bits4 subnormal =
      copy_bits<Bits4>(__builtin_convertvector(copy_bits<Int4>(magnitude), Float4) * 0x1p-24f);
  Bits4 result = select(at_least(magnitude, 0x0400u), normal, subnormal);
  result = select(at_least(magnitude, 0x7c00u), not_finite, result);
  return {copy_bits<Float4>(result | sign)};
}

CONVEXT_INLINE void store_from_float(BFloat16* target, Vector<float> value) {
  const Bits4 bits = copy_bits<Bits4>(value.native);
  const Bits4 high = bits >> 16;
  const Bits4 rounded = (bits + 0x7fffu + (high & 1u)) >> 16;
  store_halves(target, select(at_least(bits & 0x7fffffffu, 0x7f800001u), high | 0x40u, rounded));
}

// The four cases of to_float16(float), selected by lane.
CONVEXT_INLINE void store_from_float(Float16* target, Vector<float> value) {
  const Bits4 bits = copy_bits<Bits4>(value.native);
  const Bits4 sign = (bits >> 16) & 0x8000u;
  const Bits4 magnitude = bits & 0x7fffffffu;
  const Bits4 normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  const Bits4 subnormal = copy_bits<Bits4>(copy_bits<Float4>(magnitude) + 0.5f) - 0x3f000000u;
  const Bits4 nan = ((magnitude >> 13) & 0x3ffu) | 0x7e00u;
  Bits4 result = select(at_least(magnitude, 0x38800000u), normal, subnormal);
  result = select(at_least(magnitude, 0x477ff000u), Bits4{} + 0x7c00u, result);
  result = select(at_least(magnitude, 0x7f800001u), nan, result);
  store_halves(target, result | sign);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
