// Forward and the gradient of the input of depthwise problems with stride 1 whose few channels lie side by
// side in memory, as those of a colour image in channels_last. A row of pixels is one line of numbers whose
// taps are as many numbers apart as there are channels; so vectors run along it, full whatever that number
// is, and each has a vector of weights. These repeat after `period` vectors.
#pragma once

#include <type_traits>

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/interleaved_kernel.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct InterleavedPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t block_numbers = interleaved_vectors * lanes;

  bool is_forward;
  RowsAxis rows;
  RowsAxis columns;
  int64_t channels;
  int64_t period;
  int64_t taps;
  // Positions of the source ahead of the first one, which are zeros.
  int64_t before_rows;
  int64_t before_columns;
  int64_t tile_numbers;  // of a line
  int64_t column_tiles;
  // Rows that are `dilation` apart form a class, whose neighbours read neighbouring lines.
  int64_t row_classes;
  int64_t rows_of_class;
  int64_t band;
  int64_t bands;
  int64_t line_stride;

  int64_t workers_offset;  // the packed weights come first
  int64_t part_offset;     // in a worker's part, behind the lines
  int64_t worker_bytes;

  static int64_t period_of(int64_t channels) {
    int64_t period = 1;
    while (period * lanes % channels != 0) ++period;
    return period;
  }

  static bool fits(const ConvProblem& p) {
    constexpr int64_t most_channels = 8;
    constexpr int64_t most_weights = 16 * 1024 / sizeof(Real);  // half of an L1 cache
    if (p.pass == Pass::grad_weight || p.padding_mode != PaddingMode::zeros || p.groups < 2 ||
        p.groups > most_channels || in_channels_per_group(p) != 1 || out_channels_per_group(p) != 1)
      return false;
    const auto is_interleaved = [&](const ImageStrides& strides) {
      return strides.channel == 1 && strides.column == p.groups;
    };
    const int64_t period = period_of(p.groups);
    return (period == 1 || period == interleaved_vectors) && p.stride.height == 1 && p.stride.width == 1 &&
           is_interleaved(p.input_strides) && is_interleaved(p.output_strides) &&
           smaller(p.kernel.height, p.kernel.width) > 0 &&
           p.kernel.height * p.kernel.width <= smaller(block_terms, most_weights / (period * lanes));
  }

  explicit InterleavedPlan(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        channels(p.groups),
        period(period_of(channels)),
        taps(rows.kernel * columns.kernel) {
    // The gradient of the input is a forward pass with the taps reversed.
    const auto before = [&](const RowsAxis& axis) {
      return is_forward ? axis.before : (axis.kernel - 1) * axis.dilation - axis.before;
    };
    before_rows = before(rows);
    before_columns = before(columns);
    const int64_t numbers = (is_forward ? columns.output : columns.input) * channels;
    constexpr int64_t wide = 2048 / static_cast<int64_t>(sizeof(Real));
    tile_numbers = round_up(ceil_div(numbers, ceil_div(numbers, wide)), block_numbers);
    column_tiles = ceil_div(numbers, tile_numbers);
    line_stride =
        spread_stride<Real>(tile_numbers + (columns.kernel - 1) * columns.dilation * channels + lanes);
    const int64_t result_rows = is_forward ? rows.output : rows.input;
    row_classes = smaller(rows.dilation, result_rows);
    rows_of_class = ceil_div(result_rows, row_classes);
    constexpr int64_t scratch_bytes = 32 * 1024;
    const int64_t lines = scratch_bytes / (line_stride * static_cast<int64_t>(sizeof(Real)));
    constexpr int64_t highest = 64;
    band = smaller(highest, lines - rows.kernel + 1) / interleaved_rows * interleaved_rows;
    band = smaller(larger(2 * interleaved_rows, band), round_up(rows_of_class, interleaved_rows));
    bands = ceil_div(rows_of_class, band);
    Carver shared;
    shared.take((taps + 1) * period * lanes, sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    own.take((band + rows.kernel - 1) * line_stride, sizeof(Real));
    part_offset = own.take(std::is_same_v<T, Real> ? 0 : interleaved_rows * tile_numbers, sizeof(Real));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class InterleavedCorrelation {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  InterleavedCorrelation(const InterleavedPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                         void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        source_size(plan.is_forward ? p.input : p.output),
        result_size(plan.is_forward ? p.output : p.input),
        source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        packed(static_cast<Real*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset),
        streams(is_result_streamed<T>(p)) {}

  // False, with nothing written, if a weight is not finite and the gradient of the input is wanted: the zeros
  // that stand for outputs that do not exist would turn into NaN.
  bool run(const Executor& executor) {
    if (!pack_weights() && !plan.is_forward) return false;
    const int64_t tiles_of_class = plan.bands * plan.column_tiles;
    const int64_t tiles = plan.row_classes * tiles_of_class;
    for_each_tile(executor, p.batch * tiles, [&](int64_t index, int worker) {
      tile(index / tiles, index % tiles / tiles_of_class, index % tiles_of_class / plan.column_tiles,
           index % plan.column_tiles, scratch + worker * plan.worker_bytes);
      if (streams) finish_streams();
    });
    return true;
  }

 private:
  // [tap][vector of the period][lane], taps in the order in which they are added, then the bias. False if a
  // weight is not finite.
  bool pack_weights() const {
    const int64_t numbers = plan.period * lanes;
    const int64_t area = plan.taps;
    for (int64_t tap = 0; tap < area; ++tap) {
      const int64_t from = plan.is_forward ? tap : area - 1 - tap;
      const T* weights = weight + from / p.kernel.width * p.weight_strides.row +
                         from % p.kernel.width * p.weight_strides.column;
      for (int64_t k = 0; k < numbers; ++k)
        packed[tap * numbers + k] = widen(weights[k % plan.channels * p.weight_strides.out_channel]);
    }
    for (int64_t k = 0; k < numbers; ++k)
      packed[area * numbers + k] = bias == nullptr ? Real{} : widen(bias[k % plan.channels]);
    return all_finite(packed, area * numbers);
  }

  void tile(int64_t n, int64_t row_class, int64_t band, int64_t column_tile, char* own) const {
    const int64_t spread = plan.rows.dilation;
    const int64_t count = ceil_div(result_size.height - row_class, spread);
    const int64_t first = band * plan.band;
    const int64_t height = smaller(plan.band, count - first);
    const int64_t first_number = column_tile * plan.tile_numbers;
    const int64_t width = smaller(plan.tile_numbers, result_size.width * plan.channels - first_number);
    if (height <= 0) return;
    const int64_t first_row = row_class + first * spread;
    Real* lines = reinterpret_cast<Real*>(own);
    fill(lines, source + n * source_strides.batch, first_row - plan.before_rows,
         height + plan.rows.kernel - 1, first_number - plan.before_columns * plan.channels, width);

    InterleavedRows<Real> block;
    block.line_stride = plan.line_stride;
    block.row_taps = plan.rows.kernel;
    block.column_taps = plan.columns.kernel;
    block.tap_step = plan.columns.dilation * plan.channels;
    block.weights = packed;
    block.bias = packed + plan.taps * plan.period * lanes;
    T* target = result + n * result_strides.batch + first_row * result_strides.row + first_number;
    const int64_t target_stride = spread * result_strides.row;
    for (int64_t row = 0; row < height; row += interleaved_rows) {
      block.valid_rows = smaller(interleaved_rows, height - row);
      const Real* line = lines + row * plan.line_stride;
      if constexpr (std::is_same_v<T, Real>) {
        block.streams = streams;
        compute(block, line, width, target + row * target_stride, target_stride);
      } else {
        Real* part = reinterpret_cast<Real*>(own + plan.part_offset);
        compute(block, line, width, part, plan.tile_numbers);
        for (int64_t q = 0; q < block.valid_rows; ++q)
          store_line(target + (row + q) * target_stride, 1, part + q * plan.tile_numbers, width);
      }
    }
  }

  // `count` lines of every dilation-th row from first_row on, of the numbers that `width` results from
  // first_number on read.
  void fill(Real* line, const T* image, int64_t first_row, int64_t count, int64_t first_number,
            int64_t width) const {
    const int64_t length = round_up(width, plan.block_numbers) +
                           (plan.columns.kernel - 1) * plan.columns.dilation * plan.channels;
    const SourceAxis axis{source_size.width * plan.channels, 0, 0, PaddingMode::zeros};
    const LineSpan span(axis, length, first_number, 1);
    int64_t row = first_row;
    for (int64_t k = 0; k < count; ++k, row += plan.rows.dilation, line += plan.line_stride) {
      if (row < 0 || row >= source_size.height) {
        fill_zeros(line, 0, length);
      } else {
        fill_line<T>(line, image + row * source_strides.row, 1, axis, span);
      }
    }
  }

  void compute(InterleavedRows<Real>& block, const Real* line, int64_t width, Real* target,
               int64_t target_stride) const {
    block.target_stride = target_stride;
    for (int64_t k = 0; k < width; k += plan.block_numbers) {
      block.lines = line + k;
      block.target = target + k;
      block.valid_numbers = width - k;
      if (plan.period == 1) {
        interleaved_kernel<Real, 1>(block);
      } else {
        interleaved_kernel<Real, interleaved_vectors>(block);
      }
    }
  }

  const InterleavedPlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  Size2 source_size;
  Size2 result_size;
  ImageStrides source_strides;
  ImageStrides result_strides;
  Real* packed;
  char* scratch;
  bool streams;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
