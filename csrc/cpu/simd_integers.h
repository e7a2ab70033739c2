// Vectors of integers, in the manner of cpu/simd.h. For kernels that are built for the wider instruction sets
// only: there is no portable layer.
//
//   Vector<int16_t>, Vector<int32_t>, Vector<int64_t>
//   load, store, zero<T>(), broadcast, add  as for floating-point numbers; sums wrap around
//   mul(a, b)                the low half of the product: signs do not matter
//   broadcast_pair(x)        lanes 0, 2, ... are the low, lanes 1, 3, ... the high half of x
//   add_products_of_halves   a.low * b.low + a.high * b.high + c, of the signed halves of 32-bit lanes
//   join_halves(low, high)   the low halves of the lanes of both
//   load_as<Lane>(p)         `Vector<Lane>::lanes` integers of an equal or narrower type
//   store_narrowed(p, v)     the low bits of the lanes
#pragma once

#include "cpu/simd.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "cpu/simd/avx512_integers.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "cpu/simd/avx2_integers.h"
#elif defined(__aarch64__)
#include "cpu/simd/neon_integers.h"
#endif

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Lane, class T>
CONVEXT_INLINE Vector<Lane> load_as(const T* source) {
  if constexpr (sizeof(Lane) == sizeof(T)) {
    return load(source);
  } else if constexpr (sizeof(Lane) == 2) {
    return load_as_int16(source);
  } else {
    return load_as_int32(source);
  }
}

CONVEXT_INLINE void store_narrowed(int16_t* target, Vector<int16_t> value) {
  store(target, value);
}
CONVEXT_INLINE void store_narrowed(int32_t* target, Vector<int32_t> value) {
  store(target, value);
}
CONVEXT_INLINE void store_narrowed(int64_t* target, Vector<int64_t> value) {
  store(target, value);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
