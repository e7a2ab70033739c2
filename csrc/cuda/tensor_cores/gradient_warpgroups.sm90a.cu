// The gradient of the weight of 16-bit numbers by warpgroups: see tiles/weight_gradient.cuh for the matrices.
//
// A block has 128 x 128, 128 x 256 or 64 x 256 results. Its two warpgroups share the rows, 64 each, or the
// columns where there are 64 rows. The depth lies outside in both slices: a line is 64 channels of one pixel.
#include "cuda/tensor_cores/gradient_warpgroups.h"
#include "cuda/tensor_cores/warpgroup_pipeline.cuh"
#include "cuda/tensor_cores/weight_gradient.cuh"

namespace convext {
namespace cuda {
namespace mma {
namespace {

constexpr int slice_pixels = 64;
constexpr int line_channels = 64;
constexpr int block_bytes = slice_pixels * swizzled_line_bytes;  // of 64 channels of a slice

// Sums of a chunk are not cut further: up to here, that they are rounded towards zero every 16 terms stays
// far below the rounding of a 16-bit result.
constexpr int most_pixels = 16384;

template <int rows, int columns>
struct Stage {
  unsigned char left[rows / line_channels * block_bytes];
  unsigned char right[columns / line_channels * block_bytes];
};

template <int rows, int columns, int stages_>
struct Memory {
  static constexpr int result_line = columns + 4;
  static constexpr int64_t slice_bytes = int64_t{stages_} * sizeof(Stage<rows, columns>);
  static constexpr int64_t result_bytes = int64_t{rows} * result_line * sizeof(float);
  static constexpr int64_t bytes = (slice_bytes > result_bytes ? slice_bytes : result_bytes) + swizzle_bytes;
};

// Where the pieces of a Share lie in a slice: the first, and the others below each other.
template <class Pieces>
__device__ inline int place_of() {
  const int piece = Pieces::number() / 8;
  return piece / 8 * block_bytes + swizzled_offset(Pieces::line(0), piece % 8);
}

template <class T, int rows, int columns, int stages_>
__global__ void __launch_bounds__(block_threads, columns == 128 ? 2 : 1)
    correlate_gradients_together(WeightGradient p, GradientOperands operands, Destination to, const T* input,
                                 const T* grad_output, T* result, float* chunk_sums) {
  using LeftShare = Share<T, rows>;
  using RightShare = Share<T, columns>;
  constexpr bool share_rows = rows == 128;
  constexpr int own_columns = share_rows ? columns : columns / 2;
  CONVEXT_DYNAMIC_SHARED(unaligned);
  unsigned char* memory = first_slice(unaligned);
  auto* slices = reinterpret_cast<Stage<rows, columns>*>(memory);
  const int thread = static_cast<int>(threadIdx.x);
  const WeightTile tile = tiles::weight_tile(p, rows, columns);
  const int64_t group = blockIdx.y;
  input += group * p.in_channels * p.input_strides.channel;
  grad_output += group * p.out_channels;

  const int row = tile.first_channel + LeftShare::number();
  const T* grad = grad_output + row;
  const PatchColumn<T> patches(p, input, tile.first_column + RightShare::number());
  const int left_place = place_of<LeftShare>();
  const int right_place = place_of<RightShare>();
  const auto load = [&](int at, int slice) {
    Stage<rows, columns>& stage = slices[at];
    const int first = tile.first_pixel + slice * slice_pixels;
#pragma unroll
    for (int i = 0; i < LeftShare::count; ++i) {
      const int pixel = first + LeftShare::line(i);
      copy_async(stage.left + left_place + i * LeftShare::lanes * swizzled_line_bytes,
                 grad + pixel * operands.grad_pixel, row < p.out_channels && pixel < tile.last_pixel);
    }
#pragma unroll
    for (int i = 0; i < RightShare::count; ++i) {
      patches.start(
          p, reinterpret_cast<T*>(stage.right + right_place + i * RightShare::lanes * swizzled_line_bytes),
          first + RightShare::line(i), tile.last_pixel);
    }
  };

  const int count = (tile.last_pixel - tile.first_pixel + slice_pixels - 1) / slice_pixels;
  const int warpgroup = thread / warpgroup_threads;
  float sum[own_columns / 2] = {};
  run_warpgroups<stages_>(count, load, [&](int at) {
    const Stage<rows, columns>& stage = slices[at];
    const int left_block = share_rows ? warpgroup : 0;
    const int right_block = share_rows ? 0 : warpgroup * (own_columns / line_channels);
    const SliceDescriptor left = outer_slice_descriptor(stage.left + left_block * block_bytes, block_bytes);
    const SliceDescriptor right =
        outer_slice_descriptor(stage.right + right_block * block_bytes, block_bytes);
#pragma unroll
    for (int pixel = 0; pixel < slice_pixels; pixel += 16) {
      multiply_add_together<T, true>(sum, deeper(left, pixel * swizzled_line_bytes),
                                     deeper(right, pixel * swizzled_line_bytes));
    }
  });

  constexpr int line = Memory<rows, columns, stages_>::result_line;
  float* of_tile = reinterpret_cast<float*>(memory);  // [row][column]
  const int first_row = (share_rows ? thread : thread % warpgroup_threads) / 32 * 16 + thread % 32 / 4;
  const int first_column = share_rows ? 0 : warpgroup * own_columns;
#pragma unroll
  for (int n = 0; n < own_columns / 8; ++n) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      of_tile[(first_row + k / 2 * 8) * line + first_column + 8 * n + thread % 4 * 2 + k % 2] =
          sum[4 * n + k];
  }
  __syncthreads();
  store_sums<T, rows, columns, line>(p, operands, tile, group, of_tile, to, result, chunk_sums, false);
}

struct TileSize {
  int rows, columns;
};

TileSize tile_of(const ConvProblem& packed) {
  const int64_t columns = in_channels_per_group(packed) * packed.kernel.height * packed.kernel.width;
  if (out_channels_per_group(packed) <= 64) return {64, 256};
  return columns > 512 ? TileSize{128, 256} : TileSize{128, 128};
}

WeightGradient plan_of(const ConvProblem& problem, const ConvProblem& packed) {
  const TileSize tile = tile_of(packed);
  // Twice as many as an H100 runs at a time.
  const int64_t blocks = tile.columns == 128 ? 528 : 264;
  return gradient_plan(problem, packed, tile.rows, tile.columns, blocks);
}

template <class T>
const char* launch_as(const ConvProblem& problem, const ConvProblem& packed, const ConvData& data,
                      void* chunk_sums, const CudaDevice& device, void* stream) {
  const auto run = [&](auto kernel, int64_t shared_bytes) {
    return launch_gradient<T>(kernel, shared_bytes, plan_of(problem, packed), problem, packed, data,
                              chunk_sums, device, stream);
  };
  const TileSize tile = tile_of(packed);
  if (tile.rows == 64) return run(correlate_gradients_together<T, 64, 256, 4>, Memory<64, 256, 4>::bytes);
  if (tile.columns == 256)
    return run(correlate_gradients_together<T, 128, 256, 4>, Memory<128, 256, 4>::bytes);
  return run(correlate_gradients_together<T, 128, 128, 3>, Memory<128, 128, 3>::bytes);
}

}  // namespace

bool gradient_wants_warpgroups(const ConvProblem& problem, const ConvProblem& packed,
                               const CudaDevice& device) {
  return device.capability == 90 && (problem.dtype == DType::bfloat16 || problem.dtype == DType::float16) &&
         out_channels_per_group(packed) > 32 &&
         in_channels_per_group(packed) * packed.kernel.height * packed.kernel.width > 64 &&
         plan_of(problem, packed).chunk_pixels <= most_pixels;
}

int64_t gradient_warpgroups_bytes(const ConvProblem& problem, const ConvProblem& packed) {
  return sums_bytes(plan_of(problem, packed), problem.dtype);
}

const char* launch_gradient_warpgroups(const ConvProblem& problem, const ConvProblem& packed,
                                       const ConvData& data, void* chunk_sums, const CudaDevice& device,
                                       void* stream) {
  return problem.dtype == DType::bfloat16
             ? launch_as<BFloat16>(problem, packed, data, chunk_sums, device, stream)
             : launch_as<Float16>(problem, packed, data, chunk_sums, device, stream);
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
