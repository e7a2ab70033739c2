// The forward pass with kernels of 3, 5 and 7 rows and columns, strides 1 and 2, and the gradient of the
// input with stride 1.
//
// A thread walks down a band of rows of `W` neighbouring results. It reads each row of the source once, and
// adds what the row gives to all the rows of results that it is part of: with stride 1 these are K rows of
// sums, kept in registers beside the weights, of which one is finished with each source row. So (W + K - 1)
// loads serve for W * K * K products, and addresses, checks of borders and conversions are paid once for a
// row. Rows are loaded some steps ahead.
//
// Every result adds its terms in the same order whatever the band, the vectors and the layout: rows of taps,
// in each of them the columns.
#pragma once

#include "cuda/depthwise/row_stream.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

template <class T, int V, int W, int K, int S, Columns form>
struct ResultStream {
  using Value = Accumulator<T>;
  using Row = SourceRow<T, V, W, K, S, form>;
  static constexpr int open = open_rows<K, S>;
  static constexpr int slots = row_slots<K, S>;
  static constexpr int ahead = slots > 1 ? slots - 1 : 1;

  Value weight[K][K][V];

  // `source`: the channel's plane of the sample; `result` likewise.
  __device__ void run(const Stream& p, int x, int y, int rows, const T* source, T* result,
                      const Value (&shift)[V]) const {
    const typename Row::Where where(p, x);
    Value sums[open][W][V] = {};
    Row pending[slots][S];
    const int steps = rows + open - 1;
    int next_row = y * S - p.rows_before;
    const T* next = source + int64_t{next_row} * p.source_row + int64_t{where.first_column} * p.source_column;
    const auto fetch = [&](Row& into, bool wanted) {
      if (wanted && next_row >= 0 && next_row < p.source_rows) {
        into.load(next, where);
      } else {
        into.clear();
      }
      ++next_row;
      next += p.source_row;
    };
#pragma unroll
    for (int d = 0; d < ahead; ++d) {
#pragma unroll
      for (int s = 0; s < S; ++s) fetch(pending[d][s], d < steps);
    }

    T* to = result + int64_t{y} * p.result_row + int64_t{x} * p.result_column;
    for (int first = 0; first < steps; first += open) {
#pragma unroll
      for (int u = 0; u < open; ++u) {
        const int step = first + u;
        if (step >= steps) break;
        // The results `a` steps back meet the source row s of this step in tap row a * S + s.
#pragma unroll
        for (int s = 0; s < S; ++s) {
          const Row& row = pending[u % slots][s];
          Value values[Row::count][V];
#pragma unroll
          for (int c = 0; c < Row::count; ++c) {
#pragma unroll
            for (int v = 0; v < V; ++v) values[c][v] = row.number(c, v);
          }
          fetch(pending[(u + ahead) % slots][s], step + ahead < steps);
#pragma unroll
          for (int a = 0; a < open; ++a) {
            if (a * S + s >= K) continue;
            if (K >= least_kernel_to_skip && (step - a < 0 || step - a >= rows)) continue;
            add(sums[(u - a + open) % open], values, a * S + s);
          }
        }
        if (step >= open - 1) {
          store(p, x, to, sums[(u + 1) % open], shift);
          to += p.result_row;
        }
      }
    }
  }

 private:
  __device__ void add(Value (&sums)[W][V], const Value (&values)[Row::count][V], int i) const {
#pragma unroll
    for (int j = 0; j < K; ++j) {
#pragma unroll
      for (int w = 0; w < W; ++w) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Value product = values[w * S + j][v] * weight[i][j][v];
          sums[w][v] = i == 0 && j == 0 ? product : sums[w][v] + product;
        }
      }
    }
  }

  __device__ static void store(const Stream& p, int x, T* to, const Value (&sums)[W][V],
                               const Value (&shift)[V]) {
    if constexpr (form == Columns::vectors) {
      Vector<T, W> vector;
#pragma unroll
      for (int w = 0; w < W; ++w) vector.lane[w] = narrow<T>(sums[w][0] + shift[0]);
      store_vector<T, W>(to, vector);
    } else {
      const auto store_at = [&](int w) {
        Vector<T, V> vector;
#pragma unroll
        for (int v = 0; v < V; ++v) vector.lane[v] = narrow<T>(sums[w][v] + shift[v]);
        store_vector<T, V>(to + w * p.result_column, vector);
      };
      if (W == 1 || x + W <= p.result_columns) {
#pragma unroll
        for (int w = 0; w < W; ++w) store_at(w);
      } else {
#pragma unroll
        for (int w = 0; w < W - 1; ++w) {
          if (x + w < p.result_columns) store_at(w);
        }
      }
    }
  }
};

// Zero times a weight that is not finite would be NaN, where a gradient has no term at all: here the terms
// that exist are added one by one. It is rare, and need not be fast.
template <class T, int K>
__device__ inline void add_existing_terms(const Stream& p, int x, int columns, int y, int rows,
                                          const T* source, const T* weight, T* result) {
#pragma unroll 1
  for (int k = 0; k < rows * columns; ++k) {
    const int row = y + k / columns;
    const int column = x + k % columns;
    if (column >= p.result_columns) continue;
    Accumulator<T> sum = 0;
#pragma unroll 1
    for (int i = 0; i < K; ++i) {
#pragma unroll 1
      for (int j = 0; j < K; ++j) {
        const int from_row = row - p.rows_before + i;
        const int from_column = column - p.columns_before + j;
        if (from_row < 0 || from_row >= p.source_rows || from_column < 0 || from_column >= p.source_columns)
          continue;
        sum += widen(source[int64_t{from_row} * p.source_row + int64_t{from_column} * p.source_column]) *
               widen(weight[(K - 1 - i) * p.weight_row + (K - 1 - j) * p.weight_column]);
      }
    }
    result[int64_t{row} * p.result_row + int64_t{column} * p.result_column] = narrow<T>(sum);
  }
}

// One item of a thread: V channels from `channel` on.
template <class T, int V, int W, int K, int S, Columns form>
__device__ inline void run_item(const Stream& p, const ResultStream<T, V, W, K, S, form>& stream, bool finite,
                                int64_t item, int64_t n, int64_t channel, const T* source, const T* weight,
                                const T* bias, T* result) {
  using Value = Accumulator<T>;
  const int64_t rest = quotient(item, p.by_groups);
  const int x = static_cast<int>(item - rest * p.groups) * W;
  const int y = static_cast<int>(rest - quotient(rest, p.by_bands) * p.bands) * p.band_rows;
  const int rows = y + p.band_rows < p.result_rows ? p.band_rows : p.result_rows - y;
  const T* from = source + n * p.source_batch + channel * p.source_channel;
  T* to = result + n * p.result_batch + channel * p.result_channel;
  if (S == 1 && p.gradient && !finite) {
#pragma unroll 1
    for (int v = 0; v < V; ++v) {
      add_existing_terms<T, K>(p, x, W, y, rows, from + v * p.source_channel,
                               weight + (channel + v) * p.weight_channel, to + v * p.result_channel);
    }
    return;
  }
  Value shift[V] = {};
  if (bias != nullptr) {
#pragma unroll
    for (int v = 0; v < V; ++v) shift[v] = widen(bias[channel + v]);
  }
  stream.run(p, x, y, rows, from, to, shift);
}

// Blocks of a multiprocessor that leave each thread the registers it needs, found with -Xptxas -v.
template <class T, int V, int W, int K, int S>
constexpr int stream_blocks = K == 7 || (S == 2 && (K == 5 || V > 1)) ? 4
                              : K == 5 || S == 2 || V * W > 4         ? 5
                                                                      : 6;

// Threads along the columns of a plane, then its bands, then the planes.
template <class T, int W, int K, int S, Columns form>
__global__ void __launch_bounds__(stream_threads, (stream_blocks<T, 1, W, K, S>))
    stream_planes(Stream p, const T* source, const T* weight, const T* bias, T* result) {
  for (int64_t item = int64_t{blockIdx.x} * stream_threads + threadIdx.x; item < p.items;
       item += int64_t{gridDim.x} * stream_threads) {
    const int64_t plane = quotient(quotient(item, p.by_groups), p.by_bands);
    const int64_t n = quotient(plane, p.by_channels);
    const int64_t channel = plane - n * p.channels;
    const T* filter = weight + channel * p.weight_channel;
    ResultStream<T, 1, W, K, S, form> stream;
    load_filter<T, K>(p, filter, S == 1 && p.gradient,
                      [&](int i, int j, Accumulator<T> factor) { stream.weight[i][j][0] = factor; });
    bool finite = true;
    if (S == 1 && p.gradient) {
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap) {
        const Accumulator<T> factor = stream.weight[tap / K][tap % K][0];
        finite = finite && factor - factor == 0;
      }
    }
    run_item(p, stream, finite, item, n, channel, source, weight, bias, result);
  }
}

// Threads along the channels, then the columns of a sample, its bands, and the samples. The weights go by way
// of shared memory, since neighbouring channels' lie far apart.
template <class T, int V, int W, int K, int S>
__global__ void __launch_bounds__(stream_threads, (stream_blocks<T, V, W, K, S>))
    stream_channels(Stream p, const T* source, const T* weight, const T* bias, T* result) {
  using Value = Accumulator<T>;
  struct Shared {
    Value weight[K * K][32 * V];
  };
  CONVEXT_SHARED(Shared, shared);
  const int block_channels = p.channel_lanes * V;
  const int first_channel = static_cast<int>(blockIdx.x) * block_channels;
  for (int k = static_cast<int>(threadIdx.x); k < K * K * block_channels; k += stream_threads) {
    const int channel = k / (K * K);
    const int tap = k - channel * (K * K);
    const int i = tap / K;
    const int j = tap - i * K;
    if (first_channel + channel < p.channels) {
      const int into = S == 1 && p.gradient ? K * K - 1 - tap : tap;
      shared.weight[into][channel] = widen(
          weight[(first_channel + channel) * p.weight_channel + i * p.weight_row + j * p.weight_column]);
    }
  }
  __syncthreads();
  const int item_lane = static_cast<int>(threadIdx.x) / p.channel_lanes;
  const int lane = (static_cast<int>(threadIdx.x) - item_lane * p.channel_lanes) * V;
  if (item_lane >= p.item_lanes || first_channel + lane >= p.channels) return;
  ResultStream<T, V, W, K, S, Columns::strided> stream;
  bool finite = true;
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap) {
    const Vector<Value, V> factor = load_vector<Value, V>(&shared.weight[tap][lane]);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      stream.weight[tap / K][tap % K][v] = factor.lane[v];
      finite = finite && factor.lane[v] - factor.lane[v] == 0;
    }
  }
  for (int64_t item = int64_t{blockIdx.y} * p.item_lanes + item_lane; item < p.items;
       item += int64_t{gridDim.y} * p.item_lanes) {
    const int64_t n = quotient(quotient(item, p.by_groups), p.by_bands);
    run_item(p, stream, finite, item, n, first_channel + lane, source, weight, bias, result);
  }
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
