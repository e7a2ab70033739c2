// The product of two matrices of 16-bit numbers that exist nowhere, on tensor cores: what tiles/multiply.cuh
// is for products one by one.
//
// A block computes 128 x 128 results in slices of 32 of the depth: it gathers the next slice of either
// operand into registers while it multiplies the one in shared memory. Each of its 8 warps has 64 x 32 of the
// results, so that six loads of matrices serve 16 multiplications.
//
// Elements are gathered eight at a time where their addresses follow each other, along the depth or along the
// rows; elsewhere one by one. The products and the order of their sums are the same in all cases, so results
// do not depend on how a tensor is aligned.
#pragma once

#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"

namespace convext {
namespace cuda {
namespace mma {

constexpr int block_threads = 256;
constexpr int block_rows = 128;  // and columns
constexpr int slice_depth = 32;
constexpr int vector_lanes = 8;  // numbers of 16 bytes
// Rows of shared memory begin in different banks, and all at multiples of 16 bytes.
constexpr int row_gap = 8;

enum class Gather { depth_vectors, row_vectors, elements };

// One slice of an operand. ldmatrix reads either order.
template <Gather gather>
struct Slice {
  static constexpr bool depth_outside = gather == Gather::row_vectors;
  static constexpr int lines = depth_outside ? slice_depth : block_rows;
  static constexpr int length = (depth_outside ? block_rows : slice_depth) + row_gap;
  alignas(16) uint16_t number[lines][length];

  __device__ uint16_t* at(int row, int depth) {
    return depth_outside ? &number[depth][row] : &number[row][depth];
  }
};

// Which elements of a slice a thread gathers: rows x depths of them, each `row_lanes` or `depth_lanes` places
// from the last, a place being a vector along its own axis.
template <Gather gather>
struct Share {
  static constexpr int row_size = gather == Gather::row_vectors ? vector_lanes : 1;
  static constexpr int depth_size = gather == Gather::depth_vectors ? vector_lanes : 1;
  static constexpr int depth_lanes = gather == Gather::depth_vectors ? slice_depth / vector_lanes
                                     : gather == Gather::row_vectors ? 16
                                                                     : 8;
  static constexpr int row_lanes = block_threads / depth_lanes;
  static constexpr int rows = block_rows / row_size / row_lanes;
  static constexpr int depths = slice_depth / depth_size / depth_lanes;

  int first_row, first_depth;

  // Neighbouring threads take what lies side by side in memory.
  __device__ explicit Share(bool rows_adjacent) {
    const int thread = static_cast<int>(threadIdx.x);
    first_row = rows_adjacent ? thread % row_lanes : thread / depth_lanes;
    first_depth = rows_adjacent ? thread / row_lanes : thread % depth_lanes;
  }
  __device__ int row(int i) const { return (first_row + i * row_lanes) * row_size; }
  __device__ int depth(int j) const { return (first_depth + j * depth_lanes) * depth_size; }
};

__device__ inline bool is_finite(uint16_t bits, uint32_t exponent) {
  return (bits & exponent) != exponent;
}
__device__ inline bool is_finite(const uint4& bits, uint32_t exponent) {
  bool finite = true;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const uint32_t e = exponent << (16 * k);
    finite = finite && (bits.x & e) != e && (bits.y & e) != e && (bits.z & e) != e && (bits.w & e) != e;
  }
  return finite;
}

// An operand on its way from memory to a slice. Operand says where its elements lie:
//
//     Row row(int), Depth depth(int), const uint16_t* address(Row, Depth)   (nullptr: the element is 0)
template <class Operand, Gather gather>
struct Gathered {
  using Places = Share<gather>;
  using Number = std::conditional_t<gather == Gather::elements, uint16_t, uint4>;

  const Operand& operand;
  Places places;
  typename Operand::Row row[Places::rows];
  Number number[Places::rows][Places::depths];

  __device__ Gathered(const Operand& from, int first_row, bool rows_adjacent)
      : operand(from), places(gather == Gather::row_vectors || rows_adjacent) {
#pragma unroll
    for (int i = 0; i < Places::rows; ++i) row[i] = operand.row(first_row + places.row(i));
  }

  __device__ void load(int first, int last) {
#pragma unroll
    for (int j = 0; j < Places::depths; ++j) {
      const int at = first + places.depth(j);
      const bool exists = at < last;
      const typename Operand::Depth depth = operand.depth(exists ? at : 0);
#pragma unroll
      for (int i = 0; i < Places::rows; ++i) {
        const uint16_t* from = exists ? operand.address(row[i], depth) : nullptr;
        number[i][j] = from != nullptr ? *reinterpret_cast<const Number*>(from) : Number{};
      }
    }
  }

  __device__ void store(Slice<gather>& slice) const {
#pragma unroll
    for (int j = 0; j < Places::depths; ++j) {
#pragma unroll
      for (int i = 0; i < Places::rows; ++i)
        *reinterpret_cast<Number*>(slice.at(places.row(i), places.depth(j))) = number[i][j];
    }
  }

  // Of what was loaded last.
  __device__ bool all_finite(uint32_t exponent) const {
    bool finite = true;
#pragma unroll
    for (int k = 0; k < Places::rows * Places::depths; ++k)
      finite = finite && is_finite(number[k / Places::depths][k % Places::depths], exponent);
    return finite;
  }
};

template <Gather left, Gather right>
struct Slices {
  Slice<left> rows;
  Slice<right> columns;
};

// A block's sums, as many as a thread has of them.
struct Products {
  static constexpr int warp_rows = 64;
  static constexpr int warp_columns = 32;
  static constexpr int row_tiles = warp_rows / 16;
  static constexpr int column_tiles = warp_columns / 8;
  static constexpr int slices_of_chain = chain_terms / slice_depth;
  static constexpr int numbers = row_tiles * column_tiles * 4;

  float chain[row_tiles][column_tiles][4];
  float total[row_tiles][column_tiles][4];

  __device__ static int warp_row() { return static_cast<int>(threadIdx.x) / 128 * warp_rows; }
  __device__ static int warp_column() { return static_cast<int>(threadIdx.x) / 32 % 4 * warp_columns; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }

  // Where number k of tile (m, n) belongs.
  __device__ static int row_of(int m, int k) { return warp_row() + 16 * m + lane() / 4 + k / 2 * 8; }
  __device__ static int column_of(int n, int k) { return warp_column() + 8 * n + lane() % 4 * 2 + k % 2; }

  __device__ void clear() {
#pragma unroll
    for (int k = 0; k < numbers; ++k) chain_number(k) = total_number(k) = 0;
  }

  __device__ void end_chain() {
#pragma unroll
    for (int k = 0; k < numbers; ++k) {
      total_number(k) += chain_number(k);
      chain_number(k) = 0;
    }
  }

  template <class T, Gather left, Gather right>
  __device__ void add_slice(Slices<left, right>& slices) {
    const int matrix = lane() / 8;
    const int line = lane() % 8;
#pragma unroll
    for (int depth = 0; depth < slice_depth; depth += 16) {
      uint32_t rows[row_tiles][4];
      uint32_t columns[column_tiles][2];
      // The order of the four matrices is that of the fragment's registers.
#pragma unroll
      for (int m = 0; m < row_tiles; ++m) {
        const int row = warp_row() + 16 * m + matrix % 2 * 8;
        load<Slice<left>::depth_outside>(rows[m], slices.rows, row, depth + matrix / 2 * 8, line);
      }
#pragma unroll
      for (int n = 0; n < column_tiles; n += 2) {
        uint32_t pair[4];
        const int column = warp_column() + 8 * n + matrix / 2 * 8;
        load<Slice<right>::depth_outside>(pair, slices.columns, column, depth + matrix % 2 * 8, line);
#pragma unroll
        for (int k = 0; k < 4; ++k) columns[n + k / 2][k % 2] = pair[k];
      }
#pragma unroll
      for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
        for (int n = 0; n < column_tiles; ++n) multiply_add<T>(chain[m][n], rows[m], columns[n]);
      }
    }
  }

  // The sums over the depths in [first, last). Says whether all that `right` gathered was finite, if asked.
  template <class T, class Left, class Right, Gather left_gather, Gather right_gather>
  __device__ bool sum(Slices<left_gather, right_gather> (&slices)[2], int first, int last, Left& left,
                      Right& right, bool checks_right) {
    constexpr uint32_t exponent = std::is_same_v<T, BFloat16> ? 0x7f80u : 0x7c00u;
    clear();
    left.load(first, last);
    right.load(first, last);
    bool finite = true;
    int which = 0;
    int in_chain = 0;
    for (int depth = first; depth < last; depth += slice_depth) {
      left.store(slices[which].rows);
      right.store(slices[which].columns);
      if (checks_right) finite = finite && right.all_finite(exponent);
      __syncthreads();
      // The next slice is on its way while this one is multiplied. It goes where the slice before this one
      // was, which all threads have left behind at the barrier.
      if (depth + slice_depth < last) {
        left.load(depth + slice_depth, last);
        right.load(depth + slice_depth, last);
      }
      add_slice<T>(slices[which]);
      which ^= 1;
      if (++in_chain == slices_of_chain) {
        end_chain();
        in_chain = 0;
      }
    }
    end_chain();
    return finite;
  }

 private:
  __device__ float& chain_number(int k) { return chain[k / 4 / column_tiles][k / 4 % column_tiles][k % 4]; }
  __device__ float& total_number(int k) { return total[k / 4 / column_tiles][k / 4 % column_tiles][k % 4]; }

  // The 8 x 8 matrix that begins at `row` and `depth`, of which this thread names one line.
  template <bool depth_outside, class OneSlice>
  __device__ static void load(uint32_t (&fragment)[4], OneSlice& slice, int row, int depth, int line) {
    if constexpr (depth_outside) {
      load_matrices_transposed(fragment, slice.at(row, depth + line));
    } else {
      load_matrices(fragment, slice.at(row + line, depth));
    }
  }
};

}  // namespace mma
}  // namespace cuda
}  // namespace convext
