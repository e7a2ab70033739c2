// The gradient of the weight on tensor cores: see tiles/weight_gradient.cuh for the matrices.
#include "cuda/tensor_cores/gradient_warpgroups.h"
#include "cuda/tensor_cores/launch.h"
#include "cuda/tensor_cores/multiply.cuh"
#include "cuda/tensor_cores/weight_gradient.cuh"

namespace convext {
namespace cuda {
namespace mma {
namespace {

constexpr int block_columns = 128;

template <class Kind, int rows>
struct Layouts {
  using T = Stored<Kind>;
  using Left = Slice<T, Order::depth_outside, rows>;
  using Right = Slice<T, Order::depth_outside, block_columns>;
  using Both = Slices<Left, Right>;
  static constexpr int result_line = block_columns + 4;
  static constexpr int64_t slice_bytes = int64_t{stages} * sizeof(Both);
  static constexpr int64_t result_bytes = int64_t{rows} * result_line * sizeof(Accumulator<T>);
  static constexpr int64_t shared_bytes = slice_bytes > result_bytes ? slice_bytes : result_bytes;
};

template <class Kind, int rows>
__global__ void __launch_bounds__(block_threads, rows == 128 ? 1 : 2)
    correlate_gradients(WeightGradient p, GradientOperands operands, Destination to,
                        const Stored<Kind>* input, const Stored<Kind>* grad_output, Stored<Kind>* result,
                        Accumulator<Stored<Kind>>* chunk_sums) {
  using T = Stored<Kind>;
  using Both = typename Layouts<Kind, rows>::Both;
  using Sums = Products<Kind, rows, block_columns>;
  using LeftShare = Share<T, rows>;
  using RightShare = Share<T, block_columns>;
  CONVEXT_DYNAMIC_SHARED(memory);
  const WeightTile tile = tiles::weight_tile(p, rows, block_columns);
  const int64_t group = blockIdx.y;
  input += group * p.in_channels * p.input_strides.channel;
  grad_output += group * p.out_channels;

  const int row = LeftShare::number();
  const bool row_exists = tile.first_channel + row < p.out_channels;
  const T* grad = grad_output + tile.first_channel + row;
  const PatchColumn<T> patches(p, input, tile.first_column + RightShare::number());
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
      patches.start(p, slices.right.at(RightShare::number(), RightShare::line(i)), pixel, tile.last_pixel);
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
    auto* of_tile = reinterpret_cast<Accumulator<T>*>(memory);  // [row][column]
#pragma unroll
    for (int m = 0; m < Sums::row_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < Sums::column_tiles; ++n) {
#pragma unroll
        for (int k = 0; k < Sums::numbers; ++k)
          of_tile[Sums::row_of(m, k) * line + Sums::column_of(n, k)] = sums.total[m][n][k];
      }
    }
    __syncthreads();
    store_sums<T, rows, block_columns, line>(p, operands, tile, group, of_tile, to, result, chunk_sums,
                                             turn == 1);
    if (!again) return;
    __syncthreads();  // the tile has been read
  }
}

int rows_of_tile(const ConvProblem& packed) {
  const int64_t channels = out_channels_per_group(packed);
  return channels <= 32 ? 32 : channels <= 64 ? 64 : 128;
}

WeightGradient plan_of(const ConvProblem& problem, const ConvProblem& packed) {
  return gradient_plan(problem, packed, rows_of_tile(packed), block_columns, 512);
}

template <class Kind, int rows>
const char* launch_tiles(const ConvProblem& problem, const Packing& packing, const ConvData& data,
                         void* chunk_sums, const CudaDevice& device, void* stream) {
  return launch_gradient<Stored<Kind>>(correlate_gradients<Kind, rows>, Layouts<Kind, rows>::shared_bytes,
                                       plan_of(problem, packing.problem), problem, packing.problem, data,
                                       chunk_sums, device, stream);
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

int64_t weight_gradient_workspace_bytes(const ConvProblem& problem, const CudaDevice& device) {
  const Packing packing = packing_of(problem);
  const int64_t sums = gradient_wants_warpgroups(problem, packing.problem, device)
                           ? gradient_warpgroups_bytes(problem, packing.problem)
                           : sums_bytes(plan_of(problem, packing.problem), problem.dtype);
  return packing.bytes() + sums;
}

const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream) {
  const Packing packing = packing_of(problem);
  ConvData packed = data;
  const char* error = launch_packing(problem, packing, workspace, &packed, stream);
  if (error != nullptr) return error;
  void* chunk_sums = static_cast<unsigned char*>(workspace) + packing.bytes();
  if (gradient_wants_warpgroups(problem, packing.problem, device))
    return launch_gradient_warpgroups(problem, packing.problem, packed, chunk_sums, device, stream);
  switch (problem.dtype) {
    case DType::bfloat16:
      return launch_as<BFloat16>(problem, packing, packed, chunk_sums, device, stream);
    case DType::float16:
      return launch_as<Float16>(problem, packing, packed, chunk_sums, device, stream);
    case DType::float64:
      return launch_as<double>(problem, packing, packed, chunk_sums, device, stream);
    default:
      return problem.precision == Float32Precision::high
                 ? launch_as<Tf32>(problem, packing, packed, chunk_sums, device, stream)
                 : launch_as<SplitFloat>(problem, packing, packed, chunk_sums, device, stream);
  }
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
