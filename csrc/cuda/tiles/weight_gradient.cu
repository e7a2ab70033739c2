// The gradient of the weight with products one by one: see weight_gradient.cuh for the matrices.
#include "cuda/tiles/launch.h"
#include "cuda/tiles/multiply.cuh"
#include "cuda/tiles/weight_gradient.cuh"

namespace convext {
namespace cuda {
namespace tiles {
namespace {

template <class T>
struct GradLoader {
  using Value = Accumulator<T>;
  static constexpr int count = tile_rows<Value> / row_lanes;

  const WeightGradient& p;
  Lanes lanes;
  int first_channel;
  const T* grad_output;

  __device__ GradLoader(const WeightGradient& problem, int first, const T* grad)
      : p(problem), lanes(lanes_of(!problem.grad_pixels_adjacent)), first_channel(first), grad_output(grad) {}

  __device__ void load(int first, int last, Value (&values)[count]) const {
    const int depth = first + lanes.depth;
    const bool exists = depth < last;
    const Pixel at = pixel_of(exists ? depth : 0, p);
    const ImageStrides& s = p.output_strides;
    const T* from = grad_output + at.n * s.batch + at.row * s.row + at.column * s.column;
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const int channel = first_channel + lanes.row + k * row_lanes;
      values[k] = exists && channel < p.out_channels ? widen(from[channel * s.channel]) : Value{};
    }
  }
};

template <class T>
struct InputLoader {
  using Value = Accumulator<T>;
  static constexpr int count = tile_columns / row_lanes;

  const WeightGradient& p;
  Lanes lanes;
  const T* plane[count];  // nullptr behind the last column
  int row[count], column[count];

  __device__ InputLoader(const WeightGradient& problem, int first_column, const T* input)
      : p(problem), lanes(lanes_of(!problem.input_pixels_adjacent)) {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const int index = first_column + lanes.row + k * row_lanes;
      const int tap = quotient(index, p.by_in_channels);
      const int i = quotient(tap, p.by_kernel_width);
      plane[k] =
          index < p.columns ? input + (index - tap * p.in_channels) * p.input_strides.channel : nullptr;
      row[k] = i * p.row_dilation - p.top;
      column[k] = (tap - i * p.kernel_width) * p.column_dilation - p.left;
    }
  }

  __device__ void load(int first, int last, Value (&values)[count]) const {
    const int depth = first + lanes.depth;
    const bool exists = depth < last;
    const Pixel at = pixel_of(exists ? depth : 0, p);
    const ImageStrides& s = p.input_strides;
#pragma unroll
    for (int k = 0; k < count; ++k) {
      int y = at.row * p.row_stride + row[k];
      int x = at.column * p.column_stride + column[k];
      if (p.mode != PaddingMode::zeros) {
        y = static_cast<int>(padded_source(y, p.input_height, p.mode));
        x = static_cast<int>(padded_source(x, p.input_width, p.mode));
      }
      const bool inside =
          exists && plane[k] != nullptr && y >= 0 && y < p.input_height && x >= 0 && x < p.input_width;
      values[k] = inside ? widen(plane[k][at.n * s.batch + y * s.row + x * s.column]) : Value{};
    }
  }
};

template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    correlate_gradients(WeightGradient p, Destination to, const T* input, const T* grad_output, T* result,
                        Total<T>* chunk_sums) {
  using Value = Accumulator<T>;
  CONVEXT_SHARED(Shared<Value>, shared);
  const WeightTile tile = weight_tile(p, tile_rows<Value>, tile_columns);
  const int group = static_cast<int>(blockIdx.y);

  Products<Value> products;
  {
    const GradLoader<T> left(p, tile.first_channel,
                             grad_output + int64_t{group} * p.out_channels * p.output_strides.channel);
    const InputLoader<T> right(p, tile.first_column,
                               input + int64_t{group} * p.in_channels * p.input_strides.channel);
    products.sum(shared.slices, tile.first_pixel, tile.last_pixel, left, right);
  }
  store_tile(shared.result, products, false, [&](int row, int column, Value value) {
    store_sum(p, tile, group, row, column, value, to, result, chunk_sums);
  });
}

template <class T>
WeightGradient plan_as(const ConvProblem& p) {
  return weight_gradient_of(p, tile_rows<Accumulator<T>>, tile_columns);
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, void* workspace, const CudaDevice& device,
                      void* stream) {
  return launch_chunks<T>(correlate_gradients<T>, tile_threads, plan_as<T>(p), p, data, workspace, device,
                          stream);
}

}  // namespace

int64_t weight_gradient_workspace_bytes(const ConvProblem& p) {
  return workspace_bytes(p.dtype == DType::float64 ? plan_as<double>(p) : plan_as<float>(p));
}

const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream) {
  return with_floating_type(problem.dtype, [&](auto element) {
    return launch_as<decltype(element)>(problem, data, workspace, device, stream);
  });
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
