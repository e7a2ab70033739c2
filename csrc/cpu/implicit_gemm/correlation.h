// A correlation described: its tensors by role, and how it is cut into work items. See correlate.h.
#pragma once

#include "cpu/implicit_gemm/axis.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The problem by roles: what is read, what is written.
struct Correlation {
  bool is_forward;
  int64_t batch;
  int64_t groups;
  int64_t source_channels;  // of one group
  int64_t result_channels;  // of one group
  ImageStrides source_strides;
  ImageStrides result_strides;
  WeightStrides weight_strides;
  int64_t weight_group_stride;
  int64_t weight_source_stride;  // from one source channel to the next
  int64_t weight_result_stride;
  AxisClasses rows;
  AxisClasses columns;

  explicit Correlation(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        batch(p.batch),
        groups(p.groups),
        source_channels(is_forward ? in_channels_per_group(p) : out_channels_per_group(p)),
        result_channels(is_forward ? out_channels_per_group(p) : in_channels_per_group(p)),
        source_strides(is_forward ? p.input_strides : p.output_strides),
        result_strides(is_forward ? p.output_strides : p.input_strides),
        weight_strides(p.weight_strides),
        weight_group_stride(out_channels_per_group(p) * p.weight_strides.out_channel),
        weight_source_stride(is_forward ? p.weight_strides.in_channel : p.weight_strides.out_channel),
        weight_result_stride(is_forward ? p.weight_strides.out_channel : p.weight_strides.in_channel),
        rows(problem_rows(p), is_forward),
        columns(problem_columns(p), is_forward) {}

  int64_t classes() const { return rows.count() * columns.count(); }
  int64_t most_pixels() const { return batch * rows.most_positions() * columns.most_positions(); }
  int64_t most_terms() const { return source_channels * rows.most_taps() * columns.most_taps(); }

  int64_t tap_sets() const { return rows.tap_sets() * columns.tap_sets(); }
  // Terms of all the pairs of tap sets before this pair.
  int64_t terms_before(int64_t row_set, int64_t column_set) const {
    const int64_t all_column_taps = columns.taps_before(columns.tap_sets());
    const int64_t row_taps = row_set < rows.tap_sets() ? rows.taps_of_set(row_set) : 0;
    return source_channels *
           (rows.taps_before(row_set) * all_column_taps + row_taps * columns.taps_before(column_set));
  }
};

// How a correlation is cut, and the workspace that it needs. A work item's patches and sums are meant to stay
// in the L2 cache.
template <class T>
struct CorrelationPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t channels_of_item = 256;

  bool channels_in_lanes;
  int64_t width;          // result channels of a tile of packed weights
  int64_t weight_tiles;   // of one group
  int64_t strip;          // pixels of a work item
  int64_t tiles_of_item;  // weight tiles of a work item, at most
  int64_t patches_stride;
  int64_t sums_stride;

  int64_t weights_offset;
  int64_t workers_offset;
  int64_t patches_offset;  // in a worker's part
  int64_t sums_offset;
  int64_t worker_bytes;

  explicit CorrelationPlan(const Correlation& c)
      :  // Vectors of channels are worth it if there are channels to fill them.
        channels_in_lanes(c.source_strides.channel == 1 && c.source_strides.column != 1 &&
                          c.result_channels >= lanes) {
    const int64_t channels = larger(1, c.result_channels);
    const int64_t pixels = larger(1, c.most_pixels());
    const int64_t terms = smaller(block_terms, c.most_terms());
    // Tiles of equal height: 8 channels are 4 + 4, not 6 + 2.
    width = channels_in_lanes ? smaller(tile_columns<Real>, round_up(channels, lanes))
                              : ceil_div(channels, ceil_div(channels, tile_rows));
    weight_tiles = ceil_div(channels, width);
    tiles_of_item = smaller(weight_tiles, ceil_div(channels_of_item, width));

    Carver shared;
    weights_offset =
        shared.take(c.groups * weight_tiles * width * c.terms_before(c.rows.tap_sets(), 0), sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    if (channels_in_lanes) {
      strip = smaller(96 / tile_rows * tile_rows, round_up(pixels, tile_rows));
      patches_stride = spread_stride<Real>(terms);
      sums_stride = spread_stride<Real>(tiles_of_item * width);
      patches_offset = own.take(strip * patches_stride, sizeof(Real));
      sums_offset = own.take(strip * sums_stride, sizeof(Real));
    } else {
      constexpr int64_t whole_tiles = 448 / sizeof(Real) / tile_columns<Real>;  // seven cache lines
      strip = smaller(whole_tiles * tile_columns<Real>, round_up(pixels, tile_columns<Real>));
      patches_stride = sums_stride = spread_stride<Real>(strip);
      patches_offset = own.take(terms * patches_stride, sizeof(Real));
      sums_offset = own.take(tiles_of_item * width * sums_stride, sizeof(Real));
    }
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
