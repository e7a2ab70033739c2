// The forward pass and the gradient of the input as products of matrices: rows are pixels of the result,
// columns its channels, and the depth is every source channel of every tap, channels innermost.
#include "cuda/tiles/correlation.cuh"
#include "cuda/tiles/launch.h"
#include "cuda/tiles/multiply.cuh"

namespace convext {
namespace cuda {
namespace tiles {
namespace {

template <class T>
struct SourceLoader {
  using Value = Accumulator<T>;
  static constexpr int count = tile_rows<Value> / row_lanes;

  const Correlation& p;
  Lanes lanes;
  const T* sample[count];
  int row[count], column[count];

  __device__ SourceLoader(const Correlation& problem, int first_pixel, const T* source)
      : p(problem), lanes(lanes_of(problem.source_pixels_adjacent)) {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      // Rows behind the last pixel read what that one reads, and are not stored.
      const int pixel = first_pixel + lanes.row + k * row_lanes;
      const Pixel at = pixel_of(pixel < p.pixels ? pixel : p.pixels - 1, p);
      sample[k] = source + at.n * p.source.batch;
      row[k] = p.rows.origin + at.row * p.rows.source_per_result;
      column[k] = p.columns.origin + at.column * p.columns.source_per_result;
    }
  }

  __device__ void load(int first, int last, Value (&values)[count]) const {
    const int depth = first + lanes.depth;
    const bool exists = depth < last;
    const Tap tap = tap_of(exists ? depth : 0, p);
    const int64_t channel = tap.channel * p.source.channel;
#pragma unroll
    for (int k = 0; k < count; ++k) {
      int y = row[k] + tap.row * p.rows.source_per_tap;
      int x = column[k] + tap.column * p.columns.source_per_tap;
      if (p.mode != PaddingMode::zeros) {
        y = static_cast<int>(padded_source(y, p.rows.source, p.mode));
        x = static_cast<int>(padded_source(x, p.columns.source, p.mode));
      }
      const bool inside = exists && y >= 0 && y < p.rows.source && x >= 0 && x < p.columns.source;
      values[k] = inside ? widen(sample[k][channel + y * p.source.row + x * p.source.column]) : Value{};
    }
  }
};

template <class T>
struct WeightLoader {
  using Value = Accumulator<T>;
  static constexpr int count = tile_columns / row_lanes;

  const Correlation& p;
  Lanes lanes;
  const T* filter[count];  // nullptr behind the last channel
  mutable bool all_finite = true;

  __device__ WeightLoader(const Correlation& problem, int first_channel, const T* weight)
      : p(problem), lanes(lanes_of(false)) {
#pragma unroll
    for (int k = 0; k < count; ++k) {
      const int channel = first_channel + lanes.row + k * row_lanes;
      filter[k] = channel < p.result_channels ? weight + channel * p.weight_result_channel : nullptr;
    }
  }

  __device__ int64_t offset(const Tap& tap) const {
    return tap.channel * p.weight_source_channel +
           (p.rows.first_tap + tap.row * p.rows.tap_step) * p.weight_row +
           (p.columns.first_tap + tap.column * p.columns.tap_step) * p.weight_column;
  }

  __device__ void load(int first, int last, Value (&values)[count]) const {
    const int depth = first + lanes.depth;
    const bool exists = depth < last;
    const int64_t at = offset(tap_of(exists ? depth : 0, p));
#pragma unroll
    for (int k = 0; k < count; ++k) {
      values[k] = exists && filter[k] != nullptr ? widen(filter[k][at]) : Value{};
      all_finite = all_finite && is_finite(values[k]);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    correlate(Correlation p, const T* source, const T* weight, const T* bias, T* result) {
  using Value = Accumulator<T>;
  CONVEXT_SHARED(Shared<Value>, shared);
  const int pixel_tile = quotient(static_cast<int>(blockIdx.x), p.by_column_tiles);
  const int first_channel = (static_cast<int>(blockIdx.x) - pixel_tile * p.column_tiles) * tile_columns;
  const int first_pixel = pixel_tile * tile_rows<Value>;
  const int64_t group = blockIdx.y;
  source += group * p.source_channels * p.source.channel;
  weight += group * p.weight_group;
  result += group * p.result_channels * p.result.channel;
  if (bias != nullptr) bias += group * p.result_channels;

  Products<Value> products;
  bool careful = false;
  {
    const SourceLoader<T> left(p, first_pixel, source);
    const WeightLoader<T> right(p, first_channel, weight);
    products.sum(shared.slices, 0, p.depth, left, right);
    if (p.gradient) careful = __syncthreads_or(right.all_finite ? 0 : 1) != 0;
  }
  store_tile(shared.result, products, p.result_pixels_adjacent, [&](int row, int column, Value value) {
    const int pixel = first_pixel + row;
    const int channel = first_channel + column;
    if (pixel >= p.pixels || channel >= p.result_channels) return;
    const Pixel at = pixel_of(pixel, p);
    if (careful) value = existing_terms(p, at, channel, source, weight);
    if (bias != nullptr) value += widen(bias[channel]);
    result[at.n * p.result.batch + channel * p.result.channel +
           (p.rows.first_result + at.row * p.rows.result_step) * p.result.row +
           (p.columns.first_result + at.column * p.columns.result_step) * p.result.column] = narrow<T>(value);
  });
}

template <class T>
const char* launch_class(const ConvProblem& p, const ConvData& data, int row_class, int column_class,
                         void* stream) {
  const Correlation plan = correlation_of(p, row_class, column_class, tile_columns);
  if (plan.pixels == 0) return nullptr;
  const int64_t pixel_tiles = (plan.pixels + tile_rows<Accumulator<T>> - 1) / tile_rows<Accumulator<T>>;
  return launch(correlate<T>, Grid{pixel_tiles * plan.column_tiles, p.groups}, tile_threads, 0, stream, plan,
                static_cast<const T*>(plan.gradient ? data.output : data.input),
                static_cast<const T*>(data.weight),
                p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr,
                static_cast<T*>(plan.gradient ? data.input : data.output));
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, void* stream) {
  return for_each_class(p, [&](int row_class, int column_class) {
    return launch_class<T>(p, data, row_class, column_class, stream);
  });
}

}  // namespace

const char* launch_correlation(const ConvProblem& problem, const ConvData& data, void* stream) {
  return with_floating_type(
      problem.dtype, [&](auto element) { return launch_as<decltype(element)>(problem, data, stream); });
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
