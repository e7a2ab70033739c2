// How a correlation with channels in the lanes is cut into blocks of result channels and strips of pixels:
// the way that takes the fewest cycles, by a rough count for each term of a sum. Its constants were fitted to
// the times of a few thousand cuts (docs/performance.md). Any cut gives the same bits.
#pragma once

#include "cpu/implicit_gemm/weight_panels.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t usual_strip = 128;  // pixels

// The most places that a class of an axis has.
inline int64_t most_count(const AxisClasses& axis) {
  int64_t most = 1;
  for (int64_t k = 0; k < axis.count(); ++k) {
    const Axis of_class = axis.at(k);
    if (!of_class.is_border) most = larger(most, of_class.count);
  }
  return most;
}

struct ChannelsCut {
  int64_t vectors = 1;      // of a panel
  int64_t panels = 1;       // of one group
  int64_t blocks = 1;       // items of one strip of pixels
  int64_t strips = 1;       // of a class
  bool packs_early = true;  // all panels once per call, or each in the items that use it
};

template <class T>
class ChannelsCutter {
 public:
  ChannelsCutter(const Correlation& correlation, bool copies_band, bool tiles_end_with_rows,
                 int64_t most_terms_of_block, int worker_count)
      : c(correlation),
        has_band(copies_band),
        has_tiles_of_rows(tiles_end_with_rows),
        block_terms(most_terms_of_block),
        workers(worker_count),
        all_vectors(ceil_div(larger(1, c.result_channels), lanes)),
        pixels(larger(1, c.most_pixels())),
        columns(most_count(c.columns)),
        may_pack_late(WeightPanels<T>::are_vectors(c)),
        may_pack_taps_late(WeightPanels<T>::has_transposed_taps(c) && c.tap_sets() == 1),
        terms(static_cast<double>(larger(1, c.most_terms()))),
        tap_sets(static_cast<double>(c.terms_before(c.rows.tap_sets(), 0)) / terms),
        source_of_pixel(static_cast<double>(c.source_channels * source_places(c))) {}

  ChannelsCut best() const {
    const int64_t usual_strips = ceil_div(pixels, usual_strip);
    const int64_t even_strips = round_up(usual_strips, workers);
    const int64_t strip_counts[] = {ceil_div(pixels, most_strip), usual_strips, even_strips, 2 * even_strips,
                                    4 * even_strips};
    const int64_t least_panels = ceil_div(all_vectors, most_tile_vectors);
    const bool is_narrow = has_tiles_of_rows || pixels <= usual_strip;
    const int64_t panel_counts[] = {least_panels, round_up(least_panels, workers),
                                    ceil_div(all_vectors, is_narrow ? narrow_vectors : most_tile_vectors)};
    ChannelsCut best;
    double least = -1;
    int64_t last_vectors = 0;
    for (const int64_t count : panel_counts) {
      ChannelsCut cut;
      cut.vectors = ceil_div(all_vectors, count);
      if (cut.vectors == last_vectors) continue;
      last_vectors = cut.vectors;
      cut.panels = ceil_div(all_vectors, cut.vectors);
      const int64_t fewest_blocks = ceil_div(cut.panels * cut.vectors * lanes, channels_of_item);
      const int64_t block_counts[] = {fewest_blocks, smaller(cut.panels, round_up(fewest_blocks, workers)),
                                      cut.panels};
      int64_t last_blocks = 0;
      for (const int64_t blocks : block_counts) {
        if (blocks == last_blocks) continue;
        last_blocks = cut.blocks = blocks;
        int64_t last_strips = 0;
        for (const int64_t wanted : strip_counts) {
          cut.strips = ceil_div(pixels, ceil_div(pixels, wanted));
          if (cut.strips == last_strips) continue;
          last_strips = cut.strips;
          const double cycles = choose_packing(cut);
          if (least < 0 || cycles < least) {
            least = cycles;
            best = cut;
          }
          if (workers == 1 && cut.strips >= usual_strips) break;
        }
      }
    }
    return best;
  }

 private:
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  static constexpr int64_t most_strip = 224;
  static constexpr int64_t channels_of_item = 256;
  // Of a narrow map, whose rows want tiles with as many rows as can be.
  static constexpr int64_t narrow_vectors = most_tile_vectors > 2 && indirect_rows(3) == most_indirect_rows
                                                ? 3
                                                : 2;

  // Of a tile beside its products: for its call, loads that it waits for, the ends of its chains.
  static constexpr double cycles_of_tile = 0.22 * tile_rows(most_tile_vectors) * most_tile_vectors;
  // For each number of a panel: into the item's scratch, or through memory that all workers share.
  static constexpr double packing = 1.5;
  static constexpr double early_packing = 3;
  static constexpr double cycles_of_loop = 4000;
  // For each number of the source: to copy it to a band, or to read it where it lies, again for each tap if
  // not all of a strip stays in the L2 cache.
  static constexpr double copying = 1;
  static constexpr double near_source = 0.1;
  static constexpr double far_source = 0.5;
  static constexpr double most_near_source = 512.0 * 1024 / sizeof(Compute<T>);
  // Numbers of the panels that an item packs late and reads again from the L2 cache.
#if defined(__AVX512F__)
  static constexpr int64_t most_late_panels = 1024 * 1024 / sizeof(Compute<T>);
#else
  static constexpr int64_t most_late_panels = 512 * 1024 / sizeof(Compute<T>);
#endif

  const Correlation& c;
  bool has_band;
  bool has_tiles_of_rows;
  int64_t block_terms;
  int workers;
  int64_t all_vectors;
  int64_t pixels;
  int64_t columns;
  bool may_pack_late;
  bool may_pack_taps_late;
  double terms;            // of a sum
  double tap_sets;         // terms of all classes over those of the largest
  double source_of_pixel;  // numbers

  // How many pixels of the source are met for each of the result, about.
  static int64_t source_places(const Correlation& c) {
    return c.is_forward
               ? smaller(c.rows.p.stride, c.rows.p.kernel) * smaller(c.columns.p.stride, c.columns.p.kernel)
               : 1;
  }

  // When panels are packed; returns the cycles of the cut for each term of a sum.
  double choose_packing(ChannelsCut& cut) const {
    const double panels_of_item = static_cast<double>(ceil_div(cut.panels, cut.blocks));
    const double panel_width = static_cast<double>(cut.vectors * lanes);
    const int64_t size = ceil_div(pixels, cut.strips);
    const double products = products_of_panel(cut.vectors, size);
    const double source = source_of_item(static_cast<double>(size));
    const double panels = static_cast<double>(c.groups * cut.panels);
    const double early = all_items(cut, panels_of_item * products + source) +
                         early_packing * panel_width * tap_sets * panels / workers + cycles_of_loop / terms;
    const double late = all_items(cut, panels_of_item * (products + packing * panel_width) + source);
    const bool may_be_late = may_pack_late || (may_pack_taps_late && has_room_for_panels(cut));
    cut.packs_early = !may_be_late || early <= late;
    return cut.packs_early ? early : late;
  }

  // All terms of a block of source channels are packed at once, of one panel or of as many as the L2 cache
  // has room for.
  bool has_room_for_panels(const ChannelsCut& cut) const {
    const int64_t panels = ceil_div(cut.panels, cut.blocks);
    return panels == 1 || panels * cut.vectors * lanes * block_terms <= most_late_panels;
  }

  double products_of_panel(int64_t vectors, int64_t size) const {
    const int64_t rows = indirect_rows(vectors);
    const int64_t tiles =
        has_tiles_of_rows ? size * ceil_div(columns, rows) / columns + 1 : ceil_div(size, rows);
    return static_cast<double>(size * vectors) / 2 + cycles_of_tile * static_cast<double>(tiles) +
           static_cast<double>(vectors * lanes) / 8;
  }

  double source_of_item(double size) const {
    if (has_band) return copying * size * source_of_pixel / terms;
    const bool is_far =
        size * source_of_pixel > most_near_source && terms > static_cast<double>(c.source_channels);
    return (is_far ? far_source : near_source) * size;
  }

  // All items of a worker. The others begin later than the first, and help each other with whole items.
  double all_items(const ChannelsCut& cut, double item) const {
    const int64_t items = c.groups * cut.blocks * cut.strips;
    const double start = workers == 1 ? 0 : cycles_of_loop / terms;
    const double share = static_cast<double>(items) * (c.classes() == 1 ? 1.0 : tap_sets) / workers;
    const double all = share * item + (start < item / 2 ? start : item / 2);
    const double whole = c.classes() == 1 ? static_cast<double>(ceil_div(items, workers)) * item : 0;
    return all > whole ? all : whole;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
