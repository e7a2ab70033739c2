// How a correlation of integers is cut into tiles, and the workspace that it needs. See correlation.h.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/integer_rows/arithmetic.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int integer_block_channels = 4;  // result channels that share a load
constexpr int integer_block_vectors = 4;

struct IntegerRowsPlan {
  RowsAxis rows;
  RowsAxis columns;
  LaneShape shape;
  int64_t pixel;            // neighbouring numbers of a pixel: the channels if is_interleaved, else 1
  int64_t units;            // that are correlated on their own: the groups, or all of them together
  int64_t source_channels;  // of a unit, apart from those within a pixel
  int64_t result_channels;
  bool is_interleaved;
  bool pairs_channels;  // or rows, if the lanes hold pairs
  bool is_joined;       // a band's rows are one row, with results between them that nobody wants

  int64_t row_runs;
  int64_t long_taps;  // of the first run of rows
  int64_t terms;      // of a sum, pairs counted once
  int64_t row_classes;
  int64_t band;  // rows of a class in one tile
  int64_t bands;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t slot_stride;
  int64_t line_stride;
  int64_t run_stride;
  int64_t sums_stride;
  int64_t parts;  // of the result channels

  int64_t period;  // if is_interleaved: vectors until a channel is in the same lane again
  int64_t weights_stride;

  int64_t bias_offset;
  int64_t offsets_offset;
  int64_t workers_offset;  // the packed weights come first
  int64_t sums_offset;     // in a worker's part; the lines come first
  int64_t worker_bytes;

  IntegerRowsPlan(const ConvProblem& p, const LaneShape& lane_shape)
      : rows(vertical_axis(p)), columns(horizontal_axis(p)), shape(lane_shape) {
    is_interleaved = can_interleave(p);
    pixel = is_interleaved ? p.groups : 1;
    units = is_interleaved ? 1 : p.groups;
    source_channels = is_interleaved ? 1 : in_channels_per_group(p);
    result_channels = is_interleaved ? 1 : out_channels_per_group(p);
    cut_rows(p.batch);

    Carver shared;
    shared.take(is_interleaved ? terms * weights_stride : units * result_channels * terms,
                is_interleaved ? shape.lane_bytes : shape.weight_bytes);
    bias_offset = shared.bytes;
    shared.take(is_interleaved ? weights_stride : units * result_channels, shape.lane_bytes);
    offsets_offset = shared.bytes;
    shared.take(terms, sizeof(int32_t));
    workers_offset = shared.bytes;
    Carver own;
    own.take(source_channels * row_runs * run_stride + line_stride + 3 * shape.lanes, shape.lane_bytes);
    sums_offset = own.take(integer_block_channels * sums_stride, shape.lane_bytes);
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  // Blocks of result channels: as many whole ones as there are, then single channels.
  int64_t whole_blocks() const { return result_channels / integer_block_channels; }
  int64_t blocks() const { return whole_blocks() + result_channels % integer_block_channels; }
  int64_t tiles() const { return units * parts * row_classes * bands * column_tiles; }

 private:
  // The number of lanes is a power of two.
  int64_t wanted_period(int64_t channels) const {
    const int64_t power_of_two = channels & -channels;
    return channels / smaller(power_of_two, shape.lanes);
  }

  // Depthwise with channels side by side: pixels and channels alike are neighbours.
  bool can_interleave(const ConvProblem& p) const {
    constexpr int64_t most_weight_bytes = 512 * 1024;
    return p.groups > 1 && p.in_channels == p.groups && p.out_channels == p.groups &&
           p.input_strides.channel == 1 && p.output_strides.channel == 1 &&
           p.output_strides.column == p.groups &&
           (wanted_period(p.groups) + integer_block_vectors) * shape.lanes * shape.lane_bytes *
                   p.kernel.height * p.kernel.width <=
               most_weight_bytes;
  }

  void cut_rows(int64_t batch) {
    const int64_t lanes = shape.lanes;
    row_runs = rows.runs();
    long_taps = rows.run_taps(0);
    int64_t row_pairs = 0;
    for (int64_t u = 0; u < row_runs; ++u) row_pairs += ceil_div(rows.run_taps(u), 2);
    const int64_t channel_pairs = ceil_div(source_channels, 2);
    pairs_channels =
        shape.has_pairs && source_channels > 1 && channel_pairs * rows.kernel <= source_channels * row_pairs;
    terms = (pairs_channels    ? channel_pairs * rows.kernel
             : shape.has_pairs ? source_channels * row_pairs
                               : source_channels * rows.kernel) *
            columns.kernel;
    row_classes = smaller(rows.spread, rows.output);
    const int64_t most_rows = ceil_div(rows.output, rows.spread);

    constexpr int64_t line_bytes = 2048;
    constexpr int64_t fewest_columns = 16;
    const int64_t wide = larger(fewest_columns, line_bytes / shape.lane_bytes / pixel);
    tile_columns = ceil_div(columns.output, ceil_div(columns.output, wide));
    // Whole blocks of vectors, but for the last tile.
    if (tile_columns < columns.output && !is_interleaved)
      tile_columns = round_up(tile_columns, integer_block_vectors * lanes);
    column_tiles = ceil_div(columns.output, tile_columns);

    const int64_t slots = columns.runs();
    slot_stride = (tile_columns + (columns.run_taps(0) - 1) * columns.spread) * pixel;
    line_stride = slots * slot_stride;
    // Where that leaves fewer lanes without a result than rows of their own do.
    is_joined = pixel == 1 && column_tiles == 1 && round_up(tile_columns, lanes) * 8 > line_stride * 9;
    if (!is_joined) line_stride = round_up(line_stride, 64 / shape.lane_bytes);

    const int64_t bytes_of_rows = source_channels * row_runs * line_stride * shape.lane_bytes;
    const int64_t cached = source_channels <= 4 ? 32 * 1024 : 192 * 1024;
    constexpr int64_t most_band = 64;
    band = larger(1, smaller(most_band, cached / bytes_of_rows - long_taps + 1));
    // Enough tiles for several workers.
    constexpr int64_t enough_tiles = 16;
    const int64_t other_tiles = batch * units * row_classes * column_tiles;
    if (other_tiles < enough_tiles)
      band = smaller(band, larger(4, ceil_div(most_rows * other_tiles, enough_tiles)));
    band = smaller(band, most_rows);
    bands = ceil_div(most_rows, band);
    parts = larger(1, smaller(ceil_div(enough_tiles, other_tiles * bands), blocks() / 4));
    // Zeros are written by the vector, past the end of a line.
    run_stride = (band + long_taps - 1) * line_stride + lanes;
    sums_stride = round_up(is_joined ? band * line_stride : tile_columns * pixel, lanes) + lanes;

    period = wanted_period(pixel);
    weights_stride = (period + integer_block_vectors - 1) * lanes;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
