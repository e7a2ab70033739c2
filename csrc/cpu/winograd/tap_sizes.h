// Whether weights are even enough in size for Winograd's products.
#pragma once

#include <limits>

#include "cpu/winograd/product_block.h"
#include "cpu/winograd/transforms.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Winograd's products add and subtract taps, so what a small tap contributes could drown in the rounding
// errors of large ones. The size of a tap is the sum of its absolute values over the source channels; that of
// each must be at least the largest one's divided by this, and at least any single weight of the result
// channel in the same block of the kernel. Masked and one-hot kernels are not of this kind.
constexpr int64_t tap_ratio = 32;

// Of the result channels of a panel and the taps of a block of the kernel: the size of each tap, and the
// largest absolute value of all.
template <class Tile, class Real>
struct TapSizes {
  alignas(64) Real sums[Tile::taps][panel<Real>] = {};
  alignas(64) Real largest[panel<Real>] = {};
};

// The same of several blocks of the kernel.
template <class Tile, class Real>
class TapRange {
 public:
  TapRange() {
    for (Real& size : least) size = std::numeric_limits<Real>::infinity();
  }

  void add(const TapSizes<Tile, Real>& sizes) {
    for (int64_t channel = 0; channel < panel<Real>; ++channel) {
      Real low = sizes.sums[0][channel];
      Real high = low;
      Real product_with_zero = 0;
      for (int tap = 0; tap < Tile::taps; ++tap) {
        const Real size = sizes.sums[tap][channel];
        low = size < low ? size : low;
        high = size > high ? size : high;
        product_with_zero += size * 0;
      }
      is_finite = is_finite && product_with_zero == 0;
      has_single_weights = has_single_weights || sizes.largest[channel] > low;
      include(channel, low, high);
    }
  }

  void add(const TapRange& other) {
    for (int64_t channel = 0; channel < panel<Real>; ++channel)
      include(channel, other.least[channel], other.most[channel]);
    is_finite = is_finite && other.is_finite;
    has_single_weights = has_single_weights || other.has_single_weights;
  }

  // False if a weight is not finite, or, where that matters, taps of a channel differ too much in size.
  bool is_even() const {
    if (!is_finite) return false;
    if (!Tile::windows_are_separate) return true;
    bool even = !has_single_weights;
    for (int64_t channel = 0; channel < panel<Real>; ++channel)
      even = even && most[channel] <= tap_ratio * least[channel];
    return even;
  }

 private:
  Real least[panel<Real>];
  Real most[panel<Real>] = {};
  bool is_finite = true;
  bool has_single_weights = false;  // larger than a tap's size

  void include(int64_t channel, Real low, Real high) {
    least[channel] = least[channel] < low ? least[channel] : low;
    most[channel] = most[channel] > high ? most[channel] : high;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
