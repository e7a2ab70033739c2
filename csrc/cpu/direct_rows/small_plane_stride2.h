// Correlations with 3 x 3 kernels and stride 2 of planes whose results are half a vector wide: a vector holds
// two rows of results. What a tap meets is every other number of two lines of the source that are two apart,
// which one permutation of both brings together.
#pragma once

#include "cpu/direct_rows/window.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
class SmallPlaneStride2 {
 public:
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int taps = 3;
  static constexpr int pairs = 2;  // of neighbouring taps, the last of which stands alone

  static bool fits(const ConvProblem& p) {
    if (!can_mask_loads || lanes < 16 || !Window::fits(p)) return false;
    const Window window(p);
    const int64_t width = window.result.width;
    return window.taps == 3 && window.step == 2 && width * 2 <= lanes && width * 8 >= lanes * 3 &&
           p.output_strides.row == width;
  }

  SmallPlaneStride2(const Window& of, const ConvProblem& p, bool is_used)
      : window(of), source_row(p.input_strides.row) {
    if (!is_used) return;
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t first = 2 * pair - window.before_columns;
      masks[pair] = lanes_between<Real>(smaller(lanes, larger(0, -first)),
                                        smaller(lanes, larger(0, window.source.width - first)));
    }
    const int64_t width = window.result.width;
    for (int64_t lane = 0; lane < lanes; ++lane)
      order[lane] = static_cast<int32_t>(lane < width ? lane : smaller(lanes - 1, lanes / 2 + lane - width));
  }

  void run(const Real* source, const Real* weights, Real bias, Real* target) const {
    const LaneOrder<Real> together = lane_order<Real>(order);
    const int64_t width = window.result.width;
    for (int64_t y = 0; y < window.result.height; y += 2) {
      Vector<Real> lines[taps + 2][pairs];
      CONVEXT_UNROLL
      for (int k = 0; k < taps + 2; ++k) {
        const int64_t line = 2 * y - window.before_rows + k;
        const bool is_inside = line >= 0 && line < window.source.height;
        const Real* from = source + line * source_row - window.before_columns;
        CONVEXT_UNROLL
        for (int pair = 0; pair < pairs; ++pair)
          lines[k][pair] = is_inside ? load(from + 2 * pair, masks[pair]) : zero<Real>();
      }
      Vector<Real> sum = zero<Real>();
      CONVEXT_UNROLL
      for (int i = 0; i < taps; ++i) {
        CONVEXT_UNROLL
        for (int j = 0; j < taps; ++j) {
          const Vector<Real> upper = lines[i][j / 2];
          const Vector<Real> lower = lines[i + 2][j / 2];
          const Vector<Real> values = j % 2 == 0 ? even_lanes(upper, lower) : odd_lanes(upper, lower);
          sum = fmadd(broadcast(weights[i * taps + j]), values, sum);
        }
      }
      store(target + y * width, permute(add(sum, broadcast(bias)), together),
            width * smaller(2, window.result.height - y));
    }
  }

 private:
  const Window& window;
  int64_t source_row;
  LaneMask<Real> masks[pairs];  // of what each pair of neighbouring taps across meets
  int32_t order[lanes];         // two rows without what lies between them
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
