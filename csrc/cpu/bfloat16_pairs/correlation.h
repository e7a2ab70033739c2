// Forward and the gradient of the input: result channels in the lanes, pixels broadcast a pair of channels at
// a time. Pixels are read where they lie, in channels_last images of an even number of channels without
// padding, or from a copy of the strip's part of the source (band.h).
//
// Floor: multiply-adds over twice the peak of float32. What stands beside it is copying, a quarter of a cycle
// a number for each strip that reads it, and in contiguous layout transposing the results.
#pragma once

#include <atomic>

#include "cpu/bfloat16_pairs/correlation_plan.h"
#include "cpu/bfloat16_pairs/transposed_results.h"
#include "cpu/implicit_gemm/clear.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

class PairsCorrelation {
 public:
  PairsCorrelation(const Correlation& correlation, const PairsPlan& cut, const ConvData& data, uint8_t* flags,
                   void* workspace)
      : c(correlation),
        plan(cut),
        weights(correlation, static_cast<const BFloat16*>(data.weight), cut.joins_columns),
        source(static_cast<const BFloat16*>(c.is_forward ? data.input : data.output)),
        result(static_cast<BFloat16*>(c.is_forward ? data.output : data.input)),
        bias(static_cast<const BFloat16*>(data.bias)),
        images(flags),
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
  static constexpr int64_t lanes = PairVector::lanes;

  const Correlation& c;
  const PairsPlan& plan;
  PairWeights weights;
  const BFloat16* source;
  BFloat16* result;
  const BFloat16* bias;
  uint8_t* images;  // a flag for each
  char* memory;
  std::atomic<bool> has_non_finite{false};

  // A strip of a class, for some panels of a group.
  struct Item {
    Patches<BFloat16> patches;
    int64_t row_set;
    int64_t column_set;
    int64_t group;
    int64_t first_panel;
    int64_t last_panel;
    int64_t first_pixel;
    int64_t pixels;
  };

  template <class T>
  T* shared(int64_t offset) const {
    return reinterpret_cast<T*>(memory + offset);
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

  void pack(const PairWeights::Part& part, Pair* panel) { note(weights.pack(part, panel)); }

  void note(bool are_finite) {
    const bool meets_zeros = !c.is_forward && plan.meets_padding;
    if (!are_finite && meets_zeros) has_non_finite.store(true, std::memory_order_relaxed);
  }

  int64_t sources_of(int64_t block) const {
    return smaller(plan.block_channels, c.source_channels - block * plan.block_channels);
  }

  PairWeights::Part part_of(int64_t row_set, int64_t column_set, int64_t group, int64_t panel,
                            int64_t block) const {
    return {row_set,
            column_set,
            group,
            plan.first_vector(panel) * lanes,
            plan.vectors_of(panel),
            block * plan.block_channels,
            sources_of(block)};
  }

  // Where a part is, if all are packed early.
  Pair* panel_of(const PairWeights::Part& part, int64_t panel, int64_t block) const {
    const int64_t pairs = plan.pairs_of(c, c.source_channels);
    const int64_t column_taps = plan.joins_columns ? 1 : c.columns.taps_of_set(part.column_set);
    const int64_t taps = c.rows.taps_of_set(part.row_set) * column_taps;
    const int64_t taps_before = c.terms_before(part.row_set, part.column_set) / c.source_channels;
    return shared<Pair>(plan.weights_offset) + c.groups * plan.panels_size(taps_before, pairs) +
           part.group * plan.panels_size(taps, pairs) +
           taps * (pairs * part.first_result + panel * plan.blocks * PairWeights::gap) +
           taps * part.first_source / 2 * part.vectors * lanes + taps * block * PairWeights::gap;
  }

  void pack_all(const Executor& executor) {
    const int64_t parts = c.groups * plan.panels * plan.blocks;
    const int64_t column_sets = c.columns.tap_sets();
    // Waking threads costs more than packing a few weights.
    const bool is_small = c.groups * c.result_channels * c.terms_before(c.rows.tap_sets(), 0) < 20000;
    if (weights.can_pack_sets()) {
      return for_each_tile(is_small ? Executor{} : executor, parts, [&](int64_t index, int) {
        const int64_t block = index % plan.blocks;
        const int64_t panel = index / plan.blocks % plan.panels;
        const auto part_of_set = [&](int64_t row_set, int64_t column_set) {
          return part_of(row_set, column_set, index / plan.blocks / plan.panels, panel, block);
        };
        note(weights.pack_sets(part_of_set(0, 0), [&](int64_t row_set, int64_t column_set) {
          return panel_of(part_of_set(row_set, column_set), panel, block);
        }));
      });
    }
    for_each_tile(is_small ? Executor{} : executor, c.tap_sets() * parts, [&](int64_t index, int) {
      const int64_t set = index / parts;
      const int64_t panel = index % parts / plan.blocks;
      const int64_t block = index % plan.blocks;
      const PairWeights::Part part =
          part_of(set / column_sets, set % column_sets, panel / plan.panels, panel % plan.panels, block);
      pack(part, panel_of(part, panel % plan.panels, block));
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
        const PairStrips::Strip at = strips.at(strip, rows, columns, c.batch);
        item.first_pixel = (at.image * rows.count + at.row) * columns.count + at.column;
        item.pixels = at.images * at.rows * at.columns;
        return item;
      }
    }
    return item;
  }

  void run_item(int64_t index, int worker) {
    const Item item = item_of(index);
    const Axis& rows = item.patches.rows;
    const Axis& columns = item.patches.columns;
    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    auto** const sources = reinterpret_cast<const BFloat16**>(own + plan.sources_offset);
    auto** const results = reinterpret_cast<BFloat16**>(own + plan.results_offset);
    auto* const taps = reinterpret_cast<int64_t*>(own + plan.taps_offset);
    auto* const late_panel = reinterpret_cast<Pair*>(own + plan.panel_offset);
    auto* const all_sums = reinterpret_cast<float*>(own + plan.sums_offset);
    auto* const copy = reinterpret_cast<BFloat16*>(own + plan.band_offset);
    const PairBand band(item.patches, item.first_pixel, item.pixels, plan.pixel_stride(c));
    const int64_t column_taps = plan.joins_columns ? 1 : columns.taps;
    BFloat16* const group_result = result + item.group * c.result_channels * c.result_strides.channel;
    find_pixels(item, band, copy, group_result, sources, results);
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t j = 0; j < column_taps; ++j) {
        taps[i * column_taps + j] = plan.reads_in_place ? i * rows.step * c.source_strides.row +
                                                              j * columns.step * c.source_strides.column
                                                        : band.tap(i, j);
      }
    }
    for (int64_t block = 0; block < plan.blocks; ++block) {
      const bool is_last = block + 1 == plan.blocks;
      if (plan.reads_in_place && block > 0) {
        for (int64_t pixel = 0; pixel < item.pixels; ++pixel) sources[pixel] += plan.block_channels;
      }
      if (!plan.reads_in_place) {
        band.fill(item.patches, copy, block * plan.block_channels, sources_of(block));
        if (plan.reads_behind_windows(c)) flag_images(band, copy);
      }
      for (int64_t panel = item.first_panel; panel < item.last_panel; ++panel) {
        const PairWeights::Part part = part_of(item.row_set, item.column_set, item.group, panel, block);
        if (!plan.packs_early) pack(part, late_panel);
        const int64_t before = part.first_result - plan.first_vector(item.first_panel) * lanes;
        PairTile tile{};
        tile.taps = taps;
        tile.tap_count = rows.taps * column_taps;
        tile.pairs = plan.pairs_of(c, part.sources);
        tile.b = plan.packs_early ? panel_of(part, panel, block) : late_panel;
        tile.gap = PairWeights::gap;
        tile.sums_stride = plan.sums_stride;
        tile.continues = block > 0;
        if (bias != nullptr) {
          tile.bias =
              shared<float>(plan.bias_offset) + item.group * plan.all_vectors * lanes + part.first_result;
        }
        tile.first_result = part.first_result;
        tile.results_of_row = c.result_channels - part.first_result;
        float* const sums = all_sums + (plan.blocks == 1 ? 0 : before);
        const bool writes = is_last && plan.writes_in_place;
        multiply(tile, item.pixels, part.vectors, sources, writes ? results : nullptr, sums);
        if (!is_last || writes) continue;
        for_each_result_run(item.patches, c.result_strides, item.first_pixel, item.pixels,
                            group_result + part.first_result * c.result_strides.channel,
                            [&](int64_t begin, int64_t count, BFloat16* to, int64_t step) {
                              transpose_pairs_out(sums + begin * plan.sums_stride, plan.sums_stride, count,
                                                  smaller(part.vectors * lanes, tile.results_of_row), to,
                                                  c.result_strides.channel, step);
                            });
      }
    }
  }

  void flag_images(const PairBand& band, const BFloat16* copy) const {
    band.for_each_line([&](int64_t image, int64_t, int64_t line) {
      // Several workers may flag one image.
      if (!band.is_line_finite(copy + line)) __atomic_store_n(images + image, uint8_t{1}, __ATOMIC_RELAXED);
    });
  }

  // Where each pixel of the strip reads its first tap, and where its result belongs.
  void find_pixels(const Item& item, const PairBand& band, const BFloat16* copy, BFloat16* group_result,
                   const BFloat16** sources, BFloat16** results) const {
    const Axis& rows = item.patches.rows;
    const Axis& columns = item.patches.columns;
    for_each_segment(rows.count, columns.count, item.first_pixel, item.pixels, [&](const Segment& segment) {
      const BFloat16* from = copy;
      int64_t step = columns.stride * c.source_strides.column;
      if (plan.reads_in_place) {
        from = item.patches.source + segment.image * c.source_strides.batch +
               (segment.row * rows.stride + rows.offset) * c.source_strides.row +
               (segment.column * columns.stride + columns.offset) * c.source_strides.column;
      } else {
        from += band.at(segment.image, segment.row, segment.column);
        step = band.columns.pixel_step * band.pixel_stride;
      }
      BFloat16* to = group_result + segment.image * c.result_strides.batch +
                     rows.result_position(segment.row) * c.result_strides.row +
                     columns.result_position(segment.column) * c.result_strides.column;
      for (int64_t x = 0; x < segment.length; ++x) {
        sources[segment.begin + x] = from + x * step;
        results[segment.begin + x] = to + x * columns.spacing * c.result_strides.column;
      }
    });
  }

  // All pixels of a strip by one panel, in tiles of about equal height.
  static void multiply(PairTile tile, int64_t pixels, int64_t vectors, const BFloat16* const* sources,
                       BFloat16* const* results, float* sums) {
    const int64_t tiles = ceil_div(pixels, pair_rows(vectors));
    for (int64_t index = 0; index < tiles; ++index) {
      const int64_t first = pixels * index / tiles;
      const int64_t rows = pixels * (index + 1) / tiles - first;
      tile.a = sources + first;
      tile.sums = sums + first * tile.sums_stride;
      tile.results = results == nullptr ? nullptr : results + first;
      pair_kernel_of(rows, vectors)(tile);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
