// The gradient of the weight, plane by plane: each tap's gradient is the sum over all pixels of an output
// gradient times the input it meets. Bands of input lines are copied into scratch as in forward; a block of
// taps is summed in registers, a vector of pixels at a time.
//
// The pixels are cut into units (image, band of rows, piece of columns) of a limited number of terms
// in each lane. A unit's sums are added up in double, so the error does not grow with the image. Units are
// dealt into chunks, which workers share, and the chunks' sums are added in order: all of it follows from the
// shape.
#pragma once

#include "cpu/direct_rows/tap_lines.h"
#include "cpu/implicit_gemm/micro_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// `rows` output rows of a unit, and the lines that they read.
template <class Real>
struct PixelBlock {
  const Real* lines;
  int64_t line_stride;
  const Real* grad_output;
  int64_t grad_output_stride;
  int64_t rows;
  int64_t columns;
};

// Line `line` meets output row line - i at tap i, for taps lowest..highest.
template <class Real, int taps_down, int taps_across, int lowest, int highest>
CONVEXT_INLINE void add_pixels(Vector<Real> (&sum)[taps_down][taps_across], const Real* line,
                               const int64_t* offsets, const Real* grad_output, int64_t grad_output_stride,
                               int64_t columns) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> gradients[taps_down];
  int64_t x = 0;
  for (; x + lanes <= columns; x += lanes) {
    CONVEXT_UNROLL
    for (int i = lowest; i <= highest; ++i) gradients[i] = load(grad_output - i * grad_output_stride + x);
    CONVEXT_UNROLL
    for (int j = 0; j < taps_across; ++j) {
      const Vector<Real> values = load(line + offsets[j] + x);
      CONVEXT_UNROLL
      for (int i = lowest; i <= highest; ++i) sum[i][j] = fmadd(gradients[i], values, sum[i][j]);
    }
  }
  if (x == columns) return;
  // Both factors are masked: what lies behind the last column may be infinite.
  const int64_t rest = columns - x;
  CONVEXT_UNROLL
  for (int i = lowest; i <= highest; ++i) gradients[i] = load(grad_output - i * grad_output_stride + x, rest);
  CONVEXT_UNROLL
  for (int j = 0; j < taps_across; ++j) {
    const Vector<Real> values = load(line + offsets[j] + x, rest);
    CONVEXT_UNROLL
    for (int i = lowest; i <= highest; ++i) sum[i][j] = fmadd(gradients[i], values, sum[i][j]);
  }
}

template <class Real>
using TapKernel = void (*)(const PixelBlock<Real>& block, const int64_t* offsets, double* totals,
                           int64_t row_stride);

// totals[i * row_stride + j] += the sum over the block's pixels.
template <class Real, int taps_down, int taps_across>
void tap_kernel(const PixelBlock<Real>& block, const int64_t* offsets, double* totals, int64_t row_stride) {
  int64_t starts[taps_across];
  for (int j = 0; j < taps_across; ++j) starts[j] = offsets[j];
  Vector<Real> sum[taps_down][taps_across];
  CONVEXT_UNROLL
  for (int i = 0; i < taps_down; ++i) {
    CONVEXT_UNROLL
    for (int j = 0; j < taps_across; ++j) sum[i][j] = zero<Real>();
  }
  const Real* lines = block.lines;
  const Real* gradients = block.grad_output;
  for (int64_t line = 0; line < block.rows + taps_down - 1; ++line) {
    const int64_t lowest = larger(0, line - block.rows + 1);
    const int64_t highest = smaller(taps_down - 1, line);
#define CONVEXT_PIXELS(low, high)                                                       \
  case (low) * 3 + (high):                                                              \
    if constexpr ((high) < taps_down)                                                   \
      add_pixels<Real, taps_down, taps_across, low, ((high) < taps_down ? (high) : 0)>( \
          sum, lines, starts, gradients, block.grad_output_stride, block.columns);      \
    break;
    switch (lowest * 3 + highest) {
      CONVEXT_PIXELS(0, 0)
      CONVEXT_PIXELS(0, 1)
      CONVEXT_PIXELS(0, 2)
      CONVEXT_PIXELS(1, 1)
      CONVEXT_PIXELS(1, 2)
      CONVEXT_PIXELS(2, 2)
    }
#undef CONVEXT_PIXELS
    lines += block.line_stride;
    gradients += block.grad_output_stride;
  }
  CONVEXT_UNROLL
  for (int i = 0; i < taps_down; ++i) {
    CONVEXT_UNROLL
    for (int j = 0; j < taps_across; ++j)
      totals[i * row_stride + j] += convext::CONVEXT_ISA_NAMESPACE::sum(sum[i][j]);
  }
}

template <class Real, int taps_down, int taps_across>
TapKernel<Real> tap_kernel_across(int64_t wanted) {
  if constexpr (taps_across > 1) {
    if (wanted < taps_across) return tap_kernel_across<Real, taps_down, taps_across - 1>(wanted);
  }
  return tap_kernel<Real, taps_down, taps_across>;
}

// A single row of taps is wider, to have as many sums at a time.
constexpr int64_t most_taps_down = 3;
inline int64_t most_taps_across(int64_t taps_down) {
  return taps_down == 1 ? 8 : 4;
}

template <class Real>
TapKernel<Real> tap_kernel_of(int64_t taps_down, int64_t taps_across) {
  switch (taps_down) {
    case 1:
      return tap_kernel_across<Real, 1, 8>(taps_across);
    case 2:
      return tap_kernel_across<Real, 2, 4>(taps_across);
    default:
      return tap_kernel_across<Real, 3, 4>(taps_across);
  }
}

template <class T>
struct WeightGradientPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  RowsAxis rows;
  RowsAxis columns;
  int64_t groups;
  int64_t in_channels;  // of one group
  int64_t out_channels;
  int64_t kernel_area;

  int64_t row_classes;
  int64_t most_rows;
  int64_t band;
  int64_t bands;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t units;
  int64_t chunks;
  int64_t slot_stride;
  int64_t line_stride;
  int64_t run_stride;
  int64_t gradient_stride;

  int64_t workers_offset;  // the chunks' sums come first
  int64_t lines_offset;    // in a worker's part
  int64_t gradient_offset;
  int64_t offsets_offset;
  int64_t worker_bytes;

  explicit WeightGradientPlan(const ConvProblem& p)
      : rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        groups(p.groups),
        in_channels(in_channels_per_group(p)),
        out_channels(out_channels_per_group(p)),
        kernel_area(p.kernel.height * p.kernel.width) {
    row_classes = smaller(rows.spread, rows.output);
    most_rows = ceil_div(rows.output, rows.spread);
    constexpr int64_t wide = 1024 / static_cast<int64_t>(sizeof(Real));
    const int64_t pieces = ceil_div(columns.output, wide);
    tile_columns = ceil_div(columns.output, pieces);
    if (pieces > 1) tile_columns = round_up(tile_columns, lanes);
    column_tiles = ceil_div(columns.output, tile_columns);
    // Chains of about the square root of the number of terms: longer ones cost short sums accuracy.
    int64_t chain_terms = 16;
    while (chain_terms * chain_terms < rows.output * columns.output) chain_terms *= 2;
    chain_terms = smaller(chain_terms, block_terms);
    band = smaller(most_rows, larger(1, chain_terms / ceil_div(tile_columns, lanes)));
    band = ceil_div(most_rows, ceil_div(most_rows, band));  // bands of about equal height
    bands = ceil_div(most_rows, band);
    units = p.batch * row_classes * bands * column_tiles;

    // Enough chunks to share, but not so many that adding them up costs.
    constexpr int64_t worth_sharing = 64;
    constexpr int64_t most_sums = 1 << 20;
    chunks = smaller(units, ceil_div(worth_sharing, groups));
    chunks = larger(1, smaller(chunks, most_sums / weights()));

    slot_stride = round_up(tile_columns, lanes) + round_up((columns.run_taps(0) - 1) * columns.spread, lanes);
    line_stride = spread_stride<Real>(columns.runs() * slot_stride);
    run_stride = (band + rows.run_taps(0) - 1) * line_stride;
    gradient_stride = spread_stride<Real>(tile_columns);

    Carver shared;
    shared.take(chunks * weights(), sizeof(double));
    workers_offset = shared.bytes;
    Carver own;
    lines_offset = own.take(in_channels * rows.runs() * run_stride + lanes, sizeof(Real));
    gradient_offset = own.take(band * gradient_stride + lanes, sizeof(Real));
    offsets_offset = own.take(columns.kernel, sizeof(int64_t));
    worker_bytes = own.bytes;
  }

  int64_t weights() const { return groups * out_channels * in_channels * kernel_area; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class WeightGradient {
 public:
  using Real = Compute<T>;

  WeightGradient(const WeightGradientPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                 void* workspace)
      : plan(cut),
        p(problem),
        input(static_cast<const T*>(data.input)),
        grad_output(static_cast<const T*>(data.output)),
        grad_weight(static_cast<T*>(data.weight)),
        sums(static_cast<double*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset) {}

  void run(const Executor& executor) const {
    for_each_tile(executor, plan.groups * plan.chunks, [&](int64_t index, int worker) {
      const int64_t chunk = index / plan.groups;
      const int64_t group = index % plan.groups;
      const int64_t of_group = plan.weights() / plan.groups;
      double* totals = sums + chunk * plan.weights() + group * of_group;
      for (int64_t k = 0; k < of_group; ++k) totals[k] = 0;
      for (int64_t unit = plan.units * chunk / plan.chunks; unit < plan.units * (chunk + 1) / plan.chunks;
           ++unit)
        add_unit(unit, group, totals, worker);
    });
    add_chunks();
  }

 private:
  void add_unit(int64_t unit, int64_t group, double* totals, int worker) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const int64_t first_column = unit % plan.column_tiles * plan.tile_columns;
    const int64_t first_row = unit / plan.column_tiles % plan.bands * plan.band;
    const int64_t row_class = unit / plan.column_tiles / plan.bands % plan.row_classes;
    const int64_t n = unit / plan.column_tiles / plan.bands / plan.row_classes;
    const int64_t height = smaller(plan.band, ceil_div(rows.output - row_class, rows.spread) - first_row);
    if (height <= 0) return;

    char* own = scratch + worker * plan.worker_bytes;
    Real* lines = reinterpret_cast<Real*>(own + plan.lines_offset);
    Real* widened = reinterpret_cast<Real*>(own + plan.gradient_offset);
    int64_t* offsets = reinterpret_cast<int64_t*>(own + plan.offsets_offset);
    const int64_t y = row_class + first_row * rows.spread;
    const TapLines<T> tap_lines(rows, columns, plan.slot_stride, plan.line_stride, plan.run_stride);
    tap_lines.fill(lines,
                   input + n * p.input_strides.batch + group * plan.in_channels * p.input_strides.channel,
                   p.input_strides, plan.in_channels, y, height, first_column);
    tap_lines.set_offsets(offsets);

    PixelBlock<Real> block;
    block.line_stride = plan.line_stride;
    block.rows = height;
    block.columns = smaller(plan.tile_columns, columns.output - first_column);
    for (int64_t o = 0; o < plan.out_channels; ++o) {
      const T* gradient = grad_output + n * p.output_strides.batch +
                          (group * plan.out_channels + o) * p.output_strides.channel +
                          y * p.output_strides.row + first_column * p.output_strides.column;
      set_gradient(block, gradient, rows.spread * p.output_strides.row, widened);
      for (int64_t c = 0; c < plan.in_channels; ++c) {
        double* plane = totals + (o * plan.in_channels + c) * plan.kernel_area;
        for (int64_t u = 0; u < rows.runs(); ++u) {
          block.lines = lines + (c * rows.runs() + u) * plan.run_stride;
          add_run(block, offsets, plane + u * columns.kernel, rows.run_taps(u));
        }
      }
    }
  }

  // In place where it is made of vectors, else by way of scratch.
  void set_gradient(PixelBlock<Real>& block, const T* gradient, int64_t row_stride, Real* widened) const {
    if constexpr (std::is_same_v<T, Real>) {
      if (p.output_strides.column == 1) {
        block.grad_output = gradient;
        block.grad_output_stride = row_stride;
        return;
      }
    }
    const SourceAxis whole{block.columns, 0, 0, PaddingMode::zeros};
    const LineSpan span(whole, block.columns, 0, 1);
    for (int64_t row = 0; row < block.rows; ++row)
      fill_line<T>(widened + row * plan.gradient_stride, gradient + row * row_stride, p.output_strides.column,
                   whole, span);
    block.grad_output = widened;
    block.grad_output_stride = plan.gradient_stride;
  }

  // The taps of one run, in blocks; totals of its taps down are `period` rows of the kernel apart.
  void add_run(const PixelBlock<Real>& run, const int64_t* offsets, double* totals, int64_t taps) const {
    const int64_t row_stride = plan.rows.period * plan.columns.kernel;
    const int64_t down_blocks = ceil_div(taps, most_taps_down);
    for (int64_t d = 0; d < down_blocks; ++d) {
      const int64_t i = taps * d / down_blocks;
      const int64_t down = taps * (d + 1) / down_blocks - i;
      PixelBlock<Real> block = run;
      block.lines += i * block.line_stride;
      const int64_t across_blocks = ceil_div(plan.columns.kernel, most_taps_across(down));
      for (int64_t a = 0; a < across_blocks; ++a) {
        const int64_t j = plan.columns.kernel * a / across_blocks;
        const int64_t across = plan.columns.kernel * (a + 1) / across_blocks - j;
        tap_kernel_of<Real>(down, across)(block, offsets + j, totals + i * row_stride + j, row_stride);
      }
    }
  }

  void add_chunks() const {
    const WeightStrides& strides = p.weight_strides;
    const double* sum = sums;
    for (int64_t o = 0; o < p.out_channels; ++o) {
      for (int64_t c = 0; c < plan.in_channels; ++c) {
        for (int64_t i = 0; i < p.kernel.height; ++i) {
          for (int64_t j = 0; j < p.kernel.width; ++j, ++sum) {
            double total = 0;
            for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) total += sum[chunk * plan.weights()];
            grad_weight[o * strides.out_channel + c * strides.in_channel + i * strides.row +
                        j * strides.column] = narrow<T>(static_cast<Real>(total));
          }
        }
      }
    }
  }

  const WeightGradientPlan<T>& plan;
  const ConvProblem& p;
  const T* input;
  const T* grad_output;
  T* grad_weight;
  double* sums;
  char* scratch;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
