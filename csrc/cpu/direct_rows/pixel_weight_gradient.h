// The gradient of the weight of channels_last depthwise problems: a vector of channels for a few taps at a
// time, summed over pixels. Cut into units and chunks as in weight_gradient.h.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/pixel_tap_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PixelWeightGradientPlan {
  using Real = Compute<T>;
  static constexpr int64_t block = channel_block<T>;

  RowsAxis rows;
  RowsAxis columns;
  int64_t channels;
  int64_t blocks;
  int64_t kernel_area;

  int64_t sum_rows;  // rows whose sums may share an accumulator
  int64_t band;
  int64_t bands;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t units;
  int64_t chunks;
  int64_t line_pixels;
  int64_t lines;

  int64_t workers_offset;   // the chunks' sums come first
  int64_t gradient_offset;  // in a worker's part, behind the lines
  int64_t offsets_offset;
  int64_t worker_bytes;

  explicit PixelWeightGradientPlan(const ConvProblem& p)
      : rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        channels(p.in_channels),
        blocks(ceil_div(channels, block)),
        kernel_area(p.kernel.height * p.kernel.width) {
    // Narrow enough for the lines that a few taps read to stay in the L1 cache.
    const int64_t widest = columns.kernel > 3 ? 32 : 64;
    column_tiles = ceil_div(columns.output, widest);
    tile_columns = ceil_div(columns.output, column_tiles);
    line_pixels = (tile_columns - 1) * columns.stride + (columns.kernel - 1) * columns.dilation + 1;
    constexpr int64_t cached_bytes = 28 * 1024;
    const int64_t row_bytes =
        (line_pixels * rows.stride + tile_columns) * block * static_cast<int64_t>(sizeof(Real));
    sum_rows = larger(1, smaller(block_terms / tile_columns, cached_bytes / row_bytes));
    constexpr int64_t highest = 16;
    band = smaller(rows.output, larger(highest, rows.kernel));
    band = ceil_div(rows.output, ceil_div(rows.output, band));
    bands = ceil_div(rows.output, band);
    units = p.batch * bands * column_tiles;
    constexpr int64_t worth_sharing = 64;
    constexpr int64_t most_sums = 1 << 20;
    chunks = smaller(units, ceil_div(worth_sharing, blocks));
    chunks = larger(1, smaller(chunks, most_sums / (blocks * sums_of_block())));

    lines = (band - 1) * rows.stride + (rows.kernel - 1) * rows.dilation + 1;
    Carver shared;
    shared.take(chunks * blocks * sums_of_block(), sizeof(double));
    workers_offset = shared.bytes;
    Carver own;
    own.take(lines * line_pixels * block, sizeof(Real));
    gradient_offset = own.take(band * tile_columns * block, sizeof(Real));
    offsets_offset = own.take(kernel_area, sizeof(int64_t));
    worker_bytes = own.bytes;
  }

  int64_t sums_of_block() const { return kernel_area * block; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class PixelWeightGradient {
 public:
  using Real = Compute<T>;
  static constexpr int64_t block = channel_block<T>;

  PixelWeightGradient(const PixelWeightGradientPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                      void* workspace)
      : plan(cut),
        p(problem),
        input(static_cast<const T*>(data.input)),
        grad_output(static_cast<const T*>(data.output)),
        grad_weight(static_cast<T*>(data.weight)),
        sums(static_cast<double*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset) {}

  void run(const Executor& executor) const {
    for_each_tile(executor, plan.blocks * plan.chunks, [&](int64_t index, int worker) {
      const int64_t chunk = index / plan.blocks;
      const int64_t channels = index % plan.blocks;
      double* totals = sums + index * plan.sums_of_block();
      for (int64_t k = 0; k < plan.sums_of_block(); ++k) totals[k] = 0;
      for (int64_t unit = plan.units * chunk / plan.chunks; unit < plan.units * (chunk + 1) / plan.chunks;
           ++unit)
        add_unit(unit, channels, totals, worker);
      if (plan.chunks == 1) add_chunks(channels);
    });
    if (plan.chunks == 1) return;
    constexpr int64_t worth_sharing = 1 << 15;
    const bool share = plan.chunks * plan.blocks * plan.sums_of_block() > worth_sharing;
    for_each_tile(share ? executor : Executor{}, plan.blocks,
                  [&](int64_t channels, int) { add_chunks(channels); });
  }

 private:
  void add_unit(int64_t unit, int64_t index, double* totals, int worker) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const int64_t first_column = unit % plan.column_tiles * plan.tile_columns;
    const int64_t first_row = unit / plan.column_tiles % plan.bands * plan.band;
    const int64_t n = unit / plan.column_tiles / plan.bands;
    const int64_t height = smaller(plan.band, rows.output - first_row);
    const int64_t width = smaller(plan.tile_columns, columns.output - first_column);
    if (height <= 0 || width <= 0) return;

    char* own = scratch + worker * plan.worker_bytes;
    Real* lines = reinterpret_cast<Real*>(own);
    Real* gradient = reinterpret_cast<Real*>(own + plan.gradient_offset);
    int64_t* offsets = reinterpret_cast<int64_t*>(own + plan.offsets_offset);
    const int64_t channels = smaller(block, plan.channels - index * block);
    const int64_t line_stride = plan.line_pixels * block;
    const int64_t gradient_stride = plan.tile_columns * block;

    const SourceAxis source_rows{rows.input, rows.before, rows.after, rows.mode};
    const SourceAxis source_columns{columns.input, columns.before, columns.after, columns.mode};
    const PixelImage<T> input_image{p.input_strides, channels};
    input_image.read(input + n * p.input_strides.batch + index * block * p.input_strides.channel, lines,
                     plan.line_pixels, source_rows, source_columns, first_row * rows.stride - rows.before,
                     (height - 1) * rows.stride + (rows.kernel - 1) * rows.dilation + 1,
                     first_column * columns.stride - columns.before, false);
    const SourceAxis gradient_rows{height, 0, 0, PaddingMode::zeros};
    const SourceAxis gradient_columns{width, 0, 0, PaddingMode::zeros};
    const PixelImage<T> output_image{p.output_strides, channels};
    output_image.read(grad_output + n * p.output_strides.batch + index * block * p.output_strides.channel +
                          first_row * p.output_strides.row + first_column * p.output_strides.column,
                      gradient, plan.tile_columns, gradient_rows, gradient_columns, 0, height, 0, false);
    set_offsets(offsets);

    TapPixels<Real> pixels;
    pixels.line_stride = rows.stride * line_stride;
    pixels.step = columns.stride * block;
    pixels.block = block;
    pixels.grad_output_stride = gradient_stride;
    pixels.columns = width;
    for (int64_t row = 0; row < height; row += plan.sum_rows) {
      pixels.rows = smaller(plan.sum_rows, height - row);
      for (int64_t c = 0; c < channels; c += Vector<Real>::lanes) {
        pixels.lines = lines + row * pixels.line_stride + c;
        pixels.grad_output = gradient + row * gradient_stride + c;
        const int64_t tap_blocks = ceil_div(plan.kernel_area, most_pixel_taps);
        for (int64_t t = 0; t < tap_blocks; ++t) {
          const int64_t tap = plan.kernel_area * t / tap_blocks;
          const int64_t taps = plan.kernel_area * (t + 1) / tap_blocks - tap;
          pixel_tap_kernel_of<Real>(taps)(pixels, offsets + tap, totals + tap * block + c);
        }
      }
    }
  }

  // Where the lines of tap (i, j) begin.
  void set_offsets(int64_t* offsets) const {
    for (int64_t i = 0; i < p.kernel.height; ++i) {
      const int64_t line = i * plan.rows.dilation * plan.line_pixels * block;
      for (int64_t j = 0; j < p.kernel.width; ++j) *offsets++ = line + j * plan.columns.dilation * block;
    }
  }

  // The chunks' sums of one block of channels, in order.
  void add_chunks(int64_t index) const {
    const WeightStrides& strides = p.weight_strides;
    const int64_t channels = smaller(block, plan.channels - index * block);
    T* target = grad_weight + index * block * strides.out_channel;
    const double* sum = sums + index * plan.sums_of_block();
    for (int64_t i = 0; i < p.kernel.height; ++i) {
      for (int64_t j = 0; j < p.kernel.width; ++j, sum += block) {
        double totals[block] = {};
        for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
          const double* part = sum + chunk * plan.blocks * plan.sums_of_block();
          for (int64_t c = 0; c < block; ++c) totals[c] += part[c];
        }
        T* tap = target + i * strides.row + j * strides.column;
        for (int64_t c = 0; c < channels; ++c)
          tap[c * strides.out_channel] = narrow<T>(static_cast<Real>(totals[c]));
      }
    }
  }

  const PixelWeightGradientPlan<T>& plan;
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
