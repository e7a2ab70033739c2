// The innermost loop of broadcast_weight_gradient.h: the gradient of a block of taps, whose sums stay in
// registers, for one or two vectors of output channels:
//
//     sum[i][k][v] += line[y * step + i][x * step + k] * gradient[y][x][v]
//
// Neighbouring taps across read neighbouring numbers, so one pointer serves them all, whatever the stride.
#pragma once

#include "cpu/direct_rows/pixel_lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
struct BroadcastTaps {
  const Real* lines;      // what the first pixel reads by the first tap
  int64_t tap_line;       // from tap to tap down
  int64_t row_line;       // from output row to output row
  int64_t number_step;    // from pixel to pixel
  const Real* gradients;  // of the first pixel
  int64_t gradient_row;
  int64_t gradient_step;    // from pixel to pixel
  int64_t gradient_vector;  // from vector to vector
  int64_t rows;
  int64_t columns;
  int64_t channels;  // from tap to tap of the totals
  int64_t row_taps;  // totals of a row of taps
};

// How many taps have sums in registers at a time, for so many vectors: 24 sums and three operands of 32
// registers, 12 and three of 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int64_t broadcast_taps(int64_t) {
  return 12;
}
#else
constexpr int64_t broadcast_taps(int64_t vectors) {
  return 12 / vectors;
}
#endif
constexpr int64_t most_broadcast_rows = 3;

// Rows of taps in a block, if it has so many taps across.
constexpr int64_t broadcast_rows(int64_t across, int64_t vectors) {
  const int64_t rows = broadcast_taps(vectors) / across;
  return rows < most_broadcast_rows ? rows : most_broadcast_rows;
}

// totals[(i * row_taps + k) * channels + v * lanes + lane] += the sum over the pixels.
template <class Real, int down, int across, int vectors>
void broadcast_tap_kernel(const BroadcastTaps<Real>& taps, Real* totals) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sum[down][across][vectors];
  CONVEXT_UNROLL
  for (int i = 0; i < down; ++i) {
    CONVEXT_UNROLL
    for (int k = 0; k < across; ++k) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[i][k][v] = zero<Real>();
    }
  }
  const int64_t tap_line = taps.tap_line;
  const int64_t number_step = taps.number_step;
  const int64_t gradient_step = taps.gradient_step;
  const int64_t gradient_vector = taps.gradient_vector;
  for (int64_t y = 0; y < taps.rows; ++y) {
    const Real* line = taps.lines + y * taps.row_line;
    const Real* gradient = taps.gradients + y * taps.gradient_row;
    for (int64_t x = 0; x < taps.columns; ++x, line += number_step, gradient += gradient_step) {
      Vector<Real> gradients[vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) gradients[v] = load(gradient + v * gradient_vector);
      CONVEXT_UNROLL
      for (int i = 0; i < down; ++i) {
        CONVEXT_UNROLL
        for (int k = 0; k < across; ++k) {
          const Vector<Real> number = broadcast(line[i * tap_line + k]);
          CONVEXT_UNROLL
          for (int v = 0; v < vectors; ++v) sum[i][k][v] = fmadd(number, gradients[v], sum[i][k][v]);
        }
      }
    }
  }
  CONVEXT_UNROLL
  for (int i = 0; i < down; ++i) {
    CONVEXT_UNROLL
    for (int k = 0; k < across; ++k) {
      Real* to = totals + (i * taps.row_taps + k) * taps.channels;
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) store(to + v * lanes, add(load(to + v * lanes), sum[i][k][v]));
    }
  }
}

template <class Real>
using BroadcastTapKernel = void (*)(const BroadcastTaps<Real>& taps, Real* totals);

template <class Real, int vectors, int across = static_cast<int>(broadcast_taps(vectors))>
BroadcastTapKernel<Real> broadcast_tap_kernel_of(int64_t down, int64_t wanted) {
  if constexpr (across > 1) {
    if (wanted < across) return broadcast_tap_kernel_of<Real, vectors, across - 1>(down, wanted);
  }
  constexpr int most = static_cast<int>(broadcast_rows(across, vectors));
  return down == most ? broadcast_tap_kernel<Real, most, across, vectors>
                      : broadcast_tap_kernel<Real, 1, across, vectors>;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
