// How the gradient of the weight is cut, and the workspace that it needs. See weight_gradient.h.
#pragma once

#include "cpu/implicit_gemm/band.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The pixels of the batch, cut into blocks that lie in one image.
struct PixelBlocks {
  struct Block {
    int64_t image;
    int64_t row;
    int64_t column;
    int64_t rows;
    int64_t columns;
  };

  int64_t height;
  int64_t width;
  int64_t rows;     // of a block
  int64_t columns;  // of a block: all, or a piece of one row
  int64_t across;
  int64_t of_image;
  int64_t count;
  int64_t chain;

  PixelBlocks(int64_t batch, int64_t image_height, int64_t image_width)
      : height(image_height), width(image_width) {
    const SumShape shape = sum_shape(batch * height * width, Pass::grad_weight);
    const int64_t most = larger(1, shape.block);
    across = larger(1, ceil_div(width, most));
    columns = larger(1, ceil_div(width, across));
    rows = across > 1 ? 1 : larger(1, smaller(height, most / columns));
    rows = larger(1, ceil_div(height, larger(1, ceil_div(height, rows))));
    of_image = ceil_div(height, rows) * ceil_div(width, columns);
    across = ceil_div(width, columns);
    count = batch * of_image;
    chain = ceil_div(rows * columns, ceil_div(rows * columns, shape.chain));
  }

  int64_t most_pixels() const { return rows * columns; }
  Block at(int64_t block) const {
    const int64_t row = block % of_image / larger(1, across) * rows;
    const int64_t column = block % of_image % larger(1, across) * columns;
    return {block / of_image, row, column, smaller(rows, height - row), smaller(columns, width - column)};
  }
};

// How the gradient of the weight is cut, and the workspace that it needs.
template <class T>
struct WeightGradientPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  // Terms that are packed at a time, next to the output channels of an item: both stay in the L2 cache.
  static constexpr int64_t terms_at_a_time = 48;
  static constexpr int64_t channels_of_item = 512 / sizeof(Real);
  static constexpr int64_t terms_of_item = 576;
  static constexpr int64_t most_band = 160 * 1024 / sizeof(Real);

  bool terms_fastest;  // channels_last: patches instead of a band
  Axis rows;
  Axis columns;
  int64_t input_channels;  // of one group
  int64_t taps;
  int64_t terms;
  int64_t channels;  // output channels of one group
  bool rows_are_taps;
  int64_t tile_height;
  int64_t tile_width;
  PixelBlocks blocks;
  int64_t chunks;
  int64_t blocks_of_chunk;
  int64_t channel_items;
  int64_t inputs_of_item;  // at most

  int64_t partial_stride;
  int64_t patches_stride;
  int64_t outputs_stride;

  int64_t partials_offset;
  int64_t workers_offset;
  int64_t inputs_offset;  // in a worker's part
  int64_t outputs_offset;
  int64_t terms_offset;
  int64_t worker_bytes;

  explicit WeightGradientPlan(const ConvProblem& p)
      : terms_fastest(p.input_strides.channel == 1 && p.input_strides.column != 1),
        rows(AxisClasses(problem_rows(p), true).at(0)),
        columns(AxisClasses(problem_columns(p), true).at(0)),
        input_channels(in_channels_per_group(p)),
        taps(p.kernel.height * p.kernel.width),
        terms(input_channels * taps),
        channels(out_channels_per_group(p)),
        blocks(cut_pixels(p, rows, columns)) {
    // Of a whole block; one at the lower edge is no larger.
    const Band band(rows, columns, 0, blocks.rows, 0, blocks.columns);
    const int64_t taps_of_phase = ceil_div(columns.taps, band.columns.phases);
    rows_are_taps = !terms_fastest && input_channels < taps_of_phase;
    choose_tile(terms_fastest ? terms_at_a_time : larger(input_channels, rows_are_taps ? taps_of_phase : 1));

    partial_stride = round_up(channels, lanes);
    channel_items = ceil_div(channels, channels_of_item);
    const int64_t most_inputs = (most_band - lanes) / larger(1, band.channel_stride);
    inputs_of_item =
        larger(1, smaller(smaller(input_channels, most_inputs), terms_of_item / larger(1, taps)));
    const int64_t term_items =
        terms_fastest ? ceil_div(terms, terms_of_item) : ceil_div(input_channels, inputs_of_item);

    // Enough items for the threads of a large machine; few enough that the partial results stay small, and
    // that a chunk is much more work than adding it up.
    constexpr int64_t wanted_items = 48;
    constexpr int64_t least_pixels = 768;
    constexpr int64_t most_numbers = int64_t{1} << 22;
    const int64_t items = larger(1, p.groups * channel_items * term_items);
    const int64_t numbers = larger(1, p.groups * terms * partial_stride);
    const int64_t least_blocks = ceil_div(least_pixels, blocks.most_pixels());
    chunks = smaller(ceil_div(wanted_items, items), blocks.count / least_blocks);
    chunks = larger(1, smaller(chunks, most_numbers / numbers));
    blocks_of_chunk = ceil_div(blocks.count, chunks);
    chunks = larger(1, ceil_div(blocks.count, larger(1, blocks_of_chunk)));

    const int64_t pixels = blocks.most_pixels();
    outputs_stride = spread_stride<Real>(smaller(channels_of_item, partial_stride));
    patches_stride = spread_stride<Real>(smaller(terms_at_a_time, terms));
    Carver shared;
    partials_offset = shared.take(chunks * numbers, sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    inputs_offset = own.take(
        terms_fastest ? pixels * patches_stride : inputs_of_item * band.channel_stride + lanes, sizeof(Real));
    outputs_offset = own.take(pixels * outputs_stride, sizeof(Real));
    terms_offset = own.take(2 * pixels, sizeof(int32_t));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

 private:
  // A 1x1 kernel that reads the images as they lie sees each as one long row.
  static PixelBlocks cut_pixels(const ConvProblem& p, Axis& rows, Axis& columns) {
    Patches<T> inputs{nullptr, p.input_strides, p.batch, 1, rows, columns};
    if (p.output_strides.row == columns.count * p.output_strides.column && flatten(inputs)) {
      rows = inputs.rows;
      columns = inputs.columns;
    }
    return PixelBlocks(p.batch, rows.count, columns.count);
  }

  void choose_tile(int64_t tile_terms) {
    const int64_t vectors = larger(1, ceil_div(channels, lanes));
    int64_t least = 0;
    for (int64_t wide = 1; wide <= most_tile_vectors; ++wide) {
      for (int64_t high = 1; high <= tile_rows(wide); ++high) {
        const int64_t tiles = ceil_div(vectors, wide) * ceil_div(tile_terms, high);
        const int64_t cost = tiles * (4 * larger(8, wide * high) + wide + high);
        if (least != 0 && cost >= least) continue;
        least = cost;
        tile_height = high;
        tile_width = wide * lanes;
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
