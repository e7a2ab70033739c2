// The gradient of the weight as a product of matrices, whoever multiplies: rows are output channels, columns
// are the input channels of every tap, channels innermost, and the depth is every pixel of the output. Where
// the tiles are too few to fill the device, the depth is cut into chunks, by the shape alone, whose sums a
// second kernel adds.
#pragma once

#include "core/padding.h"
#include "cuda/divisor.cuh"
#include "cuda/row_reduction.cuh"
#include "cuda/tiles/axis.h"

namespace convext {
namespace cuda {
namespace tiles {

struct WeightGradient {
  int output_height, output_width, input_height, input_width;
  int row_stride, column_stride, row_dilation, column_dilation;
  int top, left;
  PaddingMode mode;
  int in_channels, out_channels;  // of a group
  int taps, kernel_width;
  int columns;  // in_channels * taps
  int64_t elements;
  int pixels, chunk_pixels, chunks;
  int column_tiles, tiles;
  Divisor by_width, by_height, by_in_channels, by_kernel_width, by_column_tiles, by_chunks;
  ImageStrides input_strides, output_strides;
  bool grad_pixels_adjacent, input_pixels_adjacent;
};

__device__ inline Pixel pixel_of(int index, const WeightGradient& p) {
  const int line = quotient(index, p.by_width);
  const int n = quotient(line, p.by_height);
  return {n, line - n * p.output_height, index - line * p.output_width};
}

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// For tiles of so many rows and columns.
inline WeightGradient weight_gradient_of(const ConvProblem& p, int rows_of_tile, int columns_of_tile,
                                         int64_t blocks_wanted = 512) {
  constexpr int64_t most_chunk_bytes = int64_t{16} << 20;
  WeightGradient plan{};
  plan.output_height = static_cast<int>(p.output.height);
  plan.output_width = static_cast<int>(p.output.width);
  plan.input_height = static_cast<int>(p.input.height);
  plan.input_width = static_cast<int>(p.input.width);
  plan.row_stride = static_cast<int>(p.stride.height);
  plan.column_stride = static_cast<int>(p.stride.width);
  plan.row_dilation = static_cast<int>(p.dilation.height);
  plan.column_dilation = static_cast<int>(p.dilation.width);
  plan.top = static_cast<int>(p.padding.top);
  plan.left = static_cast<int>(p.padding.left);
  plan.mode = p.padding_mode;
  plan.in_channels = static_cast<int>(in_channels_per_group(p));
  plan.out_channels = static_cast<int>(out_channels_per_group(p));
  plan.taps = static_cast<int>(p.kernel.height * p.kernel.width);
  plan.kernel_width = static_cast<int>(p.kernel.width);
  plan.columns = plan.in_channels * plan.taps;
  plan.pixels = static_cast<int>(p.batch * p.output.height * p.output.width);
  plan.column_tiles = static_cast<int>(ceil_div(plan.columns, columns_of_tile));
  plan.tiles = static_cast<int>(plan.column_tiles * ceil_div(plan.out_channels, rows_of_tile));
  plan.elements = p.out_channels * plan.columns;
  int64_t chunks = blocks_wanted / (plan.tiles * p.groups);
  const int64_t most = most_chunk_bytes / (plan.elements * static_cast<int64_t>(sizeof(double)));
  if (chunks > most) chunks = most;
  if (chunks < 1) chunks = 1;
  // Whole chains.
  plan.chunk_pixels = static_cast<int>(ceil_div(ceil_div(plan.pixels, chunks), chain_terms) * chain_terms);
  plan.chunks = static_cast<int>(ceil_div(plan.pixels, plan.chunk_pixels));
  plan.by_width = divisor_of(p.output.width);
  plan.by_height = divisor_of(p.output.height);
  plan.by_in_channels = divisor_of(plan.in_channels);
  plan.by_kernel_width = divisor_of(p.kernel.width);
  plan.by_column_tiles = divisor_of(plan.column_tiles);
  plan.by_chunks = divisor_of(plan.chunks);
  plan.input_strides = p.input_strides;
  plan.output_strides = p.output_strides;
  plan.grad_pixels_adjacent = p.output_strides.channel != 1 || plan.out_channels == 1;
  plan.input_pixels_adjacent = p.input_strides.channel != 1 || plan.in_channels == 1;
  return plan;
}

inline int64_t workspace_bytes(const WeightGradient& plan) {
  return plan.chunks == 1 ? 0 : plan.chunks * plan.elements * static_cast<int64_t>(sizeof(double));
}

// Runs the kernel, and what adds its chunks. A block is tile * chunks + chunk, and its group.
template <class T, class Kernel>
const char* launch_chunks(Kernel kernel, int threads, const WeightGradient& plan, const ConvProblem& p,
                          const ConvData& data, void* workspace, const CudaDevice& device, void* stream) {
  const Destination to{
      {{in_channels_per_group(p), p.kernel.width, p.kernel.height, p.out_channels}, {1, 3, 2, 0}},
      p.weight_strides};
  const char* error = launch(kernel, Grid{int64_t{plan.tiles} * plan.chunks, p.groups}, threads, 0, stream,
                             plan, to, static_cast<const T*>(data.input), static_cast<const T*>(data.output),
                             static_cast<T*>(data.weight), static_cast<Total<T>*>(workspace));
  if (error != nullptr || plan.chunks == 1) return error;
  return launch_add_chunks<T>(plan.chunks, plan.elements, workspace, data.weight, to, device, stream);
}

// Which sums a block computes.
struct WeightTile {
  int chunk, first_pixel, last_pixel, first_channel, first_column;
};

__device__ inline WeightTile weight_tile(const WeightGradient& p, int rows_of_tile, int columns_of_tile) {
  const int tile = quotient(static_cast<int>(blockIdx.x), p.by_chunks);
  const int chunk = static_cast<int>(blockIdx.x) - tile * p.chunks;
  const int row_tile = quotient(tile, p.by_column_tiles);
  const int first = chunk * p.chunk_pixels;
  const int last = first + p.chunk_pixels < p.pixels ? first + p.chunk_pixels : p.pixels;
  return {chunk, first, last, row_tile * rows_of_tile, (tile - row_tile * p.column_tiles) * columns_of_tile};
}

// Stores a sum where it belongs: the result, or the chunk's sums. Nothing for a row or column that is none.
template <class T, class Value>
__device__ inline void store_sum(const WeightGradient& p, const WeightTile& tile, int group, int row,
                                 int column, Value value, const Destination& to, T* result,
                                 Total<T>* chunk_sums) {
  if (tile.first_channel + row >= p.out_channels || tile.first_column + column >= p.columns) return;
  const int64_t element =
      (int64_t{group} * p.out_channels + tile.first_channel + row) * p.columns + tile.first_column + column;
  if (p.chunks > 1) {
    chunk_sums[tile.chunk * p.elements + element] = static_cast<Total<T>>(value);
  } else {
    result[offset_of(element, to)] = narrow<T>(value);
  }
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
