// Forward and the gradient of the input: rows of the products are pixels, lanes are result channels. Pixels
// are read where they lie, in channels_last images with 1x1 kernels, or from a copy of the strip's part of
// the source (tile_places.h).
//
// Floor: 16 cycles for 16 pixels, 16 channels and 32 terms, a sixteenth of the time of float32. So what
// stands beside it counts: copying the source, a fifth of a cycle a number or, transposed, half of one;
// packing the weights, the same; rounding and transposing the results.
#pragma once

#include <atomic>

#include "cpu/bfloat16_pairs/transposed_results.h"
#include "cpu/bfloat16_tiles/correlation_plan.h"
#include "cpu/implicit_gemm/clear.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

class TilesCorrelation {
 public:
  TilesCorrelation(const Correlation& correlation, const TilesPlan& cut, const ConvData& data, uint8_t* flags,
                   void* workspace)
      : c(correlation),
        plan(cut),
        weights(cut.weights(correlation, static_cast<const BFloat16*>(data.weight))),
        source(static_cast<const BFloat16*>(c.is_forward ? data.input : data.output)),
        result(static_cast<BFloat16*>(c.is_forward ? data.output : data.input)),
        bias(static_cast<const BFloat16*>(data.bias)),
        images(flags),
        meets_padding(!c.is_forward && PairsPlan::finds_padding(c)),
        memory(static_cast<char*>(workspace)) {}

  // False where a number that is not finite was multiplied by a zero that is no term of the sum: weights in
  // the gradient of the input, whose padding is none. Where columns are joined, the images of which that is
  // true of what lies behind windows are flagged.
  bool run(const Executor& executor) {
    for_each_tile(executor, rows_to_clear(c), [&](int64_t row, int) { clear_gaps(c, result, row); });
    if (plan.reads_behind_windows(c)) std::memset(images, 0, static_cast<size_t>(c.batch));
    if (bias != nullptr) widen_bias();
    if (plan.packs_early) pack_all(executor);
    const int64_t items = PairsPlan::count_strips(c, plan.pixels) * c.groups * plan.panel_blocks;
    for_each_tile(executor, items, [&](int64_t item, int worker) { run_item(item, worker); });
    return !has_non_finite.load(std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t lanes = tile_width;
  static constexpr int64_t panel_width = TilesPlan::most_vectors * lanes;
  static constexpr int64_t rows_together = TilesPlan::rows_together;

  const Correlation& c;
  const TilesPlan& plan;
  PairWeights weights;
  const BFloat16* source;
  BFloat16* result;
  const BFloat16* bias;
  uint8_t* images;  // a flag for each
  bool meets_padding;
  char* memory;
  std::atomic<bool> has_non_finite{false};

  // A strip of a class, for some panels of a group.
  struct Item {
    Patches<BFloat16> patches;
    PairStrips::Strip strip;
    int64_t row_set;
    int64_t column_set;
    int64_t group;
    int64_t first_panel;
    int64_t last_panel;

    int64_t first_pixel() const {
      return (strip.image * patches.rows.count + strip.row) * patches.columns.count + strip.column;
    }
    int64_t pixels() const { return strip.images * strip.rows * strip.columns; }
  };

  // A worker's part of the workspace.
  struct Own {
    int64_t* taps;  // of the copy
    int64_t* weight_taps;

    int64_t* places;  // of each pixel

    BFloat16** results;  // where each pixel's channels belong
    Pair* panel;
    float* sums;
    BFloat16* copy;
  };

  template <class T>
  T* shared(int64_t offset) const {
    return reinterpret_cast<T*>(memory + offset);
  }

  Own own_of(int worker) const {
    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    auto* const taps = reinterpret_cast<int64_t*>(own + plan.taps_offset);
    return {taps,
            taps + plan.taps_of_item,
            reinterpret_cast<int64_t*>(own + plan.places_offset),
            reinterpret_cast<BFloat16**>(own + plan.results_offset),
            reinterpret_cast<Pair*>(own + plan.panel_offset),
            reinterpret_cast<float*>(own + plan.sums_offset),
            reinterpret_cast<BFloat16*>(own + plan.copy_offset)};
  }

  void widen_bias() const {
    float* const to = shared<float>(plan.bias_offset);
    for (int64_t group = 0; group < c.groups; ++group) {
      for (int64_t lane = 0; lane < plan.all_vectors * lanes; ++lane) {
        to[group * plan.all_vectors * lanes + lane] =
            lane < c.result_channels ? to_float(bias[group * c.result_channels + lane]) : 0;
      }
    }
  }

  void note(bool are_finite) {
    if (!are_finite && meets_padding) has_non_finite.store(true, std::memory_order_relaxed);
  }

  PairWeights::Part part_of(int64_t row_set, int64_t column_set, int64_t group, int64_t panel) const {
    return {row_set, column_set,       group, plan.first_vector(panel) * lanes, plan.vectors_of(panel),
            0,       c.source_channels};
  }

  int64_t taps_of(int64_t row_set, int64_t column_set) const {
    return c.rows.taps_of_set(row_set) * (plan.joins_columns ? 1 : c.columns.taps_of_set(column_set));
  }

  // Where a part is, if all are packed early.
  Pair* panel_of(const PairWeights::Part& part) const {
    const int64_t taps = taps_of(part.row_set, part.column_set);
    const int64_t taps_before = c.terms_before(part.row_set, part.column_set) / c.source_channels;
    return shared<Pair>(plan.weights_offset) + c.groups * plan.panels_size(taps_before) +
           part.group * plan.panels_size(taps) +
           taps * (plan.steps.all_pairs() * part.first_result +
                   part.first_result / panel_width * PairWeights::gap);
  }

  void pack_all(const Executor& executor) {
    const int64_t parts = c.groups * plan.panels;
    const int64_t column_sets = c.columns.tap_sets();
    // Waking threads costs more than packing a few weights.
    const bool is_small = c.groups * c.result_channels * c.terms_before(c.rows.tap_sets(), 0) < 20000;
    if (weights.can_pack_sets()) {
      return for_each_tile(is_small ? Executor{} : executor, parts, [&](int64_t index, int) {
        const int64_t panel = index % plan.panels;
        const auto part_of_set = [&](int64_t row_set, int64_t column_set) {
          return part_of(row_set, column_set, index / plan.panels, panel);
        };
        note(weights.pack_sets(part_of_set(0, 0), [&](int64_t row_set, int64_t column_set) {
          return panel_of(part_of_set(row_set, column_set));
        }));
      });
    }
    for_each_tile(is_small ? Executor{} : executor, c.tap_sets() * parts, [&](int64_t index, int) {
      const int64_t set = index / parts;
      const int64_t panel = index % plan.panels;
      const PairWeights::Part part =
          part_of(set / column_sets, set % column_sets, index % parts / plan.panels, panel);
      note(weights.pack(part, panel_of(part)));
    });
  }

  Item item_of(int64_t index) const {
    const int64_t parts = c.groups * plan.panel_blocks;
    int64_t strip = index / parts;
    const int64_t part = index % parts;
    Item item;
    item.group = part / plan.panel_blocks;
    item.first_panel = plan.panels * (part % plan.panel_blocks) / plan.panel_blocks;
    item.last_panel = plan.panels * (part % plan.panel_blocks + 1) / plan.panel_blocks;
    const BFloat16* const from = source + item.group * c.source_channels * c.source_strides.channel;
    for (int64_t k = 0; k < c.rows.count(); ++k) {
      for (int64_t l = 0; l < c.columns.count(); ++l) {
        const Axis rows = c.rows.at(k);
        const Axis columns = c.columns.at(l);
        const PairStrips strips(rows, columns, c.batch, plan.pixels);
        if (strip >= strips.count()) {
          strip -= strips.count();
          continue;
        }
        item.patches = {from, c.source_strides, c.batch, c.source_channels, rows, columns};
        item.row_set = c.rows.tap_set_of(k);
        item.column_set = c.columns.tap_set_of(l);
        item.strip = strips.at(strip, rows, columns, c.batch);
        return item;
      }
    }
    return item;
  }

  void run_item(int64_t index, int worker) {
    const Item item = item_of(index);
    const Own own = own_of(worker);
    const TilePlaces places = plan.places(c, item.patches.rows, item.patches.columns, item.strip);
    const int64_t column_taps = plan.joins_columns ? 1 : item.patches.columns.taps;
    for (int64_t i = 0; i < item.patches.rows.taps; ++i) {
      for (int64_t j = 0; j < column_taps; ++j) own.taps[i * column_taps + j] = places.tap(i, j);
    }
    const int64_t counted = places.counted();
    const bool in_place = plan.reads_in_place && counted >= rows_together;
    TileProduct product;
    product.a = in_place ? in_place_source(item) : own.copy;
    product.row_stride = in_place ? c.source_strides.column : places.pixel_stride;
    product.a_taps = own.taps;
    product.b_taps = own.weight_taps;
    product.tap_count = taps_of(item.row_set, item.column_set);
    product.steps = plan.steps;
    product.sums_stride = plan.sums_stride;
    product.continues = false;
    product.bias = nullptr;
    product.sums = own.sums;
    if (!in_place) {
      places.fill(item.patches, item.strip.image, c.source_channels, own.copy);
      if (plan.reads_behind_windows(c)) flag_images(places, item, own.copy);
    }
    BFloat16* const group_result = result + item.group * c.result_channels * c.result_strides.channel;
    find_pixels(item, places, own, group_result);
    configure_tiles(plan.steps.pairs);
    const int64_t together = plan.packs_early ? plan.panels_together : 1;
    for (int64_t panel = item.first_panel; panel < item.last_panel; panel += together) {
      const int64_t end = smaller(panel + together, item.last_panel);
      if (!plan.packs_early) {
        note(weights.pack(part_of(item.row_set, item.column_set, item.group, panel), own.panel));
      }
      multiply(product, places, in_place, item, panel, end, own, group_result);
    }
    release_tiles();
  }

  // Some panels, for all pixels of a strip.
  void multiply(const TileProduct& product, const TilePlaces& places, bool in_place, const Item& item,
                int64_t first_panel, int64_t last_panel, const Own& own, BFloat16* group_result) const {
    const auto multiply_places = [&](int64_t first_place, int64_t counted, int64_t begin, int64_t end) {
      for (int64_t done = 0; done < counted; done += rows_together) {
        const int64_t tiles = ceil_div(smaller(rows_together, counted - done), tile_height);
        // Nothing behind the last pixel of a tensor may be read, so some rows may be computed twice.
        const int64_t from = first_place + (in_place ? smaller(done, counted - tiles * tile_height) : done);
        int64_t last = begin;
        while (last < end && own.places[last] < first_place + done + rows_together) ++last;
        for (int64_t panel = first_panel; panel < last_panel; ++panel) {
          const PairWeights::Part part = part_of(item.row_set, item.column_set, item.group, panel);
          multiply_block(product, part, from, tiles, item.group, own);
          write(item, part, own, begin, last, from, group_result);
        }
        begin = last;
      }
    };
    if (places.has_no_gaps()) return multiply_places(0, places.counted(), 0, item.pixels());
    const int64_t pixels = item.strip.rows * item.strip.columns;
    for (int64_t image = 0; image < item.strip.images; ++image) {
      multiply_places(image * places.image_places(), places.counted_of_image(), image * pixels,
                      (image + 1) * pixels);
    }
  }

  // A panel, for some rows of tiles from a place on.
  void multiply_block(TileProduct product, const PairWeights::Part& part, int64_t place, int64_t tiles,
                      int64_t group, const Own& own) const {
    product.a += place * product.row_stride;
    product.b = plan.packs_early ? panel_of(part) : own.panel;
    product.pair_stride = part.vectors * lanes;
    for (int64_t tap = 0; tap < product.tap_count; ++tap) {
      own.weight_taps[tap] = PairWeights::panel_size(tap, plan.steps.all_pairs(), part.vectors);
    }
    if (bias != nullptr) {
      product.bias = shared<float>(plan.bias_offset) + group * plan.all_vectors * lanes + part.first_result;
    }
    tile_products(product, tiles, part.vectors);
  }

  const BFloat16* in_place_source(const Item& item) const {
    return item.patches.source + item.strip.image * c.source_strides.batch +
           item.strip.column * c.source_strides.column;
  }

  void flag_images(const TilePlaces& places, const Item& item, const BFloat16* copy) const {
    for (int64_t image = 0; image < item.strip.images; ++image) {
      if (places.is_image_finite(copy, image)) continue;
      // Several workers may flag one image.
      __atomic_store_n(images + item.strip.image + image, uint8_t{1}, __ATOMIC_RELAXED);
    }
  }

  // Where each pixel of the strip is counted, and where its result belongs.
  void find_pixels(const Item& item, const TilePlaces& places, const Own& own, BFloat16* to) const {
    const Axis& rows = item.patches.rows;
    const Axis& columns = item.patches.columns;
    for_each_segment(rows.count, columns.count, item.first_pixel(), item.pixels(), [&](const Segment& at) {
      const int64_t first = places.index_of(at.image - item.strip.image, at.row - item.strip.row,
                                            at.column - item.strip.column);
      BFloat16* const line = to + at.image * c.result_strides.batch +
                             rows.result_position(at.row) * c.result_strides.row +
                             columns.result_position(at.column) * c.result_strides.column;
      for (int64_t x = 0; x < at.length; ++x) {
        own.places[at.begin + x] = first + x;
        own.results[at.begin + x] = line + x * columns.spacing * c.result_strides.column;
      }
    });
  }

  // The sums of the pixels [begin, end) and a panel, rounded; the first row of the sums is that of a place.
  void write(const Item& item, const PairWeights::Part& part, const Own& own, int64_t begin, int64_t end,
             int64_t first_place, BFloat16* group_result) const {
    const float* const sums = own.sums - first_place * plan.sums_stride;
    const int64_t channels = smaller(part.vectors * lanes, c.result_channels - part.first_result);
    if (c.result_strides.channel == 1) {
      for (int64_t pixel = begin; pixel < end; ++pixel) {
        const float* const from = sums + own.places[pixel] * plan.sums_stride;
        BFloat16* const to = own.results[pixel] + part.first_result;
        for (int64_t channel = 0; channel < channels; channel += 2 * lanes) {
          store_neighbours(to + channel, round_neighbours(load(from + channel), load(from + channel + lanes)),
                           channels - channel);
        }
      }
      return;
    }
    for_each_result_run(item.patches, c.result_strides, item.first_pixel() + begin, end - begin,
                        group_result + part.first_result * c.result_strides.channel,
                        [&](int64_t first, int64_t count, BFloat16* to, int64_t step) {
                          const int64_t* const places = own.places + begin + first;
                          const auto sums_of = [&](int64_t x) {
                            return sums + places[smaller(x, count - 1)] * plan.sums_stride;
                          };
                          transpose_pairs_out(sums_of, count, channels, to, c.result_strides.channel, step);
                        });
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
