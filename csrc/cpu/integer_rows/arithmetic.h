// How integers are multiplied and added. Sums that wrap around are the same in whatever order, and in any
// type that is at least as wide as the result, so the lanes are as narrow as the result allows; but no
// instruction set multiplies bytes.
#pragma once

#include <type_traits>

#include "cpu/simd_integers.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// What the planner of a problem needs to know of an Arithmetic.
struct LaneShape {
  int64_t lanes;
  int64_t lane_bytes;
  int64_t weight_bytes;
  bool has_pairs;
};

// `Weight` is a packed weight. A multiplier is one in all lanes, or a vector of one for each lane.
//
// 16-bit results, and the low bytes of them.
struct Sums16 {
  using Lane = int16_t;
  using Weight = int32_t;  // twice: 32 bits are broadcast by a load, 16 take a shuffle
  static constexpr bool has_pairs = false;

  static Weight weight(int64_t value, int64_t) {
    return static_cast<int32_t>((static_cast<uint32_t>(value) & 0xffffu) * 0x10001u);
  }
  static Lane lane_weight(int64_t value, int64_t) { return static_cast<int16_t>(value); }
  static CONVEXT_INLINE Vector<Lane> multiplier(Weight weight) { return broadcast_pair(weight); }
  static CONVEXT_INLINE Vector<Lane> add_product(Vector<Lane> a, Vector<Lane> b, Vector<Lane> sum) {
    return add(mul(a, b), sum);
  }
};

template <class Integer>
struct SumsOf {
  using Lane = Integer;
  using Weight = Integer;
  static constexpr bool has_pairs = false;

  static Weight weight(int64_t value, int64_t) { return static_cast<Weight>(value); }
  static Lane lane_weight(int64_t value, int64_t) { return static_cast<Lane>(value); }
  static CONVEXT_INLINE Vector<Lane> multiplier(Weight weight) { return broadcast(weight); }
  static CONVEXT_INLINE Vector<Lane> add_product(Vector<Lane> a, Vector<Lane> b, Vector<Lane> sum) {
    return add(mul(a, b), sum);
  }
};
using Sums32 = SumsOf<int32_t>;
using Sums64 = SumsOf<int64_t>;

// 32-bit sums of 8-bit integers: a lane holds two that are multiplied by two weights, as halves of
// 16 bits.
struct SumsOfPairs {
  using Lane = int32_t;
  using Weight = int32_t;
  static constexpr bool has_pairs = true;

  static Weight weight(int64_t first, int64_t second) {
    return static_cast<int32_t>((static_cast<uint32_t>(first) & 0xffffu) |
                                (static_cast<uint32_t>(second) << 16));
  }
  static Lane lane_weight(int64_t first, int64_t second) { return weight(first, second); }
  static CONVEXT_INLINE Vector<Lane> multiplier(Weight weight) { return broadcast(weight); }
  static CONVEXT_INLINE Vector<Lane> add_product(Vector<Lane> a, Vector<Lane> b, Vector<Lane> sum) {
    return add_products_of_halves(a, b, sum);
  }
};

template <class Arithmetic>
constexpr LaneShape lane_shape() {
  return {Vector<typename Arithmetic::Lane>::lanes, sizeof(typename Arithmetic::Lane),
          sizeof(typename Arithmetic::Weight), Arithmetic::has_pairs};
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
