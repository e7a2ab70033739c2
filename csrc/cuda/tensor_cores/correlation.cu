// forward and grad_input on tensor cores: see tiles/correlation.cuh for the matrices.
#include "cuda/tensor_cores/correlation.cuh"
#include "cuda/tensor_cores/launch.h"
#include "cuda/tensor_cores/multiply.cuh"
#include "cuda/tensor_cores/packing.h"
#include "cuda/tensor_cores/warpgroups.h"

namespace convext {
namespace cuda {
namespace mma {
namespace {

template <class Kind, int columns>
struct Layouts {
  using T = Stored<Kind>;
  using Left = Slice<T, Order::depth_inside, block_rows>;
  using Right = Slice<T, Order::depth_inside, columns>;
  using Both = Slices<Left, Right>;
  // Of the result: columns, and a piece more for the banks' sake.
  static constexpr int result_line = columns + piece_numbers<T>;
  static constexpr int64_t slice_bytes = int64_t{stages} * sizeof(Both);
  static constexpr int64_t result_bytes = int64_t{block_rows} * result_line * sizeof(T);
  static constexpr int64_t shared_bytes = slice_bytes > result_bytes ? slice_bytes : result_bytes;
};

template <class Kind, int columns>
__global__ void __launch_bounds__(block_threads, columns == 128 ? 1 : 2)
    correlate(Correlation p, Operands operands, const Stored<Kind>* source, const Stored<Kind>* weight,
              const Stored<Kind>* bias, Stored<Kind>* result) {
  using T = Stored<Kind>;
  using Both = typename Layouts<Kind, columns>::Both;
  using Sums = Products<Kind, block_rows, columns>;
  CONVEXT_DYNAMIC_SHARED(memory);
  const int pixel_tile = quotient(static_cast<int>(blockIdx.x), p.by_column_tiles);
  const int first_channel = (static_cast<int>(blockIdx.x) - pixel_tile * p.column_tiles) * columns;
  const int first_pixel = pixel_tile * block_rows;
  const int64_t group = blockIdx.y;
  source += group * p.source_channels * p.source.channel;
  weight += group * p.weight_group;
  result += group * p.result_channels * p.result.channel;

  // A second turn where split numbers gave what is not finite.
#pragma unroll 1
  for (int turn = 0; turn < 2; ++turn) {
    Sums sums;
    sums.clear(turn == 1);
    const SliceCopies<T, columns> copies(p, source, weight, first_pixel, first_channel);
    typename SliceCopies<T, columns>::Place place;
    const auto load = [&](Both& slices, int slice, int part) {
      if (part == 0) place = copies.place(slice);
      const int depth = copies.piece() * piece_numbers<T>;
      copies.start(place, part, slices.left.at(copies.row(), depth), Both::left_line,
                   slices.right.at(copies.row(), depth), Both::right_line);
    };
    run_pipeline(reinterpret_cast<Both*>(memory), (p.depth + slice_depth<T> - 1) / slice_depth<T>, load,
                 [&](Both& slices, const auto& meanwhile) { sums.add_slice(slices, meanwhile); });
    sums.end_chain();
    const bool again = Sums::splits && turn == 0 && __syncthreads_or(sums.all_finite() ? 0 : 1) != 0;

    constexpr int line = Layouts<Kind, columns>::result_line;
    T* tile = reinterpret_cast<T*>(memory);  // [row][column]
#pragma unroll
    for (int n = 0; n < Sums::column_tiles; ++n) {
#pragma unroll
      for (int k = 0; k < Sums::numbers; ++k) {
        const int column = Sums::column_of(n, k);
        typename Sums::Sum shift = 0;
        if (bias != nullptr && first_channel + column < p.result_channels)
          shift = widen(bias[group * p.result_channels + first_channel + column]);
#pragma unroll
        for (int m = 0; m < Sums::row_tiles; ++m)
          tile[Sums::row_of(m, k) * line + column] = narrow<T>(sums.total[m][n][k] + shift);
      }
    }
    __syncthreads();
    store_tile<T, columns, line>(p, operands, tile, first_pixel, first_channel, turn == 1, source, weight,
                                 result);
    if (!again) return;
    __syncthreads();  // the tile has been read
  }
}

template <class Kind, int columns>
const char* launch_class(const ConvProblem& p, const Packing& packing, const ConvData& data, const int* flag,
                         int row_class, int column_class, void* stream) {
  using T = Stored<Kind>;
  Correlation plan = tiles::correlation_of(p, row_class, column_class, columns);
  if (plan.pixels == 0) return nullptr;
  plan.weight_group = packing.weight_group;
  const auto* source = static_cast<const T*>(plan.gradient ? data.output : data.input);
  auto* result = static_cast<T*>(plan.gradient ? data.input : data.output);
  const auto* weight = static_cast<const T*>(data.weight);
  const Operands operands{is_in_pieces(result, plan, piece_numbers<T>), plan.gradient ? flag : nullptr};
  const int64_t pixel_tiles = (int64_t{plan.pixels} + block_rows - 1) / block_rows;
  return launch(correlate<Kind, columns>, Grid{pixel_tiles * plan.column_tiles, p.groups}, block_threads,
                Layouts<Kind, columns>::shared_bytes, stream, plan, operands, source, weight,
                p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr, result);
}

int64_t tiles_of(const ConvProblem& p, int64_t columns) {
  const Size2 result = p.pass == Pass::grad_input ? p.input : p.output;
  return (p.batch * result.height * result.width + block_rows - 1) / block_rows *
         ((result_channels(p) + columns - 1) / columns) * p.groups;
}

template <class Kind>
const char* launch_as(const Packing& packing, const ConvData& data, const int* flag, const CudaDevice& device,
                      void* stream) {
  const ConvProblem& p = packing.problem;
  // Wide tiles read less, if there are enough of them. Sums are the same in all.
  const int64_t channels = result_channels(p);
  int64_t columns = channels > 64 ? 128 : channels;
  while (columns > 32 && tiles_of(p, columns) < device.multiprocessors) columns /= 2;
  return tiles::for_each_class(p, [&](int row_class, int column_class) {
    const auto run = [&](auto width) {
      return launch_class<Kind, decltype(width)::value>(p, packing, data, flag, row_class, column_class,
                                                        stream);
    };
    if (columns <= 16) return run(std::integral_constant<int, 16>{});
    if (columns <= 32) return run(std::integral_constant<int, 32>{});
    if (columns <= 64) return run(std::integral_constant<int, 64>{});
    return run(std::integral_constant<int, 128>{});
  });
}

}  // namespace

int64_t correlation_workspace_bytes(const ConvProblem& problem) {
  const Packing packing = packing_of(problem);
  return packing.copies_input || packing.copies_weight || packing.copies_output ? packing.bytes() : 0;
}

const char* launch_correlation(const ConvProblem& problem, const ConvData& data, void* workspace,
                               const CudaDevice& device, void* stream) {
  const Packing packing = packing_of(problem);
  ConvData packed = data;
  const char* error = launch_packing(problem, packing, workspace, &packed, stream);
  if (error != nullptr) return error;
  const int* flag = static_cast<const int*>(workspace);
  if (wants_warpgroups(packing.problem, device))
    return launch_warpgroups(packing, packed, flag, device, stream);
  switch (problem.dtype) {
    case DType::bfloat16:
      return launch_as<BFloat16>(packing, packed, flag, device, stream);
    case DType::float16:
      return launch_as<Float16>(packing, packed, flag, device, stream);
    case DType::float64:
      return launch_as<double>(packing, packed, flag, device, stream);
    default:
      return problem.precision == Float32Precision::high
                 ? launch_as<Tf32>(packing, packed, flag, device, stream)
                 : launch_as<SplitFloat>(packing, packed, flag, device, stream);
  }
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
