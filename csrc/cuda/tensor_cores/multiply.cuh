// The product of two matrices on tensor cores, from slices in shared memory.
//
// A block has a tile of `rows` x `columns` results, each of its 8 warps a part of it. Sums run in chains in
// the tensor cores' float32, which rounds towards zero, and their totals in float32 as C++ has it:
//
//     bfloat16, float16    products are exact; chains of 256
//     Tf32                 float32 with products of numbers rounded to 11 bits; chains of 256
//     SplitFloat           float32 by six products of numbers split in three of 8 bits; chains of 16, so that
//                          what rounding towards zero loses stays small beside float32's own rounding
//     double               as C++ has it, in one chain
//
// Split numbers cannot tell inf from NaN: inf - inf is one of their parts. Where a result is not finite, a
// second turn computes the product of the high parts alone, which says what it is.
#pragma once

#include "cuda/tensor_cores/slices.cuh"

namespace convext {
namespace cuda {
namespace mma {

struct Tf32 {};
struct SplitFloat {};

// What the tensors hold.
template <class Kind>
using Stored = std::conditional_t<sizeof(Kind) == 2 || std::is_same_v<Kind, double>, Kind, float>;

// Numbers as the fragments hold them, in the order of ptx.cuh. Of those of 32 bits, the tensor cores do not
// look at the last 13.
template <class Kind, int count>
struct Fragment {
  uint32_t high[count];

  __device__ void prepare() {
    if constexpr (std::is_same_v<Kind, Tf32>) {
      // What is cut off afterwards is half a unit of 11 bits on average, which this adds: in one instruction,
      // and neither changing numbers of 11 bits nor NaN.
      constexpr float up = 1.00033855f;  // 1 + 2^-11 ln 2
#pragma unroll
      for (int k = 0; k < count; ++k) high[k] = __float_as_uint(__uint_as_float(high[k]) * up);
    }
  }
};

// float32 as the sum of three bfloat16: 8 bits cut off from 24, 8 of the rest to the nearest, and what is
// left, exactly. Each register has two numbers. Of the nine products of such sums, the three smallest are
// left out: 2^-23 of the whole at most, and of either sign.
template <int count>
struct SplitFragment {
  static constexpr int parts = 3;

  uint32_t part[parts][count];

  __device__ void split(int k, uint32_t first, uint32_t second) {
    part[0][k] = high_halves(first, second);
    const float first_rest = __uint_as_float(first) - __uint_as_float(first & 0xffff0000u);
    const float second_rest = __uint_as_float(second) - __uint_as_float(second & 0xffff0000u);
    part[1][k] = two_bfloat16(first_rest, second_rest);
    const float first_last = first_rest - __uint_as_float(part[1][k] << 16);
    const float second_last = second_rest - __uint_as_float(part[1][k] & 0xffff0000u);
    part[2][k] = high_halves(__float_as_uint(first_last), __float_as_uint(second_last));
  }

  // For the second turn: what is not 0, NaN or infinite stays so.
  __device__ void take_high(int k, uint32_t first, uint32_t second) {
    part[0][k] = high_halves(kept(first), kept(second));
  }

 private:
  __device__ static uint32_t kept(uint32_t bits) {
    if (is_finite_bits(bits)) return (bits & 0x7fff0000u) == 0 && bits << 1 != 0 ? bits | 0x00800000u : bits;
    return bits << 9 != 0 ? 0x7fc00000u : bits;
  }
};

template <class Kind, int rows, int columns>
struct Products {
  using T = Stored<Kind>;
  static constexpr int warps_across = columns >= 128 ? 4 : columns >= 32 ? 2 : 1;
  static constexpr int warps_down = block_threads / 32 / warps_across;
  static constexpr int warp_rows = rows / warps_down;
  static constexpr int warp_columns = columns / warps_across;
  // Of one multiplication, and how many sums of it a thread has.
  static constexpr int tile_rows = std::is_same_v<Kind, double> ? 8 : 16;
  static constexpr int numbers = tile_rows / 4;
  static constexpr int row_tiles = warp_rows / tile_rows;
  static constexpr int column_tiles = warp_columns / 8;
  static constexpr int step_depth = 2 * piece_numbers<T>;  // of one multiplication
  static constexpr int steps = slice_pieces / 2;
  static constexpr bool splits = std::is_same_v<Kind, SplitFloat>;
  static constexpr int slices_of_chain = chain_terms / slice_depth<T>;
  static_assert(row_tiles >= 1 && column_tiles % 2 == 0, "matrices of 16 x 16 are loaded");

  using Sum = Accumulator<T>;

  Sum total[row_tiles][column_tiles][numbers];
  Sum chain[row_tiles][column_tiles][numbers];
  int slices_in_chain;
  bool only_high;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int warp_row() { return static_cast<int>(threadIdx.x) / 32 / warps_across * warp_rows; }
  __device__ static int warp_column() {
    return static_cast<int>(threadIdx.x) / 32 % warps_across * warp_columns;
  }

  // Where number k of tile (m, n) belongs.
  __device__ static int row_of(int m, int k) { return warp_row() + tile_rows * m + lane() / 4 + k / 2 * 8; }
  __device__ static int column_of(int n, int k) { return warp_column() + 8 * n + lane() % 4 * 2 + k % 2; }

  __device__ void clear(bool second_turn) {
    slices_in_chain = 0;
    only_high = second_turn;
#pragma unroll
    for (int k = 0; k < row_tiles * column_tiles * numbers; ++k) number(total, k) = number(chain, k) = 0;
  }

  __device__ void end_chain() {
#pragma unroll
    for (int k = 0; k < row_tiles * column_tiles * numbers; ++k) {
      number(total, k) += number(chain, k);
      number(chain, k) = 0;
    }
    slices_in_chain = 0;
  }

  // Of this thread.
  __device__ bool all_finite() const {
    bool finite = true;
#pragma unroll
    for (int k = 0; k < row_tiles * column_tiles * numbers; ++k) {
      const Sum sum = total[k / numbers / column_tiles][k / numbers % column_tiles][k % numbers];
      finite = finite && sum - sum == 0;
    }
    return finite;
  }

  // Calls meanwhile(part) for all parts between the multiplications.
  template <class Left, class Right, class Meanwhile>
  __device__ void add_slice(Slices<Left, Right>& slices, const Meanwhile& meanwhile) {
    if constexpr (std::is_same_v<Kind, double>) {
      double left[2][row_tiles];
      double right[2][column_tiles];
      load_doubles(slices, 0, left[0], right[0]);
#pragma unroll
      for (int step = 0; step < copy_parts; ++step) {
        if (step + 1 < copy_parts)
          load_doubles(slices, step + 1, left[(step + 1) % 2], right[(step + 1) % 2]);
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
          for (int n = 0; n < column_tiles; ++n)
            multiply_add(total[m][n], left[step % 2][m], right[step % 2][n]);
        }
        meanwhile(step);
      }
    } else if constexpr (splits) {
      if (only_high) {
        add_high(slices);
#pragma unroll
        for (int part = 0; part < copy_parts; ++part) meanwhile(part);
        return;
      }
#pragma unroll
      for (int step = 0; step < steps; step += 2) add_split(slices, step, meanwhile);
    } else {
      // The next fragments are on their way while these are multiplied.
      Fragment<Kind, 4> left[2][row_tiles];
      Fragment<Kind, 2> right[2][column_tiles];
      load(slices, 0, left[0], right[0]);
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        if (step + 1 < steps) load(slices, step + 1, left[(step + 1) % 2], right[(step + 1) % 2]);
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) left[step % 2][m].prepare();
#pragma unroll
        for (int n = 0; n < column_tiles; ++n) right[step % 2][n].prepare();
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
          for (int n = 0; n < column_tiles; ++n)
            multiply_add<T>(chain[m][n], left[step % 2][m].high, right[step % 2][n].high);
        }
        static_assert(steps == copy_parts, "one part for each step");
        meanwhile(step);
      }
      if (++slices_in_chain == slices_of_chain) end_chain();
    }
  }

 private:
  __device__ static Sum& number(Sum (&all)[row_tiles][column_tiles][numbers], int k) {
    return all[k / numbers / column_tiles][k / numbers % column_tiles][k % numbers];
  }

  // The numbers of two steps in one fragment of twice the depth. In what order the depths lie in it does not
  // matter, as long as it is the same for both operands.
  template <class Left, class Take>
  __device__ static void load_split_left(Left& slice, int step, int m, const Take& take) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      uint32_t bits[4];
      load_left(slice, step + s, m, bits);
      take(2 * s, bits[0], bits[2]);
      take(2 * s + 1, bits[1], bits[3]);
    }
  }
  template <class Right, class Take>
  __device__ static void load_split_right(Right& slice, int step, int n, const Take& take) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      uint32_t first[2], second[2];
      load_right(slice, step + s, n, first, second);
      take(0, s, first[0], first[1]);
      take(1, s, second[0], second[1]);
    }
  }

  // The small products first.
  template <class Left, class Right, class Meanwhile>
  __device__ void add_split(Slices<Left, Right>& slices, int step, const Meanwhile& meanwhile) {
    constexpr int turns = 6;
    constexpr int left_part[turns] = {2, 0, 1, 1, 0, 0};
    constexpr int right_part[turns] = {0, 2, 1, 0, 1, 0};
    SplitFragment<4> left[row_tiles];
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
      load_split_left(slices.left, step, m,
                      [&](int k, uint32_t first, uint32_t second) { left[m].split(k, first, second); });
    }
#pragma unroll
    for (int n = 0; n < column_tiles; n += 2) {
      SplitFragment<2> right[2];
      load_split_right(slices.right, step, n, [&](int pair, int k, uint32_t first, uint32_t second) {
        right[pair].split(k, first, second);
      });
      float sum[2][row_tiles][4] = {};
#pragma unroll
      for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
          for (int pair = 0; pair < 2; ++pair) {
            multiply_add<BFloat16>(sum[pair][m], left[m].part[left_part[turn]],
                                   right[pair].part[right_part[turn]]);
          }
        }
      }
      constexpr int pairs = column_tiles / 2 * (steps / 2);
      const int at = step / 2 * (column_tiles / 2) + n / 2;
#pragma unroll
      for (int part = at * copy_parts / pairs; part < (at + 1) * copy_parts / pairs; ++part) meanwhile(part);
#pragma unroll
      for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
#pragma unroll
          for (int k = 0; k < 4; ++k) total[m][n + pair][k] += sum[pair][m][k];
        }
      }
    }
  }

  // The second turn.
  template <class Left, class Right>
  __device__ void add_high(Slices<Left, Right>& slices) {
#pragma unroll 1
    for (int step = 0; step < steps; step += 2) {
      SplitFragment<4> left[row_tiles];
#pragma unroll
      for (int m = 0; m < row_tiles; ++m) {
        load_split_left(slices.left, step, m,
                        [&](int k, uint32_t first, uint32_t second) { left[m].take_high(k, first, second); });
      }
#pragma unroll
      for (int n = 0; n < column_tiles; n += 2) {
        SplitFragment<2> right[2];
        load_split_right(slices.right, step, n, [&](int pair, int k, uint32_t first, uint32_t second) {
          right[pair].take_high(k, first, second);
        });
#pragma unroll
        for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
          for (int pair = 0; pair < 2; ++pair)
            multiply_add<BFloat16>(total[m][n + pair], left[m].part[0], right[pair].part[0]);
        }
      }
    }
  }

  // Of a step of four: a thread has that of row lane / 4 and depth lane % 4, and so for the columns.
  template <class Left, class Right>
  __device__ static void load_doubles(Slices<Left, Right>& slices, int step, double (&left)[row_tiles],
                                      double (&right)[column_tiles]) {
    static_assert(slice_depth<double> == 4 * copy_parts, "four steps are a slice");
    const int depth = 4 * step + lane() % 4;
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) left[m] = *slices.left.at(row_of(m, 0), depth);
#pragma unroll
    for (int n = 0; n < column_tiles; ++n)
      right[n] = *slices.right.at(warp_column() + 8 * n + lane() / 4, depth);
  }

  template <class Left, class Right>
  __device__ static void load(Slices<Left, Right>& slices, int step, Fragment<Kind, 4> (&left)[row_tiles],
                              Fragment<Kind, 2> (&right)[column_tiles]) {
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) load_left(slices.left, step, m, left[m].high);
#pragma unroll
    for (int n = 0; n < column_tiles; n += 2)
      load_right(slices.right, step, n, right[n].high, right[n + 1].high);
  }

  // Matrices of 8 rows and 16 bytes of depth; each thread names one line of one of the four. Their order is
  // that of the fragment's registers.
  template <class Left>
  __device__ static void load_left(Left& slice, int step, int m, uint32_t (&fragment)[4]) {
    const int matrix = lane() / 8;
    const int line = lane() % 8;
    const int row = warp_row() + 16 * m;
    const int depth = step * step_depth;
    if constexpr (Left::order == Order::depth_inside) {
      load_matrices(fragment, slice.at(row + matrix % 2 * 8 + line, depth + matrix / 2 * piece_numbers<T>));
    } else if constexpr (sizeof(T) == 2) {
      load_matrices_transposed(fragment, slice.at(row + matrix % 2 * 8, depth + matrix / 2 * 8 + line));
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const T* from = slice.at(row + lane() / 4 + k % 2 * 8, depth + lane() % 4 + k / 2 * 4);
        fragment[k] = __float_as_uint(*from);
      }
    }
  }

  template <class Right>
  __device__ static void load_right(Right& slice, int step, int n, uint32_t (&first)[2],
                                    uint32_t (&second)[2]) {
    const int matrix = lane() / 8;
    const int line = lane() % 8;
    const int column = warp_column() + 8 * n;
    const int depth = step * step_depth;
    uint32_t pair[4];
    if constexpr (Right::order == Order::depth_inside) {
      load_matrices(pair, slice.at(column + matrix / 2 * 8 + line, depth + matrix % 2 * piece_numbers<T>));
    } else if constexpr (sizeof(T) == 2) {
      load_matrices_transposed(pair, slice.at(column + matrix / 2 * 8, depth + matrix % 2 * 8 + line));
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const T* from = slice.at(column + lane() / 4 + k / 2 * 8, depth + lane() % 4 + k % 2 * 4);
        pair[k] = __float_as_uint(*from);
      }
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      first[k] = pair[k];
      second[k] = pair[2 + k];
    }
  }
};

}  // namespace mma
}  // namespace cuda
}  // namespace convext
