// forward and grad_input on tensor cores: see tiles/correlation.cuh for the matrices.
#include "cuda/tensor_cores/launch.h"
#include "cuda/tensor_cores/multiply.cuh"
#include "cuda/tensor_cores/packing.h"
#include "cuda/tiles/correlation.cuh"

namespace convext {
namespace cuda {
namespace mma {
namespace {

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

// The rows of the source that a thread copies pieces of.
template <class T>
struct SourceRows {
  static constexpr int count = block_rows / copy_rows;

  const T* pixel[count];  // where tap 0 reads, inside the image or not
  int y[count], x[count];

  __device__ SourceRows(const Correlation& p, const T* source, int first_pixel) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const int index = first_pixel + static_cast<int>(threadIdx.x) / slice_pieces + i * copy_rows;
      const Pixel at = tiles::pixel_of(index < p.pixels ? index : 0, p);
      // Rows behind the last pixel are outside the image.
      y[i] = index < p.pixels ? p.rows.origin + at.row * p.rows.source_per_result : -(1 << 30);
      x[i] = p.columns.origin + at.column * p.columns.source_per_result;
      pixel[i] = source + at.n * p.source.batch + y[i] * p.source.row + x[i] * p.source.column;
    }
  }
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
  // A thread keeps to its pixel where pixels are adjacent, else to its channel.
  const bool along_rows = p.result_pixels_adjacent;
#pragma unroll 1
  for (int k = thread; k < block_rows * columns; k += block_threads) {
    const int row = along_rows ? k % block_rows : k / columns;
    const int column = along_rows ? k / block_rows : k % columns;
    const int channel = first_channel + column;
    if (first_pixel + row >= p.pixels || channel >= p.result_channels) continue;
    const Pixel at = tiles::pixel_of(first_pixel + row, p);
    T value = tile[row * line + column];
    if (careful) value = narrow<T>(tiles::existing_terms(p, at, channel, source, weight));
    store(address(at) + channel * p.result.channel, value, again);
  }
}

template <class Kind, int columns>
struct Layouts {
  using T = Stored<Kind>;
  using Left = Slice<T, Order::depth_inside, block_rows>;
  using Right = Slice<T, Order::depth_inside, columns>;
  using Both = Slices<Left, Right>;
  // Of the result: columns, and a piece more for the banks' sake.
  static constexpr int result_line = columns + piece_numbers<T>;
  static constexpr int64_t slice_bytes = int64_t{stages} * sizeof(Both);
  static constexpr int64_t result_bytes = int64_t{block_rows} * result_line * sizeof(T);
  static constexpr int64_t shared_bytes = slice_bytes > result_bytes ? slice_bytes : result_bytes;
};

template <class Kind, int columns>
__global__ void __launch_bounds__(block_threads, columns == 128 ? 1 : 2)
    correlate(Correlation p, Operands operands, const Stored<Kind>* source, const Stored<Kind>* weight,
              const Stored<Kind>* bias, Stored<Kind>* result) {
  using T = Stored<Kind>;
  using Both = typename Layouts<Kind, columns>::Both;
  using Sums = Products<Kind, block_rows, columns>;
  CONVEXT_DYNAMIC_SHARED(memory);
  const int thread = static_cast<int>(threadIdx.x);
  const int pixel_tile = quotient(static_cast<int>(blockIdx.x), p.by_column_tiles);
  const int first_channel = (static_cast<int>(blockIdx.x) - pixel_tile * p.column_tiles) * columns;
  const int first_pixel = pixel_tile * block_rows;
  const int64_t group = blockIdx.y;
  source += group * p.source_channels * p.source.channel;
  weight += group * p.weight_group;
  result += group * p.result_channels * p.result.channel;

  // A second turn where split numbers gave what is not finite.
#pragma unroll 1
  for (int turn = 0; turn < 2; ++turn) {
    Sums sums;
    sums.clear(turn == 1);
    const SourceRows<T> rows(p, source, first_pixel);
    const int row = thread / slice_pieces;
    const int piece = thread % slice_pieces * piece_numbers<T>;
    const int last_filter = p.result_channels - first_channel - row;  // and those behind it are none
    const T* const filters = weight + (first_channel + row) * p.weight_result_channel;
    const int64_t filter_step = copy_rows * p.weight_result_channel;
    const auto load = [&](Both& slices, int slice) {
      const int depth = slice * slice_depth<T> + piece;
      const bool exists = depth < p.depth;
      const Tap tap = tiles::tap_of(depth, p);
      const int y = tap.row * p.rows.source_per_tap;
      const int x = tap.column * p.columns.source_per_tap;
      const int64_t offset = tap.channel + y * p.source.row + x * p.source.column;
      T* to = slices.left.at(row, piece);
#pragma unroll
      for (int i = 0; i < SourceRows<T>::count; ++i) {
        const bool inside =
            exists && is_below(rows.y[i] + y, p.rows.source) && is_below(rows.x[i] + x, p.columns.source);
        copy_async(to + i * copy_rows * Both::left_line, rows.pixel[i] + offset, inside);
      }
      const T* from = filters + tap.channel * p.weight_source_channel +
                      (p.rows.first_tap + tap.row * p.rows.tap_step) * p.weight_row +
                      (p.columns.first_tap + tap.column * p.columns.tap_step) * p.weight_column;
      to = slices.right.at(row, piece);
#pragma unroll
      for (int i = 0; i < (columns + copy_rows - 1) / copy_rows; ++i, from += filter_step) {
        if (columns < copy_rows && row >= columns) break;
        copy_async(to + i * copy_rows * Both::right_line, from, exists && i * copy_rows < last_filter);
      }
    };
    run_pipeline(reinterpret_cast<Both*>(memory), (p.depth + slice_depth<T> - 1) / slice_depth<T>, load,
                 [&](Both& slices) { sums.add_slice(slices); });
    sums.end_chain();
    const bool again = Sums::splits && turn == 0 && __syncthreads_or(sums.all_finite() ? 0 : 1) != 0;

    constexpr int line = Layouts<Kind, columns>::result_line;
    T* tile = reinterpret_cast<T*>(memory);  // [row][column]
#pragma unroll
    for (int n = 0; n < Sums::column_tiles; ++n) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int column = Sums::column_of(n, k);
        const int channel = first_channel + column;
        float shift = 0;
        if (bias != nullptr && channel < p.result_channels)
          shift = widen(bias[group * p.result_channels + channel]);
#pragma unroll
        for (int m = 0; m < Sums::row_tiles; ++m) {
          tile[Sums::row_of(m, k) * line + column] = narrow<T>(sums.total[m][n][k] + shift);
          tile[Sums::row_of(m, 2 + k) * line + column] = narrow<T>(sums.total[m][n][2 + k] + shift);
        }
      }
    }
    __syncthreads();
    store_tile<T, columns, line>(p, operands, tile, first_pixel, first_channel, turn == 1, source, weight,
                                 result);
    if (!again) return;
    __syncthreads();  // the tile has been read
  }
}

bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % piece_bytes == 0;
}

// The channels of a group of the result in whole pieces wherever they are stored.
bool is_in_pieces(const void* result, const Correlation& plan, int lanes) {
  const ImageStrides& s = plan.result;
  return s.channel == 1 && plan.result_channels % lanes == 0 && s.batch % lanes == 0 && s.row % lanes == 0 &&
         s.column % lanes == 0 && is_aligned(result);
}

template <class Kind, int columns>
const char* launch_class(const ConvProblem& p, const Packing& packing, const ConvData& data, const int* flag,
                         int row_class, int column_class, void* stream) {
  using T = Stored<Kind>;
  Correlation plan = tiles::correlation_of(p, row_class, column_class, columns);
  if (plan.pixels == 0) return nullptr;
  plan.weight_group = packing.weight_group;
  const auto* source = static_cast<const T*>(plan.gradient ? data.output : data.input);
  auto* result = static_cast<T*>(plan.gradient ? data.input : data.output);
  const auto* weight = static_cast<const T*>(data.weight);
  const Operands operands{is_in_pieces(result, plan, piece_numbers<T>), plan.gradient ? flag : nullptr};
  const int64_t pixel_tiles = (int64_t{plan.pixels} + block_rows - 1) / block_rows;
  return launch(correlate<Kind, columns>, Grid{pixel_tiles * plan.column_tiles, p.groups}, block_threads,
                Layouts<Kind, columns>::shared_bytes, stream, plan, operands, source, weight,
                p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr, result);
}

template <class Kind>
const char* launch_as(const Packing& packing, const ConvData& data, const int* flag, void* stream) {
  const ConvProblem& p = packing.problem;
  const int64_t channels = p.pass == Pass::grad_input ? in_channels_per_group(p) : out_channels_per_group(p);
  return tiles::for_each_class(p, [&](int row_class, int column_class) {
    const auto run = [&](auto columns) {
      return launch_class<Kind, decltype(columns)::value>(p, packing, data, flag, row_class, column_class,
                                                          stream);
    };
    if (channels <= 16) return run(std::integral_constant<int, 16>{});
    if (channels <= 32) return run(std::integral_constant<int, 32>{});
    if (channels <= 64) return run(std::integral_constant<int, 64>{});
    return run(std::integral_constant<int, 128>{});
  });
}

}  // namespace

int64_t correlation_workspace_bytes(const ConvProblem& problem) {
  const Packing packing = packing_of(problem);
  return packing.copies_input || packing.copies_weight || packing.copies_output ? packing.bytes() : 0;
}

const char* launch_correlation(const ConvProblem& problem, const ConvData& data, void* workspace,
                               void* stream) {
  const Packing packing = packing_of(problem);
  ConvData packed = data;
  const char* error = launch_packing(problem, packing, workspace, &packed, stream);
  if (error != nullptr) return error;
  const int* flag = static_cast<const int*>(workspace);
  switch (problem.dtype) {
    case DType::bfloat16:
      return launch_as<BFloat16>(packing, packed, flag, stream);
    case DType::float16:
      return launch_as<Float16>(packing, packed, flag, stream);
    default:
      return problem.precision == Float32Precision::high
                 ? launch_as<Tf32>(packing, packed, flag, stream)
                 : launch_as<SplitFloat>(packing, packed, flag, stream);
  }
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
