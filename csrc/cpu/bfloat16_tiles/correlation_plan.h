// How forward and the gradient of the input are cut, and the workspace that they need. See correlation.h.
//
// No bit of a result depends on it: all terms of a sum are added in one chain of products, tap by tap within
// steps of source channels.
#pragma once

#include "cpu/bfloat16_pairs/correlation_plan.h"
#include "cpu/bfloat16_tiles/tile_places.h"
#include "cpu/bfloat16_tiles/tile_product.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct TilesPlan {
  static constexpr int64_t lanes = tile_width;
  static constexpr int64_t most_vectors = 2;          // of a panel
  static constexpr int64_t most_copy = 1536 * 1024;   // bytes of a strip, in the L2 cache
  static constexpr int64_t most_panels = 512 * 1024;  // bytes of panels that are used together, beside it
  static constexpr int64_t most_bytes = 12 << 20;     // of a worker's part
  static constexpr int64_t rows_together = 64;        // whose sums stay in the first cache

  int64_t all_vectors;  // of result channels of a group
  int64_t panels;
  int64_t panel_blocks = 1;  // items of one strip
  int64_t panels_together;   // that all rows are multiplied with before the next
  TileSteps steps{1};        // of a tap, or of a row of joined ones
  bool joins_columns;
  bool reads_in_place;  // the source, where a strip is large enough
  bool packs_early;     // all weights, or those of an item when it begins
  int64_t pixels = 0;   // of a strip, about
  int64_t sums_stride;
  int64_t taps_of_item;      // at most
  int64_t most_counted = 0;  // places of a strip
  int64_t most_copied = 0;   // numbers

  int64_t weights_offset;
  int64_t bias_offset;
  int64_t workers_offset;
  int64_t taps_offset;  // in a worker's part
  int64_t places_offset;
  int64_t results_offset;
  int64_t panel_offset;
  int64_t sums_offset;
  int64_t copy_offset;
  int64_t worker_bytes;

  TilesPlan(const Correlation& c, int workers) {
    all_vectors = ceil_div(c.result_channels, lanes);
    panels = ceil_div(all_vectors, most_vectors);
    joins_columns = can_join_columns(c);
    steps = TileSteps(ceil_div(joins_columns ? window_numbers(c) : c.source_channels, 2));
    reads_in_place = can_read_in_place(c);
    cut(c, workers);
    packs_early = PairsPlan::count_strips(c, pixels) > c.classes() || weights(c, nullptr).can_pack_sets();
    int64_t row_tiles = 0;
    measure(c, pixels, most_counted, row_tiles, most_copied);
    const int64_t panel_width = smaller(all_vectors, most_vectors) * lanes;
    const int64_t panel_bytes =
        most_taps(c) * steps.all_pairs() * panel_width * static_cast<int64_t>(sizeof(Pair));
    panels_together = larger(1, most_panels / panel_bytes);
    sums_stride = spread_stride<float>(panel_width);

    const int64_t all_taps =
        joins_columns ? c.rows.p.kernel : c.terms_before(c.rows.tap_sets(), 0) / c.source_channels;
    Carver shared;
    weights_offset = shared.take(packs_early ? c.groups * panels_size(all_taps) : 0, sizeof(Pair));
    bias_offset = shared.take(c.groups * all_vectors * lanes, sizeof(float));
    workers_offset = shared.bytes;
    Carver own;
    taps_of_item = most_taps(c);
    taps_offset = own.take(2 * taps_of_item, sizeof(int64_t));
    places_offset = own.take(most_counted, sizeof(int64_t));
    results_offset = own.take(most_counted, sizeof(void*));
    panel_offset = own.take(
        packs_early ? 0 : PairWeights::panel_size(most_taps(c), steps.all_pairs(), panel_width / lanes),
        sizeof(Pair));
    sums_offset = own.take(rows_together * sums_stride, sizeof(float));
    copy_offset = own.take(most_copied, sizeof(BFloat16));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
  bool is_too_large() const { return worker_bytes > most_bytes; }

  PairWeights weights(const Correlation& c, const BFloat16* weight) const {
    return {c, weight, joins_columns, steps.all_pairs()};
  }

  // Of all panels of a group.
  int64_t panels_size(int64_t taps) const {
    return taps * (steps.all_pairs() * all_vectors * lanes + panels * PairWeights::gap);
  }

  int64_t first_vector(int64_t panel) const { return smaller(all_vectors, most_vectors * panel); }
  int64_t vectors_of(int64_t panel) const { return first_vector(panel + 1) - first_vector(panel); }

  // Whether products read numbers behind a window, times weights of zero.
  bool reads_behind_windows(const Correlation& c) const {
    return joins_columns && 2 * steps.all_pairs() != window_numbers(c);
  }

  // Of one row of a window.
  static int64_t window_numbers(const Correlation& c) { return c.columns.p.kernel * c.source_channels; }

  // Few channels would leave most of a product's terms empty, so a row of a window is one run of terms.
  static bool can_join_columns(const Correlation& c) {
    constexpr int64_t few_channels = 16;
    return c.is_forward && c.source_channels <= few_channels && c.columns.p.kernel > 1 &&
           c.columns.p.dilation == 1 && c.columns.p.stride <= c.columns.p.kernel;
  }

  // Half as many places more than results cost more than copying a line for each tap.
  static PlaneAxis column_axis_of(const Axis& columns, const PairStrips::Strip& strip) {
    const PlaneAxis axis(columns, strip.column, strip.columns);
    if (2 * axis.length <= 3 * axis.count) return axis;
    return PlaneAxis(columns, strip.column, strip.columns, true);
  }

  TilePlaces places(const Correlation& c, const Axis& rows, const Axis& columns,
                    const PairStrips::Strip& strip) const {
    const PlaneAxis row_axis(rows, strip.row, strip.rows);
    const PlaneAxis column_axis = column_axis_of(columns, strip);
    if (!joins_columns) return {row_axis, column_axis, strip.images, c.source_channels};
    const int64_t read = ceil_div(2 * steps.all_pairs(), c.source_channels);
    return TilePlaces::joined(row_axis, column_axis, strip.images, c.source_channels, c.columns.p.kernel,
                              read);
  }

 private:
  bool can_read_in_place(const Correlation& c) const {
    const AxisClasses& columns = c.columns;
    const int64_t size = columns.p.input;
    return c.rows.p.kernel == 1 && columns.p.kernel == 1 && c.rows.p.input == 1 && c.rows.p.output == 1 &&
           columns.p.stride == 1 && columns.p.before == 0 && columns.p.output == size &&
           c.source_strides.channel == 1 && c.source_channels == 2 * steps.all_pairs() &&
           (c.batch == 1 || c.source_strides.batch == size * c.source_strides.column);
  }

  int64_t most_taps(const Correlation& c) const {
    return c.rows.most_taps() * (joins_columns ? 1 : c.columns.most_taps());
  }

  // The largest strip of any class, if they have about so many pixels.
  void measure(const Correlation& c, int64_t size, int64_t& counted, int64_t& row_tiles,
               int64_t& copied) const {
    counted = row_tiles = copied = 0;
    PairsPlan::for_each_class(c, [&](const Axis& rows, const Axis& columns) {
      const PairStrips strips(rows, columns, c.batch, size);
      if (strips.count() == 0) return;
      PairStrips::Strip strip{0, 0, 0, strips.images, strips.rows, strips.columns};
      const TilePlaces of_strip = places(c, rows, columns, strip);
      const int64_t of_image = of_strip.counted_of_image();
      counted = larger(counted, of_strip.counted());
      row_tiles = larger(row_tiles, of_strip.has_no_gaps() ? ceil_div(of_strip.counted(), tile_height)
                                                           : strip.images * ceil_div(of_image, tile_height));
      // The last strip may be a small one that is not read in place.
      if (reads_in_place) strip = {0, 0, 0, 1, 1, rows_together};
      copied = larger(copied, places(c, rows, columns, strip).size());
    });
    if (reads_in_place) counted = larger(counted, rows_together);
  }

  // Chooses the strips' size and their panels so that the last worker is done as early as may be. In cycles.
  void cut(const Correlation& c, int workers) {
    constexpr int64_t sizes[] = {2048, 1024, 768, 512, 384, 256, 192, 128, 96, 64, 32};
    double least = -1;
    for (const int64_t size : sizes) {
      int64_t counted = 0;
      int64_t row_tiles = 0;
      int64_t copied = 0;
      measure(c, size, counted, row_tiles, copied);
      if (size != 32 && copied * static_cast<int64_t>(sizeof(BFloat16)) > most_copy) continue;
      const int64_t strips = larger(1, PairsPlan::count_strips(c, size));
      const bool is_single = strips == c.classes();
      for (int64_t count = 1; count <= panels; count = count < 4 ? count + 1 : count * 2) {
        const double vectors =
            static_cast<double>(ceil_div(panels, count) * smaller(all_vectors, most_vectors));
        const auto taps = static_cast<double>(most_taps(c));

        const double product =
            28 * static_cast<double>(row_tiles) * vectors * taps * static_cast<double>(steps.count);
        const double copying = reads_in_place ? 0 : 0.3 * static_cast<double>(copied);
        // By each item for itself, or all before, which then go through the memory.
        const double packing =
            (is_single ? 0.3 * vectors : 0.5 * static_cast<double>(all_vectors) / workers) * taps *
            static_cast<double>(2 * steps.all_pairs() * lanes);
        const double writing = 0.3 * static_cast<double>(counted) * vectors * lanes;
        constexpr double per_item = 1500;
        const double cycles = product + copying + writing + per_item;
        const auto rounds = static_cast<double>(ceil_div(strips * c.groups * count, workers));
        const double all = rounds * cycles + packing;
        if (least >= 0 && all >= least) continue;
        least = all;
        pixels = size;
        panel_blocks = count;
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
