// The vectors that kernels are written in: one small layer per instruction set, chosen by what the compiler
// was told to target, so that a kernel is one source for all of them.
//
//   Vector<float>, Vector<double>   a register of `Vector<T>::lanes` numbers
//   load(p), load(p, n)             unaligned; with n in [0, lanes]: the first n lanes, the others zero, and
//   store(p, v), store(p, v, n)     nothing past element n is touched
//   stream(p, v)                    a store that goes past the caches, if `can_stream`; p is a multiple of a
//                                   vector's size
//   finish_streams()                after the last of them, before another thread may read what was written
//   zero<T>(), broadcast(x)
//   in_register(v)                  v, which the compiler may not read from memory again for each use
//   even_lanes(a, b)                lanes 0, 2, 4, ... of a, then those of b
//   odd_lanes(a, b)                 lanes 1, 3, 5, ... of a, then those of b
//   interleave_low(a, b)            lanes 0 of a, 0 of b, 1 of a, 1 of b, ...: of the lower halves of both
//   interleave_high(a, b)           the same of the upper halves
//   permute(v, order)               lane i is lane order[i] of v; lane_order<T>(p): from `lanes` integers
//   permute_pair(a, b, order)       lane i is lane order[i] of a followed by b, if `can_permute_pairs`
//   add(a, b), sub(a, b), mul(a, b)
//   absolute(v), maximum(a, b)      where an operand of the maximum is NaN, the result is either
//   transpose(rows)                 of `lanes` vectors: lane j of row i becomes lane i of row j
//   fmadd(a, b, c)                  a * b + c, rounded once where the instruction set has it (all but SSE2)
//   sum(v)                          lanes i and i + half are added, then the same with half as many, down to
//                                   one: a fixed order
//   load_as_float, store_from_float the same for BFloat16 and Float16 in memory: widened exactly, narrowed to
//                                   nearest even with the bits of cpu/element.h; a NaN stays a NaN
//   load_widened, store_narrowed    one name for all four element types; Compute<T> is the type of their
//   widen(x), narrow<T>(x)          lanes: float for the 16-bit types, T itself for float and double
//
// The portable layer has those that the general kernels need, and no more: see cpu/kernel_list.h.
//
// Every name has internal linkage (see cpu/isa.h). Results may differ between instruction sets in the last
// bit, never between calls on one of them.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/element.h"
#include "cpu/isa.h"

// Vectors must stay in registers: a call would put them on the stack.
#define CONVEXT_INLINE inline __attribute__((always_inline))

// Before a loop over an array of vectors, to unroll it completely: an array that is indexed at run time lives
// in memory.
#if defined(__clang__)
#define CONVEXT_UNROLL _Pragma("unroll")
#else
#define CONVEXT_UNROLL _Pragma("GCC unroll 16")
#endif

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct Vector;

template <class T>
CONVEXT_INLINE Vector<T> zero();

template <class T>
struct LaneOrder;

template <class T>
CONVEXT_INLINE LaneOrder<T> lane_order(const int32_t* lanes);

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "cpu/simd/avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "cpu/simd/avx2.h"
#elif defined(__aarch64__)
#include "cpu/simd/neon.h"  // the baseline too: NEON is part of the architecture
#else
#include "cpu/simd/portable.h"
#endif

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
CONVEXT_INLINE Vector<T> in_register(Vector<T> v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v.native));
#elif defined(__SSE2__)
  asm("" : "+x"(v.native));
#elif defined(__aarch64__)
  asm("" : "+w"(v.native));
#endif
  return v;
}

template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};

// The type that elements of type T are multiplied and added in.
template <class T>
using Compute = typename ComputeOf<T>::type;

CONVEXT_INLINE float widen(float value) {
  return value;
}
CONVEXT_INLINE double widen(double value) {
  return value;
}
CONVEXT_INLINE float widen(BFloat16 value) {
  return to_float(value);
}
CONVEXT_INLINE float widen(Float16 value) {
  return to_float(value);
}

template <class T>
CONVEXT_INLINE T narrow(Compute<T> value) {
  return value;
}
template <>
CONVEXT_INLINE BFloat16 narrow<BFloat16>(float value) {
  return to_bfloat16(value);
}
template <>
CONVEXT_INLINE Float16 narrow<Float16>(float value) {
  return to_float16(value);
}

#if !defined(__AVX512F__)
// The first n lanes of 16-bit elements go through a full register's worth of memory.
template <class T>
CONVEXT_INLINE Vector<float> load_as_float(const T* source, int64_t n) {
  T lanes[Vector<float>::lanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = source[i];
  return load_as_float(lanes);
}

template <class T>
CONVEXT_INLINE void store_from_float(T* target, Vector<float> value, int64_t n) {
  T lanes[Vector<float>::lanes];
  store_from_float(lanes, value);
  for (int64_t i = 0; i < n; ++i) target[i] = lanes[i];
}
#endif

CONVEXT_INLINE Vector<float> load_widened(const float* source) {
  return load(source);
}
CONVEXT_INLINE Vector<double> load_widened(const double* source) {
  return load(source);
}
CONVEXT_INLINE Vector<float> load_widened(const BFloat16* source) {
  return load_as_float(source);
}
CONVEXT_INLINE Vector<float> load_widened(const Float16* source) {
  return load_as_float(source);
}
CONVEXT_INLINE Vector<float> load_widened(const float* source, int64_t n) {
  return load(source, n);
}
CONVEXT_INLINE Vector<double> load_widened(const double* source, int64_t n) {
  return load(source, n);
}
CONVEXT_INLINE Vector<float> load_widened(const BFloat16* source, int64_t n) {
  return load_as_float(source, n);
}
CONVEXT_INLINE Vector<float> load_widened(const Float16* source, int64_t n) {
  return load_as_float(source, n);
}

#if defined(__AVX2__) || defined(__aarch64__)  // the portable layer has no masks
// Zeros where the mask has no lane. 16-bit types, if `can_mask_narrow_loads`.
template <class T>
CONVEXT_INLINE Vector<Compute<T>> load_widened(const T* source, LaneMask<Compute<T>> mask) {
  if constexpr (sizeof(T) == 2) {
    return load_as_float(source, mask);
  } else {
    return load(source, mask);
  }
}
#endif

CONVEXT_INLINE void store_narrowed(float* target, Vector<float> value) {
  store(target, value);
}
CONVEXT_INLINE void store_narrowed(double* target, Vector<double> value) {
  store(target, value);
}
CONVEXT_INLINE void store_narrowed(BFloat16* target, Vector<float> value) {
  store_from_float(target, value);
}
CONVEXT_INLINE void store_narrowed(Float16* target, Vector<float> value) {
  store_from_float(target, value);
}
CONVEXT_INLINE void store_narrowed(float* target, Vector<float> value, int64_t n) {
  store(target, value, n);
}
CONVEXT_INLINE void store_narrowed(double* target, Vector<double> value, int64_t n) {
  store(target, value, n);
}
CONVEXT_INLINE void store_narrowed(BFloat16* target, Vector<float> value, int64_t n) {
  store_from_float(target, value, n);
}
CONVEXT_INLINE void store_narrowed(Float16* target, Vector<float> value, int64_t n) {
  store_from_float(target, value, n);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
