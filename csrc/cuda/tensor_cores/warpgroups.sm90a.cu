// forward and grad_input of 16-bit numbers, and of float32 as TF32, by warpgroups: see tiles/correlation.cuh
// for the matrices.
//
// A block has 128 x `columns` results, each of its two warpgroups 64 rows of them. Its threads copy a slice
// two ahead of the one that is multiplied, while the tensor cores read that one from shared memory by
// themselves.

#include "cuda/tensor_cores/correlation.cuh"
#include "cuda/tensor_cores/warpgroup_pipeline.cuh"
#include "cuda/tensor_cores/warpgroups.h"

namespace convext {
namespace cuda {
namespace mma {
namespace {

// Sums are not cut into chains: up to here, that they are rounded towards zero every 16 terms stays far below
// the rounding of a 16-bit result, or of TF32.
constexpr int64_t most_depth = 8192;

template <int columns>
struct Stage {
  unsigned char left[block_rows * swizzled_line_bytes];
  unsigned char right[columns * swizzled_line_bytes];
};

template <class T, int columns, int stages>
struct Memory {
  static constexpr int result_line = columns + piece_numbers<T>;
  static constexpr int64_t slice_bytes = int64_t{stages} * sizeof(Stage<columns>);
  static constexpr int64_t result_bytes = int64_t{block_rows} * result_line * sizeof(T);
  static constexpr int64_t bytes = (slice_bytes > result_bytes ? slice_bytes : result_bytes) + swizzle_bytes;
};

template <class T, int columns, int stages>
__global__ void __launch_bounds__(block_threads, columns == 256 ? 1 : 2)
    correlate_together(Correlation p, Operands operands, const T* source, const T* weight, const T* bias,
                       T* result) {
  CONVEXT_DYNAMIC_SHARED(unaligned);
  unsigned char* memory = first_slice(unaligned);
  auto* slices = reinterpret_cast<Stage<columns>*>(memory);
  const int thread = static_cast<int>(threadIdx.x);
  const int pixel_tile = quotient(static_cast<int>(blockIdx.x), p.by_column_tiles);
  const int first_channel = (static_cast<int>(blockIdx.x) - pixel_tile * p.column_tiles) * columns;
  const int first_pixel = pixel_tile * block_rows;
  const int64_t group = blockIdx.y;
  source += group * p.source_channels * p.source.channel;
  weight += group * p.weight_group;
  result += group * p.result_channels * p.result.channel;

  const SliceCopies<T, columns> copies(p, source, weight, first_pixel, first_channel);
  const int place = swizzled_offset(copies.row(), copies.piece());  // of every 32nd row, the same
  constexpr int line = swizzled_line_bytes / static_cast<int>(sizeof(T));
  const auto load = [&](int stage, int slice) {
    Stage<columns>& to = slices[stage];
    const auto at = copies.place(slice);
#pragma unroll
    for (int part = 0; part < copy_parts; ++part) {
      copies.start(at, part, reinterpret_cast<T*>(to.left + place), line,
                   reinterpret_cast<T*>(to.right + place), line);
    }
  };
  const int count = (p.depth + slice_depth<T> - 1) / slice_depth<T>;
  const int warpgroup = thread / warpgroup_threads;
  float sum[columns / 2] = {};
  run_warpgroups<stages>(count, load, [&](int stage) {
    const Stage<columns>& at = slices[stage];
    const SliceDescriptor left = slice_descriptor(at.left + warpgroup * warpgroup_rows * swizzled_line_bytes);
    const SliceDescriptor right = slice_descriptor(at.right);
#pragma unroll
    for (int bytes = 0; bytes < swizzled_line_bytes; bytes += 32)
      multiply_add_together<T>(sum, deeper(left, bytes), deeper(right, bytes));
  });

  constexpr int result_line = Memory<T, columns, stages>::result_line;
  T* tile = reinterpret_cast<T*>(memory);  // [row][column]
  const int row = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int n = 0; n < columns / 8; ++n) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int column = 8 * n + thread % 4 * 2 + k;
      float shift = 0;
      if (bias != nullptr && first_channel + column < p.result_channels)
        shift = widen(bias[group * p.result_channels + first_channel + column]);
      tile[row * result_line + column] = narrow<T>(sum[4 * n + k] + shift);
      tile[(row + 8) * result_line + column] = narrow<T>(sum[4 * n + 2 + k] + shift);
    }
  }
  __syncthreads();
  store_tile<T, columns, result_line>(p, operands, tile, first_pixel, first_channel, false, source, weight,
                                      result);
}

template <class T, int columns, int stages>
const char* launch_class(const Packing& packing, const ConvData& data, const int* flag, int row_class,
                         int column_class, void* stream) {
  const ConvProblem& p = packing.problem;
  Correlation plan = tiles::correlation_of(p, row_class, column_class, columns);
  if (plan.pixels == 0) return nullptr;
  plan.weight_group = packing.weight_group;
  const auto* source = static_cast<const T*>(plan.gradient ? data.output : data.input);
  auto* result = static_cast<T*>(plan.gradient ? data.input : data.output);
  const Operands operands{is_in_pieces(result, plan, piece_numbers<T>), plan.gradient ? flag : nullptr};
  const int64_t pixel_tiles = (int64_t{plan.pixels} + block_rows - 1) / block_rows;
  return launch(correlate_together<T, columns, stages>, Grid{pixel_tiles * plan.column_tiles, p.groups},
                block_threads, Memory<T, columns, stages>::bytes, stream, plan, operands, source,
                static_cast<const T*>(data.weight),
                p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr, result);
}

template <class T>
const char* launch_as(const Packing& packing, const ConvData& data, const int* flag, const CudaDevice& device,
                      void* stream) {
  const ConvProblem& p = packing.problem;
  const int64_t pixels = p.pass == Pass::grad_input ? p.batch * p.input.height * p.input.width
                                                    : p.batch * p.output.height * p.output.width;
  // Wide tiles read less, if there are enough of them.
  const int64_t channels = result_channels(p);
  const auto blocks = [&](int64_t columns) {
    return (pixels + block_rows - 1) / block_rows * ((channels + columns - 1) / columns) * p.groups;
  };
  const bool wide =
      channels > 128 && round_up(channels, 256) * 4 <= channels * 5 && blocks(256) >= device.multiprocessors;
  const bool narrow = channels <= 64 || blocks(128) < device.multiprocessors;
  return tiles::for_each_class(p, [&](int row_class, int column_class) {
    if (wide) return launch_class<T, 256, 4>(packing, data, flag, row_class, column_class, stream);
    if (narrow) return launch_class<T, 64, 4>(packing, data, flag, row_class, column_class, stream);
    return launch_class<T, 128, 3>(packing, data, flag, row_class, column_class, stream);
  });
}

}  // namespace

bool wants_warpgroups(const ConvProblem& p, const CudaDevice& device) {
  const bool gradient = p.pass == Pass::grad_input;
  const int64_t depth =
      (gradient ? out_channels_per_group(p) : in_channels_per_group(p)) * p.kernel.height * p.kernel.width;
  const bool has_instruction = p.dtype == DType::bfloat16 || p.dtype == DType::float16 ||
                               (p.dtype == DType::float32 && p.precision == Float32Precision::high);
  return device.capability == 90 && has_instruction && result_channels(p) > 32 && depth <= most_depth;
}

const char* launch_warpgroups(const Packing& packing, const ConvData& data, const int* flag,
                              const CudaDevice& device, void* stream) {
  switch (packing.problem.dtype) {
    case DType::bfloat16:
      return launch_as<BFloat16>(packing, data, flag, device, stream);
    case DType::float16:
      return launch_as<Float16>(packing, data, flag, device, stream);
    default:
      return launch_as<float>(packing, data, flag, device, stream);
  }
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
