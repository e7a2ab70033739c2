// How forward and the gradient of the input are cut, and the workspace that they need. See correlation.h.
//
// Nothing here changes a bit of a result but `block_channels`, since terms are added block of channels by
// block; it follows from the shape and the layout alone.
#pragma once

#include "cpu/bfloat16_pairs/band.h"
#include "cpu/bfloat16_pairs/micro_kernel.h"
#include "cpu/bfloat16_pairs/weights.h"
#include "cpu/implicit_gemm/padding_taps.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Channels_last groups of so few channels that several side by side, as `grouped` has them, are faster than
// each for itself, unless that doubles the rate of products.
inline bool has_few_neighbours(const ConvProblem& p) {
  constexpr int64_t few = 8;  // channels
  return p.groups > 1 && p.input_strides.channel == 1 && in_channels_per_group(p) <= few &&
         out_channels_per_group(p) <= few;
}

// Result pixels of a class that are computed together: some whole images, or rows of one, or a piece of a
// row.
struct PairStrips {
  int64_t images = 1;  // of a strip, at most
  int64_t rows = 1;
  int64_t columns = 1;
  int64_t image_strips = 0;
  int64_t row_strips = 0;
  int64_t column_strips = 0;

  PairStrips(const Axis& row_axis, const Axis& column_axis, int64_t batch, int64_t pixels) {
    if (row_axis.count == 0 || column_axis.count == 0) return;
    const auto cut = [](int64_t count, int64_t size, int64_t& even, int64_t& strips) {
      strips = ceil_div(count, larger(1, size));
      even = ceil_div(count, strips);
      strips = ceil_div(count, even);
    };
    const int64_t area = row_axis.count * column_axis.count;
    const bool is_wide = column_axis.count > pixels + pixels / 2;
    cut(batch, pixels / area, images, image_strips);
    cut(row_axis.count, is_wide ? 1 : pixels / column_axis.count, rows, row_strips);
    cut(column_axis.count, is_wide ? round_up(pixels, PairVector::lanes) : column_axis.count, columns,
        column_strips);
  }

  int64_t count() const { return image_strips * row_strips * column_strips; }
  int64_t pixels() const { return images * rows * columns; }

  // Where a strip begins, and what it has.
  struct Strip {
    int64_t image;
    int64_t row;
    int64_t column;
    int64_t images;
    int64_t rows;
    int64_t columns;
  };
  Strip at(int64_t index, const Axis& row_axis, const Axis& column_axis, int64_t batch) const {
    const int64_t column = index % column_strips * columns;
    const int64_t row = index / column_strips % row_strips * rows;
    const int64_t image = index / column_strips / row_strips * images;
    return {image,
            row,
            column,
            smaller(images, batch - image),
            smaller(rows, row_axis.count - row),
            smaller(columns, column_axis.count - column)};
  }
};

struct PairsPlan {
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t usual_pixels = 128;
  static constexpr int64_t most_band = 384 * 1024;   // bytes of the L2 cache
  static constexpr int64_t most_panel = 160 * 1024;  // which the tiles of a strip read one after the other

  int64_t all_vectors;  // of result channels of a group
  int64_t panels;
  int64_t panel_blocks;    // items of one strip
  int64_t panels_of_item;  // at most
  int64_t block_channels;
  int64_t blocks;
  int64_t pixels;        // of a strip, about
  bool reads_in_place;   // the source, not a copy
  bool meets_padding;    // some window does
  bool joins_columns;    // an odd number of channels: pairs run on from one column of a window to the next
  bool writes_in_place;  // the micro-kernel writes the results
  bool packs_early;      // all weights, or those of an item when it begins
  int64_t strip_pixels = 1;
  int64_t sums_stride;

  int64_t weights_offset;
  int64_t bias_offset;
  int64_t workers_offset;
  int64_t sources_offset;  // in a worker's part
  int64_t results_offset;
  int64_t taps_offset;
  int64_t panel_offset;
  int64_t sums_offset;
  int64_t band_offset;
  int64_t worker_bytes;

  explicit PairsPlan(const Correlation& c, int workers, bool may_join_columns = true) {
    all_vectors = ceil_div(c.result_channels, lanes);
    panels = ceil_div(all_vectors, most_pair_vectors);
    meets_padding = finds_padding(c);
    joins_columns = may_join_columns && can_join_columns(c);
    const bool are_even = c.source_channels % 2 == 0 || (joins_columns && pair_numbers(c) % 2 == 0 &&
                                                         c.source_strides.column == c.source_channels);
    reads_in_place = c.source_strides.channel == 1 && are_even && !meets_padding;
    writes_in_place = c.result_strides.channel == 1;
    block_channels = joins_columns ? c.source_channels : choose_block(c);
    blocks = ceil_div(c.source_channels, block_channels);
    cut(c, workers);
    panels_of_item = ceil_div(panels, panel_blocks);
    packs_early =
        count_strips(c, pixels) > c.classes() || PairWeights(c, nullptr, joins_columns).can_pack_sets();
    for_each_class(c, [&](const Axis& rows, const Axis& columns) {
      strip_pixels = larger(strip_pixels, PairStrips(rows, columns, c.batch, pixels).pixels());
    });
    const int64_t width_of_panel = smaller(all_vectors, most_pair_vectors) * lanes;
    sums_stride = spread_stride<float>(blocks == 1 ? width_of_panel : panels_of_item * width_of_panel);

    const int64_t all_pairs = pairs_of(c, c.source_channels);
    const int64_t all_taps =
        joins_columns ? c.rows.p.kernel : c.terms_before(c.rows.tap_sets(), 0) / c.source_channels;
    const int64_t most_taps = c.rows.most_taps() * (joins_columns ? 1 : c.columns.most_taps());
    Carver shared;
    weights_offset = shared.take(packs_early ? c.groups * panels_size(all_taps, all_pairs) : 0, sizeof(Pair));
    bias_offset = shared.take(c.groups * all_vectors * lanes, sizeof(float));
    workers_offset = shared.bytes;
    Carver own;
    sources_offset = own.take(strip_pixels, sizeof(void*));
    results_offset = own.take(strip_pixels, sizeof(void*));
    taps_offset = own.take(most_taps, sizeof(int64_t));
    panel_offset = own.take(
        packs_early ? 0
                    : PairWeights::panel_size(most_taps, pairs_of(c, block_channels), width_of_panel / lanes),
        sizeof(Pair));
    sums_offset = own.take(writes_in_place && blocks == 1 ? 0 : (strip_pixels + 2 * lanes) * sums_stride,
                           sizeof(float));
    band_offset = own.take(reads_in_place ? 0 : band_bytes(c, pixels, block_channels), 1);
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  // Of a tap, or of a row of taps, those of `sources` channels.
  int64_t pairs_of(const Correlation& c, int64_t sources) const {
    return ceil_div(joins_columns ? pair_numbers(c) : sources, 2);
  }

  // Of all panels of a group.
  int64_t panels_size(int64_t taps, int64_t pairs) const {
    return taps * (pairs * all_vectors * lanes + panels * blocks * PairWeights::gap);
  }

  // Whether a pair may hold a number behind its window, times a weight of zero.
  bool reads_behind_windows(const Correlation& c) const { return joins_columns && pair_numbers(c) % 2 != 0; }

  // In a copy, from one pixel to the next.
  int64_t pixel_stride(const Correlation& c) const {
    return joins_columns ? c.source_channels
                         : PairBand::pixel_stride_of(smaller(block_channels, c.source_channels));
  }

  // Panels are of about equal width: the vectors before one.
  int64_t first_vector(int64_t panel) const { return all_vectors * panel / panels; }
  int64_t vectors_of(int64_t panel) const { return first_vector(panel + 1) - first_vector(panel); }

  static int64_t count_strips(const Correlation& c, int64_t pixels) {
    int64_t count = 0;
    for_each_class(c, [&](const Axis& rows, const Axis& columns) {
      count += PairStrips(rows, columns, c.batch, pixels).count();
    });
    return count;
  }

  template <class Visit>
  static void for_each_class(const Correlation& c, const Visit& visit) {
    for (int64_t k = 0; k < c.rows.count(); ++k) {
      for (int64_t l = 0; l < c.columns.count(); ++l) visit(c.rows.at(k), c.columns.at(l));
    }
  }

  // Whether some window does.
  static bool finds_padding(const Correlation& c) {
    bool finds = false;
    for (int64_t k = 0; k < c.rows.count(); ++k) finds |= real_share(c.rows.at(k)) < 1;
    for (int64_t l = 0; l < c.columns.count(); ++l) finds |= real_share(c.columns.at(l)) < 1;
    return finds;
  }

 private:
  static int64_t pair_numbers(const Correlation& c) { return c.columns.p.kernel * c.source_channels; }

  static bool can_join_columns(const Correlation& c) {
    constexpr int64_t few_channels = 15;
    constexpr int64_t most_pairs = 1024;  // of a panel, which is one block
    return c.is_forward && c.source_channels % 2 != 0 && c.source_channels <= few_channels &&
           c.columns.p.kernel > 1 && c.columns.p.dilation == 1 && c.columns.p.stride <= c.columns.p.kernel &&
           c.rows.p.kernel * ceil_div(pair_numbers(c), 2) <= most_pairs;
  }

  // Chooses the strips' size and their panels so that the last worker is done as early as may be.
  void cut(const Correlation& c, int workers) {
    constexpr int64_t most_pixels = 256;
    constexpr int64_t beside_pixels = 6;  // what an item costs besides, in pixels
    int64_t least = -1;
    for (int64_t size = most_pixels; size >= 16; size -= 16) {
      const bool is_smallest = size == 16;
      if (!is_smallest && !reads_in_place && band_bytes(c, size, block_channels) > most_band) continue;
      if (workers == 1) {  // nobody waits
        pixels = size;
        panel_blocks = 1;
        return;
      }
      const int64_t strips = larger(1, count_strips(c, size)) * c.groups;
      const int64_t strip = larger(1, ceil_div(c.most_pixels() * c.classes() * c.groups, strips));
      for (int64_t count = 1; count <= panels; ++count) {
        // Classes of a gradient differ in their taps, so what a worker gets is no multiple of an item.
        const int64_t items = strips * count;
        const int64_t halves =
            c.classes() == 1 ? 2 * ceil_div(items, workers) : ceil_div(2 * items, workers) + 1;
        const int64_t cost = halves * (strip * ceil_div(panels, count) + beside_pixels);
        // Weights of a single strip are packed by the item that uses them, and need not go through the
        // memory.
        const bool is_single = strips == c.classes() * c.groups;
        const int64_t with_memory = is_single ? cost : cost + cost / 16;
        if (least >= 0 && with_memory >= least) continue;
        least = with_memory;
        pixels = size;
        panel_blocks = count;
      }
    }
  }

  // Of the largest band of a strip.
  static int64_t band_bytes(const Correlation& c, int64_t pixels, int64_t channels) {
    int64_t places = 0;
    for_each_class(c, [&](const Axis& rows, const Axis& columns) {
      const PairStrips strips(rows, columns, c.batch, pixels);
      if (strips.count() == 0) return;
      places = larger(places, strips.images * PlaceAxis(rows, strips.rows).places *
                                  PlaceAxis(columns, strips.columns).places);
    });
    return PairBand::capacity(places, channels) * static_cast<int64_t>(sizeof(BFloat16));
  }

  int64_t choose_block(const Correlation& c) const {
    const int64_t taps = c.rows.most_taps() * c.columns.most_taps();
    const int64_t panel_width = smaller(all_vectors, most_pair_vectors) * lanes;
    int64_t most = 2048;
    const auto is_too_large = [&] {
      const int64_t channels = smaller(most, c.source_channels);
      const int64_t panel = ceil_div(channels, 2) * taps * panel_width * static_cast<int64_t>(sizeof(Pair));
      if (panel > most_panel) return true;
      if (reads_in_place) return false;
      Correlation one = c;
      one.batch = 1;
      return band_bytes(one, usual_pixels, channels) > most_band * 2 / 3;
    };
    while (most > PairBand::numbers && is_too_large()) most /= 2;
    const int64_t count = ceil_div(c.source_channels, most);
    return count == 1 ? c.source_channels : round_up(ceil_div(c.source_channels, count), PairBand::numbers);
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
