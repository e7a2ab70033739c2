// How a 1x1 kernel on contiguous images is cut, and the workspace that it needs. See correlation.h.
#pragma once

#include "cpu/dispatch.h"
#include "cpu/pointwise/micro_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PointwisePlan {
  static constexpr int64_t lanes = Vector<T>::lanes;
  // Weights of an item, in the L2 cache beside the panel of its pixels.
  static constexpr int64_t most_weights = 256 * 1024 / sizeof(T);
  static constexpr int64_t items_of_worker = 8;

  bool is_forward;
  int64_t terms;  // source channels of a group
  int64_t rows;   // result channels of a group
  int64_t pixels;
  ImageStrides source_strides;
  ImageStrides result_strides;
  int64_t weight_row;  // from one result channel to the next
  int64_t weight_term;
  int64_t weight_group;
  int64_t chain;
  int64_t tiles;   // that the rows are cut into
  int64_t parts;   // that the tiles are cut into, each an item
  int64_t strips;  // that the pixels are cut into
  bool packs_weights;

  int64_t weights_offset;
  int64_t workers_offset;
  int64_t panel_offset;  // in a worker's part
  int64_t results_offset;
  int64_t worker_bytes;

  PointwisePlan(const ConvProblem& p, int workers)
      : is_forward(p.pass == Pass::forward),
        terms(is_forward ? in_channels_per_group(p) : out_channels_per_group(p)),
        rows(is_forward ? out_channels_per_group(p) : in_channels_per_group(p)),
        pixels(p.input.height * p.input.width),
        source_strides(is_forward ? p.input_strides : p.output_strides),
        result_strides(is_forward ? p.output_strides : p.input_strides),
        weight_row(is_forward ? p.weight_strides.out_channel : p.weight_strides.in_channel),
        weight_term(is_forward ? p.weight_strides.in_channel : p.weight_strides.out_channel),
        weight_group(out_channels_per_group(p) * p.weight_strides.out_channel),
        tiles(ceil_div(rows, most_tile_rows)),
        strips(ceil_div(vectors(), most_tile_vectors)),
        packs_weights(weight_term != 1) {
    // F.conv2d adds up one chain.
    const int64_t most_chain = terms < 512 ? 64 : 128;
    chain = ceil_div(terms, ceil_div(terms, most_chain));
    const int64_t wanted = ceil_div(items_of_worker * workers, p.groups * p.batch * strips);
    const int64_t fewest_tiles = 4;  // one of which packs
    parts = larger(ceil_div(rows * terms, most_weights), wanted);
    parts = larger(1, smaller(parts, tiles / fewest_tiles));

    Carver shared;
    weights_offset = shared.take(packs_weights ? p.groups * rows * terms : 0, sizeof(T));
    workers_offset = shared.bytes;
    Carver own;
    panel_offset = own.take(terms * most_tile_vectors * lanes, sizeof(T));
    results_offset = own.take(most_tile_rows * most_tile_vectors * lanes, sizeof(T));
    worker_bytes = own.bytes;
  }

  int64_t vectors() const { return ceil_div(pixels, lanes); }
  int64_t first_vector(int64_t strip) const { return strip * vectors() / strips; }
  int64_t first_row(int64_t tile) const { return tile * rows / tiles; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
