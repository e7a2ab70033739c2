// Kernels with many taps and stride 1: the forward pass and the gradient of the input, which is the same with
// the taps in reverse order.
//
// These are bound by multiplications. A block keeps a tile of the source and the weights of its planes in
// shared memory, as float32; a thread has 4 x 4 results, and for 4 taps of a row reads 4 new values and the
// weights of 4 rows of taps, five loads of 16 bytes for 64 products. Weights are the same for all threads of
// a plane, one access to shared memory.
//
// Every result adds its terms row by row, in chains of whole rows of taps whose beginnings follow from the
// result's position.
#pragma once

#include "cuda/divisor.cuh"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

constexpr int large_side = 4;  // of the results of a thread
constexpr int large_threads = 256;

struct Large {
  bool gradient;
  int channels;
  int result_rows, result_columns, source_rows, source_columns;
  int rows_before, columns_before;  // padding of the source
  int kernel_rows, kernel_columns;
  int rows_of_chain;
  int groups_across, groups_down;  // threads of a tile
  int tiles_across, tiles_down;    // of a plane
  int planes_of_block;             // more than one only if a tile is a plane
  int tile_rows, tile_pitch;       // of the source, in shared memory
  int weight_pitch;
  int64_t planes, units;
  Divisor by_channels, by_tile_rows, by_kernel_rows;
  int64_t source_batch, source_channel, source_row, source_column;
  int64_t result_batch, result_channel, result_row, result_column;
  int64_t weight_channel, weight_row, weight_column;
};

struct LargeTile {
  float sums[large_side][large_side];

  // Adds `taps` (up to 4) of each row of taps; row t has its weights at weight - t * pitch. `All`: every t
  // and 4 taps.
  template <bool All>
  __device__ void add(const float (&values)[8], const float* weight, int pitch, int row, int rows, int taps) {
#pragma unroll
    for (int t = 0; t < large_side; ++t) {
      if (!All && (row - t < 0 || row - t >= rows)) continue;
      const Vector<float, 4> factor = load_vector<float, 4>(weight - t * pitch);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (!All && j >= taps) continue;
#pragma unroll
        for (int w = 0; w < large_side; ++w) sums[t][w] += values[w + j] * factor.lane[j];
      }
    }
  }

  // A row of the source, which the results' rows t meet in tap row `row` - t.
  template <bool All>
  __device__ void add_row(const float* source, const float* weight, int pitch, int row, int rows,
                          int columns) {
    float values[8];
    load(source, values);
    int j = 0;
#pragma unroll 2
    for (; j + 4 <= columns; j += 4) {
      load(source + j + 4, values + 4);
      add<All>(values, weight + j, pitch, row, rows, 4);
#pragma unroll
      for (int k = 0; k < 4; ++k) values[k] = values[k + 4];
    }
    if (j < columns) {
      load(source + j + 4, values + 4);
      add<false>(values, weight + j, pitch, row, rows, columns - j);
    }
  }

 private:
  __device__ static void load(const float* from, float* values) {
    const Vector<float, 4> vector = load_vector<float, 4>(from);
#pragma unroll
    for (int k = 0; k < 4; ++k) values[k] = vector.lane[k];
  }
};

// Where a weight is not finite, the terms of a gradient that exist, one by one: zero times such a weight
// would be NaN.
template <class T>
__device__ inline void add_existing_of_tile(const Large& p, int first_y, int first_x, const T* source,
                                            const T* weight, T* result) {
#pragma unroll 1
  for (int k = 0; k < large_side * large_side; ++k) {
    const int y = first_y + k / large_side;
    const int x = first_x + k % large_side;
    if (y >= p.result_rows || x >= p.result_columns) continue;
    float sum = 0;
#pragma unroll 1
    for (int i = 0; i < p.kernel_rows; ++i) {
#pragma unroll 1
      for (int j = 0; j < p.kernel_columns; ++j) {
        const int row = y - p.rows_before + i;
        const int column = x - p.columns_before + j;
        if (row < 0 || row >= p.source_rows || column < 0 || column >= p.source_columns) continue;
        sum += widen(source[row * p.source_row + column * p.source_column]) *
               widen(weight[(p.kernel_rows - 1 - i) * p.weight_row +
                            (p.kernel_columns - 1 - j) * p.weight_column]);
      }
    }
    result[y * p.result_row + x * p.result_column] = narrow<T>(sum);
  }
}

template <class T>
__global__ void __launch_bounds__(large_threads, 3)
    correlate_large(Large p, const T* source, const T* weight, const T* bias, T* result) {
  CONVEXT_DYNAMIC_SHARED(bytes);
  float* weights = reinterpret_cast<float*>(bytes);
  const int weights_of_plane = p.kernel_rows * p.weight_pitch;
  float* tiles = weights + p.planes_of_block * weights_of_plane;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const int threads_of_plane = p.groups_across * p.groups_down;
  const int own_plane = thread / threads_of_plane;
  const int group = thread - own_plane * threads_of_plane;
  const int group_row = group / p.groups_across;
  const int own_y = group_row * large_side;
  const int own_x = (group - group_row * p.groups_across) * large_side;
  const int tiles_of_plane = p.tiles_across * p.tiles_down;

  for (int64_t unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
    const int64_t block = unit / tiles_of_plane;
    const int tile = static_cast<int>(unit - block * tiles_of_plane);
    const int first_y = tile / p.tiles_across * p.groups_down * large_side;
    const int first_x = tile % p.tiles_across * p.groups_across * large_side;
    const int64_t first_plane = block * p.planes_of_block;
    const int planes = p.planes - first_plane < p.planes_of_block ? static_cast<int>(p.planes - first_plane)
                                                                  : p.planes_of_block;
    __syncthreads();  // the previous tile has been read
    int not_finite = 0;
    // A warp takes a row at a time.
    for (int line = warp; line < planes * p.kernel_rows; line += warps) {
      const int plane = quotient(line, p.by_kernel_rows);
      const int i = line - plane * p.kernel_rows;
      const int64_t at = first_plane + plane;
      const int64_t channel = at - quotient(at, p.by_channels) * p.channels;
      const T* from =
          weight + channel * p.weight_channel + (p.gradient ? p.kernel_rows - 1 - i : i) * p.weight_row;
      for (int j = lane; j < p.kernel_columns; j += 32) {
        const float factor = widen(from[(p.gradient ? p.kernel_columns - 1 - j : j) * p.weight_column]);
        weights[line * p.weight_pitch + j] = factor;
        if (!(factor - factor == 0)) not_finite = 1;
      }
    }
    for (int line = warp; line < planes * p.tile_rows; line += warps) {
      const int plane = quotient(line, p.by_tile_rows);
      const int row = first_y - p.rows_before + line - plane * p.tile_rows;
      const int64_t n = quotient(first_plane + plane, p.by_channels);
      const int64_t channel = first_plane + plane - n * p.channels;
      const int before = first_x - p.columns_before;
      const int columns = row >= 0 && row < p.source_rows ? p.source_columns : 0;
      const T* from = source + n * p.source_batch + channel * p.source_channel + row * p.source_row +
                      before * p.source_column;
      float* to = tiles + line * p.tile_pitch;
#pragma unroll 4
      for (int c = lane; c < p.tile_pitch; c += 32)
        to[c] = before + c >= 0 && before + c < columns ? widen(from[c * p.source_column]) : 0.0f;
    }
    const bool existing_only = __syncthreads_or(not_finite) != 0 && p.gradient;
    if (own_plane >= planes || first_y + own_y >= p.result_rows || first_x + own_x >= p.result_columns)
      continue;

    const int64_t n = quotient(first_plane + own_plane, p.by_channels);
    const int64_t channel = first_plane + own_plane - n * p.channels;
    T* to = result + n * p.result_batch + channel * p.result_channel;
    if (existing_only) {
      add_existing_of_tile(p, first_y + own_y, first_x + own_x,
                           source + n * p.source_batch + channel * p.source_channel,
                           weight + channel * p.weight_channel, to);
      continue;
    }
    LargeTile own = {};
    float totals[large_side][large_side] = {};
    const float* from = tiles + (own_plane * p.tile_rows + own_y) * p.tile_pitch + own_x;
    const float* factors = weights + own_plane * weights_of_plane;
    int rows_to_add = p.rows_of_chain;
    for (int row = 0; row < p.kernel_rows + large_side - 1; ++row) {
      if (row >= large_side - 1 && row < p.kernel_rows) {
        own.add_row<true>(from, factors, p.weight_pitch, row, p.kernel_rows, p.kernel_columns);
      } else {
        own.add_row<false>(from, factors, p.weight_pitch, row, p.kernel_rows, p.kernel_columns);
      }
      from += p.tile_pitch;
      factors += p.weight_pitch;
      if (--rows_to_add == 0) {
        rows_to_add = p.rows_of_chain;
#pragma unroll
        for (int t = 0; t < large_side; ++t) {
#pragma unroll
          for (int w = 0; w < large_side; ++w) {
            totals[t][w] += own.sums[t][w];
            own.sums[t][w] = 0;
          }
        }
      }
    }

    const float shift = bias != nullptr ? widen(bias[channel]) : 0.0f;
#pragma unroll
    for (int t = 0; t < large_side; ++t) {
      const int y = first_y + own_y + t;
#pragma unroll
      for (int w = 0; w < large_side; ++w) {
        const int x = first_x + own_x + w;
        if (y >= p.result_rows || x >= p.result_columns) continue;
        to[y * p.result_row + x * p.result_column] = narrow<T>(totals[t][w] + own.sums[t][w] + shift);
      }
    }
  }
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
