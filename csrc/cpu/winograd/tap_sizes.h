// Whether weights are even enough in size for Winograd's products.
#pragma once

#include "cpu/winograd/product_block.h"
#include "cpu/winograd/transforms.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Winograd's products add and subtract taps, so what a small tap contributes could drown in the rounding
// errors of large ones. The size of a tap is the sum of its absolute values over the source channels; that of
// each must be at least the largest one's divided by this, and at least any single weight of the result
// channel. Masked and one-hot kernels are not of this kind.
constexpr int64_t tap_ratio = 32;

// Of the result channels of a panel and the taps of a block of the kernel: the size of each tap, and the
// largest absolute value of all.
template <class Tile, class Real>
struct TapSizes {
  alignas(64) Real sums[Tile::taps][panel<Real>] = {};
  alignas(64) Real largest[panel<Real>] = {};

  // False if one of the channels has a weight that is not finite, or, where that matters, taps that differ
  // too much in size.
  bool are_even(int64_t channels) const {
    constexpr bool size_matters = Tile::windows_are_separate;
    bool even = true;
    for (int64_t channel = 0; channel < smaller(channels, panel<Real>); ++channel) {
      Real least = sums[0][channel];
      Real most = sums[0][channel];
      Real product_with_zero = 0;
      for (int t = 0; t < Tile::taps; ++t) {
        const Real size = sums[t][channel];
        least = size < least ? size : least;
        most = size > most ? size : most;
        product_with_zero += size * 0;
      }
      even = even && product_with_zero == 0 &&
             (!size_matters || (most <= tap_ratio * least && largest[channel] <= least));
    }
    return even;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
