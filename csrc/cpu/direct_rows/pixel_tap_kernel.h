// The innermost loop of the gradient of the weight of depthwise problems whose vectors run along the
// channels.
#pragma once

#include "cpu/direct_rows/pixel_lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// For the gradient of the weight: `rows` x `columns` output pixels, and the input that they meet.
template <class Real>
struct TapPixels {
  const Real* lines;
  int64_t line_stride;
  int64_t step;
  int64_t block;            // channels side by side
  const Real* grad_output;  // [row][pixel][block]
  int64_t grad_output_stride;
  int64_t rows;
  int64_t columns;
};

constexpr int64_t most_pixel_taps = 10;

// totals[k * pixels.block + lane] += the sum over the pixels for tap k, whose lines begin at offsets[k].
template <class Real, int taps>
void pixel_tap_kernel(const TapPixels<Real>& pixels, const int64_t* offsets, double* totals) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  int64_t starts[taps];
  for (int k = 0; k < taps; ++k) starts[k] = offsets[k];
  Vector<Real> sum[taps];
  CONVEXT_UNROLL
  for (int k = 0; k < taps; ++k) sum[k] = zero<Real>();
  for (int64_t row = 0; row < pixels.rows; ++row) {
    const Real* gradient = pixels.grad_output + row * pixels.grad_output_stride;
    const Real* line = pixels.lines + row * pixels.line_stride;
    for (int64_t x = 0; x < pixels.columns; ++x, gradient += pixels.block, line += pixels.step) {
      const Vector<Real> value = load(gradient);
      CONVEXT_UNROLL
      for (int k = 0; k < taps; ++k) sum[k] = fmadd(value, load(line + starts[k]), sum[k]);
    }
  }
  CONVEXT_UNROLL
  for (int k = 0; k < taps; ++k) {
    Real values[lanes];
    store(values, sum[k]);
    for (int64_t lane = 0; lane < lanes; ++lane)
      totals[k * pixels.block + lane] += static_cast<double>(values[lane]);
  }
}

template <class Real>
using PixelTapKernel = void (*)(const TapPixels<Real>& pixels, const int64_t* offsets, double* totals);

template <class Real, int taps = most_pixel_taps>
PixelTapKernel<Real> pixel_tap_kernel_of(int64_t wanted) {
  if constexpr (taps > 1) {
    if (wanted < taps) return pixel_tap_kernel_of<Real, taps - 1>(wanted);
  }
  return pixel_tap_kernel<Real, taps>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
