// The 16-bit floating-point element types and their conversions, in plain C++ for every CPU. Vector code has
// faster conversions of its own (cpu/simd.h) that give the same bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace convext {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

[[maybe_unused]] static inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

[[maybe_unused]] static inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

[[maybe_unused]] static inline float to_float(BFloat16 value) {
  return float_of(static_cast<uint32_t>(value.bits) << 16);
}

[[maybe_unused]] static inline float to_float(Float16 value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | (magnitude << 13));  // infinity, NaN
  if (magnitude < 0x0400u) {  // subnormal: a multiple of 2^-24
    const float scaled = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -scaled : scaled;
  }
  return float_of(sign | ((magnitude << 13) + 0x38000000u));  // rebias the exponent by 127 - 15
}

// Round to nearest, ties to even; NaN stays NaN.
[[maybe_unused]] static inline BFloat16 to_bfloat16(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// Round to nearest, ties to even; overflow gives infinity, NaN stays NaN.
[[maybe_unused]] static inline Float16 to_float16(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return {static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
  }
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to 2^16 or more
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the spacing is 2^-24, which is the spacing of floats in [0.5, 1): the addition rounds.
    const uint32_t rounded = bits_of(float_of(magnitude) + 0.5f);
    return {static_cast<uint16_t>(sign | (rounded - 0x3f000000u))};
  }
  magnitude += 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((magnitude - 0x38000000u) >> 13))};
}

[[maybe_unused]] static inline double to_double(float value) {
  return static_cast<double>(value);
}
[[maybe_unused]] static inline double to_double(double value) {
  return value;
}
[[maybe_unused]] static inline double to_double(BFloat16 value) {
  return static_cast<double>(to_float(value));
}
[[maybe_unused]] static inline double to_double(Float16 value) {
  return static_cast<double>(to_float(value));
}

}  // namespace convext
