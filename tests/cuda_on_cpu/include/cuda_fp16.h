// Stands in for CUDA's header: float16 by way of the conversions of the CPU kernels, which give the same
// bits.
#pragma once

#include "cpu/element.h"

using __half = convext::Float16;

inline __half __ushort_as_half(uint16_t bits) {
  return {bits};
}
inline uint16_t __half_as_ushort(__half value) {
  return value.bits;
}
inline float __half2float(__half value) {
  return convext::to_float(value);
}
inline __half __float2half_rn(float value) {
  return convext::to_float16(value);
}
