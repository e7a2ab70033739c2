// The product of two matrices that exist nowhere: the part that forward, grad_input and grad_weight share.
//
// A block computes a tile of the result, `tile_rows` x `tile_columns`. It walks along the depth in steps of
// `tile_depth`, and copies a slice of either operand into shared memory, gathering the elements from the
// tensors where they lie, while it multiplies the slice before. Each thread has 4 columns and 8 (float64: 4)
// rows of the tile, so that three loads of 16 bytes from shared memory serve 32 products.
//
// Loaders gather the operands: `rows` of them side by side for one position of the depth. A thread keeps to
// one position of each slice (depth_lane) and to every 32nd row (row_lane), so that what a row costs is
// computed once and what a position costs once for all rows. Which of the two its neighbours vary says where
// neighbours in memory lie.
#pragma once

#include "cuda/divisor.cuh"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace convext {
namespace cuda {
namespace tiles {

constexpr int tile_threads = 256;
constexpr int tile_depth = 8;
constexpr int row_lanes = tile_threads / tile_depth;
constexpr int tile_columns = 64;
template <class T>
constexpr int tile_rows = sizeof(T) == 8 ? 64 : 128;

// Elements of 16 bytes.
template <class T>
constexpr int vector_lanes = 16 / static_cast<int>(sizeof(T));

template <class T>
struct Slices {
  T left[2][tile_depth][tile_rows<T> + vector_lanes<T>];
  T right[2][tile_depth][tile_columns + vector_lanes<T>];
};

// The result of a block on its way to memory, rows adjacent.
template <class T>
struct Result {
  T value[tile_columns / 2][tile_rows<T> + 1];
};

template <class T>
union Shared {
  Slices<T> slices;
  Result<T> result;
};

struct Lanes {
  int depth, row;
};

__device__ inline Lanes lanes_of(bool neighbours_along_rows) {
  const int thread = static_cast<int>(threadIdx.x);
  return neighbours_along_rows ? Lanes{thread / row_lanes, thread % row_lanes}
                               : Lanes{thread % tile_depth, thread / tile_depth};
}

template <class T>
struct Products {
  static constexpr int groups = tile_rows<T> / 64;  // of four rows
  static constexpr int slices_of_chain = chain_terms / tile_depth;

  T chain[groups][4][4];
  T total[groups][4][4];

  __device__ static int row_of(int group, int r) {
    return group * 64 + static_cast<int>(threadIdx.x) / 16 * 4 + r;
  }
  __device__ static int column_of(int q) { return static_cast<int>(threadIdx.x) % 16 * 4 + q; }

  __device__ void clear() {
#pragma unroll
    for (int k = 0; k < groups * 16; ++k) {
      chain[k / 16][k / 4 % 4][k % 4] = 0;
      total[k / 16][k / 4 % 4][k % 4] = 0;
    }
  }

  __device__ void add_slice(const Slices<T>& slices, int which) {
#pragma unroll
    for (int k = 0; k < tile_depth; ++k) {
      T left[groups][4], right[4];
#pragma unroll
      for (int group = 0; group < groups; ++group)
        load_four(left[group], &slices.left[which][k][row_of(group, 0)]);
      load_four(right, &slices.right[which][k][column_of(0)]);
#pragma unroll
      for (int group = 0; group < groups; ++group) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int q = 0; q < 4; ++q) chain[group][r][q] += left[group][r] * right[q];
        }
      }
    }
  }

  __device__ void end_chain() {
#pragma unroll
    for (int k = 0; k < groups * 16; ++k) {
      total[k / 16][k / 4 % 4][k % 4] += chain[k / 16][k / 4 % 4][k % 4];
      chain[k / 16][k / 4 % 4][k % 4] = 0;
    }
  }

  // The sums over the depths in [first, last). Left and Right load their elements of one slice into
  // registers: load(depth, values), zeros at depths that are not below `last`.
  template <class Left, class Right>
  __device__ void sum(Slices<T>& slices, int first, int last, const Left& left, const Right& right) {
    T left_values[tile_rows<T> / row_lanes];
    T right_values[tile_columns / row_lanes];
    clear();
    left.load(first, last, left_values);
    right.load(first, last, right_values);
    int which = 0;
    int in_chain = 0;
    for (int depth = first; depth < last; depth += tile_depth) {
      store(slices.left[which], left.lanes, left_values);
      store(slices.right[which], right.lanes, right_values);
      __syncthreads();
      // The next slice is on its way while this one is multiplied. It goes where the slice before this one
      // was, which all threads have left behind at the barrier.
      if (depth + tile_depth < last) {
        left.load(depth + tile_depth, last, left_values);
        right.load(depth + tile_depth, last, right_values);
      }
      add_slice(slices, which);
      which ^= 1;
      if (++in_chain == slices_of_chain) {
        end_chain();
        in_chain = 0;
      }
    }
    end_chain();
  }

 private:
  __device__ static void load_four(T (&values)[4], const T* from) {
#pragma unroll
    for (int k = 0; k < 4; k += vector_lanes<T>) {
      const Vector<T, vector_lanes<T>> vector = load_vector<T, vector_lanes<T>>(from + k);
#pragma unroll
      for (int v = 0; v < vector_lanes<T>; ++v) values[k + v] = vector.lane[v];
    }
  }

  template <int width, int count>
  __device__ static void store(T (&slice)[tile_depth][width], const Lanes& lanes, const T (&values)[count]) {
#pragma unroll
    for (int k = 0; k < count; ++k) slice[lanes.depth][lanes.row + k * row_lanes] = values[k];
  }
};

// Hands the tile over through shared memory, so that neighbouring threads can store neighbouring addresses:
// calls store(row, column, value) for all of it.
template <class T, class Store>
__device__ inline void store_tile(Result<T>& result, const Products<T>& products, bool neighbours_along_rows,
                                  const Store& store) {
  constexpr int columns = tile_columns / 2;
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    __syncthreads();  // whatever was there has been read
    const int first = Products<T>::column_of(0) - half * columns;
    if (first >= 0 && first < columns) {
#pragma unroll
      for (int group = 0; group < Products<T>::groups; ++group) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int q = 0; q < 4; ++q)
            result.value[first + q][Products<T>::row_of(group, r)] = products.total[group][r][q];
        }
      }
    }
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x); k < tile_rows<T> * columns; k += tile_threads) {
      const int row = neighbours_along_rows ? k % tile_rows<T> : k / columns;
      const int column = neighbours_along_rows ? k / tile_rows<T> : k % columns;
      store(row, half * columns + column, result.value[column][row]);
    }
  }
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
