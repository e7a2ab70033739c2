// Forward and the gradient of the input of channels_last depthwise problems (one input and one output channel
// a group): each worker copies a block of channels of a band of pixels into scratch, padding resolved and
// widened, and correlates it with a block of the weights, transposed to [tap][channel].
#pragma once

#include <atomic>

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/pixel_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Pixels of a row that one tile computes, at most.
constexpr int64_t pixels_of_tile = 64;

template <class T>
struct PixelCorrelationPlan {
  using Real = Compute<T>;
  static constexpr int64_t block = channel_block<T>;

  bool is_forward;
  RowsAxis rows;
  RowsAxis columns;
  int64_t channels;
  int64_t blocks;
  int64_t kernel_area;

  int64_t row_runs;
  int64_t row_classes;
  int64_t band;
  int64_t bands;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t line_pixels;
  int64_t run_stride;

  int64_t workers_offset;  // the packed weights and bias come first
  int64_t bias_offset;
  int64_t offsets_offset;  // in a worker's part, behind the lines
  int64_t worker_bytes;

  explicit PixelCorrelationPlan(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        channels(p.in_channels),
        blocks(ceil_div(channels, block)),
        kernel_area(p.kernel.height * p.kernel.width) {
    row_runs = is_forward ? rows.runs() : 1;
    const int64_t result_rows = is_forward ? rows.output : rows.input;
    const int64_t result_columns = is_forward ? columns.output : columns.input;
    const int64_t residues = is_forward ? 1 : rows.stride;
    row_classes = residues * smaller(rows.spread, ceil_div(result_rows, residues));
    const int64_t most_rows = ceil_div(result_rows, residues * rows.spread);
    column_tiles = ceil_div(result_columns, pixels_of_tile);
    tile_columns = round_up(ceil_div(result_columns, column_tiles), pixels_of_kernel);
    if (is_forward) {
      line_pixels = (tile_columns - 1) * columns.stride + (columns.kernel - 1) * columns.dilation + 1;
    } else {
      const int64_t longest_delay = (columns.kernel - 1) * columns.dilation / columns.stride;
      line_pixels =
          longest_delay + 1 + round_up(ceil_div(tile_columns, columns.stride) + 1, pixels_of_kernel);
    }
    const int64_t line_bytes = line_pixels * block * static_cast<int64_t>(sizeof(Real)) * row_runs;
    constexpr int64_t scratch_bytes = 128 * 1024;
    band = larger(4, smaller(64, scratch_bytes / line_bytes - rows.run_taps(0) + 1));
    band = smaller(band, most_rows);
    bands = ceil_div(most_rows, band);
    run_stride = (band + rows.run_taps(0) - 1) * line_pixels * block;

    Carver shared;
    shared.take(blocks * kernel_area * block, sizeof(Real));
    bias_offset = shared.take(blocks * block, sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    own.take(row_runs * run_stride, sizeof(Real));
    offsets_offset = own.take(columns.kernel, sizeof(int64_t));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class PixelCorrelation {
 public:
  using Real = Compute<T>;
  static constexpr int64_t block = channel_block<T>;

  PixelCorrelation(const PixelCorrelationPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                   void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        source_rows{plan.is_forward ? p.input.height : p.output.height, plan.is_forward ? p.padding.top : 0,
                    plan.is_forward ? p.padding.bottom : 0,
                    plan.is_forward ? p.padding_mode : PaddingMode::zeros},
        source_columns{plan.is_forward ? p.input.width : p.output.width, plan.is_forward ? p.padding.left : 0,
                       plan.is_forward ? p.padding.right : 0, source_rows.mode},
        row_residues(plan.rows),
        column_residues(plan.columns),
        packed(static_cast<Real*>(workspace)),
        packed_bias(reinterpret_cast<Real*>(static_cast<char*>(workspace) + plan.bias_offset)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset) {}

  // False, with nothing written, if a weight is not finite and the gradient of the input is wanted: the zeros
  // that stand for outputs that do not exist would turn into NaN.
  bool run(const Executor& executor) {
    constexpr int64_t worth_sharing = 1 << 15;
    std::atomic<bool> all_finite{true};
    const bool share = plan.channels * plan.kernel_area > worth_sharing;
    for_each_tile(share ? executor : Executor{}, plan.blocks, [&](int64_t index, int) {
      if (!pack_block(index)) all_finite.store(false, std::memory_order_relaxed);
    });
    if (!plan.is_forward && !all_finite.load(std::memory_order_relaxed)) return false;
    const int64_t tiles = plan.row_classes * plan.bands * plan.column_tiles;
    // Neighbouring blocks of channels come from the same memory pages: they are the innermost index.
    for_each_tile(executor, p.batch * tiles * plan.blocks, [&](int64_t index, int worker) {
      tile(index / plan.blocks / tiles, index % plan.blocks, index / plan.blocks % tiles, worker);
    });
    return true;
  }

 private:
  int64_t block_channels(int64_t index) const { return smaller(block, plan.channels - index * block); }

  // [tap][channel], taps in the order in which the micro-kernel reads them: runs of taps down in forward, and
  // for the gradient of the input by pairs of residues, reversed. False if one is not finite.
  bool pack_block(int64_t index) {
    Real not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    const int64_t channels = block_channels(index);
    const T* from = weight + index * block * p.weight_strides.out_channel;
    Real* to = packed + index * plan.kernel_area * block;
    const auto pack_tap = [&](int64_t i, int64_t j) {
      const T* tap = from + i * p.weight_strides.row + j * p.weight_strides.column;
      for (int64_t c = 0; c < block; ++c) {
        const Real value = c < channels ? widen(tap[c * p.weight_strides.out_channel]) : Real{};
        not_finite += value * 0;
        *to++ = value;
      }
    };
    if (plan.is_forward) {
      for (int64_t u = 0; u < plan.row_runs; ++u)
        for (int64_t m = 0; m < plan.rows.run_taps(u); ++m)
          for (int64_t j = 0; j < plan.columns.kernel; ++j) pack_tap(u + m * plan.rows.period, j);
    } else {
      for (int64_t a = 0; a < plan.rows.stride; ++a) {
        for (int64_t b = 0; b < plan.columns.stride; ++b) {
          const Residue& row = row_residues.residues[a];
          const Residue& column = column_residues.residues[b];
          for (int64_t m = 0; m < row.taps; ++m)
            for (int64_t k = 0; k < column.taps; ++k)
              pack_tap(row.last_tap - m * plan.rows.period, column.last_tap - k * plan.columns.period);
        }
      }
    }
    for (int64_t c = 0; c < block; ++c) {
      packed_bias[index * block + c] =
          bias == nullptr || c >= channels ? Real{} : widen(bias[index * block + c]);
    }
    return not_finite == 0;
  }

  // Lines for source rows first, first + step, ... and pixels from first_column on.
  void fill(Real* target, const T* plane, int64_t first, int64_t step, int64_t count, int64_t first_column,
            int64_t channels) const {
    for (int64_t k = 0; k < count; ++k, target += plan.line_pixels * block) {
      const int64_t row = source_rows.resolve(first + k * step);
      if (row < 0) {
        fill_zeros(target, 0, plan.line_pixels * block);
      } else {
        fill_pixels<T>(target, plan.line_pixels, plane + row * source_strides.row, source_strides.column,
                       source_columns, first_column, channels);
      }
    }
  }

  void tile(int64_t n, int64_t index, int64_t tile_index, int worker) const {
    char* own = scratch + worker * plan.worker_bytes;
    Real* lines = reinterpret_cast<Real*>(own);
    int64_t* offsets = reinterpret_cast<int64_t*>(own + plan.offsets_offset);
    const int64_t first_column = tile_index % plan.column_tiles * plan.tile_columns;
    const int64_t first_row = tile_index / plan.column_tiles % plan.bands * plan.band;
    const int64_t row_class = tile_index / plan.column_tiles / plan.bands;
    const T* plane = source + n * source_strides.batch + index * block * source_strides.channel;
    T* target = result + n * result_strides.batch + index * block * result_strides.channel;
    PixelRow<T> row;
    row.line_stride = plan.line_pixels * block;
    row.run_stride = plan.run_stride;
    row.offsets = offsets;
    row.bias = packed_bias + index * block;
    row.weights = packed + index * plan.kernel_area * block;
    if (plan.is_forward) {
      forward_tile(row, plane, target, lines, offsets, row_class, first_row, first_column,
                   block_channels(index));
    } else {
      gradient_tile(row, plane, target, lines, offsets, row_class, first_row, first_column,
                    block_channels(index));
    }
  }

  void forward_tile(PixelRow<T>& row, const T* plane, T* target, Real* lines, int64_t* offsets,
                    int64_t row_class, int64_t first_row, int64_t first_column, int64_t channels) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const int64_t height = smaller(plan.band, ceil_div(rows.output - row_class, rows.spread) - first_row);
    const int64_t width = smaller(plan.tile_columns, columns.output - first_column);
    if (height <= 0 || width <= 0) return;
    const int64_t y = row_class + first_row * rows.spread;
    for (int64_t u = 0; u < plan.row_runs; ++u) {
      fill(lines + u * plan.run_stride, plane, y * rows.stride + u * rows.dilation - rows.before,
           rows.stride * rows.spread, height + rows.run_taps(u) - 1,
           first_column * columns.stride - columns.before, channels);
    }
    for (int64_t j = 0; j < columns.kernel; ++j) offsets[j] = j * columns.dilation * block;
    row.runs = plan.row_runs;
    row.long_taps = rows.run_taps(0);
    row.long_runs = rows.kernel - (row.long_taps - 1) * rows.period;
    row.columns = columns.kernel;
    row.step = columns.stride * block;
    correlate(row, lines, target + y * result_strides.row + first_column * result_strides.column,
              rows.spread * result_strides.row, result_strides.column, height, width, channels);
  }

  void gradient_tile(PixelRow<T>& row, const T* plane, T* target, Real* lines, int64_t* offsets,
                     int64_t row_class, int64_t first_row, int64_t first_column, int64_t channels) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const PaddedPositions all_rows(rows.before, rows.before + rows.input, row_class % rows.stride,
                                   rows.stride);
    const int64_t a = row_class / rows.stride;
    const int64_t height =
        smaller(plan.band, ceil_div(all_rows.end - all_rows.begin - a, rows.spread) - first_row);
    const int64_t width = smaller(plan.tile_columns, columns.input - first_column);
    if (height <= 0 || width <= 0) return;
    const Residue& row_residue = row_residues.residues[row_class % rows.stride];
    const int64_t first = all_rows.begin + a + first_row * rows.spread;
    const int64_t longest_delay = (columns.kernel - 1) * columns.dilation / columns.stride;
    const int64_t begin = columns.before + first_column;
    const int64_t first_pixel = begin / columns.stride - longest_delay;
    if (row_residue.taps > 0) {
      fill(lines, plane, first - row_residue.delay, rows.spread, height + row_residue.taps - 1, first_pixel,
           channels);
    }
    row.runs = row.long_runs = 1;
    row.long_taps = row_residue.taps;
    row.step = block;
    const Real* weights = row.weights;
    const int64_t result_row = first * rows.stride + row_class % rows.stride - rows.before;
    for (int64_t b = 0; b < columns.stride; ++b) {
      const PaddedPositions wanted(begin, begin + width, b, columns.stride);
      if (wanted.begin >= wanted.end) continue;
      const Residue& residue = column_residues.residues[b];
      for (int64_t m = 0; m < residue.taps; ++m) offsets[m] = m * columns.spread * block;
      row.columns = residue.taps;
      row.weights = weights + block * (row_residue.taps_before * columns.kernel +
                                       row_residue.taps * residue.taps_before);
      const int64_t result_column = wanted.begin * columns.stride + b - columns.before;
      correlate(row, lines + (wanted.begin - residue.delay - first_pixel) * block,
                target + result_row * result_strides.row + result_column * result_strides.column,
                rows.stride * rows.spread * result_strides.row, columns.stride * result_strides.column,
                height, wanted.end - wanted.begin, channels);
    }
  }

  void correlate(PixelRow<T>& row, const Real* lines, T* target, int64_t row_stride, int64_t column_stride,
                 int64_t height, int64_t width, int64_t channels) const {
    constexpr int64_t lanes = Vector<Real>::lanes;
    const auto kernel = row.step == block ? pixel_kernel<T, true> : pixel_kernel<T, false>;
    const Real* weights = row.weights;
    const Real* block_bias = row.bias;
    row.target_stride = column_stride;
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; x += pixels_of_kernel) {
        row.pixels = smaller(pixels_of_kernel, width - x);
        for (int64_t c = 0; c < channels; c += lanes) {
          row.channels = channels - c;
          row.lines = lines + y * row.line_stride + x * row.step + c;
          row.target = target + y * row_stride + x * column_stride + c;
          row.weights = weights + c;
          row.bias = block_bias + c;
          kernel(row);
        }
      }
    }
    row.weights = weights;
    row.bias = block_bias;
  }

  const PixelCorrelationPlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  ImageStrides source_strides;
  ImageStrides result_strides;
  SourceAxis source_rows;
  SourceAxis source_columns;
  ResidueTable row_residues;
  ResidueTable column_residues;
  Real* packed;
  Real* packed_bias;
  char* scratch;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
