// The gradient of the weight on tensor cores: see tiles/weight_gradient.cuh for the matrices.
#include "cuda/tensor_cores/gather.h"
#include "cuda/tensor_cores/launch.h"
#include "cuda/tensor_cores/multiply.cuh"
#include "cuda/tiles/weight_gradient.cuh"

namespace convext {
namespace cuda {
namespace mma {
namespace {

using tiles::Pixel;
using tiles::WeightGradient;
using tiles::WeightTile;

struct GradOperand {
  const WeightGradient& p;
  const uint16_t* grad_output;

  using Row = int;  // -1 behind the last channel
  using Depth = const uint16_t*;

  __device__ Row row(int channel) const { return channel < p.out_channels ? channel : -1; }
  __device__ Depth depth(int index) const {
    const Pixel at = tiles::pixel_of(index, p);
    const ImageStrides& s = p.output_strides;
    return grad_output + at.n * s.batch + at.row * s.row + at.column * s.column;
  }
  __device__ const uint16_t* address(Row row, Depth depth) const {
    return row >= 0 ? depth + row * p.output_strides.channel : nullptr;
  }
};

struct InputOperand {
  const WeightGradient& p;
  const uint16_t* input;

  struct Row {
    const uint16_t* plane;  // nullptr behind the last column
    int y, x;
  };
  using Depth = Pixel;

  __device__ Row row(int column) const {
    const int tap = quotient(column, p.by_in_channels);
    const int i = quotient(tap, p.by_kernel_width);
    return {column < p.columns ? input + (column - tap * p.in_channels) * p.input_strides.channel : nullptr,
            i * p.row_dilation - p.top, (tap - i * p.kernel_width) * p.column_dilation - p.left};
  }
  __device__ Depth depth(int index) const {
    const Pixel at = tiles::pixel_of(index, p);
    return {at.n, at.row * p.row_stride, at.column * p.column_stride};
  }
  __device__ const uint16_t* address(const Row& row, const Depth& depth) const {
    int y = row.y + depth.row;
    int x = row.x + depth.column;
    if (p.mode != PaddingMode::zeros) {
      y = static_cast<int>(padded_source(y, p.input_height, p.mode));
      x = static_cast<int>(padded_source(x, p.input_width, p.mode));
    }
    const bool inside = row.plane != nullptr && y >= 0 && y < p.input_height && x >= 0 && x < p.input_width;
    const ImageStrides& s = p.input_strides;
    return inside ? row.plane + depth.n * s.batch + y * s.row + x * s.column : nullptr;
  }
};

constexpr int result_columns = block_rows / 2;  // that wait for their turn to be stored

template <Gather gather>
union Shared {
  Slices<gather, gather> slices[2];
  float result[block_rows][result_columns + 1];
};

template <class T, Gather gather>
__global__ void __launch_bounds__(block_threads, 1)
    correlate_gradients(WeightGradient p, Destination to, const T* input, const T* grad_output, T* result,
                        Total<T>* chunk_sums) {
  CONVEXT_SHARED(Shared<gather>, shared);
  const WeightTile tile = tiles::weight_tile(p, block_rows, block_rows);
  const int group = static_cast<int>(blockIdx.y);
  input += int64_t{group} * p.in_channels * p.input_strides.channel;
  grad_output += int64_t{group} * p.out_channels * p.output_strides.channel;

  Products products;
  {
    const GradOperand grads{p, reinterpret_cast<const uint16_t*>(grad_output)};
    const InputOperand inputs{p, reinterpret_cast<const uint16_t*>(input)};
    Gathered<GradOperand, gather> left(grads, tile.first_channel, !p.grad_pixels_adjacent);
    Gathered<InputOperand, gather> right(inputs, tile.first_column, !p.input_pixels_adjacent);
    products.sum<T>(shared.slices, tile.first_pixel, tile.last_pixel, left, right, false);
  }
#pragma unroll 1
  for (int first = 0; first < block_rows; first += result_columns) {
    __syncthreads();  // whatever was there has been read
    if (Products::warp_column() / result_columns * result_columns == first) {
#pragma unroll
      for (int k = 0; k < Products::numbers; ++k) {
        const int m = k / 4 / Products::column_tiles;
        const int n = k / 4 % Products::column_tiles;
        shared.result[Products::row_of(m, k % 4)][Products::column_of(n, k % 4) - first] =
            products.total[m][n][k % 4];
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int k = static_cast<int>(threadIdx.x); k < block_rows * result_columns; k += block_threads) {
      const int row = k / result_columns;
      const int column = k % result_columns;
      tiles::store_sum(p, tile, group, row, first + column, shared.result[row][column], to, result,
                       chunk_sums);
    }
  }
}

WeightGradient plan(const ConvProblem& p) {
  return tiles::weight_gradient_of(p, block_rows, block_rows);
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, void* workspace, const CudaDevice& device,
                      void* stream) {
  const bool vectors = is_made_of_vectors(data.input, in_channels_per_group(p), p.input_strides) &&
                       is_made_of_vectors(data.output, out_channels_per_group(p), p.output_strides);
  const auto kernel =
      vectors ? correlate_gradients<T, Gather::row_vectors> : correlate_gradients<T, Gather::elements>;
  return tiles::launch_chunks<T>(kernel, block_threads, plan(p), p, data, workspace, device, stream);
}

}  // namespace

int64_t weight_gradient_workspace_bytes(const ConvProblem& problem) {
  return tiles::workspace_bytes(plan(problem));
}

const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream) {
  return problem.dtype == DType::bfloat16 ? launch_as<BFloat16>(problem, data, workspace, device, stream)
                                          : launch_as<Float16>(problem, data, workspace, device, stream);
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
