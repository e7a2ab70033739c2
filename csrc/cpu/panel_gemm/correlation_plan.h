// How a correlation with pixels in the lanes is cut, and the workspace that it needs. See correlation.h.
#pragma once

#include "cpu/implicit_gemm/correlation.h"
#include "cpu/panel_gemm/micro_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// A 1x1 kernel that steps over nothing sees each image as one long row.
inline ConvProblem with_rows_joined(const ConvProblem& p) {
  ConvProblem joined = p;
  if (is_pointwise(p) && p.input_strides.row == p.input.width && p.output_strides.row == p.input.width)
    joined.input = joined.output = {1, p.input.height * p.input.width};
  return joined;
}

// The result positions of one class: all, or a phase of the gradient of the input.
struct PixelClass {
  Axis rows;
  Axis columns;
  int64_t row_set;
  int64_t column_set;

  int64_t pixels() const { return rows.count * columns.count; }
  int64_t taps() const { return rows.taps * columns.taps; }

  // Each result reads its own position, so that strips of the source are read where they lie.
  bool reads_itself() const {
    return taps() == 1 && rows.count == 1 && columns.stride == 1 && columns.offset == 0 &&
           columns.count == columns.source_size && rows.offset == 0;
  }
};

template <class T>
struct PanelPlan {
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t most_width = most_vectors_of_tile * lanes;
  // Weights of an item, in the L2 cache beside a panel.
  static constexpr int64_t most_weights = 256 * 1024 / sizeof(T);
  static constexpr int64_t most_block_terms = 512;
  static constexpr int64_t most_rows_of_part = 512;
  static constexpr int64_t items_of_worker = 8;

  Correlation c;
  int64_t most_taps;
  int64_t tiles;        // that the result channels are cut into
  int64_t parts;        // that the tiles are cut into
  int64_t most_strips;  // that the pixels of an image and class are cut into
  int64_t block_channels;
  bool packs_weights;
  bool writes_in_place;  // results lie like the strips

  int64_t weights_offset;
  int64_t workers_offset;
  int64_t panel_offset;  // in a worker's part
  int64_t results_offset;
  int64_t runs_offset;
  int64_t worker_bytes;

  PanelPlan(const ConvProblem& p, int workers)
      : c(with_rows_joined(p)),
        most_taps(c.rows.most_taps() * c.columns.most_taps()),
        tiles(ceil_div(c.result_channels, most_rows_of_tile)) {
    most_strips = 1;
    int64_t strips = 0;
    for (int64_t index = 0; index < c.classes(); ++index) {
      const int64_t here = strips_of(class_of(index));
      most_strips = larger(most_strips, here);
      strips += here;
    }
    block_channels = larger(1, most_block_terms / larger(1, most_taps));
    block_channels = smaller(c.source_channels, block_channels);
    if (most_taps == 1) block_channels = smaller(c.source_channels, 4 * most_block_terms);
    block_channels = ceil_div(c.source_channels, ceil_div(c.source_channels, block_channels));

    const int64_t area = c.rows.p.kernel * c.columns.p.kernel;
    const bool are_terms = c.weight_source_stride == area &&
                           (c.columns.p.kernel == 1 || c.weight_strides.column == 1) &&
                           (c.rows.p.kernel == 1 || c.weight_strides.row == c.columns.p.kernel);
    packs_weights = !c.is_forward || !are_terms;
    const PixelClass first = class_of(0);
    writes_in_place = c.classes() == 1 && first.rows.spacing == 1 && first.columns.spacing == 1 &&
                      first.rows.first == 0 && first.columns.first == 0 &&
                      (first.rows.count == 1 || c.result_strides.row == first.columns.count);

    const int64_t wanted = ceil_div(items_of_worker * workers, larger(1, c.groups * c.batch * strips));
    constexpr int64_t fewest_tiles = 4;  // one of which packs
    parts = larger(ceil_div(c.result_channels * c.source_channels * most_taps, most_weights), wanted);
    parts = larger(1, smaller(parts, tiles / fewest_tiles));
    parts = larger(parts, ceil_div(c.result_channels, most_rows_of_part));

    Carver shared;
    weights_offset = shared.take(packs_weights ? weights_before(c.rows.tap_sets(), 0) : 0, sizeof(T));
    workers_offset = shared.bytes;
    Carver own;
    // A vector may be written past the last place.
    panel_offset = own.take(block_channels * most_taps * most_width + lanes, sizeof(T));
    results_offset = own.take(ceil_div(tiles, parts) * most_rows_of_tile * most_width, sizeof(T));
    runs_offset = own.take(most_taps * runs_of_tap, sizeof(int64_t) * 4);
    worker_bytes = own.bytes;
  }

  // Runs of neighbouring pixels that a strip is copied in for a tap, at most: padding, source, padding of a
  // row, and a row has at least one pixel.
  static constexpr int64_t runs_of_tap = 3 * most_width;

  PixelClass class_of(int64_t index) const {
    const int64_t column = index % c.columns.count();
    const int64_t row = index / c.columns.count();
    return {c.rows.at(row), c.columns.at(column), c.rows.tap_set_of(row), c.columns.tap_set_of(column)};
  }

  static int64_t vectors_of(const PixelClass& pixels) { return ceil_div(pixels.pixels(), lanes); }
  static int64_t strips_of(const PixelClass& pixels) {
    return ceil_div(vectors_of(pixels), most_vectors_of_tile);
  }
  static int64_t first_vector(const PixelClass& pixels, int64_t strip) {
    return strip * vectors_of(pixels) / strips_of(pixels);
  }
  int64_t first_row(int64_t tile) const { return tile * c.result_channels / tiles; }
  int64_t first_tile(int64_t part) const { return part * tiles / parts; }

  // Packed weights of all the pairs of tap sets before this one.
  int64_t weights_before(int64_t row_set, int64_t column_set) const {
    return c.groups * c.result_channels * c.terms_before(row_set, column_set);
  }

  // Chains are as long as in the other half of implicit_gemm.
  int64_t chain_of(int64_t terms) const {
    int64_t most = sum_shape(terms, Pass::forward).chain;
    if (most_taps == 1) most = terms < 512 ? 64 : 128;
    while (most < 128 && most * most < terms) most *= 2;
    return most;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
