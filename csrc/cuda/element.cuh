// Element types on the device: what they are summed in, and the conversions.
//
// Sums of float32, bfloat16 and float16 run in chains of float32, whose totals are added in float64; those of
// integers wrap around, in unsigned arithmetic of the width that the result needs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/problem.h"
#include "cpu/element.h"

namespace convext {
namespace cuda {

template <class T>
using Accumulator =
    std::conditional_t<std::is_integral_v<T>, std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>,
                       std::conditional_t<std::is_same_v<T, double>, double, float>>;

template <class T>
using Total = std::conditional_t<std::is_integral_v<T>, Accumulator<T>, double>;

template <class T>
__device__ inline Accumulator<T> widen(T value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return __bfloat162float(__ushort_as_bfloat16(value.bits));
  } else if constexpr (std::is_same_v<T, Float16>) {
    return __half2float(__ushort_as_half(value.bits));
  } else {
    return static_cast<Accumulator<T>>(value);  // integers: sign-extended, modulo 2^32 or 2^64
  }
}

// The 16-bit types are rounded by way of float.
template <class T, class Sum>
__device__ inline T narrow(Sum sum) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(sum)))};
  } else if constexpr (std::is_same_v<T, Float16>) {
    return Float16{__half_as_ushort(__float2half_rn(static_cast<float>(sum)))};
  } else {
    return static_cast<T>(sum);
  }
}

// Terms that are added in one chain: the rounding error of the chain grows with its length.
constexpr int chain_terms = 256;

// The same for sums of a thread by itself, whose totals are float64: so short that they are as exact as those
// of a CPU, which has many chains side by side.
constexpr int short_chain_terms = 16;

template <class T>
struct Sum {
  Accumulator<T> chain{};
  Total<T> total{};
  int terms = 0;

  __device__ void add(Accumulator<T> term) { extend(chain + term); }
  __device__ void add_product(Accumulator<T> a, Accumulator<T> b) { extend(chain + a * b); }

  __device__ Total<T> result() const {
    if constexpr (std::is_integral_v<T>) {
      return chain;
    } else {
      return total + static_cast<Total<T>>(chain);
    }
  }

 private:
  __device__ void extend(Accumulator<T> extended) {
    chain = extended;
    if constexpr (!std::is_integral_v<T>) {
      if (++terms == short_chain_terms) {
        total += static_cast<Total<T>>(chain);
        chain = 0;
        terms = 0;
      }
    }
  }
};

// Calls visit(T{}) with the element type of float32, bfloat16 or float16.
template <class Visit>
auto with_short_floating_type(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::bfloat16:
      return visit(BFloat16{});
    case DType::float16:
      return visit(Float16{});
    default:
      return visit(float{});
  }
}

// The same, or float64.
template <class Visit>
auto with_floating_type(DType dtype, const Visit& visit) {
  return dtype == DType::float64 ? visit(double{}) : with_short_floating_type(dtype, visit);
}

// The same with that of any dtype.
template <class Visit>
auto with_type(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::uint8:
      return visit(uint8_t{});
    case DType::int8:
      return visit(int8_t{});
    case DType::int16:
      return visit(int16_t{});
    case DType::int32:
      return visit(int32_t{});
    case DType::int64:
      return visit(int64_t{});
    default:
      return with_floating_type(dtype, visit);
  }
}

inline bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16 ||
         dtype == DType::float16;
}

}  // namespace cuda
}  // namespace convext
