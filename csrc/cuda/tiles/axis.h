// One axis of a problem as the tiles see it: positions of the result, and the taps that they meet, in fixed
// steps.
//
// A gradient of the input is cut into classes of positions that meet the same taps; within one, it is a
// correlation like any other.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace convext {
namespace cuda {
namespace tiles {

struct Axis {
  int results, first_result, result_step;
  // Result r and tap t read source position origin + r * source_per_result + t * source_per_tap.
  int origin, source_per_result, source_per_tap;
  int taps, first_tap, tap_step;
  int source;
};

// Of an image of the result, or of the output.
struct Pixel {
  int n, row, column;
};

inline int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

inline int classes_of(bool gradient, int64_t stride) {
  return gradient ? static_cast<int>(stride) : 1;
}

// Class `index` of classes_of(...).
inline Axis axis_of(bool gradient, int index, int64_t input, int64_t output, int64_t kernel, int64_t stride,
                    int64_t dilation, int64_t before) {
  Axis axis{};
  if (!gradient) {
    axis.results = static_cast<int>(output);
    axis.result_step = 1;
    axis.origin = static_cast<int>(-before);
    axis.source_per_result = static_cast<int>(stride);
    axis.source_per_tap = static_cast<int>(dilation);
    axis.taps = static_cast<int>(kernel);
    axis.tap_step = 1;
    axis.source = static_cast<int>(input);
    return axis;
  }
  const int64_t divisor = common_divisor(stride, dilation);
  const int64_t tap_step = stride / divisor;
  axis.results = static_cast<int>(index < input ? (input - index - 1) / stride + 1 : 0);
  axis.first_result = index;
  axis.result_step = static_cast<int>(stride);
  axis.source_per_result = 1;
  axis.source_per_tap = static_cast<int>(-dilation / divisor);
  axis.tap_step = static_cast<int>(tap_step);
  axis.source = static_cast<int>(output);
  for (int64_t tap = 0; tap < tap_step && tap < kernel; ++tap) {
    const int64_t shifted = index + before - tap * dilation;
    if (shifted % stride != 0) continue;
    axis.first_tap = static_cast<int>(tap);
    axis.taps = static_cast<int>((kernel - tap - 1) / tap_step + 1);
    axis.origin = static_cast<int>(shifted / stride);
    break;
  }
  return axis;
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
