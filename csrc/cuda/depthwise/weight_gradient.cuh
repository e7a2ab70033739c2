// The gradient of the weight of a depthwise problem, in one pass over the data for each tile of K x K taps.
//
// A thread walks down a column of output pixels. It keeps the K x K source values of its pixel in registers,
// of which the next pixel shares all but a few rows, and has a sum for each tap. A round of work is as many
// pixels as make one chain of additions; after it a tree adds the threads of each channel, and the sums of
// rounds are added one after the other. Where the channels are too few to fill the device the rounds are cut
// into chunks, whose sums a second kernel adds. All of it follows from the shape.
#pragma once

#include "cuda/divisor.cuh"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_reduction.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

constexpr int gradient_threads = 128;
constexpr int most_channel_lanes = 32;

struct GradientAxis {
  int output, input, kernel, stride, dilation, before;
};

struct WeightGradient {
  int channels;
  GradientAxis rows, columns;
  int row_step;         // from a pixel to the next one below that is walked to
  int pixels_per_item;  // pixels that are walked down at a time
  int64_t items;
  Divisor by_width, by_bands, by_residues;
  int bands, residues;
  int tiles_across;   // of taps
  int channel_lanes;  // a power of two
  int items_per_lane;
  int64_t rounds, rounds_per_chunk;
  int chunks;
  ImageStrides input, output;
};

// Step: source rows from one pixel to the next; K: none are shared, whatever the stride is.
template <class T, int K, int Step>
struct WeightGradientSums {
  using Value = Accumulator<T>;
  static constexpr int turns = Step == K ? 1 : K;

  Value sum[K][K];

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < K; ++i) {
#pragma unroll
      for (int j = 0; j < K; ++j) sum[i][j] = 0;
    }
  }

  // Item: x, then the band of rows, the residue of the rows and the sample.
  __device__ void add(const WeightGradient& p, int64_t item, int first_tap_row, int first_tap_column,
                      const T* input, const T* grad_output) {
    const int64_t band_index = quotient(item, p.by_width);
    const int x = static_cast<int>(item - band_index * p.columns.output);
    const int64_t residue_index = quotient(band_index, p.by_bands);
    const int band = static_cast<int>(band_index - residue_index * p.bands);
    const int64_t n = quotient(residue_index, p.by_residues);
    const int residue = static_cast<int>(residue_index - n * p.residues);
    const int y = residue + band * p.pixels_per_item * p.row_step;
    int pixels = y < p.rows.output ? (p.rows.output - y - 1) / p.row_step + 1 : 0;
    if (pixels > p.pixels_per_item) pixels = p.pixels_per_item;

    const int column = x * p.columns.stride + first_tap_column * p.columns.dilation - p.columns.before;
    unsigned inside = 0;
#pragma unroll
    for (int j = 0; j < K; ++j) {
      const int at = column + j * p.columns.dilation;
      if (at >= 0 && at < p.columns.input) inside |= 1u << j;
    }
    const T* source = input + n * p.input.batch + column * p.input.column;
    const T* grad = grad_output + n * p.output.batch + x * p.output.column;
    const int row = y * p.rows.stride + first_tap_row * p.rows.dilation - p.rows.before;
    const int next_pixel = p.row_step * p.rows.stride;

    // The source row of tap row i lies in slot (pixel * Step + i) % K.
    Value window[K][K];
#pragma unroll
    for (int i = 0; i < K - Step; ++i) load(window[i], p, source, row + i * p.rows.dilation, inside);
    for (int first = 0; first < pixels; first += turns) {
#pragma unroll
      for (int u = 0; u < turns; ++u) {
        const int pixel = first + u;
        if (pixel >= pixels) break;
#pragma unroll
        for (int i = K - Step; i < K; ++i) {
          load(window[(u * Step + i) % K], p, source, row + pixel * next_pixel + i * p.rows.dilation, inside);
        }
        const Value factor = widen(grad[(y + pixel * p.row_step) * p.output.row]);
#pragma unroll
        for (int i = 0; i < K; ++i) {
#pragma unroll
          for (int j = 0; j < K; ++j) sum[i][j] += window[(u * Step + i) % K][j] * factor;
        }
      }
    }
  }

 private:
  __device__ static void load(Value (&values)[K], const WeightGradient& p, const T* source, int row,
                              unsigned inside) {
    const bool row_inside = row >= 0 && row < p.rows.input;
    const T* from = source + row * p.input.row;
#pragma unroll
    for (int j = 0; j < K; ++j) {
      values[j] = row_inside && (inside >> j & 1u) != 0 ? widen(from[j * p.columns.dilation * p.input.column])
                                                        : Value{};
    }
  }
};

// Blocks of a multiprocessor that leave each thread the registers it needs, found with -Xptxas -v.
template <class T, int K>
constexpr int gradient_blocks = K == 3                                  ? 4
                                : K == 5 && sizeof(Accumulator<T>) == 4 ? 3
                                                                        : 2;

template <class T, int K, int Step>
__global__ void __launch_bounds__(gradient_threads, (gradient_blocks<T, K>))
    weight_gradient(WeightGradient p, Destination to, const T* input, const T* grad_output, T* result,
                    Total<T>* chunk_sums) {
  struct Shared {
    Accumulator<T> lane[K][gradient_threads];
    Total<T> total[K * K][most_channel_lanes];
  };
  CONVEXT_SHARED(Shared, shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int channel_lane = thread % p.channel_lanes;
  const int item_lane = thread / p.channel_lanes;
  const int item_lanes = gradient_threads / p.channel_lanes;
  const int channel_block = static_cast<int>(blockIdx.x) / p.chunks;
  const int chunk = static_cast<int>(blockIdx.x) - channel_block * p.chunks;
  const int first_channel = channel_block * p.channel_lanes;
  const int channel = first_channel + channel_lane;
  const int first_tap_row = static_cast<int>(blockIdx.y) / p.tiles_across * K;
  const int first_tap_column = static_cast<int>(blockIdx.y) % p.tiles_across * K;
  if (item_lane == 0) {
    for (int tap = 0; tap < K * K; ++tap) shared.total[tap][channel_lane] = 0;
  }

  const int64_t first_round = chunk * p.rounds_per_chunk;
  const int64_t last_round =
      first_round + p.rounds_per_chunk < p.rounds ? first_round + p.rounds_per_chunk : p.rounds;
  for (int64_t round = first_round; round < last_round; ++round) {
    WeightGradientSums<T, K, Step> sums;
    sums.clear();
    if (channel < p.channels) {
      for (int k = 0; k < p.items_per_lane; ++k) {
        const int64_t item = (round * p.items_per_lane + k) * item_lanes + item_lane;
        if (item >= p.items) break;
        sums.add(p, item, first_tap_row, first_tap_column, input + channel * p.input.channel,
                 grad_output + channel * p.output.channel);
      }
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
      __syncthreads();  // the sums of the previous row have been read
#pragma unroll
      for (int j = 0; j < K; ++j) shared.lane[j][thread] = sums.sum[i][j];
      for (int step = gradient_threads / 2; step >= p.channel_lanes; step /= 2) {
        __syncthreads();
        if (thread < step) {
#pragma unroll
          for (int j = 0; j < K; ++j) shared.lane[j][thread] += shared.lane[j][thread + step];
        }
      }
      if (item_lane == 0) {
#pragma unroll
        for (int j = 0; j < K; ++j)
          shared.total[i * K + j][channel_lane] += static_cast<Total<T>>(shared.lane[j][thread]);
      }
    }
  }

  if (item_lane != 0 || channel >= p.channels) return;
  const int64_t elements = int64_t{p.channels} * p.rows.kernel * p.columns.kernel;
  for (int i = 0; i < K && first_tap_row + i < p.rows.kernel; ++i) {
    for (int j = 0; j < K && first_tap_column + j < p.columns.kernel; ++j) {
      const int64_t element =
          (int64_t{channel} * p.rows.kernel + first_tap_row + i) * p.columns.kernel + first_tap_column + j;
      const Total<T> sum = shared.total[i * K + j][channel_lane];
      if (p.chunks > 1) {
        chunk_sums[chunk * elements + element] = sum;
      } else {
        result[offset_of(element, to)] = narrow<T>(sum);
      }
    }
  }
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
