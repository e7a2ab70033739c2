// The innermost loops for channels_last depthwise problems: one vector of channels for eight neighbouring
// pixels (forward and the gradient of the input), or for a few taps (the gradient of the weight).
#pragma once

#include "cpu/direct_rows/pixel_lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t pixels_of_kernel = 8;  // sums: what it takes to hide the latency of the FMA

template <class T>
struct PixelRow {
  using Real = Compute<T>;
  const Real* lines;  // of the first tap, at the first pixel
  int64_t line_stride;
  int64_t run_stride;
  int64_t runs;
  int64_t long_runs;  // this many runs have long_taps taps, the others one fewer
  int64_t long_taps;
  const int64_t* offsets;
  int64_t columns;      // taps across
  int64_t step;         // from the input of one pixel to that of the next
  const Real* weights;  // [run][tap down][tap across][channel_block]
  const Real* bias;     // [channel_block]
  T* target;
  int64_t target_stride;
  int64_t pixels;  // at most pixels_of_kernel
  int64_t channels;
};

// Each result is the sum over runs of taps, taps down, taps across; after `block_terms` terms at most the sum
// starts anew and the parts are added up.
template <class T, bool unit_step>
void pixel_kernel(const PixelRow<T>& row) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sum[pixels_of_kernel];
  CONVEXT_UNROLL
  for (int x = 0; x < pixels_of_kernel; ++x) sum[x] = zero<Real>();
  // In memory on purpose: only long sums use it.
  Real parts[pixels_of_kernel * lanes];
  const bool has_parts = row.runs * row.long_taps * row.columns > block_terms;
  if (has_parts) fill_zeros(parts, 0, pixels_of_kernel * lanes);
  int64_t terms = 0;
  const int64_t step = unit_step ? channel_block<T> : row.step;
  const Real* lines = row.lines;
  const Real* weights = row.weights;
  for (int64_t u = 0; u < row.runs; ++u, lines += row.run_stride) {
    const int64_t taps = row.long_taps - (u < row.long_runs ? 0 : 1);
    const Real* line = lines;
    for (int64_t m = 0; m < taps; ++m, line += row.line_stride) {
      if (has_parts && terms + row.columns > block_terms) {
        CONVEXT_UNROLL
        for (int x = 0; x < pixels_of_kernel; ++x) {
          store(parts + x * lanes, add(load(parts + x * lanes), sum[x]));
          sum[x] = zero<Real>();
        }
        terms = 0;
      }
      terms += row.columns;
      for (int64_t j = 0; j < row.columns; ++j, weights += channel_block<T>) {
        const Real* from = line + row.offsets[j];
        const Vector<Real> weight = load(weights);
        CONVEXT_UNROLL
        for (int x = 0; x < pixels_of_kernel; ++x) sum[x] = fmadd(weight, load(from + x * step), sum[x]);
      }
    }
  }
  const Vector<Real> bias = load(row.bias);
  CONVEXT_UNROLL
  for (int x = 0; x < pixels_of_kernel; ++x) {
    if (has_parts) sum[x] = add(load(parts + x * lanes), sum[x]);
    const Vector<Real> total = add(sum[x], bias);
    T* target = row.target + x * row.target_stride;
    const int64_t channels = x < row.pixels ? row.channels : 0;
    if (channels >= lanes) {
      store_narrowed(target, total);
    } else {
      store_narrowed(target, total, channels);
    }
  }
}

// For the gradient of the weight: `rows` x `columns` output pixels, and the input that they meet.
template <class Real>
struct PixelRows {
  const Real* lines;
  int64_t line_stride;
  int64_t step;
  const Real* grad_output;  // [row][pixel][block]
  int64_t grad_output_stride;
  int64_t rows;
  int64_t columns;
};

constexpr int64_t most_pixel_taps = 10;

// totals[k * block + lane] += the sum over the pixels for tap k, whose lines begin at offsets[k].
template <class Real, int64_t block, int taps>
void pixel_tap_kernel(const PixelRows<Real>& pixels, const int64_t* offsets, double* totals) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  int64_t starts[taps];
  for (int k = 0; k < taps; ++k) starts[k] = offsets[k];
  Vector<Real> sum[taps];
  CONVEXT_UNROLL
  for (int k = 0; k < taps; ++k) sum[k] = zero<Real>();
  for (int64_t row = 0; row < pixels.rows; ++row) {
    const Real* gradient = pixels.grad_output + row * pixels.grad_output_stride;
    const Real* line = pixels.lines + row * pixels.line_stride;
    for (int64_t x = 0; x < pixels.columns; ++x, gradient += block, line += pixels.step) {
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
      totals[k * block + lane] += static_cast<double>(values[lane]);
  }
}

template <class Real>
using PixelTapKernel = void (*)(const PixelRows<Real>& pixels, const int64_t* offsets, double* totals);

template <class Real, int64_t block, int taps = most_pixel_taps>
PixelTapKernel<Real> pixel_tap_kernel_of(int64_t wanted) {
  if constexpr (taps > 1) {
    if (wanted < taps) return pixel_tap_kernel_of<Real, block, taps - 1>(wanted);
  }
  return pixel_tap_kernel<Real, block, taps>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
