// The forward pass and the gradient of the input of a depthwise problem, which are one walk.
//
// A thread computes a column of `rows_per_thread` results, of `lanes` neighbouring channels. For each column
// of taps it holds the source values that these results read, each of them once, and multiplies: with K rows
// of taps, rows_per_thread + K - 1 loads for rows_per_thread * K products. Threads next to each other have
// columns next to each other in memory: along x in planes, along the channels where those are adjacent.
//
// Along either axis, the results of a thread, the taps and the source positions that they meet in follow each
// other in fixed steps, whatever stride and dilation are (Walk). The gradient of the input visits the taps
// that hit, and nothing else. Every result adds its terms in the same order: columns of taps, in each of them
// the rows.
#pragma once

#include "cuda/divisor.cuh"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

constexpr int correlation_threads = 128;
constexpr int rows_per_thread = 8;

struct Axis {
  int result, source, kernel;
  int stride, dilation, before;
  int tap_step;     // taps that read the same residue of source positions are so far apart
  int source_step;  // the next of them reads so many source positions further (back, in a gradient)
  int result_step;  // as does the result so many positions further
};

inline Axis axis_of(bool gradient, int64_t input, int64_t output, int64_t kernel, int64_t stride,
                    int64_t dilation, int64_t before) {
  int64_t divisor = stride;
  for (int64_t rest = dilation; rest != 0;) {
    const int64_t next = divisor % rest;
    divisor = rest;
    rest = next;
  }
  const int64_t all = stride * dilation / divisor;
  Axis axis;
  axis.result = static_cast<int>(gradient ? input : output);
  axis.source = static_cast<int>(gradient ? output : input);
  axis.kernel = static_cast<int>(kernel);
  axis.stride = static_cast<int>(stride);
  axis.dilation = static_cast<int>(dilation);
  axis.before = static_cast<int>(before);
  axis.tap_step = static_cast<int>(stride / divisor);
  axis.source_step = static_cast<int>(gradient ? dilation / divisor : all);
  axis.result_step = static_cast<int>(gradient ? all : dilation / divisor);
  return axis;
}

// Taps tap + k * tap_step for k in [0, count), which read source positions source + k * source_step.
struct Walk {
  int tap, count, source;
};

// Of result position `at`, the taps tap, tap + tap_step, ... of a forward pass.
__device__ inline Walk forward_walk(int at, int tap, const Axis& axis) {
  return {tap, tap < axis.kernel ? (axis.kernel - tap - 1) / axis.tap_step + 1 : 0,
          at * axis.stride + tap * axis.dilation - axis.before};
}

// Of result position `at`, the taps that hit in a gradient; the source position of the first of them, from
// which the others go back.
__device__ inline Walk gradient_walk(int at, const Axis& axis) {
  const int shifted = at + axis.before;
  int tap = 0;
  while (tap < axis.tap_step && (shifted - tap * axis.dilation) % axis.stride != 0) ++tap;
  if (tap == axis.tap_step || tap >= axis.kernel) return {0, 0, 0};
  return {tap, (axis.kernel - tap - 1) / axis.tap_step + 1, (shifted - tap * axis.dilation) / axis.stride};
}

struct Correlation {
  bool gradient;  // terms outside the source do not exist; else they are zeros of the padding
  int channels;
  Axis rows, columns;
  int tiles;          // of rows: every result_step-th row belongs to the same ones
  int tile_residues;  // the smaller of result_step and the rows
  int64_t items;      // columns of results that threads compute
  Divisor by_width, by_tiles, by_residues, by_channels;
  ImageStrides source, result;
  int64_t weight_channel, weight_row, weight_column;
  // Where threads lie along the channels:
  int channel_lanes;  // vectors of channels of a block
  int item_lanes;     // items of a block at a time
};

// The rows of taps of one column of them: `count` of these, known to the compiler if Count is not 0.
template <class T, int lanes, int Count>
struct TapColumn {
  using Value = Accumulator<T>;

  // Where the rows begin: source position, tap, and how they go on.
  int source_row, tap, count;
  int source_step, tap_step;  // per row of taps; negative taps in a gradient
  int source_rows;

  // `source`: row 0 of the column; `weight`: tap row 0 of it.
  template <class Weight>
  __device__ void add(Value (&sums)[rows_per_thread][lanes], const T* source, int64_t row_stride, bool inside,
                      bool gradient, const Weight& weight) const {
    if constexpr (Count > 0) {
      Value values[rows_per_thread + Count - 1][lanes];
      const T* from = source + source_row * row_stride;
      const int64_t step = source_step * row_stride;
#pragma unroll
      for (int r = 0; r < rows_per_thread + Count - 1; ++r, from += step)
        load(values[r], from, source_row + r * source_step, inside);
#pragma unroll
      for (int k = 0; k < Count; ++k) {
        Value factor[lanes];
        weight(tap + k * tap_step, factor);
        if (gradient && !all_finite(factor)) {
          add_existing(sums, source, row_stride, k, inside, factor);
          continue;
        }
#pragma unroll
        for (int t = 0; t < rows_per_thread; ++t) {
#pragma unroll
          for (int v = 0; v < lanes; ++v) sums[t][v] += values[t + k][v] * factor[v];
        }
      }
    } else {
      // A ring of the values that the results of the thread read at the current tap.
      Value values[rows_per_thread][lanes];
#pragma unroll
      for (int r = 0; r < rows_per_thread - 1; ++r)
        load(values[r], source + (source_row + r * source_step) * row_stride, source_row + r * source_step,
             inside);
      for (int first = 0; first < count; first += rows_per_thread) {
#pragma unroll
        for (int u = 0; u < rows_per_thread; ++u) {
          const int k = first + u;
          if (k >= count) break;
          const int row = source_row + (k + rows_per_thread - 1) * source_step;
          load(values[(u + rows_per_thread - 1) % rows_per_thread], source + row * row_stride, row, inside);
          Value factor[lanes];
          weight(tap + k * tap_step, factor);
          if (gradient && !all_finite(factor)) {
            add_existing(sums, source, row_stride, k, inside, factor);
            continue;
          }
#pragma unroll
          for (int t = 0; t < rows_per_thread; ++t) {
#pragma unroll
            for (int v = 0; v < lanes; ++v) sums[t][v] += values[(t + u) % rows_per_thread][v] * factor[v];
          }
        }
      }
    }
  }

 private:
  // Of the given row, which `from` points to.
  __device__ void load(Value (&values)[lanes], const T* from, int row, bool inside) const {
    if (inside && row >= 0 && row < source_rows) {
      const Vector<T, lanes> vector = load_vector<T, lanes>(from);
#pragma unroll
      for (int v = 0; v < lanes; ++v) values[v] = widen(vector.lane[v]);
    } else {
#pragma unroll
      for (int v = 0; v < lanes; ++v) values[v] = 0;
    }
  }

  __device__ static bool all_finite(const Value (&factor)[lanes]) {
    bool finite = true;
#pragma unroll
    for (int v = 0; v < lanes; ++v) finite = finite && factor[v] - factor[v] == 0;
    return finite;
  }

  // Zero times a weight that is not finite would be NaN, where a gradient has no term at all.
  __device__ void add_existing(Value (&sums)[rows_per_thread][lanes], const T* source, int64_t row_stride,
                               int k, bool inside, const Value (&factor)[lanes]) const {
    if (!inside) return;
#pragma unroll
    for (int t = 0; t < rows_per_thread; ++t) {
      const int row = source_row + (t + k) * source_step;
      if (row < 0 || row >= source_rows) continue;
      const Vector<T, lanes> vector = load_vector<T, lanes>(source + row * row_stride);
#pragma unroll
      for (int v = 0; v < lanes; ++v) sums[t][v] += widen(vector.lane[v]) * factor[v];
    }
  }
};

// All columns of taps, for the rows of taps of one walk. In a gradient the source goes back from tap to tap,
// so the rows are taken from the last one, and go forward.
template <class T, int lanes, int Count, class Weight>
__device__ inline void add_taps(typename TapColumn<T, lanes, Count>::Value (&sums)[rows_per_thread][lanes],
                                typename TapColumn<T, lanes, Count>::Value (&totals)[rows_per_thread][lanes],
                                int& terms, const Correlation& p, Walk rows, const Walk& columns,
                                const T* source, const Weight& weight) {
  TapColumn<T, lanes, Count> column;
  column.count = Count > 0 ? Count : rows.count;
  column.source_step = p.rows.source_step;
  column.tap_step = p.gradient ? -p.rows.tap_step : p.rows.tap_step;
  column.source_row = p.gradient ? rows.source - (column.count - 1) * p.rows.source_step : rows.source;
  column.tap = p.gradient ? rows.tap + (column.count - 1) * p.rows.tap_step : rows.tap;
  column.source_rows = p.rows.source;
  const int tap_step = p.gradient ? p.columns.tap_step : 1;
  const int source_step = p.gradient ? -p.columns.source_step : p.columns.dilation;
  for (int k = 0; k < columns.count; ++k) {
    if constexpr (Count == 0) {
      if (terms + column.count > chain_terms) {
#pragma unroll
        for (int t = 0; t < rows_per_thread; ++t) {
#pragma unroll
          for (int v = 0; v < lanes; ++v) {
            totals[t][v] += sums[t][v];
            sums[t][v] = 0;
          }
        }
        terms = 0;
      }
      terms += column.count;
    }
    const int x = columns.source + k * source_step;
    const int j = columns.tap + k * tap_step;
    column.add(sums, source + x * p.source.column, p.source.row, x >= 0 && x < p.columns.source, p.gradient,
               [&](int i, auto& factor) { weight(i, j, factor); });
  }
}

// One column of results. `weight(i, j, factor)` loads the weights of a tap.
template <class T, int lanes, int K, int Phases, class Weight>
__device__ inline void compute_column(const Correlation& p, int64_t item, int64_t n, int64_t channel,
                                      const T* source, const T* bias, T* result, const Weight& weight) {
  using Value = Accumulator<T>;
  const int64_t rest = quotient(item, p.by_width);
  const int x = static_cast<int>(item - rest * p.columns.result);
  const int tile = static_cast<int>(rest - quotient(rest, p.by_tiles) * p.tiles);
  const int block = static_cast<int>(quotient(tile, p.by_residues));
  const int y = tile - block * p.tile_residues + block * rows_per_thread * p.rows.result_step;
  const T* plane = source + n * p.source.batch + channel * p.source.channel;

  Value sums[rows_per_thread][lanes] = {};
  Value totals[rows_per_thread][lanes] = {};
  int terms = 0;
  const Walk columns = p.gradient ? gradient_walk(x, p.columns)
                                  : Walk{0, p.columns.kernel, x * p.columns.stride - p.columns.before};
  // The gradient meets the taps of one walk only, the forward pass those of all.
  const Walk first = p.gradient ? gradient_walk(y, p.rows) : forward_walk(y, 0, p.rows);
  if constexpr (K == 0) {
    if (first.count > 0) add_taps<T, lanes, 0>(sums, totals, terms, p, first, columns, plane, weight);
    for (int tap = 1; !p.gradient && tap < p.rows.tap_step && tap < p.rows.kernel; ++tap)
      add_taps<T, lanes, 0>(sums, totals, terms, p, forward_walk(y, tap, p.rows), columns, plane, weight);
  } else if constexpr (Phases == 1) {
    add_taps<T, lanes, K>(sums, totals, terms, p, first, columns, plane, weight);
  } else {
    // Of an odd number of taps, one more has an even number.
    if (first.tap == 0)
      add_taps<T, lanes, (K + 1) / 2>(sums, totals, terms, p, first, columns, plane, weight);
    if (!p.gradient || first.tap == 1) {
      const Walk second = p.gradient ? first : forward_walk(y, 1, p.rows);
      add_taps<T, lanes, K / 2>(sums, totals, terms, p, second, columns, plane, weight);
    }
  }

  Value shift[lanes] = {};
  if (bias != nullptr) {
#pragma unroll
    for (int v = 0; v < lanes; ++v) shift[v] = widen(bias[channel + v]);
  }
  T* to = result + n * p.result.batch + channel * p.result.channel + x * p.result.column;
#pragma unroll
  for (int t = 0; t < rows_per_thread; ++t) {
    const int row = y + t * p.rows.result_step;
    if (row >= p.rows.result) break;
    Vector<T, lanes> vector;
#pragma unroll
    for (int v = 0; v < lanes; ++v) vector.lane[v] = narrow<T>(totals[t][v] + sums[t][v] + shift[v]);
    store_vector<T, lanes>(to + row * p.result.row, vector);
  }
}

// Blocks of a multiprocessor that leave each thread the registers it needs, found with -Xptxas -v.
template <class T, int lanes, int K>
constexpr int correlation_blocks = lanes == 1 && sizeof(T) < 8           ? 4
                                   : lanes == 1 || (K < 7 && lanes == 4) ? 3
                                                                         : 2;

// Threads along the columns of a plane, then its tiles, then the planes.
template <class T, int K, int Phases>
__global__ void __launch_bounds__(correlation_threads, (correlation_blocks<T, 1, K>))
    correlate_planes(Correlation p, const T* source, const T* weight, const T* bias, T* result) {
  for (int64_t item = int64_t{blockIdx.x} * correlation_threads + threadIdx.x; item < p.items;
       item += int64_t{gridDim.x} * correlation_threads) {
    const int64_t plane = quotient(quotient(item, p.by_width), p.by_tiles);
    const int64_t n = quotient(plane, p.by_channels);
    const int64_t channel = plane - n * p.channels;
    const T* filter = weight + channel * p.weight_channel;
    compute_column<T, 1, K, Phases>(p, item, n, channel, source, bias, result,
                                    [&](int i, int j, auto& factor) {
                                      factor[0] = widen(filter[i * p.weight_row + j * p.weight_column]);
                                    });
  }
}

// Threads along the channels, then the columns of a sample, its tiles, and the samples. The weights of the
// block's channels wait in shared memory, those of a tap side by side.
template <class T, int lanes, int K, int Phases>
__global__ void __launch_bounds__(correlation_threads, (correlation_blocks<T, lanes, K>))
    correlate_channels(Correlation p, const T* source, const T* weight, const T* bias, T* result) {
  using Value = Accumulator<T>;
  CONVEXT_DYNAMIC_SHARED(bytes);
  Value* shared = reinterpret_cast<Value*>(bytes);
  const int block_channels = p.channel_lanes * lanes;
  const int first_channel = static_cast<int>(blockIdx.y) * block_channels;
  const int taps = p.rows.kernel * p.columns.kernel;
  for (int k = static_cast<int>(threadIdx.x); k < taps * block_channels; k += correlation_threads) {
    const int channel = k / taps;
    const int tap = k - channel * taps;
    const int i = tap / p.columns.kernel;
    const int j = tap - i * p.columns.kernel;
    if (first_channel + channel < p.channels) {
      shared[tap * block_channels + channel] = widen(
          weight[(first_channel + channel) * p.weight_channel + i * p.weight_row + j * p.weight_column]);
    }
  }
  __syncthreads();
  const int item_lane = static_cast<int>(threadIdx.x) / p.channel_lanes;
  const int lane = (static_cast<int>(threadIdx.x) - item_lane * p.channel_lanes) * lanes;
  if (item_lane >= p.item_lanes || first_channel + lane >= p.channels) return;
  for (int64_t item = int64_t{blockIdx.x} * p.item_lanes + item_lane; item < p.items;
       item += int64_t{gridDim.x} * p.item_lanes) {
    const int64_t n = quotient(quotient(item, p.by_width), p.by_tiles);
    compute_column<T, lanes, K, Phases>(
        p, item, n, first_channel + lane, source, bias, result, [&](int i, int j, auto& factor) {
          const Value* at = shared + (i * p.columns.kernel + j) * block_channels + lane;
          const Vector<Value, lanes> vector = load_vector<Value, lanes>(at);
#pragma unroll
          for (int v = 0; v < lanes; ++v) factor[v] = vector.lane[v];
        });
  }
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
