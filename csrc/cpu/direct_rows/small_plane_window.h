// Correlations with square kernels of 3 or 5 taps of small planes whose numbers follow each other without
// gaps: a vector holds neighbouring numbers of several rows. What a row of taps adds up is computed where the
// source's row is, from as many loads as there are taps across, and then moved by whole rows of the plane,
// in registers, to the results that it belongs to.
#pragma once

#include "cpu/direct_rows/window.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
class SmallPlaneWindow {
 public:
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t most_vectors = 4;

  // Rows that would leave more than three eighths of a vector empty, and planes that do not move by more than
  // a vector.
  static bool fits(const ConvProblem& p) {
    if (!can_permute_pairs || lanes < 16 || !Window::fits(p)) return false;
    const Window window(p);
    const int64_t half = window.taps / 2;
    const int64_t width = window.source.width;
    return (window.taps == 3 || window.taps == 5) && window.step == 1 && window.before_rows == half &&
           window.before_columns == half && window.result.height == window.source.height &&
           window.result.width == width && p.input_strides.row == width && p.output_strides.row == width &&
           width * window.source.height <= most_vectors * lanes && width * half <= lanes &&
           width * 8 < lanes * 5;
  }

  SmallPlaneWindow(const Window& window, bool is_used, int64_t fetched_ahead)
      : width(window.source.width), pixels(width * window.source.height), ahead(fetched_ahead) {
    if (!is_used) return;
    const int64_t half = window.taps / 2;
    for (int64_t vector = 0; vector < ceil_div(pixels, lanes); ++vector) {
      for (int64_t j = 0; j < window.taps; ++j) {
        uint32_t inside = 0;
        for (int64_t lane = 0; lane < smaller(lanes, pixels - vector * lanes); ++lane) {
          const int64_t column = (vector * lanes + lane) % width + j - half;
          if (column >= 0 && column < width) inside |= uint32_t{1} << lane;
        }
        masks[vector][j] = lanes_of<Real>(inside);
      }
    }
    for (int64_t i = 0; i < window.taps; ++i) {
      for (int64_t lane = 0; lane < lanes; ++lane)
        orders[i][lane] = static_cast<int32_t>(lane + (i - half) * width + (i < half ? lanes : 0));
    }
  }

  template <int taps>
  void run(const Real* source, const Real* weights, Real bias, Real* target) const {
    switch (ceil_div(pixels, lanes)) {
      case 1:
        return correlate<taps, 1>(source, weights, bias, target);
      case 2:
        return correlate<taps, 2>(source, weights, bias, target);
      case 3:
        return correlate<taps, 3>(source, weights, bias, target);
      default:
        return correlate<taps, 4>(source, weights, bias, target);
    }
  }

 private:
  template <int taps, int vectors>
  void correlate(const Real* source, const Real* weights, Real bias, Real* target) const {
    constexpr int half = taps / 2;
    Vector<Real> sums[taps][vectors];  // of each row of taps
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) {
      if (ahead != 0) __builtin_prefetch(source + v * lanes + ahead, 0, 2);
      CONVEXT_UNROLL
      for (int i = 0; i < taps; ++i) sums[i][v] = zero<Real>();
    }
    CONVEXT_UNROLL
    for (int j = 0; j < taps; ++j) {
      Vector<Real> factors[taps];
      CONVEXT_UNROLL
      for (int i = 0; i < taps; ++i) factors[i] = in_register(broadcast(weights[i * taps + j]));
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const Vector<Real> values = in_register(load(source + v * lanes + j - half, masks[v][j]));
        CONVEXT_UNROLL
        for (int i = 0; i < taps; ++i) sums[i][v] = fmadd(factors[i], values, sums[i][v]);
      }
    }
    Vector<Real> results[vectors];
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) results[v] = add(sums[half][v], broadcast(bias));
    CONVEXT_UNROLL
    for (int i = 0; i < taps; ++i) {
      if (i == half) continue;
      const LaneOrder<Real> order = lane_order<Real>(orders[i]);
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const int low = i < half ? v - 1 : v;
        const Vector<Real> first = low < 0 ? zero<Real>() : sums[i][low < 0 ? 0 : low];
        const Vector<Real> second =
            low + 1 == vectors ? zero<Real>() : sums[i][low + 1 == vectors ? 0 : low + 1];
        results[v] = add(results[v], permute_pair(first, second, order));
      }
    }
    CONVEXT_UNROLL
    for (int v = 0; v + 1 < vectors; ++v) store(target + v * lanes, results[v]);
    store(target + (vectors - 1) * lanes, results[vectors - 1], pixels - (vectors - 1) * lanes);
  }

  int64_t width;
  int64_t pixels;
  int64_t ahead;  // as in PlaneWindowPlan
  LaneMask<Real> masks[most_vectors][5];
  int32_t orders[5][lanes];  // of the sums of two vectors, of which the results are made
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
