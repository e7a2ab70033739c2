// How the gradient of the weight is cut, and the workspace that it needs. See weight_gradient.h.
//
// The chunks of pixels and the parts of the sum follow from the shape alone, since the order of the additions
// follows from them; the blocks of channels change no bit.
#pragma once

#include "cpu/bfloat16_pairs/weight_gradient_plan.h"
#include "cpu/bfloat16_tiles/place_runs.h"
#include "cpu/bfloat16_tiles/tile_product.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct TilesGradientPlan {
  static constexpr int64_t lanes = tile_width;
  static constexpr int64_t panel_vectors = 2;  // of output channels
  static constexpr int64_t panel_width = panel_vectors * lanes;

  static constexpr int64_t pixels_of_chunk = 256;  // planes of 32 channels and gradients in the first cache
  static constexpr int64_t most_planes = 640 * 1024;  // bytes of an item's planes, in the second cache
  static constexpr int64_t most_rows = 1024;          // of an item
  static constexpr int64_t wanted_items = 16;
  static constexpr int64_t most_partial_sums = 8 * 1024 * 1024;  // bytes

  Correlation c;
  WeightStrides strides;
  int64_t taps;
  bool joins_taps;    // few channels: rows are (channel, tap), each with a plane of its own
  PairStrips strips;  // of output pixels, a chunk each
  int64_t chunks;
  int64_t parts;  // of the sum, each of some chunks
  int64_t panels;
  int64_t panel_blocks = 1;
  int64_t chunks_together;  // whose input is copied before the gradient's panels are used
  int64_t channels;         // of an item, at most
  int64_t channel_blocks;

  int64_t counted = 0;    // places of a chunk, at most, in whole steps
  int64_t pitch = 0;      // numbers of a channel's plane, at most
  int64_t sums_of_panel;  // numbers
  int64_t partial_offset;
  int64_t workers_offset;
  int64_t places_offset;  // in a worker's part

  int64_t panel_offset;
  int64_t planes_offset;
  int64_t sums_offset;
  int64_t worker_bytes;

  TilesGradientPlan(const ConvProblem& problem, int workers)
      : c(forward_of(problem)),
        strides(problem.weight_strides),
        taps(c.rows.p.kernel * c.columns.p.kernel),
        joins_taps(c.source_channels < tile_height && taps > 1),

        strips(c.rows.at(0), c.columns.at(0), c.batch, pixels_of_chunk),
        chunks(strips.count()),
        panels(ceil_div(c.result_channels, panel_width)) {
    const TilePlaces places = places_of({0, 0, 0, strips.images, strips.rows, strips.columns});
    counted = counted_of(places);
    // Planes of taps follow each other at one distance, across channels too.
    pitch = joins_taps ? places.all_places() : ChannelPlanes::pitch_of(places, places_of_step);
    const int64_t units = c.groups * panels * ceil_div(c.source_channels, panel_width);
    const int64_t bytes = c.groups * panels * panel_width * c.source_channels * taps * 4;
    parts = smaller(smaller(chunks, ceil_div(wanted_items, units)), larger(1, most_partial_sums / bytes));
    cut(workers);
    const int64_t plane_bytes = planes_numbers() * static_cast<int64_t>(sizeof(BFloat16));

    chunks_together = smaller(ceil_div(chunks, parts), larger(1, most_planes / plane_bytes));
    sums_of_panel = sums_rows(channels) * panel_width;
    Carver shared;
    partial_offset = shared.take(parts == 1 ? 0 : parts * c.groups * channel_blocks * panels * sums_of_panel,
                                 sizeof(float));
    workers_offset = shared.bytes;
    Carver own;
    places_offset = own.take(counted, sizeof(PlaceRun));
    panel_offset = own.take(counted / 2 * panel_width, sizeof(Pair));
    planes_offset = own.take(chunks_together * planes_numbers(), sizeof(BFloat16));
    sums_offset = own.take(parts == 1 ? ceil_div(panels, panel_blocks) * sums_of_panel : 0, sizeof(float));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
  int64_t items() const { return parts * c.groups * channel_blocks * panel_blocks; }

  // Of the planes of a chunk, and what products read behind them.
  int64_t planes_numbers() const {
    const int64_t behind = joins_taps ? tile_height * pitch / taps + 2 * places_of_step : 0;
    return rows_of(channels) * pitch + behind;
  }

  // In whole steps.
  static int64_t counted_of(const TilePlaces& places) { return round_up(places.counted(), places_of_step); }

  // Rows of tiles that so many channels take.
  static int64_t rows_of(int64_t count) { return round_up(count, tile_height); }
  int64_t sums_rows(int64_t count) const {
    return joins_taps ? rows_of(count * taps) : rows_of(count) * taps;
  }

  TilePlaces places_of(const PairStrips::Strip& strip) const {
    return TilePlaces::of_one_channel(PlaneAxis(c.rows.at(0), strip.row, strip.rows, joins_taps),
                                      PlaneAxis(c.columns.at(0), strip.column, strip.columns, joins_taps),
                                      strip.images);
  }

 private:
  // Chooses blocks of channels so that the last worker is done as early as may be. In cycles of a chunk.
  void cut(int workers) {
    const int64_t bytes = pitch * static_cast<int64_t>(sizeof(BFloat16));
    const int64_t fitting = larger(tile_height, smaller(most_planes / bytes, most_rows / taps));
    const int64_t most =
        joins_taps ? c.source_channels : smaller(c.source_channels, fitting / tile_height * tile_height);
    double least = -1;
    for (int64_t size = most; size >= (joins_taps ? most : 1);
         size = size > 2 * tile_height ? size / 4 * 3 : size / 2) {
      const int64_t blocks = ceil_div(c.source_channels, size);
      const int64_t even = smaller(most, round_up(ceil_div(c.source_channels, blocks), tile_height));
      const int64_t rows = sums_rows(even);
      for (int64_t count = 1; count <= panels; count = count < 4 ? count + 1 : count * 2) {
        const int64_t here = ceil_div(c.source_channels, even);
        const auto rounds = static_cast<double>(ceil_div(parts * c.groups * here * count, workers));
        const auto panels_here = static_cast<double>(ceil_div(panels, count));
        const auto row_pairs = static_cast<double>(ceil_div(rows, 2 * tile_height));

        const auto steps = static_cast<double>(counted / places_of_step);
        const double product = (110 * steps + 300) * row_pairs * panels_here;
        const double copying = 0.3 * static_cast<double>(even * pitch);
        const double packing = 0.3 * static_cast<double>(counted * panel_width) * panels_here;
        constexpr double per_item = 1500;
        const double cycles = product + copying + packing + per_item;
        if (least >= 0 && rounds * cycles >= least) continue;
        least = rounds * cycles;
        channels = even;
        channel_blocks = here;
        panel_blocks = count;
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
