// What the kernels of forward and grad_input share: how a block copies slices of its operands, and stores its
// tile of results. See tiles/correlation.cuh for the matrices.
#pragma once

#include "cuda/tensor_cores/slices.cuh"
#include "cuda/tiles/correlation.cuh"

namespace convext {
namespace cuda {
namespace mma {

using tiles::Correlation;
using tiles::Pixel;
using tiles::Tap;

constexpr int block_rows = 128;

// What the tiles cannot know of the tensors.
struct Operands {
  bool result_in_pieces;  // channels of the result side by side, in whole pieces
  const int* not_finite;  // nullptr: all weights are
};

// The pieces of a slice that a thread copies: one position of the depth, of every 32nd row.
constexpr int copy_rows = block_threads / slice_pieces;

// Copies slices of the source and of the weights, as many columns of them.
template <class T, int columns>
class SliceCopies {
 public:
  static constexpr int source_rows = block_rows / copy_rows;
  static constexpr int filter_rows = (columns + copy_rows - 1) / copy_rows;

  __device__ SliceCopies(const Correlation& problem, const T* source, const T* weight, int first_pixel,
                         int first_channel)
      : p_(problem) {
#pragma unroll
    for (int i = 0; i < source_rows; ++i) {
      const int index = first_pixel + row() + i * copy_rows;
      const Pixel at = tiles::pixel_of(index < p_.pixels ? index : 0, p_);
      // Rows behind the last pixel are outside the image.
      y_[i] = index < p_.pixels ? p_.rows.origin + at.row * p_.rows.source_per_result : -(1 << 30);
      x_[i] = p_.columns.origin + at.column * p_.columns.source_per_result;
      pixel_[i] = source + at.n * p_.source.batch + y_[i] * p_.source.row + x_[i] * p_.source.column;
    }
    filters_ = weight + (first_channel + row()) * p_.weight_result_channel;
    last_filter_ = p_.result_channels - first_channel - row();
  }

  // The first row and the place along the depth of what this thread copies.
  __device__ static int row() { return static_cast<int>(threadIdx.x) / slice_pieces; }
  __device__ static int piece() { return static_cast<int>(threadIdx.x) % slice_pieces; }

  // What a thread copies of a slice, besides the rows.
  struct Place {
    bool exists;
    int y, x;
    int64_t offset;
    const T* filter;
  };

  __device__ Place place(int slice) const {
    const int depth = slice * slice_depth<T> + piece() * piece_numbers<T>;
    const Tap tap = tiles::tap_of(depth, p_);
    const int y = tap.row * p_.rows.source_per_tap;
    const int x = tap.column * p_.columns.source_per_tap;
    return {depth < p_.depth, y, x, tap.channel + y * p_.source.row + x * p_.source.column,
            filters_ + tap.channel * p_.weight_source_channel +
                (p_.rows.first_tap + tap.row * p_.rows.tap_step) * p_.weight_row +
                (p_.columns.first_tap + tap.column * p_.columns.tap_step) * p_.weight_column};
  }

  // Starts a part of the copies; the lines of either slice lie so many numbers apart.
  __device__ void start(const Place& at, int part, T* left, int left_line, T* right, int right_line) const {
#pragma unroll
    for (int i = part; i < source_rows; i += copy_parts) {
      const bool inside =
          at.exists && is_below(y_[i] + at.y, p_.rows.source) && is_below(x_[i] + at.x, p_.columns.source);
      copy_async(left + i * copy_rows * left_line, pixel_[i] + at.offset, inside);
    }
#pragma unroll
    for (int i = part; i < filter_rows; i += copy_parts) {
      if (columns < copy_rows && row() >= columns) break;
      copy_async(right + i * copy_rows * right_line, at.filter + i * (copy_rows * p_.weight_result_channel),
                 at.exists && i * copy_rows < last_filter_);
    }
  }

 private:
  const Correlation& p_;
  const T* pixel_[source_rows];  // where tap 0 reads, inside the image or not
  int y_[source_rows], x_[source_rows];
  const T* filters_;
  int last_filter_;  // those from here on are none
};

// From shared memory, [row][column], neighbouring threads to neighbouring addresses.
template <class T, int columns, int line>
__device__ inline void store_tile(const Correlation& p, const Operands& operands, const T* tile,
                                  int first_pixel, int first_channel, bool again, const T* source,
                                  const T* weight, T* result) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool careful = operands.not_finite != nullptr && *operands.not_finite != 0;
  const auto address = [&](const Pixel& at) {
    return result + at.n * p.result.batch +
           (p.rows.first_result + at.row * p.rows.result_step) * p.result.row +
           (p.columns.first_result + at.column * p.columns.result_step) * p.result.column;
  };
  if (operands.result_in_pieces && !careful && !again) {
    constexpr int pieces = columns / piece_numbers<T>;
    const int column = thread % pieces * piece_numbers<T>;
    if (first_channel + column >= p.result_channels) return;
#pragma unroll 1
    for (int row = thread / pieces; row < block_rows; row += block_threads / pieces) {
      if (first_pixel + row >= p.pixels) return;
      T* to = address(tiles::pixel_of(first_pixel + row, p)) + first_channel + column;
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(tile + row * line + column);
    }
    return;
  }
  if (p.result_pixels_adjacent && !careful && !again) {
    const int row = thread % block_rows;
    if (first_pixel + row >= p.pixels) return;
    constexpr int step = block_threads / block_rows;
    int column = thread / block_rows;
    T* to = address(tiles::pixel_of(first_pixel + row, p)) + (first_channel + column) * p.result.channel;
    const int last =
        p.result_channels - first_channel < columns ? p.result_channels - first_channel : columns;
#pragma unroll 4
    for (; column < last; column += step, to += step * p.result.channel) *to = tile[row * line + column];
    return;
  }
#pragma unroll 1
  for (int k = thread; k < block_rows * columns; k += block_threads) {
    const int row = k / columns;
    const int column = k % columns;
    const int channel = first_channel + column;
    if (first_pixel + row >= p.pixels || channel >= p.result_channels) continue;
    const Pixel at = tiles::pixel_of(first_pixel + row, p);
    T value = tile[row * line + column];
    if (careful) value = narrow<T>(tiles::existing_terms(p, at, channel, source, weight));
    store(address(at) + channel * p.result.channel, value, again);
  }
}

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % piece_bytes == 0;
}

// The channels of a group of the result in whole pieces wherever they are stored.
inline bool is_in_pieces(const void* result, const Correlation& plan, int lanes) {
  const ImageStrides& s = plan.result;
  return s.channel == 1 && plan.result_channels % lanes == 0 && s.batch % lanes == 0 && s.row % lanes == 0 &&
         s.column % lanes == 0 && is_aligned(result);
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
