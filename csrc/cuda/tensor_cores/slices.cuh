// How operands wait in shared memory for tensor cores: in slices of the depth, several of them on their way
// at a time.
//
// A slice holds 128 bytes of depth of each row. It is copied there in pieces of 16 bytes, asynchronously and
// past the registers. Its lines lie so far apart that whatever a warp reads at once lies in different banks:
// an odd number of pieces; eight numbers more than a multiple of 32 (float32 with the depth outside); four
// more than one of 16 (float64).
#pragma once

#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"

namespace convext {
namespace cuda {
namespace mma {

constexpr int block_threads = 256;
constexpr int stages = 4;
constexpr int piece_bytes = 16;
constexpr int slice_pieces = 8;  // of the depth

template <class T>
constexpr int piece_numbers = piece_bytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int slice_depth = slice_pieces * piece_numbers<T>;

// Which of the two lies side by side.
enum class Order { depth_inside, depth_outside };

template <class T, Order order_, int rows_>
struct Slice {
  static constexpr Order order = order_;
  static constexpr int rows = rows_;
  static constexpr int lines = order == Order::depth_inside ? rows : slice_depth<T>;
  static constexpr int gap = sizeof(T) == 8                                   ? 4
                             : order == Order::depth_inside || sizeof(T) == 2 ? piece_numbers<T>
                                                                              : 8;
  static constexpr int line_numbers = (order == Order::depth_inside ? slice_depth<T> : rows) + gap;

  alignas(piece_bytes) T number[lines][line_numbers];

  __device__ T* at(int row, int depth) {
    return order == Order::depth_inside ? &number[row][depth] : &number[depth][row];
  }
};

template <class Left, class Right>
struct Slices {
  static constexpr int left_line = Left::line_numbers;
  static constexpr int right_line = Right::line_numbers;

  Left left;
  Right right;
};

__device__ inline bool is_finite_bits(uint32_t bits) {
  return (bits & 0x7f800000u) != 0x7f800000u;
}

// Results of the second turn replace those that are not finite, if they are not either.
template <class T>
__device__ inline void store(T* to, T value, bool second_turn) {
  if (second_turn) {
    const auto was = widen(*to);
    const auto is = widen(value);
    if (was - was == 0 || is - is == 0) return;
  }
  *to = value;
}

// Whether a position is one of an axis.
__device__ inline bool is_below(int position, int size) {
  return static_cast<unsigned>(position) < static_cast<unsigned>(size);
}

// The copies of a slice are started in so many parts, between the multiplications of another: so that the
// tensor cores have work while addresses are computed.
constexpr int copy_parts = 4;

// Runs through the depth in slices. `load(slice, index, part)` starts a part of the copies of one;
// `multiply(slice, meanwhile)` uses one and calls meanwhile(part) for every part in turn.
template <class AllSlices, class Load, class Multiply>
__device__ inline void run_pipeline(AllSlices* slices, int count, const Load& load,
                                    const Multiply& multiply) {
#pragma unroll 1
  for (int k = 0; k < stages - 1; ++k) {
    if (k < count) {
#pragma unroll
      for (int part = 0; part < copy_parts; ++part) load(slices[k], k, part);
    }
    commit_copies();
  }
  int use = 0;
  int fill = stages - 1;
#pragma unroll 1
  for (int k = 0; k < count; ++k) {
    wait_for_copies<stages - 2>();
    // All threads see the slice, and all have left behind the one whose place the next takes.
    __syncthreads();
    multiply(slices[use], [&](int part) {
      if (k + stages - 1 < count) load(slices[fill], k + stages - 1, part);
    });
    commit_copies();
    use = use + 1 == stages ? 0 : use + 1;
    fill = fill + 1 == stages ? 0 : fill + 1;
  }
  __syncthreads();  // the last slice has been read
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
