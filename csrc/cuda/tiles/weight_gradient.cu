// The gradient of the weight as a product of matrices: rows are output channels, columns are the input
// channels of every tap, channels innermost, and the depth is every pixel of the output. Where the tiles are
// too few to fill the device, the depth is cut into chunks, by the shape alone, whose sums a second kernel
// adds.
#include "core/padding.h"
#include "cuda/row_reduction.cuh"
#include "cuda/tiles/launch.h"
#include "cuda/tiles/multiply.cuh"

namespace convext {
namespace cuda {
namespace tiles {
namespace {

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
  int column_tiles;
  Divisor by_width, by_height, by_in_channels, by_kernel_width, by_column_tiles, by_chunks;
  ImageStrides input_strides, output_strides;
  bool grad_pixels_adjacent, input_pixels_adjacent;
};

struct Pixel {
  int n, row, column;
};

__device__ inline Pixel pixel_of(int index, const WeightGradient& p) {
  const int line = quotient(index, p.by_width);
  const int n = quotient(line, p.by_height);
  return {n, line - n * p.output_height, index - line * p.output_width};
}

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
  const int tile = quotient(static_cast<int>(blockIdx.x), p.by_chunks);
  const int chunk = static_cast<int>(blockIdx.x) - tile * p.chunks;
  const int row_tile = quotient(tile, p.by_column_tiles);
  const int first_column = (tile - row_tile * p.column_tiles) * tile_columns;
  const int first_channel = row_tile * tile_rows<Value>;
  const int group = static_cast<int>(blockIdx.y);
  const int first_pixel = chunk * p.chunk_pixels;
  const int last_pixel = first_pixel + p.chunk_pixels < p.pixels ? first_pixel + p.chunk_pixels : p.pixels;

  Products<Value> products;
  {
    const GradLoader<T> left(p, first_channel,
                             grad_output + int64_t{group} * p.out_channels * p.output_strides.channel);
    const InputLoader<T> right(p, first_column,
                               input + int64_t{group} * p.in_channels * p.input_strides.channel);
    products.sum(shared.slices, first_pixel, last_pixel, left, right);
  }
  store_tile(shared.result, products, false, [&](int row, int column, Value value) {
    if (first_channel + row >= p.out_channels || first_column + column >= p.columns) return;
    const int64_t element =
        (int64_t{group} * p.out_channels + first_channel + row) * p.columns + first_column + column;
    if (p.chunks > 1) {
      chunk_sums[chunk * p.elements + element] = static_cast<Total<T>>(value);
    } else {
      result[offset_of(element, to)] = narrow<T>(value);
    }
  });
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

WeightGradient plan(const ConvProblem& p) {
  constexpr int64_t blocks_wanted = 512;
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
  plan.column_tiles = static_cast<int>(ceil_div(plan.columns, tile_columns));
  const int64_t rows = p.dtype == DType::float64 ? tile_rows<double> : tile_rows<float>;
  const int64_t tiles = plan.column_tiles * ceil_div(plan.out_channels, rows) * p.groups;
  plan.elements = p.out_channels * plan.columns;
  int64_t chunks = blocks_wanted / tiles;
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

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, void* workspace, const CudaDevice& device,
                      void* stream) {
  const WeightGradient plan = tiles::plan(p);
  const Destination to{
      {{in_channels_per_group(p), p.kernel.width, p.kernel.height, p.out_channels}, {1, 3, 2, 0}},
      p.weight_strides};
  const int64_t tiles = plan.column_tiles * ceil_div(plan.out_channels, tile_rows<Accumulator<T>>);
  const char* error =
      launch(correlate_gradients<T>, Grid{tiles * plan.chunks, p.groups}, tile_threads, 0, stream, plan, to,
             static_cast<const T*>(data.input), static_cast<const T*>(data.output),
             static_cast<T*>(data.weight), static_cast<Total<T>*>(workspace));
  if (error != nullptr || plan.chunks == 1) return error;
  return launch_add_chunks<T>(plan.chunks, plan.elements, workspace, data.weight, to, device, stream);
}

}  // namespace

int64_t weight_gradient_workspace_bytes(const ConvProblem& p) {
  const WeightGradient plan = tiles::plan(p);
  return plan.chunks == 1 ? 0 : plan.chunks * plan.elements * static_cast<int64_t>(sizeof(double));
}

const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream) {
  switch (problem.dtype) {
    case DType::float64:
      return launch_as<double>(problem, data, workspace, device, stream);
    case DType::bfloat16:
      return launch_as<BFloat16>(problem, data, workspace, device, stream);
    case DType::float16:
      return launch_as<Float16>(problem, data, workspace, device, stream);
    default:
      return launch_as<float>(problem, data, workspace, device, stream);
  }
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
