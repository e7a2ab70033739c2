// Stands in for CUDA's header: bfloat16 by way of the conversions of the CPU kernels, which give the same
// bits.
#pragma once

#include "cpu/element.h"

using __nv_bfloat16 = convext::BFloat16;

inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) {
  return {bits};
}
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.bits;
}
inline float __bfloat162float(__nv_bfloat16 value) {
  return convext::to_float(value);
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return convext::to_bfloat16(value);
}
