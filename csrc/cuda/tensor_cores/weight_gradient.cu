// The gradient of the weight on tensor cores: see tiles/weight_gradient.cuh for the matrices. Columns are the
// input channels of every tap in whole pieces; those that are not in the weight are not stored.
#include "cuda/tensor_cores/launch.h"
#include "cuda/tensor_cores/multiply.cuh"
#include "cuda/tensor_cores/packing.h"
#include "cuda/tiles/weight_gradient.cuh"

namespace convext {
namespace cuda {
namespace mma {
namespace {

using tiles::Pixel;
using tiles::WeightGradient;
using tiles::WeightTile;

constexpr int block_columns = 128;

// What the tiles cannot know of the tensors.
struct Operands {
  int in_channels, out_channels;  // of the weight, of a group
  int64_t grad_pixel;             // numbers from pixel to pixel
};

template <class Kind, int rows>
struct Layouts {
  using T = Stored<Kind>;
  using Left = Slice<T, Order::depth_outside, rows>;
  using Right = Slice<T, Order::depth_outside, block_columns>;
  using Both = Slices<Left, Right>;
  static constexpr int result_line = block_columns + 4;
  static constexpr int64_t slice_bytes = int64_t{stages} * sizeof(Both);
  static constexpr int64_t result_bytes = int64_t{rows} * result_line * sizeof(float);
  static constexpr int64_t shared_bytes = slice_bytes > result_bytes ? slice_bytes : result_bytes;
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

template <class Kind, int rows>
__global__ void __launch_bounds__(block_threads, rows == 128 ? 1 : 2)
    correlate_gradients(WeightGradient p, Operands operands, Destination to, const Stored<Kind>* input,
                        const Stored<Kind>* grad_output, Stored<Kind>* result, float* chunk_sums) {
  using T = Stored<Kind>;
  using Both = typename Layouts<Kind, rows>::Both;
  using Sums = Products<Kind, rows, block_columns>;
  using LeftShare = Share<T, rows>;
  using RightShare = Share<T, block_columns>;
  CONVEXT_DYNAMIC_SHARED(memory);
  const int thread = static_cast<int>(threadIdx.x);
  const WeightTile tile = tiles::weight_tile(p, rows, block_columns);
  const int64_t group = blockIdx.y;
  input += group * p.in_channels * p.input_strides.channel;
  grad_output += group * p.out_channels;

  const int row = LeftShare::number();
  const bool row_exists = tile.first_channel + row < p.out_channels;
  const T* grad = grad_output + tile.first_channel + row;
  const int column = RightShare::number();
  const bool column_exists = tile.first_column + column < p.columns;
  const int tap = quotient(tile.first_column + column, p.by_in_channels);
  const int tap_row = quotient(tap, p.by_kernel_width);
  const int y = tap_row * p.row_dilation - p.top;
  const int x = (tap - tap_row * p.kernel_width) * p.column_dilation - p.left;
  const T* plane = input + (tile.first_column + column - tap * p.in_channels) + y * p.input_strides.row +
                   x * p.input_strides.column;
  const auto load = [&](Both& slices, int slice, int part) {
    const int first = tile.first_pixel + slice * slice_depth<T>;
#pragma unroll
    for (int i = part; i < LeftShare::count; i += copy_parts) {
      const int pixel = first + LeftShare::line(i);
      copy_async(slices.left.at(row, LeftShare::line(i)), grad + pixel * operands.grad_pixel,
                 row_exists && pixel < tile.last_pixel);
    }
#pragma unroll
    for (int i = part; i < RightShare::count; i += copy_parts) {
      const int pixel = first + RightShare::line(i);
      const Pixel at = tiles::pixel_of(pixel, p);
      const int down = at.row * p.row_stride;
      const int right = at.column * p.column_stride;
      const T* from =
          plane + at.n * p.input_strides.batch + down * p.input_strides.row + right * p.input_strides.column;
      copy_async(slices.right.at(column, RightShare::line(i)), from,
                 column_exists && pixel < tile.last_pixel && is_below(y + down, p.input_height) &&
                     is_below(x + right, p.input_width));
    }
  };
  const int slices = (tile.last_pixel - tile.first_pixel + slice_depth<T> - 1) / slice_depth<T>;

  // A second turn where split numbers gave what is not finite.
#pragma unroll 1
  for (int turn = 0; turn < 2; ++turn) {
    Sums sums;
    sums.clear(turn == 1);
    run_pipeline(reinterpret_cast<Both*>(memory), slices, load,
                 [&](Both& slice, const auto& meanwhile) { sums.add_slice(slice, meanwhile); });
    sums.end_chain();
    const bool again = Sums::splits && turn == 0 && __syncthreads_or(sums.all_finite() ? 0 : 1) != 0;

    constexpr int line = Layouts<Kind, rows>::result_line;
    float* of_tile = reinterpret_cast<float*>(memory);  // [row][column]
#pragma unroll
    for (int m = 0; m < Sums::row_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < Sums::column_tiles; ++n) {
#pragma unroll
        for (int k = 0; k < 4; ++k)
          of_tile[Sums::row_of(m, k) * line + Sums::column_of(n, k)] = sums.total[m][n][k];
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int k = thread; k < rows * block_columns; k += block_threads) {
      const int channel = tile.first_channel + k / block_columns;
      const int at = tile.first_column + k % block_columns;
      const int of_tap = quotient(at, p.by_in_channels);
      const int in_channel = at - of_tap * p.in_channels;
      if (channel >= operands.out_channels || of_tap >= p.taps || in_channel >= operands.in_channels)
        continue;
      const int64_t element =
          ((group * operands.out_channels + channel) * p.taps + of_tap) * operands.in_channels + in_channel;
      const float sum = of_tile[k / block_columns * line + k % block_columns];
      if (p.chunks > 1) {
        store(chunk_sums + tile.chunk * p.elements + element, sum, turn == 1);
      } else {
        store(result + offset_of(element, to), narrow<T>(sum), turn == 1);
      }
    }
    if (!again) return;
    __syncthreads();  // the tile has been read
  }
}

int rows_of_tile(const ConvProblem& packed) {
  const int64_t channels = out_channels_per_group(packed);
  return channels <= 32 ? 32 : channels <= 64 ? 64 : 128;
}

WeightGradient plan_of(const ConvProblem& problem, const Packing& packing) {
  WeightGradient plan =
      tiles::weight_gradient_of(packing.problem, rows_of_tile(packing.problem), block_columns);
  plan.elements = problem.out_channels * in_channels_per_group(problem) * plan.taps;
  return plan;
}

int64_t sums_bytes(const WeightGradient& plan) {
  return plan.chunks == 1 ? 0 : plan.chunks * plan.elements * static_cast<int64_t>(sizeof(float));
}

template <class Kind, int rows>
const char* launch_tiles(const ConvProblem& problem, const Packing& packing, const ConvData& data,
                         void* chunk_sums, const CudaDevice& device, void* stream) {
  using T = Stored<Kind>;
  const ConvProblem& p = packing.problem;
  const WeightGradient plan = plan_of(problem, packing);
  const Destination to{
      {{in_channels_per_group(problem), p.kernel.width, p.kernel.height, problem.out_channels}, {1, 3, 2, 0}},
      problem.weight_strides};
  const Operands operands{static_cast<int>(in_channels_per_group(problem)),
                          static_cast<int>(out_channels_per_group(problem)), p.out_channels};
  const char* error = launch(
      correlate_gradients<Kind, rows>, Grid{int64_t{plan.tiles} * plan.chunks, p.groups}, block_threads,
      Layouts<Kind, rows>::shared_bytes, stream, plan, operands, to, static_cast<const T*>(data.input),
      static_cast<const T*>(data.output), static_cast<T*>(data.weight), static_cast<float*>(chunk_sums));
  if (error != nullptr || plan.chunks == 1) return error;
  return launch_add_chunks<T, float>(plan.chunks, plan.elements, chunk_sums, data.weight, to, device, stream);
}

template <class Kind>
const char* launch_as(const ConvProblem& problem, const Packing& packing, const ConvData& data,
                      void* chunk_sums, const CudaDevice& device, void* stream) {
  switch (rows_of_tile(packing.problem)) {
    case 32:
      return launch_tiles<Kind, 32>(problem, packing, data, chunk_sums, device, stream);
    case 64:
      return launch_tiles<Kind, 64>(problem, packing, data, chunk_sums, device, stream);
    default:
      return launch_tiles<Kind, 128>(problem, packing, data, chunk_sums, device, stream);
  }
}

}  // namespace

int64_t weight_gradient_workspace_bytes(const ConvProblem& problem) {
  const Packing packing = packing_of(problem);
  return packing.bytes() + sums_bytes(plan_of(problem, packing));
}

const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream) {
  const Packing packing = packing_of(problem);
  ConvData packed = data;
  const char* error = launch_packing(problem, packing, workspace, &packed, stream);
  if (error != nullptr) return error;
  void* chunk_sums = static_cast<unsigned char*>(workspace) + packing.bytes();
  switch (problem.dtype) {
    case DType::bfloat16:
      return launch_as<BFloat16>(problem, packing, packed, chunk_sums, device, stream);
    case DType::float16:
      return launch_as<Float16>(problem, packing, packed, chunk_sums, device, stream);
    default:
      return problem.precision == Float32Precision::high
                 ? launch_as<Tf32>(problem, packing, packed, chunk_sums, device, stream)
                 : launch_as<SplitFloat>(problem, packing, packed, chunk_sums, device, stream);
  }
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
