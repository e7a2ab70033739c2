// How plane_correlation.h cuts a problem, and the workspace that it needs. Nothing here changes a result.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/row_kernel.h"
#include "cpu/direct_rows/segments.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PlaneCorrelationPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t longest_segment = 32;

  bool is_forward;
  bool folds;  // the gradient of padding that was read from the input is added to the input's
  RowsAxis rows;
  RowsAxis columns;
  int64_t groups;
  int64_t source_channels;  // of one group
  int64_t result_channels;
  int64_t kernel_area;

  int64_t row_runs;
  int64_t long_taps;  // of the first run
  int64_t row_classes;
  int64_t most_rows;  // of a class
  Segments<Real> segments;
  int64_t band;  // rows of a class in one tile
  int64_t tile_columns;
  int64_t bands;
  int64_t column_tiles;
  int64_t slots;
  int64_t slot_stride;
  int64_t line_stride;
  int64_t run_stride;
  int64_t part_stride;
  int64_t folded_stride;

  int64_t workers_offset;  // the packed weights come first
  int64_t lines_offset;    // in a worker's part
  int64_t part_offset;
  int64_t folded_offset;
  int64_t offsets_offset;
  int64_t whole_offset;
  int64_t worker_bytes;

  explicit PlaneCorrelationPlan(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        folds(!is_forward && p.padding_mode != PaddingMode::zeros),
        rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        groups(p.groups),
        source_channels(is_forward ? in_channels_per_group(p) : out_channels_per_group(p)),
        result_channels(is_forward ? out_channels_per_group(p) : in_channels_per_group(p)),
        kernel_area(p.kernel.height * p.kernel.width) {
    row_runs = is_forward ? rows.runs() : 1;
    long_taps = rows.run_taps(0);
    const int64_t result_rows = is_forward ? rows.output : rows.input;
    const int64_t result_columns = is_forward ? columns.output : columns.input;
    const int64_t residues = is_forward ? 1 : rows.stride;
    row_classes = residues * smaller(rows.spread, ceil_div(result_rows, residues));
    most_rows = ceil_div(result_rows, residues * rows.spread);

    const bool is_cut = cuts_lines(result_columns);
    const int64_t wide =
        is_cut ? longest_segment * segments.count : 1024 / static_cast<int64_t>(sizeof(Real));
    const int64_t pieces = folds ? 1 : larger(1, ceil_div(result_columns, wide));
    tile_columns = larger(1, ceil_div(result_columns, pieces));
    if (pieces > 1) tile_columns = round_up(tile_columns, row_kernel_vectors * lanes);
    if (is_cut) {
      segments.length = ceil_div(tile_columns, segments.count);
      segments.reach = (columns.kernel - 1) * columns.spread;
      tile_columns = segments.length * segments.count;
    }
    column_tiles = ceil_div(result_columns, tile_columns);

    if (is_forward) {
      slots = columns.runs();
      slot_stride =
          round_up(tile_columns, lanes) + round_up((columns.run_taps(0) - 1) * columns.spread, lanes);
    } else {
      const int64_t longest_delay = (columns.kernel - 1) * columns.dilation / columns.stride;
      const int64_t positions = ceil_div(folds ? columns.padded() : tile_columns, columns.stride) + 1;
      slots = 1;
      slot_stride = longest_delay + 1 + round_up(positions, lanes);
    }
    if (is_cut) slot_stride = segments.cut_numbers();
    line_stride = spread_stride<Real>(slots * slot_stride);

    const int64_t scratch_bytes = (is_cut ? 192 : 24) * 1024;
    const int64_t line_bytes =
        line_stride * static_cast<int64_t>(sizeof(Real)) * larger(1, source_channels) * row_runs;
    band = scratch_bytes / line_bytes - long_taps + 1;
    band = larger(8, smaller(64, band / 8 * 8));
    band = smaller(band, round_up(most_rows, most_rows > 4 ? 8 : 4));
    bands = ceil_div(most_rows, band);
    run_stride = (band + long_taps - 1) * line_stride;

    part_stride = spread_stride<Real>(folds ? columns.padded() : tile_columns);
    folded_stride = folds ? part_stride : 0;
    Carver shared;
    shared.take(groups * result_channels * source_channels * kernel_area, sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    lines_offset = own.take(larger(1, source_channels) * row_runs * run_stride + lanes, sizeof(Real));
    part_offset = own.take(band * part_stride, sizeof(Real));
    folded_offset = own.take(band * folded_stride, sizeof(Real));
    offsets_offset = own.take(columns.kernel, sizeof(int64_t));
    whole_offset = own.take(segments.are_used() ? segments.whole_numbers() + lanes : 0, sizeof(Real));
    worker_bytes = own.bytes;
  }

  // Cutting lines and joining results costs about twenty cycles a vector, which many taps pay for. Vectors of
  // 32 bytes lie in one line of the cache half of the time as it is.
  bool cuts_lines(int64_t result_columns) const {
    constexpr int64_t enough_taps = 196;
    constexpr int64_t enough_columns = 128;
    constexpr int64_t most_numbers = 1 << 17;  // which should stay in the L2 cache
    const int64_t reach = (columns.kernel - 1) * columns.spread;
    const int64_t numbers =
        source_channels * row_runs * (long_taps + 7) * (longest_segment + reach) * segments.count;
    return lanes == segments.count && !folds && columns.stride == 1 && columns.kernel > 1 &&
           kernel_area >= enough_taps && result_columns >= enough_columns && numbers <= most_numbers;
  }

  int64_t tiles_of_group() const { return row_classes * bands * column_tiles; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
