// Source rows as the streaming kernels read them: the columns that `W` neighbouring results need, for `V`
// neighbouring channels, kept as they lie in memory (16-bit numbers in pairs) until they are used.
#pragma once

#include <cstring>

#include "cuda/divisor.cuh"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

constexpr int stream_threads = 128;

// Rows of results that a source row is part of.
template <int K, int S>
constexpr int open_rows = (K + S - 1) / S;

// Rows on their way or in use, in steps: rows are loaded one step less ahead, or one step ahead where there
// is one slot only, whose values are moved before it is loaded again. The number divides that of the steps
// that are unrolled, open_rows. A warp of a 3x3 kernel has too few instructions in a step for one step to
// cover the way to memory; larger kernels have enough, and no registers for more.
template <int K, int S>
constexpr int row_slots = K == 3 ? open_rows<K, S> : 1;

// From this size on, steps at the ends of a band leave out the products of results that are not in it. Below,
// the branches would cost more.
constexpr int least_kernel_to_skip = 7;

struct Stream {
  bool gradient;  // of the input, with stride 1: a correlation with the taps in reverse order
  int channels;
  int result_rows, result_columns, source_rows, source_columns;
  int rows_before, columns_before;    // padding of the source
  int rows_padding, columns_padding;  // of the problem, where that is not the same
  bool planes;                        // items go through the planes
  int band_rows;                      // results that a thread walks down at a time
  int bands, groups;                  // of rows, and of columns
  int64_t items;  // threads' pieces of work: groups x bands x samples, x channels in planes
  Divisor by_groups, by_bands, by_channels;
  int64_t source_batch, source_channel, result_batch, result_channel;
  int source_row, source_column, result_row, result_column;
  int64_t weight_channel;
  int weight_row, weight_column;
  // Where threads lie along the channels:
  int channel_lanes;  // vectors of channels of a block
  int item_lanes;     // items of a block at a time
};

// How the columns of a row are read: each by itself, a fixed distance apart, or in aligned vectors.
enum class Columns { strided, vectors };

// `count` elements, aligned to all of them, in 32-bit words, so that 16-bit numbers stay packed.
template <class T, int count>
struct alignas(sizeof(T) * count) Packed {
  using Word = std::conditional_t<sizeof(T) * count == 2, uint16_t,
                                  std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>>;
  static constexpr int words = static_cast<int>(sizeof(T) * count / sizeof(Word));
  static constexpr int per_word = count / words;
  Word word[words];

  __device__ void clear() {
#pragma unroll
    for (int k = 0; k < words; ++k) word[k] = 0;
  }

  __device__ Accumulator<T> number(int k) const {
    if constexpr (sizeof(T) >= 4) {
      T value;
      memcpy(&value, &word[k], sizeof(T));
      return widen(value);
    } else if constexpr (std::is_same_v<T, BFloat16>) {
      // The upper half of a float: a shift or a mask.
      const uint32_t both = word[k / per_word];
      const uint32_t bits = k % per_word == 0 ? both << 16 : both & 0xffff0000u;
      float value;
      memcpy(&value, &bits, sizeof(value));
      return value;
    } else {
      return widen(T{static_cast<uint16_t>(uint32_t{word[k / per_word]} >> (16 * (k % per_word)))});
    }
  }
};

template <class T, int count>
__device__ inline Packed<T, count> load_packed(const T* from) {
  return *reinterpret_cast<const Packed<T, count>*>(from);
}

constexpr int power_of_two_from(int least) {
  int power = 1;
  while (power < least) power *= 2;
  return power;
}

// Of one item: which columns exist.
template <class T, int V, int W, int K, int S>
struct StridedRow {
  static constexpr int count = (W - 1) * S + K;
  struct Where {
    int first_column, column_stride;
    uint32_t inside;
    bool all_inside;

    __device__ Where(const Stream& p, int x) {
      first_column = x * S - p.columns_before;
      column_stride = p.source_column;
      inside = 0;
#pragma unroll
      for (int c = 0; c < count; ++c) {
        if (first_column + c >= 0 && first_column + c < p.source_columns) inside |= 1u << c;
      }
      all_inside = inside == (1u << count) - 1;
    }
  };

  Packed<T, V> at[count];

  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < count; ++c) at[c].clear();
  }
  // `from`: the row, at the first column.
  __device__ void load(const T* from, const Where& where) {
    if (where.all_inside) {
#pragma unroll
      for (int c = 0; c < count; ++c) at[c] = load_packed<T, V>(from + c * where.column_stride);
    } else {
#pragma unroll
      for (int c = 0; c < count; ++c) {
        at[c].clear();
        if ((where.inside >> c & 1u) != 0) at[c] = load_packed<T, V>(from + c * where.column_stride);
      }
    }
  }
  __device__ Accumulator<T> number(int c, int v) const { return at[c].number(v); }
};

// Adjacent columns in vectors of four. `S * W` of them lie below the results; whether the few to the left and
// to the right exist is the same for all of these. Padding is K / 2, and the source is S times as wide as the
// result, a multiple of W.
template <class T, int W, int K, int S>
struct VectorRow {
  static constexpr int count = (W - 1) * S + K;
  static constexpr int left = K / 2;
  static constexpr int right = count - left - S * W;
  static constexpr int left_loaded = power_of_two_from(left);
  static constexpr int right_loaded = power_of_two_from(right > 1 ? right : 1);
  static constexpr int step = W < 4 ? W : 4;
  static constexpr int vectors = S * W / step;
  struct Where {
    int first_column;
    bool has_left, has_right;

    __device__ Where(const Stream& p, int x) {
      first_column = x * S;
      has_left = first_column > 0;
      has_right = right > 0 && first_column + S * W < p.source_columns;
    }
  };

  Packed<T, left_loaded> before;
  Packed<T, step> below[vectors];
  Packed<T, right_loaded> after;

  __device__ void clear() {
    before.clear();
    after.clear();
#pragma unroll
    for (int k = 0; k < vectors; ++k) below[k].clear();
  }
  // `from`: the row, at the first result's column.
  __device__ void load(const T* from, const Where& where) {
    before.clear();
    after.clear();
    if (where.has_left) before = load_packed<T, left_loaded>(from - left_loaded);
    if (where.has_right) after = load_packed<T, right_loaded>(from + S * W);
#pragma unroll
    for (int k = 0; k < vectors; ++k) below[k] = load_packed<T, step>(from + k * step);
  }
  __device__ Accumulator<T> number(int c, int) const {
    if (c < left) return before.number(left_loaded - left + c);
    if (c < left + S * W) return below[(c - left) / step].number((c - left) % step);
    return after.number(c - left - S * W);
  }
};

// The taps of a channel, in reverse order if `reverse`.
template <class T, int K, class Set>
__device__ inline void load_filter(const Stream& p, const T* filter, bool reverse, const Set& set) {
  const int row_step = reverse ? -p.weight_row : p.weight_row;
  const int column_step = reverse ? -p.weight_column : p.weight_column;
  const T* first = reverse ? filter + (K - 1) * (p.weight_row + p.weight_column) : filter;
#pragma unroll
  for (int i = 0; i < K; ++i) {
#pragma unroll
    for (int j = 0; j < K; ++j) set(i, j, widen(first[i * row_step + j * column_step]));
  }
}

template <class T, int V, int W, int K, int S, Columns form>
using SourceRow =
    std::conditional_t<form == Columns::vectors, VectorRow<T, W, K, S>, StridedRow<T, V, W, K, S>>;

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
