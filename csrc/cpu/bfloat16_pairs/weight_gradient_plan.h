// How the gradient of the weight is cut, and the workspace that it needs. See weight_gradient.h.
//
// The chunks of pixels and the parts of the sum follow from the shape alone, since the order of the additions
// follows from them; the blocks of channels change no bit.
#pragma once

#include "cpu/bfloat16_pairs/correlation_plan.h"
#include "cpu/bfloat16_pairs/pixel_planes.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The forward correlation that the pass is the gradient of.
inline Correlation forward_of(ConvProblem p) {
  p.pass = Pass::forward;
  return Correlation(p);
}

struct PairsGradientPlan {
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t pixels_of_chunk = 1024;
  static constexpr int64_t most_planes = 256 * 1024;  // bytes of an item's planes, in the L2 cache
  static constexpr int64_t most_rows = 1024;          // of an item
  static constexpr int64_t wanted_items = 16;
  static constexpr int64_t most_partial_sums = 8 * 1024 * 1024;  // bytes

  Correlation c;
  WeightStrides strides;
  int64_t taps;
  int64_t chunks;
  int64_t parts;        // of the sum, each of some chunks
  int64_t all_vectors;  // of output channels of a group
  int64_t panels;
  int64_t panel_blocks;
  int64_t panel_width;
  int64_t channels;  // of an item, at most
  int64_t channel_blocks;
  bool by_taps;  // rows of the sums are (i, j, channel), or else (channel, i, j)

  int64_t lines = 0;       // of a chunk, at most
  int64_t pairs_of_chunk;  // at most
  int64_t plane;           // numbers, at most
  int64_t rows_of_item;    // at most
  int64_t sums_of_panel;   // numbers
  int64_t partial_offset;
  int64_t workers_offset;
  int64_t rows_offset;  // in a worker's part
  int64_t lines_offset;
  int64_t panel_offset;
  int64_t planes_offset;
  int64_t sums_offset;
  int64_t worker_bytes;

  PairsGradientPlan(const ConvProblem& problem, int workers)
      : c(forward_of(problem)), strides(problem.weight_strides) {
    const Axis rows = c.rows.at(0);
    const Axis columns = c.columns.at(0);
    taps = rows.taps * columns.taps;
    by_taps = !(strides.in_channel == taps && (columns.taps == 1 || strides.column == 1) &&
                (rows.taps == 1 || strides.row == columns.taps));
    all_vectors = ceil_div(c.result_channels, lanes);
    panels = ceil_div(all_vectors, most_pair_vectors);
    panel_width = smaller(all_vectors, most_pair_vectors) * lanes;
    const PairStrips strips = this->strips();
    chunks = strips.count();
    lines = strips.images * strips.rows;
    pairs_of_chunk = lines * ceil_div(strips.columns, 2);
    const PlaceAxis row_places(rows, strips.rows);
    plane = PixelPlanes::plane_of(strips.images * row_places.places,
                                  PixelPlanes::pitch_of(PlaceAxis(columns, strips.columns)));

    const int64_t units = c.groups * panels * larger(1, c.source_channels * taps / 512);
    const int64_t bytes = c.groups * all_vectors * lanes * c.source_channels * taps * 4;
    parts = smaller(smaller(chunks, ceil_div(wanted_items, units)), larger(1, most_partial_sums / bytes));
    cut(workers);

    rows_of_item = channels * taps;
    sums_of_panel = (rows_of_item + 2 * lanes) * panel_width;
    Carver shared;
    partial_offset = shared.take(parts == 1 ? 0 : parts * c.groups * channel_blocks * panels * sums_of_panel,
                                 sizeof(float));
    workers_offset = shared.bytes;
    Carver own;
    rows_offset = own.take(rows_of_item, sizeof(void*));
    lines_offset = own.take(lines, sizeof(int64_t));
    const int64_t panels_of_item = ceil_div(panels, panel_blocks);
    panel_offset = own.take(pairs_of_chunk * panel_width, sizeof(Pair));
    planes_offset = own.take(channels * plane + 2 * lanes, sizeof(BFloat16));
    sums_offset = own.take(panels_of_item * sums_of_panel, sizeof(float));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  PairStrips strips() const { return {c.rows.at(0), c.columns.at(0), c.batch, pixels_of_chunk}; }
  int64_t items() const { return parts * c.groups * channel_blocks * panel_blocks; }

  int64_t first_vector(int64_t panel) const { return all_vectors * panel / panels; }
  int64_t vectors_of(int64_t panel) const { return first_vector(panel + 1) - first_vector(panel); }

 private:
  // Chooses blocks of channels so that the last worker is done as early as may be.
  void cut(int workers) {
    const int64_t bytes = plane * static_cast<int64_t>(sizeof(BFloat16));
    const int64_t most =
        larger(1, smaller(c.source_channels, smaller(most_planes / bytes, most_rows / taps)));
    channels = most;
    channel_blocks = ceil_div(c.source_channels, most);
    panel_blocks = 1;
    if (workers == 1) return;  // nobody waits
    double least = -1;
    for (int64_t size = most; size >= 1; size = size > 16 ? size / 4 * 3 : size - 1) {
      const int64_t blocks = ceil_div(c.source_channels, size);
      const int64_t even = ceil_div(c.source_channels, blocks);
      for (int64_t count = 1; count <= panels; ++count) {
        const int64_t rounds = ceil_div(parts * c.groups * blocks * count, workers);
        const auto panels_here = static_cast<double>(ceil_div(panels, count) * panel_width);
        const auto channels_here = static_cast<double>(even);
        constexpr double packing = 0.3;  // cycles a number
        constexpr double per_item = 5;   // cycles a pixel
        const double cycles = channels_here * static_cast<double>(taps) * panels_here / (2 * lanes) +
                              packing * (channels_here + panels_here) + per_item;
        if (least >= 0 && static_cast<double>(rounds) * cycles >= least) continue;
        least = static_cast<double>(rounds) * cycles;
        channels = even;
        channel_blocks = ceil_div(c.source_channels, even);
        panel_blocks = count;
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
