// The gradient of the weight by Winograd's convolution F(3 x 3, 2 x 2): of a tile of 2 x 2 outputs and the
// 4 x 4 inputs that they read, both transformed, 16 products are added up over all tiles of all images
// instead of 36, and a last transform makes the nine gradients of them:
//
//     sums[place][o][c] = sum over the tiles of output[place][tile][o] * input[place][tile][c]
//
// An item is a block of output and input channels for a chunk of the tiles. The transforms have channels in
// their lanes, whatever the layout (lines.h); the products are those of panel_gemm.
//
// What Winograd's products cannot do as well as direct summation is left to the implicit_gemm kernel: where a
// result is not finite, since past the edge of the gradient an infinite input would meet a zero; and where
// the numbers of a channel are not even in size, since rounding errors are those of a whole tile while the
// error bound counts the terms of one tap. That is, where one pixel, or the pixels at even or odd rows and
// columns, make up too little or too much of a channel, as in a gradient that is zero but for a few pixels.
#pragma once

#include <atomic>

#include "cpu/winograd/lines.h"
#include "cpu/winograd/transforms.h"
#include "cpu/winograd/weight_gradient_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class WinogradWeightGradient {
 public:
  using Real = Compute<T>;

  WinogradWeightGradient(const WeightGradientPlan<Real>& cut, const ConvProblem& given, const ConvData& data,
                         void* workspace)
      : plan(cut),
        problem(given),
        input(static_cast<const T*>(data.input)),
        output(static_cast<const T*>(data.output)),
        gradient(static_cast<T*>(data.weight)),
        scratch(static_cast<char*>(workspace)) {}

  // False, with nothing usable written, where the numbers are not for this algorithm.
  bool run(const Executor& executor) {
    for_each_tile(executor, plan.items(), [&](int64_t index, int worker) {
      Item item;
      item.vector_part = index % plan.vector_parts;
      index /= plan.vector_parts;
      item.row_part = index % plan.row_parts;
      index /= plan.row_parts;
      item.chunk = index % plan.chunks;
      item.group = index / plan.chunks;
      run_item(item, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
    if (!are_even()) return false;
    for_each_tile(executor, plan.groups * plan.units(), [&](int64_t index, int) {
      const int64_t first = index % plan.units() * Plan::rows_of_unit;
      const int64_t last = smaller(first + Plan::rows_of_unit, plan.output.channels);
      for (int64_t row = first; row < last; ++row) store_row(index / plan.units(), row);
    });
    return is_finite.load(std::memory_order_relaxed);
  }

 private:
  using Plan = WeightGradientPlan<Real>;
  using Operand = typename Plan::Operand;
  static constexpr int64_t lanes = Plan::lanes;
  static constexpr int inputs = Plan::inputs;
  static constexpr int outputs = Plan::outputs;
  static constexpr int products = Plan::products;
  // Of the sum of a channel's absolute values, the largest share of one pixel, and of the largest sum of the
  // pixels at even or odd rows and columns, the smallest share of the others.
  static constexpr int64_t pixel_limit = 16;
  static constexpr int64_t phase_ratio = 16;

  struct Item {
    int64_t group;
    int64_t chunk;
    int64_t row_part;
    int64_t vector_part;
  };

  const Plan& plan;
  const ConvProblem& problem;
  const T* input;
  const T* output;
  T* gradient;
  char* scratch;
  std::atomic<bool> is_finite{true};

  Real* partial_at(int64_t chunk, int64_t group, int64_t row) const {
    return reinterpret_cast<Real*>(scratch + plan.partials_offset) +
           ((chunk * plan.groups + group) * plan.output.channels + row) * plan.partial_row();
  }

  // Of a vector of channels of the output, or after those of the input.
  Real* sizes_at(int64_t chunk, int64_t group, int64_t vector) const {
    const int64_t vectors = plan.output.vectors() + plan.input.vectors();
    return reinterpret_cast<Real*>(scratch + plan.sizes_offset) +
           ((chunk * plan.groups + group) * vectors + vector) * Plan::sizes_of_vector;
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
      multiply(rows, vectors, tiles, tile > first_tile, own);
    }
    for (int64_t row = 0; row < rows; ++row) {
      Real* const to = partial_at(item.chunk, item.group, first_row + row) + first_vector * lanes;
      for (int64_t v = 0; v < vectors; ++v)
        transform_back(sums + row * plan.column_stride + v * lanes, to + v * lanes);
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
      TileLines<outputs, outputs, T> lines(
          output + (item.group * plan.output.channels + channel) * strides.channel, strides, plan.output.rows,
          plan.output.columns, reinterpret_cast<Real*>(own + plan.lines_offset));
      Sizes sizes;
      plan.grid.for_each_segment(first_tile, tiles, [&](const Segment& segment) {
        lines.read(segment, channels);
        Real* to = transformed + segment.begin * plan.row_stride + row;
        for (int64_t tile = 0; tile < segment.tiles; ++tile, to += plan.row_stride) {
          Vector<Real> y[outputs][outputs];
          load_tile(lines.rows, tile, y);
          sizes.add(y[0][0], y[0][1], y[1][0], y[1][1]);
          Vector<Real> u[inputs][inputs];
          transform_output_gradients<TileOfTwo>(y, u);
          store_tile(u, to, plan.block * plan.row_stride);
        }
      });
      if (item.vector_part == 0 && channels > 0)
        sizes.store_at(sizes_at(item.chunk, item.group, channel / lanes),
                       first_tile % plan.tiles_of_chunk > 0);
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
        TileLines<inputs, outputs, T> lines(
            input + (item.group * plan.input.channels + channel) * strides.channel, strides, plan.input.rows,
            plan.input.columns, reinterpret_cast<Real*>(own + plan.lines_offset));
        Sizes sizes;
        plan.grid.for_each_segment(first_tile, tiles, [&](const Segment& segment) {
          lines.read(segment, smaller(lanes, plan.input.channels - channel));
          Real* to = transformed + (begin * tiles + segment.begin * width + v) * lanes;
          for (int64_t tile = 0; tile < segment.tiles; ++tile, to += width * lanes) {
            Vector<Real> d[inputs][inputs];
            load_tile(lines.rows, tile, d);
            sizes.add(d[1][1], d[1][2], d[2][1], d[2][2]);
            sizes.add_border(d);
            Vector<Real> u[inputs][inputs];
            transform_inputs<TileOfTwo>(d, u);
            store_tile(u, to, plan.block * plan.column_stride);
          }
        });
        if (item.row_part == 0) {
          sizes.store_at(sizes_at(item.chunk, item.group, plan.output.vectors() + channel / lanes),
                         first_tile % plan.tiles_of_chunk > 0);
        }
      }
    }
  }

  template <int side>
  CONVEXT_INLINE static void load_tile(const Real* const (&rows)[side], int64_t tile,
                                       Vector<Real> (&values)[side][side]) {
    CONVEXT_UNROLL
    for (int row = 0; row < side; ++row) {
      CONVEXT_UNROLL
      for (int column = 0; column < side; ++column)
        values[row][column] = load(rows[row] + (tile * outputs + column) * lanes);
    }
  }

  CONVEXT_INLINE static void store_tile(const Vector<Real> (&values)[inputs][inputs], Real* to,
                                        int64_t stride) {
    CONVEXT_UNROLL
    for (int row = 0; row < inputs; ++row) {
      CONVEXT_UNROLL
      for (int column = 0; column < inputs; ++column)
        store(to + (row * inputs + column) * stride, values[row][column]);
    }
  }

  static int64_t panels_of(int64_t vectors) { return ceil_div(vectors, most_vectors_of_tile); }
  static int64_t vectors_before(int64_t vectors, int64_t panel) {
    return panel * vectors / panels_of(vectors);
  }

  void multiply(int64_t rows, int64_t vectors, int64_t tiles, bool accumulate, char* own) const {
    const int64_t all = larger(rows, most_rows_of_tile);
    const int64_t row_tiles = ceil_div(all, most_rows_of_tile);
    for (int64_t place = 0; place < products; ++place) {
      const Real* const of_output =
          reinterpret_cast<const Real*>(own + plan.output_offset) + place * plan.block * plan.row_stride;
      Real* const of_input =
          reinterpret_cast<Real*>(own + plan.input_offset) + place * plan.block * plan.column_stride;
      Real* const sums =
          reinterpret_cast<Real*>(own + plan.sums_offset) + place * plan.row_stride * plan.column_stride;
      for (int64_t panel = 0; panel < panels_of(vectors); ++panel) {
        const int64_t begin = vectors_before(vectors, panel);
        Tile<Real> tile;
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
  void transform_back(const Real* sums, Real* to) const {
    Vector<Real> m[inputs][inputs];
    CONVEXT_UNROLL
    for (int place = 0; place < products; ++place)
      m[place / inputs][place % inputs] = load(sums + place * plan.row_stride * plan.column_stride);
    Vector<Real> g[3][3];
    transform_weight_gradients<TileOfTwo>(m, g);
    const Vector<Real> scale = broadcast(static_cast<Real>(TileOfTwo::scale));
    CONVEXT_UNROLL
    for (int tap = 0; tap < 9; ++tap)
      store(to + tap * plan.input.vectors() * lanes, mul(scale, g[tap / 3][tap % 3]));
  }

  // Adds up the chunks.
  void store_row(int64_t group, int64_t row) {
    const WeightStrides& strides = problem.weight_strides;
    const int64_t tap_stride = plan.input.vectors() * lanes;
    const int64_t step = plan.groups * plan.output.channels * plan.partial_row();
    const Real* from = partial_at(0, group, row);
    T* to = gradient + (group * plan.output.channels + row) * strides.out_channel;
    Vector<Real> product_with_zero = zero<Real>();
    for (int64_t channel = 0; channel < plan.input.channels; channel += lanes, from += lanes) {
      const int64_t channels = smaller(lanes, plan.input.channels - channel);
      Real numbers[9][lanes];
      for (int tap = 0; tap < 9; ++tap) {
        Vector<Real> sum = load(from + tap * tap_stride);
        for (int64_t chunk = 1; chunk < plan.chunks; ++chunk)
          sum = add(sum, load(from + tap * tap_stride + chunk * step));
        product_with_zero = fmadd(sum, zero<Real>(), product_with_zero);
        if (strides.in_channel == 1) {
          store_narrowed(to + tap / 3 * strides.row + tap % 3 * strides.column, sum, channels);
        } else {
          store(numbers[tap], sum);
        }
      }
      if (strides.in_channel != 1) {
        for (int64_t c = 0; c < channels; ++c) {
          for (int tap = 0; tap < 9; ++tap) {
            to[c * strides.in_channel + tap / 3 * strides.row + tap % 3 * strides.column] =
                narrow<T>(numbers[tap][c]);
          }
        }
      }
      to += lanes * strides.in_channel;
    }
    if (!(sum(product_with_zero) == 0)) is_finite.store(false, std::memory_order_relaxed);
  }

  // How large the pixels of a vector of channels are.
  struct Sizes {
    Vector<Real> of_phase[4] = {zero<Real>(), zero<Real>(), zero<Real>(), zero<Real>()};
    Vector<Real> largest = zero<Real>();

    // The pixels of a tile at even and odd rows and columns. No pixel is one of two tiles.
    CONVEXT_INLINE void add(Vector<Real> a, Vector<Real> b, Vector<Real> c, Vector<Real> d) {
      const Vector<Real> pixels[4] = {absolute(a), absolute(b), absolute(c), absolute(d)};
      CONVEXT_UNROLL
      for (int k = 0; k < 4; ++k) {
        of_phase[k] = CONVEXT_ISA_NAMESPACE::add(of_phase[k], pixels[k]);
        largest = maximum(largest, pixels[k]);
      }
    }

    // Pixels that are of another tile, or of none at the edges of images without padding.
    CONVEXT_INLINE void add_border(const Vector<Real> (&d)[inputs][inputs]) {
      CONVEXT_UNROLL
      for (int k = 0; k < inputs; ++k) {
        largest = maximum(largest, absolute(d[0][k]));
        largest = maximum(largest, absolute(d[inputs - 1][k]));
      }
      CONVEXT_UNROLL
      for (int k = 1; k < inputs - 1; ++k) {
        largest = maximum(largest, absolute(d[k][0]));
        largest = maximum(largest, absolute(d[k][inputs - 1]));
      }
    }

    void store_at(Real* to, bool adds) {
      for (int k = 0; k < 4; ++k) {
        if (adds) of_phase[k] = CONVEXT_ISA_NAMESPACE::add(load(to + k * lanes), of_phase[k]);
        store(to + k * lanes, of_phase[k]);
      }
      if (adds) largest = maximum(load(to + 4 * lanes), largest);
      store(to + 4 * lanes, largest);
    }
  };

  bool are_even() const {
    for (int64_t group = 0; group < plan.groups; ++group) {
      for (int64_t vector = 0; vector < plan.output.vectors() + plan.input.vectors(); ++vector) {
        if (!is_even(group, vector)) return false;
      }
    }
    return true;
  }

  bool is_even(int64_t group, int64_t vector) const {
    Real sizes[5][lanes];
    for (int k = 0; k < 5; ++k) {
      Vector<Real> all = load(sizes_at(0, group, vector) + k * lanes);
      for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) {
        const Vector<Real> of_chunk = load(sizes_at(chunk, group, vector) + k * lanes);
        all = k < 4 ? add(all, of_chunk) : maximum(all, of_chunk);
      }
      store(sizes[k], all);
    }
    for (int64_t lane = 0; lane < lanes; ++lane) {
      Real least = sizes[0][lane], most = sizes[0][lane], total = 0;
      for (int k = 0; k < 4; ++k) {
        least = sizes[k][lane] < least ? sizes[k][lane] : least;
        most = sizes[k][lane] > most ? sizes[k][lane] : most;
        total += sizes[k][lane];
      }
      if (!(pixel_limit * sizes[4][lane] <= total && most <= phase_ratio * least)) return false;
    }
    return true;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
