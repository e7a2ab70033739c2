// The gradient of the weight with strides 1 and 2, in tiles of 3 x 3, 5 x 5 or 7 x 7 taps: one, or for larger
// kernels as many as it takes, each of which reads the data.
//
// The walk of stream.cuh with the parts exchanged: a thread keeps a sum for each tap and the rows of the
// output's gradient that a source row meets, K of them with stride 1, and reads every row of both once, for W
// * K * K products. What it walks down at a time makes one chain of additions. The chains of the threads of a
// channel are then added in a fixed order, within a warp first, and those of rounds in float64.
#pragma once

#include "cuda/depthwise/row_stream.cuh"
#include "cuda/row_reduction.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

struct Rounds {
  int64_t count, per_chunk;
  int chunks;
  int channel_blocks;
  int kernel_rows, kernel_columns;
  int tiles_across;  // of taps
};

// `W` neighbouring columns of the output's gradient.
template <class T, int W, Columns form>
struct GradRow {
  static constexpr int per_load = form == Columns::vectors ? W : 1;
  Packed<T, per_load> at[form == Columns::vectors ? 1 : W];

  __device__ void clear() {
#pragma unroll
    for (auto& piece : at) piece.clear();
  }
  __device__ void load(const Stream& p, const T* from, int columns) {
    if constexpr (form == Columns::vectors) {
      at[0] = load_packed<T, W>(from);
    } else if (columns >= W) {
#pragma unroll
      for (int w = 0; w < W; ++w) at[w] = load_packed<T, 1>(from + w * p.result_column);
    } else {
#pragma unroll
      for (int w = 0; w < W; ++w) {
        at[w].clear();
        if (w < columns) at[w] = load_packed<T, 1>(from + w * p.result_column);
      }
    }
  }
  __device__ Accumulator<T> number(int w) const {
    return form == Columns::vectors ? at[0].number(w) : at[form == Columns::vectors ? 0 : w].number(0);
  }
};

template <class T, int W, int K, int S, Columns form>
struct WeightStream {
  using Value = Accumulator<T>;
  using Row = SourceRow<T, 1, W, K, S, form>;
  using Grads = GradRow<T, W, form>;
  static constexpr int open = open_rows<K, S>;
  static constexpr int slots = row_slots<K, S>;
  static constexpr int ahead = slots > 1 ? slots - 1 : 1;

  Value sum[K][K];

  // One chain for each tap: `source` and `grad` are the channel's planes of the sample.
  __device__ void run(const Stream& p, int x, int y, int rows, const T* source, const T* grad) {
    clear();
    const typename Row::Where where(p, x);
    const int columns = p.result_columns - x;
    const int steps = rows + open - 1;
    Row pending[slots][S];
    Grads pending_grads[slots];
    int next_row = y * S - p.rows_before;
    const T* next = source + int64_t{next_row} * p.source_row + int64_t{where.first_column} * p.source_column;
    const T* next_grads = grad + int64_t{y} * p.result_row + int64_t{x} * p.result_column;
    const auto fetch = [&](int slot, int s, int step) {
      if (step < steps && next_row >= 0 && next_row < p.source_rows) {
        pending[slot][s].load(next, where);
      } else {
        pending[slot][s].clear();
      }
      ++next_row;
      next += p.source_row;
      if (s != 0) return;
      if (step < rows) {
        pending_grads[slot].load(p, next_grads, columns);
      } else {
        pending_grads[slot].clear();
      }
      next_grads += p.result_row;
    };
#pragma unroll
    for (int d = 0; d < ahead; ++d) {
#pragma unroll
      for (int s = 0; s < S; ++s) fetch(d, s, d);
    }

    Value grads[open][W] = {};
    Value no_product = 0;
    for (int first = 0; first < steps; first += open) {
#pragma unroll
      for (int u = 0; u < open; ++u) {
        const int step = first + u;
        if (step >= steps) break;
        const bool all_exist = columns >= W && step >= open - 1 && step < rows;
#pragma unroll
        for (int w = 0; w < W; ++w) grads[u][w] = pending_grads[u % slots].number(w);
#pragma unroll
        for (int s = 0; s < S; ++s) {
          Value values[Row::count];
#pragma unroll
          for (int c = 0; c < Row::count; ++c) values[c] = pending[u % slots][s].number(c, 0);
          fetch((u + ahead) % slots, s, step + ahead);
          // The gradients `a` steps back meet the source row s of this step in tap row a * S + s.
#pragma unroll
          for (int a = 0; a < open; ++a) {
            if (a * S + s >= K) continue;
            if (K >= least_kernel_to_skip && (step - a < 0 || step - a >= rows)) continue;
            add(sum[a * S + s], values, grads[(u - a + open) % open]);
          }
          if (!all_exist) note(no_product, values);
        }
      }
    }
    // Where there is no gradient the products above have a zero, which a source that is not finite makes a
    // NaN.
    if (no_product != 0) add_existing(p, x, y, rows, source, grad);
  }

 private:
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < K; ++i) {
#pragma unroll
      for (int j = 0; j < K; ++j) sum[i][j] = 0;
    }
  }

  __device__ static void add(Value (&sums)[K], const Value (&values)[Row::count], const Value (&grads)[W]) {
#pragma unroll
    for (int w = 0; w < W; ++w) {
#pragma unroll
      for (int j = 0; j < K; ++j) sums[j] += values[w * S + j] * grads[w];
    }
  }

  // NaN once a value was not finite.
  __device__ static void note(Value& zero, const Value (&values)[Row::count]) {
#pragma unroll
    for (int c = 0; c < Row::count; ++c) zero += values[c] - values[c];
  }

  // The same sums from the products that exist, one by one.
  __device__ void add_existing(const Stream& p, int x, int y, int rows, const T* source, const T* grad) {
    clear();
#pragma unroll 1
    for (int k = 0; k < rows * W; ++k) {
      const int row = y + k / W;
      const int column = x + k % W;
      if (column >= p.result_columns) continue;
      const int from_row = row * S - p.rows_before;
      const int from_column = column * S - p.columns_before;
      const T* pixel = grad + int64_t{row} * p.result_row + int64_t{column} * p.result_column;
      const T* from = source + int64_t{from_row} * p.source_row + int64_t{from_column} * p.source_column;
#pragma unroll
      for (int i = 0; i < K; ++i) {
#pragma unroll
        for (int j = 0; j < K; ++j) {
          const bool inside = from_row + i >= 0 && from_row + i < p.source_rows && from_column + j >= 0 &&
                              from_column + j < p.source_columns;
          const Value value = inside ? widen(from[i * p.source_row + j * p.source_column]) : Value{};
          sum[i][j] += value * widen(*pixel);
        }
      }
    }
  }
};

// Blocks of a multiprocessor that leave each thread the registers it needs, found with -Xptxas -v.
template <int K, int S, Columns form>
constexpr int weight_stream_blocks = K == 3 && S == 1 && form == Columns::vectors ? 5
                                     : K == 7 || (K == 5 && S == 2)               ? 3
                                                                                  : 4;

// A block has channel_lanes channels, a power of two, and as many items at a time as that leaves
// threads for. Grid: blocks of channels, fastest, and chunks; tiles of taps.
template <class T, int W, int K, int S, Columns form>
__global__ void __launch_bounds__(stream_threads, (weight_stream_blocks<K, S, form>))
    weight_stream(Stream p, Rounds rounds, Destination to, const T* input, const T* grad_output, T* result,
                  Total<T>* chunk_sums) {
  using Value = Accumulator<T>;
  constexpr int warps = stream_threads / 32;
  constexpr int most_channels = form == Columns::vectors ? 1 : 32;
  struct Shared {
    Value warp[K * K][warps][most_channels];
    Total<T> total[K * K][most_channels];
  };
  CONVEXT_SHARED(Shared, shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int tile_row = static_cast<int>(blockIdx.y) / rounds.tiles_across;
  const int first_tap_row = tile_row * K;
  const int first_tap_column = (static_cast<int>(blockIdx.y) - tile_row * rounds.tiles_across) * K;
  p.rows_before -= first_tap_row;
  p.columns_before -= first_tap_column;
  const int lanes = form == Columns::vectors ? 1 : p.channel_lanes;
  const int channel_lane = thread % lanes;
  const int item_lane = thread / lanes;
  const int chunk = static_cast<int>(blockIdx.x) / rounds.channel_blocks;
  const int channel_block = static_cast<int>(blockIdx.x) - chunk * rounds.channel_blocks;
  const int first_channel = channel_block * lanes;
  const int channel = first_channel + channel_lane;
  const int sums_of_block = K * K * lanes;
  for (int k = thread; k < sums_of_block; k += stream_threads) shared.total[k / lanes][k % lanes] = 0;

  const int64_t first_round = chunk * rounds.per_chunk;
  const int64_t last_round =
      first_round + rounds.per_chunk < rounds.count ? first_round + rounds.per_chunk : rounds.count;
  for (int64_t round = first_round; round < last_round; ++round) {
    const int64_t item = round * p.item_lanes + item_lane;
    WeightStream<T, W, K, S, form> stream;
    if (channel < p.channels && item < p.items) {
      const int64_t rest = quotient(item, p.by_groups);
      const int64_t n = quotient(rest, p.by_bands);
      const int x = static_cast<int>(item - rest * p.groups) * W;
      const int y = static_cast<int>(rest - n * p.bands) * p.band_rows;
      const int rows = y + p.band_rows < p.result_rows ? p.band_rows : p.result_rows - y;
      stream.run(p, x, y, rows, input + n * p.source_batch + channel * p.source_channel,
                 grad_output + n * p.result_batch + channel * p.result_channel);
    } else {
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap) stream.sum[tap / K][tap % K] = 0;
    }
    for (int step = 16; step >= lanes; step /= 2) {
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap) {
        Value& sum = stream.sum[tap / K][tap % K];
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
      }
    }
    __syncthreads();  // the sums of the previous round have been read
    if (thread % 32 < lanes) {
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap)
        shared.warp[tap][thread / 32][channel_lane] = stream.sum[tap / K][tap % K];
    }
    __syncthreads();
    for (int k = thread; k < sums_of_block; k += stream_threads) {
      const int tap = k / lanes;
      const int c = k - tap * lanes;
      Value sum = shared.warp[tap][0][c];
#pragma unroll
      for (int warp = 1; warp < warps; ++warp) sum += shared.warp[tap][warp][c];
      shared.total[tap][c] += static_cast<Total<T>>(sum);
    }
  }

  const int64_t elements = int64_t{p.channels} * rounds.kernel_rows * rounds.kernel_columns;
  for (int k = thread; k < sums_of_block; k += stream_threads) {
    const int tap = k / lanes;  // as above: the thread reads what it wrote
    const int c = k - tap * lanes;
    const int i = first_tap_row + tap / K;
    const int j = first_tap_column + tap % K;
    if (first_channel + c >= p.channels || i >= rounds.kernel_rows || j >= rounds.kernel_columns) continue;
    const int64_t element = (int64_t{first_channel + c} * rounds.kernel_rows + i) * rounds.kernel_columns + j;
    if (rounds.chunks > 1) {
      chunk_sums[chunk * elements + element] = shared.total[tap][c];
    } else {
      result[offset_of(element, to)] = narrow<T>(shared.total[tap][c]);
    }
  }
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
