// forward and grad_input on tensor cores: see tiles/correlation.cuh for the matrices.
#include "cuda/tensor_cores/gather.h"
#include "cuda/tensor_cores/launch.h"
#include "cuda/tensor_cores/multiply.cuh"
#include "cuda/tiles/correlation.cuh"

namespace convext {
namespace cuda {
namespace mma {
namespace {

using tiles::Correlation;
using tiles::Pixel;
using tiles::Tap;

struct SourceOperand {
  const Correlation& p;
  const uint16_t* source;

  struct Row {
    const uint16_t* sample;
    int y, x;
  };
  struct Depth {
    int64_t channel;
    int y, x;
  };

  __device__ Row row(int pixel) const {
    // Rows behind the last pixel read what that one reads, and are not stored.
    const Pixel at = tiles::pixel_of(pixel < p.pixels ? pixel : p.pixels - 1, p);
    return {source + at.n * p.source.batch, p.rows.origin + at.row * p.rows.source_per_result,
            p.columns.origin + at.column * p.columns.source_per_result};
  }
  __device__ Depth depth(int index) const {
    const Tap tap = tiles::tap_of(index, p);
    return {tap.channel * p.source.channel, tap.row * p.rows.source_per_tap,
            tap.column * p.columns.source_per_tap};
  }
  __device__ const uint16_t* address(const Row& row, const Depth& depth) const {
    int y = row.y + depth.y;
    int x = row.x + depth.x;
    if (p.mode != PaddingMode::zeros) {
      y = static_cast<int>(padded_source(y, p.rows.source, p.mode));
      x = static_cast<int>(padded_source(x, p.columns.source, p.mode));
    }
    const bool inside = y >= 0 && y < p.rows.source && x >= 0 && x < p.columns.source;
    return inside ? row.sample + depth.channel + y * p.source.row + x * p.source.column : nullptr;
  }
};

struct WeightOperand {
  const Correlation& p;
  const uint16_t* weight;

  using Row = const uint16_t*;  // nullptr behind the last channel
  using Depth = int64_t;

  __device__ Row row(int channel) const {
    return channel < p.result_channels ? weight + channel * p.weight_result_channel : nullptr;
  }
  __device__ Depth depth(int index) const {
    const Tap tap = tiles::tap_of(index, p);
    return tap.channel * p.weight_source_channel +
           (p.rows.first_tap + tap.row * p.rows.tap_step) * p.weight_row +
           (p.columns.first_tap + tap.column * p.columns.tap_step) * p.weight_column;
  }
  __device__ const uint16_t* address(Row row, Depth depth) const {
    return row != nullptr ? row + depth : nullptr;
  }
};

template <Gather left, Gather right>
union Shared {
  Slices<left, right> slices[2];
  uint16_t result[block_rows][block_rows + row_gap];  // [row][column]
};

template <class T, Gather left_gather, Gather right_gather>
__global__ void __launch_bounds__(block_threads, 1)
    correlate(Correlation p, const T* source, const T* weight, const T* bias, T* result) {
  using Memory = Shared<left_gather, right_gather>;
  CONVEXT_SHARED(Memory, shared);
  const int pixel_tile = quotient(static_cast<int>(blockIdx.x), p.by_column_tiles);
  const int first_channel = (static_cast<int>(blockIdx.x) - pixel_tile * p.column_tiles) * block_rows;
  const int first_pixel = pixel_tile * block_rows;
  const int64_t group = blockIdx.y;
  source += group * p.source_channels * p.source.channel;
  weight += group * p.weight_group;
  result += group * p.result_channels * p.result.channel;
  if (bias != nullptr) bias += group * p.result_channels;

  Products products;
  bool careful = false;
  {
    const SourceOperand pixels{p, reinterpret_cast<const uint16_t*>(source)};
    const WeightOperand filters{p, reinterpret_cast<const uint16_t*>(weight)};
    Gathered<SourceOperand, left_gather> left(pixels, first_pixel, p.source_pixels_adjacent);
    Gathered<WeightOperand, right_gather> right(filters, first_channel, false);
    const bool finite = products.sum<T>(shared.slices, 0, p.depth, left, right, p.gradient);
    if (p.gradient) careful = __syncthreads_or(finite ? 0 : 1) != 0;
  }
  __syncthreads();  // the last slice has been read
#pragma unroll
  for (int k = 0; k < Products::numbers; ++k) {
    const int m = k / 4 / Products::column_tiles;
    const int n = k / 4 % Products::column_tiles;
    const int column = Products::column_of(n, k % 4);
    float value = products.total[m][n][k % 4];
    if (bias != nullptr && first_channel + column < p.result_channels)
      value += widen(bias[first_channel + column]);
    shared.result[Products::row_of(m, k % 4)][column] = narrow<T>(value).bits;
  }
  __syncthreads();
#pragma unroll 1
  for (int k = static_cast<int>(threadIdx.x); k < block_rows * block_rows; k += block_threads) {
    const int row = p.result_pixels_adjacent ? k % block_rows : k / block_rows;
    const int column = p.result_pixels_adjacent ? k / block_rows : k % block_rows;
    const int pixel = first_pixel + row;
    const int channel = first_channel + column;
    if (pixel >= p.pixels || channel >= p.result_channels) continue;
    const Pixel at = tiles::pixel_of(pixel, p);
    T value{shared.result[row][column]};
    if (careful) value = narrow<T>(tiles::existing_terms(p, at, channel, source, weight));
    result[at.n * p.result.batch + channel * p.result.channel +
           (p.rows.first_result + at.row * p.rows.result_step) * p.result.row +
           (p.columns.first_result + at.column * p.columns.result_step) * p.result.column] = value;
  }
}

template <class T>
using Kernel = void (*)(Correlation, const T*, const T*, const T*, T*);

template <class T>
Kernel<T> kernel_of(Gather left, Gather right) {
  if (left != Gather::depth_vectors) return correlate<T, Gather::elements, Gather::elements>;
  switch (right) {
    case Gather::depth_vectors:
      return correlate<T, Gather::depth_vectors, Gather::depth_vectors>;
    case Gather::row_vectors:
      return correlate<T, Gather::depth_vectors, Gather::row_vectors>;
    default:
      return correlate<T, Gather::depth_vectors, Gather::elements>;
  }
}

template <class T>
const char* launch_class(const ConvProblem& p, const ConvData& data, int row_class, int column_class,
                         void* stream) {
  const Correlation plan = tiles::correlation_of(p, row_class, column_class, block_rows);
  if (plan.pixels == 0) return nullptr;
  const void* source = plan.gradient ? data.output : data.input;
  const bool source_vectors = is_made_of_vectors(source, plan.source_channels, plan.source);
  const bool weight_vectors =
      is_made_of_vectors(data.weight, in_channels_per_group(p), p.kernel, p.weight_strides);
  const Gather left = source_vectors ? Gather::depth_vectors : Gather::elements;
  // The input channels are the depth of forward, and rows of the result of grad_input.
  const Gather right = !weight_vectors ? Gather::elements
                       : plan.gradient ? Gather::row_vectors
                                       : Gather::depth_vectors;
  const int64_t pixel_tiles = (plan.pixels + block_rows - 1) / block_rows;
  return launch(kernel_of<T>(left, right), Grid{pixel_tiles * plan.column_tiles, p.groups}, block_threads, 0,
                stream, plan, static_cast<const T*>(source), static_cast<const T*>(data.weight),
                p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr,
                static_cast<T*>(plan.gradient ? data.input : data.output));
}

}  // namespace

const char* launch_correlation(const ConvProblem& problem, const ConvData& data, void* stream) {
  return tiles::for_each_class(problem, [&](int row_class, int column_class) {
    return problem.dtype == DType::bfloat16
               ? launch_class<BFloat16>(problem, data, row_class, column_class, stream)
               : launch_class<Float16>(problem, data, row_class, column_class, stream);
  });
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
