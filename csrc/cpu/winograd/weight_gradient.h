// The gradient of the weight by Winograd's convolution F(3 x 3, 2 x 2), for each block of the kernel: of a
// tile of 2 x 2 outputs and the 4 x 4 inputs that they read, both transformed, 16 products are added up over
// all tiles of all images instead of 36, and a last transform makes the nine gradients of them:
//
//     sums[place][o][c] = sum over the tiles of output[place][tile][o] * input[place][tile][c]
//
// An item is a block of output and input channels for a block of the kernel and a chunk of the tiles. The
// transforms have channels in their lanes, whatever the layout (lines.h); the products are those of
// panel_gemm.
//
// What Winograd's products cannot do as well as direct summation is left to the implicit_gemm kernel: where a
// result is not finite, since past the edge of the gradient an infinite input would meet a zero, and where
// the numbers are not even in size (evenness.h).
#pragma once

#include <atomic>

#include "cpu/winograd/lines.h"
#include "cpu/winograd/transforms.h"
#include "cpu/winograd/weight_gradient_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Tile, class T>
class WinogradWeightGradient {
 public:
  using Real = Compute<T>;

  WinogradWeightGradient(const WeightGradientPlan<Tile, Real>& cut, const ConvProblem& given,
                         const ConvData& tensors, void* workspace)
      : plan(cut),
        problem(given),
        data(tensors),
        input(static_cast<const T*>(tensors.input)),
        output(static_cast<const T*>(tensors.output)),
        gradient(static_cast<T*>(tensors.weight)),
        scratch(static_cast<char*>(workspace)) {}

  static int64_t workspace_bytes(const ConvProblem& problem, int workers) {
    return larger(WeightGradientPlan<Tile, Real>(problem, workers).workspace_bytes(workers),
                  Evenness<Tile, T>::workspace_bytes(problem, workers));
  }

  // False, with nothing usable written, where the numbers are not for this algorithm.
  bool run(const Executor& executor) {
    // Its workspace lies over the one of the products.
    if (!Evenness<Tile, T>(problem, data, scratch, executor.workers).are_even(executor)) return false;
    for_each_tile(executor, plan.items(), [&](int64_t index, int worker) {
      Item item;
      item.vector_part = index % plan.vector_parts;
      index /= plan.vector_parts;
      item.row_part = index % plan.row_parts;
      index /= plan.row_parts;
      item.kernel = plan.kernel_blocks.at(index % plan.kernel_blocks.size());
      index /= plan.kernel_blocks.size();
      item.chunk = index % plan.chunks;
      item.group = index / plan.chunks;
      run_item(item, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
    if (plan.chunks > 1) {
      const int64_t kernels = plan.groups * plan.kernel_blocks.size();
      for_each_tile(executor, kernels * plan.units(), [&](int64_t index, int) {
        const int64_t first = index % plan.units() * Plan::rows_of_unit;
        const int64_t last = smaller(first + Plan::rows_of_unit, plan.output.channels);
        index /= plan.units();
        const KernelBlock kernel = plan.kernel_blocks.at(index % plan.kernel_blocks.size());
        for (int64_t row = first; row < last; ++row)
          add_up_chunks(index / plan.kernel_blocks.size(), kernel, row);
      });
    }
    return is_finite.load(std::memory_order_relaxed);
  }

 private:
  using Plan = WeightGradientPlan<Tile, Real>;
  static constexpr int64_t lanes = Plan::lanes;
  using Rows = typename Tile::Rows;
  using Columns = typename Tile::Columns;
  static constexpr int products = Tile::products;
  static constexpr int tap_count = Tile::taps;
  struct Item {
    int64_t group;
    int64_t chunk;
    KernelBlock kernel;
    int64_t row_part;
    int64_t vector_part;
  };

  const Plan& plan;
  const ConvProblem& problem;
  const ConvData& data;
  const T* input;
  const T* output;
  T* gradient;
  char* scratch;
  std::atomic<bool> is_finite{true};

  Real* partial_at(int64_t chunk, int64_t group, const KernelBlock& kernel, int64_t row,
                   int64_t vector) const {
    const int64_t block = (chunk * plan.groups + group) * plan.kernel_blocks.size() + kernel.index;
    return reinterpret_cast<Real*>(scratch + plan.partials_offset) +
           (block * plan.output.channels + row) * plan.partial_row() + vector * tap_count * lanes;
  }

  void run_item(const Item& item, char* own) {
    Real* const sums = reinterpret_cast<Real*>(own + plan.sums_offset);
    const int64_t first_row = plan.first_row(item.row_part);
    const int64_t rows = plan.first_row(item.row_part + 1) - first_row;
    const int64_t first_vector = plan.first_vector(item.vector_part);
    const int64_t vectors = plan.first_vector(item.vector_part + 1) - first_vector;
    const int64_t first_tile = item.chunk * plan.tiles_of_chunk;
    const int64_t last_tile = smaller(plan.grid.tiles, first_tile + plan.tiles_of_chunk);
    for (int64_t tile = first_tile; tile < last_tile; tile += plan.block) {
      const int64_t tiles = smaller(plan.block, last_tile - tile);
      transform_output(item, tile, tiles, first_row, rows, own);
      transform_input(item, tile, tiles, first_vector, vectors, own);
      multiply(item.kernel, rows, vectors, tiles, tile > first_tile, own);
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t v = 0; v < vectors; ++v) {
        Vector<Real> taps[tap_count];
        transform_back(sums + row * plan.column_stride + v * lanes, taps);
        if (plan.chunks == 1) {
          store_taps(taps, item.group, item.kernel, first_row + row, first_vector + v);
          continue;
        }
        Real* const to = partial_at(item.chunk, item.group, item.kernel, first_row + row, first_vector + v);
        CONVEXT_UNROLL
        for (int tap = 0; tap < tap_count; ++tap) store(to + tap * lanes, taps[tap]);
      }
    }
  }

  // output[place][tile][channel]
  void transform_output(const Item& item, int64_t first_tile, int64_t tiles, int64_t first_row, int64_t rows,
                        char* own) {
    Real* const transformed = reinterpret_cast<Real*>(own + plan.output_offset);
    const int64_t all = larger(rows, most_rows_of_tile);  // zeros, if a tile is not full
    const ImageStrides& strides = problem.output_strides;
    for (int64_t row = 0; row < all; row += lanes) {
      const int64_t channel = first_row + row;
      const int64_t channels = larger(0, smaller(lanes, rows - row));
      TileLines<OutputsOf<Rows>, OutputsOf<Columns>, T> lines(
          output + (item.group * plan.output.channels + channel) * strides.channel, strides, plan.output.rows,
          plan.output.columns, reinterpret_cast<Real*>(own + plan.lines_offset));
      plan.grid.for_each_segment(first_tile, tiles, [&](const Segment& segment) {
        lines.read(segment, channels);
        Real* to = transformed + segment.begin * plan.row_stride + row;
        for (int64_t tile = 0; tile < segment.tiles; ++tile, to += plan.row_stride) {
          Vector<Real> y[Rows::outputs][Columns::outputs];
          load_tile(lines.rows, tile, y);
          Vector<Real> u[Rows::inputs][Columns::inputs];
          transform_output_gradients<Tile>(y, u);
          store_tile(u, to, plan.output_plane);
        }
      });
    }
  }

  // input[place][panel][tile][channel of the panel]
  void transform_input(const Item& item, int64_t first_tile, int64_t tiles, int64_t first_vector,
                       int64_t vectors, char* own) {
    Real* const transformed = reinterpret_cast<Real*>(own + plan.input_offset);
    const ImageStrides& strides = problem.input_strides;
    const int64_t panels = panels_of(vectors);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t begin = vectors_before(vectors, panel);
      const int64_t width = vectors_before(vectors, panel + 1) - begin;
      for (int64_t v = 0; v < width; ++v) {
        const int64_t channel = (first_vector + begin + v) * lanes;
        TileLines<Rows, Columns, T> lines(
            input + (item.group * plan.input.channels + channel) * strides.channel, strides,
            plan.input.rows.from_tap(item.kernel.rows.first),
            plan.input.columns.from_tap(item.kernel.columns.first),
            reinterpret_cast<Real*>(own + plan.lines_offset));
        plan.grid.for_each_segment(first_tile, tiles, [&](const Segment& segment) {
          lines.read(segment, smaller(lanes, plan.input.channels - channel));
          Real* to = transformed + (begin * tiles + segment.begin * width + v) * lanes;
          for (int64_t tile = 0; tile < segment.tiles; ++tile, to += width * lanes) {
            Vector<Real> d[Rows::inputs][Columns::inputs];
            load_tile(lines.rows, tile, d);
            Vector<Real> u[Rows::inputs][Columns::inputs];
            transform_inputs<Tile>(d, u);
            store_tile(u, to, plan.input_plane);
          }
        });
      }
    }
  }

  template <int height, int width>
  CONVEXT_INLINE static void load_tile(const Real* const (&rows)[height], int64_t tile,
                                       Vector<Real> (&values)[height][width]) {
    CONVEXT_UNROLL
    for (int row = 0; row < height; ++row) {
      CONVEXT_UNROLL
      for (int column = 0; column < width; ++column)
        values[row][column] = load(rows[row] + (tile * Columns::outputs + column) * lanes);
    }
  }

  CONVEXT_INLINE static void store_tile(const Vector<Real> (&values)[Rows::inputs][Columns::inputs], Real* to,
                                        int64_t stride) {
    CONVEXT_UNROLL
    for (int row = 0; row < Rows::inputs; ++row) {
      CONVEXT_UNROLL
      for (int column = 0; column < Columns::inputs; ++column)
        store(to + (row * Columns::inputs + column) * stride, values[row][column]);
    }
  }

  static int64_t panels_of(int64_t vectors) { return ceil_div(vectors, most_vectors_of_tile); }
  static int64_t vectors_before(int64_t vectors, int64_t panel) {
    return panel * vectors / panels_of(vectors);
  }

  void multiply(const KernelBlock& kernel, int64_t rows, int64_t vectors, int64_t tiles, bool accumulate,
                char* own) const {
    const int64_t all = larger(rows, most_rows_of_tile);
    const int64_t row_tiles = ceil_div(all, most_rows_of_tile);
    for (int64_t place = 0; place < products; ++place) {
      if (!plan.kernel_blocks.has_product(kernel, place)) continue;
      const Real* const of_output =
          reinterpret_cast<const Real*>(own + plan.output_offset) + place * plan.output_plane;
      Real* const of_input = reinterpret_cast<Real*>(own + plan.input_offset) + place * plan.input_plane;
      Real* const sums = reinterpret_cast<Real*>(own + plan.sums_offset) + place * plan.sums_plane;
      for (int64_t panel = 0; panel < panels_of(vectors); ++panel) {
        const int64_t begin = vectors_before(vectors, panel);
        PanelTile<Real> tile;
        tile.a_row = 1;
        tile.a_term = plan.row_stride;
        tile.panel = of_input + begin * tiles * lanes;
        tile.c_row = plan.column_stride;
        tile.terms = tiles;
        tile.chain = plan.chain;
        tile.accumulate = accumulate;
        for (int64_t index = 0; index < row_tiles; ++index) {
          const int64_t row = index * all / row_tiles;
          const int64_t height = (index + 1) * all / row_tiles - row;
          tile.a = of_output + row;
          tile.c = sums + row * plan.column_stride + begin * lanes;
          micro_kernel_of<Real, false>(height, vectors_before(vectors, panel + 1) - begin)(tile);
        }
      }
    }
  }

  // Of one output channel and a vector of input channels.
  CONVEXT_INLINE void transform_back(const Real* sums, Vector<Real> (&taps)[tap_count]) const {
    Vector<Real> m[Rows::inputs][Columns::inputs];
    CONVEXT_UNROLL
    for (int place = 0; place < products; ++place)
      m[place / Columns::inputs][place % Columns::inputs] = load(sums + place * plan.sums_plane);
    Vector<Real> g[Rows::taps][Columns::taps];
    transform_weight_gradients<Tile>(m, g);
    const Vector<Real> scale = broadcast(static_cast<Real>(Tile::scale));
    CONVEXT_UNROLL
    for (int tap = 0; tap < tap_count; ++tap)
      taps[tap] = mul(scale, g[tap / Columns::taps][tap % Columns::taps]);
  }

  void add_up_chunks(int64_t group, const KernelBlock& kernel, int64_t row) {
    for (int64_t vector = 0; vector < plan.input.vectors(); ++vector) {
      Vector<Real> taps[tap_count];
      for (int tap = 0; tap < tap_count; ++tap) {
        taps[tap] = load(partial_at(0, group, kernel, row, vector) + tap * lanes);
        for (int64_t chunk = 1; chunk < plan.chunks; ++chunk)
          taps[tap] = add(taps[tap], load(partial_at(chunk, group, kernel, row, vector) + tap * lanes));
      }
      store_taps(taps, group, kernel, row, vector);
    }
  }

  // Those that the block of the kernel owns; the others are not usable numbers.
  CONVEXT_INLINE void store_taps(const Vector<Real> (&taps)[tap_count], int64_t group,
                                 const KernelBlock& kernel, int64_t row, int64_t vector) {
    const WeightStrides& strides = problem.weight_strides;
    const int64_t channels = smaller(lanes, plan.input.channels - vector * lanes);
    T* const to = gradient + (group * plan.output.channels + row) * strides.out_channel +
                  vector * lanes * strides.in_channel + kernel.rows.first * strides.row +
                  kernel.columns.first * strides.column;
    const auto owns = [&](int tap) { return kernel.owns(tap / Columns::taps, tap % Columns::taps); };
    const auto place = [&](int tap) {
      return tap / Columns::taps * strides.row + tap % Columns::taps * strides.column;
    };
    Vector<Real> product_with_zero = zero<Real>();
    CONVEXT_UNROLL
    for (int tap = 0; tap < tap_count; ++tap)
      if (owns(tap)) product_with_zero = fmadd(taps[tap], zero<Real>(), product_with_zero);
    if (!(sum(product_with_zero) == 0)) is_finite.store(false, std::memory_order_relaxed);
    if (strides.in_channel == 1) {
      CONVEXT_UNROLL
      for (int tap = 0; tap < tap_count; ++tap)
        if (owns(tap)) store_narrowed(to + place(tap), taps[tap], channels);
      return;
    }
    if (plan.kernel_blocks.size() == 1 && strides.column == 1 && strides.row == Columns::taps)
      return store_transposed(taps, channels, to);
    Real numbers[tap_count][lanes];
    for (int tap = 0; tap < tap_count; ++tap) store(numbers[tap], taps[tap]);
    for (int64_t c = 0; c < channels; ++c) {
      for (int tap = 0; tap < tap_count; ++tap)
        if (owns(tap)) to[c * strides.in_channel + place(tap)] = narrow<T>(numbers[tap][c]);
    }
  }

  // The taps of each channel side by side.
  CONVEXT_INLINE void store_transposed(const Vector<Real> (&taps)[tap_count], int64_t channels, T* to) const {
    const int64_t stride = problem.weight_strides.in_channel;
    // Taps in vectors; the last one of many vectors is alone.
    constexpr int64_t whole =
        lanes > tap_count || tap_count % lanes > 1 ? tap_count : tap_count / lanes * lanes;
    CONVEXT_UNROLL
    for (int64_t first = 0; first < whole; first += lanes) {
      Vector<Real> square[lanes];
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) square[i] = first + i < tap_count ? taps[first + i] : zero<Real>();
      transpose(square);
      CONVEXT_UNROLL
      for (int64_t c = 0; c < lanes; ++c) {
        if (c < channels)
          store_narrowed(to + c * stride + first, square[c], smaller(lanes, tap_count - first));
      }
    }
    if constexpr (whole < tap_count) {
      Real last[lanes];
      store(last, taps[whole]);
      for (int64_t c = 0; c < channels; ++c) to[c * stride + whole] = narrow<T>(last[c]);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
