// Division by a number that is known at the launch: a multiplication and a shift.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convext {
namespace cuda {

struct Divisor {
  uint32_t divisor = 1;
  uint32_t multiplier = 1;
  uint32_t shift = 0;
};

// 1 <= divisor < 2^31. The multiplier is 2^32 (2^shift - divisor) / divisor + 1 with 2^shift >= divisor, so
// that the sum below is n * 2^shift / divisor, rounded down, for n < 2^31 (Granlund and Montgomery 1994).
inline Divisor divisor_of(int64_t divisor) {
  Divisor result;
  result.divisor = static_cast<uint32_t>(divisor);
  while ((int64_t{1} << result.shift) < divisor) ++result.shift;
  const uint64_t excess = (uint64_t{1} << result.shift) - static_cast<uint64_t>(divisor);
  result.multiplier = static_cast<uint32_t>((excess << 32) / static_cast<uint64_t>(divisor) + 1);
  return result;
}

__device__ inline int quotient(int n, const Divisor& by) {
  const auto numerator = static_cast<uint32_t>(n);
  return static_cast<int>((__umulhi(by.multiplier, numerator) + numerator) >> by.shift);
}

__device__ inline int64_t quotient(int64_t n, const Divisor& by) {
  return (n >> 31) != 0 ? n / by.divisor : quotient(static_cast<int>(n), by);
}

}  // namespace cuda
}  // namespace convext
