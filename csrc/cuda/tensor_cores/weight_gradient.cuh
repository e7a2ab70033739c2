// What the kernels of the gradient of the weight share. See tiles/weight_gradient.cuh for the matrices;
// columns are the input channels of every tap in whole pieces, and those that are not in the weight are not
// stored.
#pragma once

#include "cuda/tensor_cores/packing.h"
#include "cuda/tensor_cores/slices.cuh"
#include "cuda/tiles/weight_gradient.cuh"

namespace convext {
namespace cuda {
namespace mma {

using tiles::Pixel;
using tiles::WeightGradient;
using tiles::WeightTile;

// What the tiles cannot know of the tensors.
struct GradientOperands {
  int in_channels, out_channels;  // of the weight, of a group
  int64_t grad_pixel;             // numbers from pixel to pixel
};

// The pieces of a slice that a thread copies: of one place in the lines, and of some of these.
template <class T, int numbers>
struct Share {
  static constexpr int pieces = numbers / piece_numbers<T>;
  static constexpr int lanes = block_threads / pieces;
  static constexpr int count = slice_depth<T> / lanes;
  static_assert(count >= 1, "every thread has a piece");

  __device__ static int line(int i) { return static_cast<int>(threadIdx.x) / pieces + i * lanes; }
  __device__ static int number() { return static_cast<int>(threadIdx.x) % pieces * piece_numbers<T>; }
};

// Where the columns of one piece of a slice read.
template <class T>
struct PatchColumn {
  bool exists;
  int y, x;
  const T* plane;

  __device__ PatchColumn(const WeightGradient& p, const T* input, int column) : exists(column < p.columns) {
    const int tap = quotient(column, p.by_in_channels);
    const int tap_row = quotient(tap, p.by_kernel_width);
    y = tap_row * p.row_dilation - p.top;
    x = (tap - tap_row * p.kernel_width) * p.column_dilation - p.left;
    plane = input + (column - tap * p.in_channels) + y * p.input_strides.row + x * p.input_strides.column;
  }

  // Starts the copy for a pixel of the output.
  __device__ void start(const WeightGradient& p, T* to, int pixel, int last_pixel) const {
    const Pixel at = tiles::pixel_of(pixel, p);
    const int down = at.row * p.row_stride;
    const int right = at.column * p.column_stride;
    const T* from =
        plane + at.n * p.input_strides.batch + down * p.input_strides.row + right * p.input_strides.column;
    copy_async(to, from,
               exists && pixel < last_pixel && is_below(y + down, p.input_height) &&
                   is_below(x + right, p.input_width));
  }
};

// From shared memory, [row][column], as far as it is part of the weight. A thread keeps to its column.
template <class T, int rows, int columns, int line>
__device__ inline void store_sums(const WeightGradient& p, const GradientOperands& operands,
                                  const WeightTile& tile, int64_t group, const Accumulator<T>* sums,
                                  const Destination& to, T* result, Accumulator<T>* chunk_sums, bool again) {
  static_assert(block_threads % columns == 0, "or a thread would have several columns");
  constexpr int step = block_threads / columns;
  const int thread = static_cast<int>(threadIdx.x);
  const int column = tile.first_column + thread % columns;
  const int tap = quotient(column, p.by_in_channels);
  const int in_channel = column - tap * p.in_channels;
  if (tap >= p.taps || in_channel >= operands.in_channels) return;
  const int first = thread / columns;
  const int channels = operands.out_channels - tile.first_channel;
  const int last = channels < rows ? channels : rows;
  const int64_t channel = group * operands.out_channels + tile.first_channel + first;
  const Accumulator<T>* from = sums + first * line + thread % columns;
  if (p.chunks > 1) {
    const int64_t of_channel = int64_t{p.taps} * operands.in_channels;
    Accumulator<T>* at =
        chunk_sums + tile.chunk * p.elements + channel * of_channel + tap * operands.in_channels + in_channel;
#pragma unroll 4
    for (int row = first; row < last; row += step, from += step * line, at += step * of_channel)
      store(at, *from, again);
  } else {
    const int tap_row = quotient(tap, p.by_kernel_width);
    T* at = result + channel * to.strides.out_channel + in_channel * to.strides.in_channel +
            tap_row * to.strides.row + (tap - tap_row * p.kernel_width) * to.strides.column;
#pragma unroll 4
    for (int row = first; row < last; row += step, from += step * line, at += step * to.strides.out_channel)
      store(at, narrow<T>(*from), again);
  }
}

// Runs the kernel, and what adds its chunks.
template <class T, class Kernel>
const char* launch_gradient(Kernel kernel, int64_t shared_bytes, const WeightGradient& plan,
                            const ConvProblem& problem, const ConvProblem& packed, const ConvData& data,
                            void* chunk_sums, const CudaDevice& device, void* stream) {
  const Destination to{
      {{in_channels_per_group(problem), problem.kernel.width, problem.kernel.height, problem.out_channels},
       {1, 3, 2, 0}},
      problem.weight_strides};
  const GradientOperands operands{static_cast<int>(in_channels_per_group(problem)),
                                  static_cast<int>(out_channels_per_group(problem)), packed.out_channels};
  const char* error = launch(kernel, Grid{int64_t{plan.tiles} * plan.chunks, problem.groups}, block_threads,
                             shared_bytes, stream, plan, operands, to, static_cast<const T*>(data.input),
                             static_cast<const T*>(data.output), static_cast<T*>(data.weight),
                             static_cast<Accumulator<T>*>(chunk_sums));
  if (error != nullptr || plan.chunks == 1) return error;
  return launch_add_chunks<T, Accumulator<T>>(plan.chunks, plan.elements, chunk_sums, data.weight, to, device,
                                              stream);
}

// For tiles of so many rows and columns, and about so many blocks.
inline WeightGradient gradient_plan(const ConvProblem& problem, const ConvProblem& packed, int rows,
                                    int columns, int64_t blocks) {
  WeightGradient plan = tiles::weight_gradient_of(packed, rows, columns, blocks);
  plan.elements = problem.out_channels * in_channels_per_group(problem) * plan.taps;
  return plan;
}

inline int64_t sums_bytes(const WeightGradient& plan, DType dtype) {
  return plan.chunks == 1 ? 0 : plan.chunks * plan.elements * (dtype == DType::float64 ? 8 : 4);
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
