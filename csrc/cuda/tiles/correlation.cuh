// The forward pass and the gradient of the input as products of matrices, whoever multiplies: rows are pixels
// of the result, columns its channels, and the depth is every source channel of every tap, channels
// innermost.
#pragma once

#include "core/padding.h"
#include "cuda/divisor.cuh"
#include "cuda/element.cuh"
#include "cuda/tiles/axis.h"

namespace convext {
namespace cuda {
namespace tiles {

struct Correlation {
  Axis rows, columns;
  PaddingMode mode;
  bool gradient;
  int source_channels, result_channels;  // of a group
  int pixels, depth;
  int column_tiles;
  Divisor by_source_channels, by_tap_columns, by_result_columns, by_result_rows, by_column_tiles;
  ImageStrides source, result;
  int64_t weight_group, weight_source_channel, weight_result_channel, weight_row, weight_column;
  bool source_pixels_adjacent, result_pixels_adjacent;
};

__device__ inline Pixel pixel_of(int index, const Correlation& p) {
  const int line = quotient(index, p.by_result_columns);
  const int n = quotient(line, p.by_result_rows);
  return {n, line - n * p.rows.results, index - line * p.columns.results};
}

struct Tap {
  int channel, row, column;
};

__device__ inline Tap tap_of(int depth, const Correlation& p) {
  const int tap = quotient(depth, p.by_source_channels);
  const int row = quotient(tap, p.by_tap_columns);
  return {depth - tap * p.source_channels, row, tap - row * p.columns.taps};
}

__device__ inline bool is_finite(float value) {
  return value - value == 0;
}
__device__ inline bool is_finite(double value) {
  return value - value == 0;
}

// The terms of one result that exist, one by one: where a gradient has no term, zero times a weight that is
// not finite would be NaN.
template <class T>
__device__ Accumulator<T> existing_terms(const Correlation& p, const Pixel& at, int channel, const T* source,
                                         const T* weight) {
  Sum<T> sum;
  for (int depth = 0; depth < p.depth; ++depth) {
    const Tap tap = tap_of(depth, p);
    const int y = p.rows.origin + at.row * p.rows.source_per_result + tap.row * p.rows.source_per_tap;
    const int x =
        p.columns.origin + at.column * p.columns.source_per_result + tap.column * p.columns.source_per_tap;
    if (y < 0 || y >= p.rows.source || x < 0 || x >= p.columns.source) continue;
    const T value = source[at.n * p.source.batch + tap.channel * p.source.channel + y * p.source.row +
                           x * p.source.column];
    const T factor = weight[channel * p.weight_result_channel + tap.channel * p.weight_source_channel +
                            (p.rows.first_tap + tap.row * p.rows.tap_step) * p.weight_row +
                            (p.columns.first_tap + tap.column * p.columns.tap_step) * p.weight_column];
    sum.add_product(widen(value), widen(factor));
  }
  return static_cast<Accumulator<T>>(sum.result());
}

// Class (row_class, column_class) of the problem, whose product has tiles of `columns_of_tile` columns. It
// has no pixels if there are none in the class.
inline Correlation correlation_of(const ConvProblem& p, int row_class, int column_class,
                                  int columns_of_tile) {
  Correlation plan{};
  plan.gradient = p.pass == Pass::grad_input;
  plan.rows = axis_of(plan.gradient, row_class, p.input.height, p.output.height, p.kernel.height,
                      p.stride.height, p.dilation.height, p.padding.top);
  plan.columns = axis_of(plan.gradient, column_class, p.input.width, p.output.width, p.kernel.width,
                         p.stride.width, p.dilation.width, p.padding.left);
  plan.mode = p.padding_mode;
  const auto in = static_cast<int>(in_channels_per_group(p));
  const auto out = static_cast<int>(out_channels_per_group(p));
  plan.source_channels = plan.gradient ? out : in;
  plan.result_channels = plan.gradient ? in : out;
  plan.pixels = static_cast<int>(p.batch * plan.rows.results * plan.columns.results);
  if (plan.pixels == 0) return plan;
  plan.depth = plan.source_channels * plan.rows.taps * plan.columns.taps;
  plan.column_tiles = (plan.result_channels + columns_of_tile - 1) / columns_of_tile;
  plan.by_source_channels = divisor_of(plan.source_channels);
  plan.by_tap_columns = divisor_of(plan.columns.taps == 0 ? 1 : plan.columns.taps);
  plan.by_result_columns = divisor_of(plan.columns.results);
  plan.by_result_rows = divisor_of(plan.rows.results);
  plan.by_column_tiles = divisor_of(plan.column_tiles);
  plan.source = plan.gradient ? p.output_strides : p.input_strides;
  plan.result = plan.gradient ? p.input_strides : p.output_strides;
  plan.weight_group = out * p.weight_strides.out_channel;
  plan.weight_source_channel = plan.gradient ? p.weight_strides.out_channel : p.weight_strides.in_channel;
  plan.weight_result_channel = plan.gradient ? p.weight_strides.in_channel : p.weight_strides.out_channel;
  plan.weight_row = p.weight_strides.row;
  plan.weight_column = p.weight_strides.column;
  plan.source_pixels_adjacent = plan.source.channel != 1 || plan.source_channels == 1;
  plan.result_pixels_adjacent = plan.result.channel != 1 || plan.result_channels == 1;
  return plan;
}

// Calls visit(row_class, column_class) for all classes until it returns an error, and returns that.
template <class Visit>
const char* for_each_class(const ConvProblem& p, const Visit& visit) {
  const bool gradient = p.pass == Pass::grad_input;
  const int row_classes = classes_of(gradient, p.stride.height);
  const int column_classes = classes_of(gradient, p.stride.width);
  for (int row_class = 0; row_class < row_classes; ++row_class) {
    for (int column_class = 0; column_class < column_classes; ++column_class) {
      const char* error = visit(row_class, column_class);
      if (error != nullptr) return error;
    }
  }
  return nullptr;
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
