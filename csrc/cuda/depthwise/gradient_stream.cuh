// The gradient of the input with kernels of 3, 5 and 7 rows and columns and stride 2.
//
// The walk of stream.cuh, with results in pairs of rows and of columns: a source row is part of open_rows
// pairs, and each result of a pair meets the taps of one parity. Which one it is, is known to the compiler:
// padding has the parity of K / 2, as it has where the output is half as large as the input. A thread reads W
// + open_rows - 1 values of a source row, and stores 4 * W results.
//
// Of pair t, result `k` (0 or 1) meets in the source position `b` steps after the pair's first one the tap of
// tap_of.
#pragma once

#include "cuda/depthwise/row_stream.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

// Negative, or K and more, where there is none.
template <int K>
__host__ __device__ constexpr int tap_of(int k, int b) {
  constexpr int parity = K / 2 % 2;
  return 2 * (open_rows<K, 2> - 1 - b + (k + parity) / 2 - parity) + (k + parity) % 2;
}

constexpr int gradient_columns = 2;  // pairs of them

template <class T, int K, Columns form>
struct GradientStream {
  using Value = Accumulator<T>;
  static constexpr int W = gradient_columns;
  static constexpr int open = open_rows<K, 2>;
  using Row = StridedRow<T, 1, W, open, 1>;
  // Half as many loads as results: a step has little else to wait for.
  static constexpr int slots = K == 7 ? 1 : open;
  static constexpr int ahead = slots > 1 ? slots - 1 : 1;

  Value weight[K][K];

  // Pair `x` and pairs [y, y + pairs).
  __device__ void run(const Stream& p, int x, int y, int pairs, const T* source, T* result) const {
    const typename Row::Where where(p, x);
    Value sums[open][2][2 * W] = {};
    Row pending[slots];
    const int steps = pairs + open - 1;
    int next_row = y - p.rows_before;
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
    for (int d = 0; d < ahead; ++d) fetch(pending[d], d < steps);

    const int columns = p.result_columns - 2 * x;
    int row = 2 * y;
    T* to = result + int64_t{row} * p.result_row + int64_t{2 * x} * p.result_column;
    for (int first = 0; first < steps; first += open) {
#pragma unroll
      for (int u = 0; u < open; ++u) {
        const int step = first + u;
        if (step >= steps) break;
        Value values[Row::count];
#pragma unroll
        for (int c = 0; c < Row::count; ++c) values[c] = pending[u % slots].number(c, 0);
        fetch(pending[(u + ahead) % slots], step + ahead < steps);
#pragma unroll
        for (int b = 0; b < open; ++b) {
          if (tap_of<K>(0, b) >= 0 && tap_of<K>(0, b) < K)
            add(sums[(u - b + open) % open][0], values, tap_of<K>(0, b));
          if (tap_of<K>(1, b) >= 0 && tap_of<K>(1, b) < K)
            add(sums[(u - b + open) % open][1], values, tap_of<K>(1, b));
        }
        if (step >= open - 1) {
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            if (row + k < p.result_rows) store(p, columns, to + k * p.result_row, sums[(u + 1) % open][k]);
          }
          row += 2;
          to += 2 * int64_t{p.result_row};
        }
      }
    }
  }

 private:
  __device__ void add(Value (&sums)[2 * W], const Value (&values)[Row::count], int i) const {
#pragma unroll
    for (int b = 0; b < open; ++b) {
#pragma unroll
      for (int w = 0; w < 2 * W; ++w) {
        const int j = tap_of<K>(w % 2, b);
        if (j < 0 || j >= K) continue;
        const Value product = values[w / 2 + b] * weight[i][j];
        sums[w] = i + 2 >= K && j + 2 >= K ? product : sums[w] + product;  // the last taps come first
      }
    }
  }

  __device__ static void store(const Stream& p, int columns, T* to, const Value (&sums)[2 * W]) {
    if constexpr (form == Columns::vectors) {
      Vector<T, 2 * W> vector;
#pragma unroll
      for (int w = 0; w < 2 * W; ++w) vector.lane[w] = narrow<T>(sums[w]);
      store_vector<T, 2 * W>(to, vector);
    } else if (columns >= 2 * W) {
#pragma unroll
      for (int w = 0; w < 2 * W; ++w) to[w * p.result_column] = narrow<T>(sums[w]);
    } else {
#pragma unroll
      for (int w = 0; w < 2 * W - 1; ++w) {
        if (w < columns) to[w * p.result_column] = narrow<T>(sums[w]);
      }
    }
  }
};

// With weights that are not finite: the terms that exist, one by one (see add_existing_terms).
template <class T, int K>
__device__ inline void add_existing_half(const Stream& p, int x, int y, int pairs, const T* source,
                                         const T* weight, T* result) {
#pragma unroll 1
  for (int k = 0; k < 4 * gradient_columns * pairs; ++k) {
    const int row = 2 * y + k / (2 * gradient_columns);
    const int column = 2 * x + k % (2 * gradient_columns);
    if (row >= p.result_rows || column >= p.result_columns) continue;
    Accumulator<T> sum = 0;
#pragma unroll 1
    for (int i = K - 1; i >= 0; --i) {
#pragma unroll 1
      for (int j = K - 1; j >= 0; --j) {
        const int twice_row = row + p.rows_padding - i;
        const int twice_column = column + p.columns_padding - j;
        if (twice_row < 0 || twice_row % 2 != 0 || twice_row / 2 >= p.source_rows || twice_column < 0 ||
            twice_column % 2 != 0 || twice_column / 2 >= p.source_columns)
          continue;
        sum +=
            widen(
                source[int64_t{twice_row / 2} * p.source_row + int64_t{twice_column / 2} * p.source_column]) *
            widen(weight[i * p.weight_row + j * p.weight_column]);
      }
    }
    result[int64_t{row} * p.result_row + int64_t{column} * p.result_column] = narrow<T>(sum);
  }
}

// Blocks of a multiprocessor that leave each thread the registers it needs, found with -Xptxas -v.
template <int K>
constexpr int gradient_stream_blocks = K == 3   ? 6
                                       : K == 5 ? 5
                                                : 4;

// Grid: blocks of channels where those are adjacent, else 1, and blocks of items. In planes, the items go
// through the planes, too, and a block's channel_lanes are 1.
template <class T, int K, Columns form>
__global__ void __launch_bounds__(stream_threads, (gradient_stream_blocks<K>))
    gradient_stream(Stream p, const T* grad_output, const T* weight, T* result) {
  const int item_lane = static_cast<int>(threadIdx.x) / p.channel_lanes;
  const int lane = static_cast<int>(threadIdx.x) - item_lane * p.channel_lanes;
  if (item_lane >= p.item_lanes) return;
  GradientStream<T, K, form> stream;
  bool finite = true;
  int64_t channel = -1;
  for (int64_t item = int64_t{blockIdx.y} * p.item_lanes + item_lane; item < p.items;
       item += int64_t{gridDim.y} * p.item_lanes) {
    const int64_t rest = quotient(item, p.by_groups);
    const int x = static_cast<int>(item - rest * p.groups) * gradient_columns;
    const int64_t plane = quotient(rest, p.by_bands);
    const int y = static_cast<int>(rest - plane * p.bands) * p.band_rows;
    const int pairs_in_all = (p.result_rows + 1) / 2;
    const int pairs = y + p.band_rows < pairs_in_all ? p.band_rows : pairs_in_all - y;
    int64_t n = plane;
    int64_t channel_of_item = int64_t{blockIdx.x} * p.channel_lanes + lane;
    if (p.planes) {
      n = quotient(plane, p.by_channels);
      channel_of_item = plane - n * p.channels;
    }
    if (channel_of_item >= p.channels) return;
    const T* filter = weight + channel_of_item * p.weight_channel;
    if (channel_of_item != channel) {
      channel = channel_of_item;
      finite = true;
      load_filter<T, K>(p, filter, false, [&](int i, int j, Accumulator<T> factor) {
        stream.weight[i][j] = factor;
        finite = finite && factor - factor == 0;
      });
    }
    const T* from = grad_output + n * p.source_batch + channel * p.source_channel;
    T* to = result + n * p.result_batch + channel * p.result_channel;
    if (finite) {
      stream.run(p, x, y, pairs, from, to);
    } else {
      add_existing_half<T, K>(p, x, y, pairs, from, filter, to);
    }
  }
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
