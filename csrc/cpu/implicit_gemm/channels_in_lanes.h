// Correlations whose source is contiguous along channels (channels_last): neighbouring result channels lie in
// the lanes of a vector, and a tile is some result pixels times some vectors of channels, with k = (i, j, c).
//
// A work item is a block of result channels for a strip of pixels, which may run across rows and images. Its
// pixels are of two kinds. Those whose whole window lies inside the source are read in place, each by a
// pointer of its own and all by one table of positions. For the others (near padding; all, if the source is
// of a 16-bit type) patches are packed, block by block of terms. Weights are packed into panels, once per
// call or, if few items use a panel, in the item. Results are written to their tensor as soon as they are
// final.
#pragma once

#include <atomic>

#include "cpu/implicit_gemm/channels_plan.h"
#include "cpu/implicit_gemm/clear.h"
#include "cpu/implicit_gemm/window_patches.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class ChannelsInLanes {
 public:
  ChannelsInLanes(const Correlation& correlation, const ChannelsInLanesPlan<T>& cut,
                  const ConvProblem& problem, const ConvData& data, void* workspace)
      : c(correlation),
        plan(cut),
        source(static_cast<const T*>(c.is_forward ? data.input : data.output)),
        result(static_cast<T*>(c.is_forward ? data.output : data.input)),
        bias(problem.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        scratch(static_cast<char*>(workspace)),
        weights(correlation, static_cast<const T*>(data.weight), plan.width) {}

  // False, with nothing usable written, where a weight of an input gradient is not finite. Past the edge of
  // the gradient of the output, patches hold zeros for terms that do not exist, and times infinity those
  // would be NaN.
  bool run(const Executor& executor) {
    if (bias != nullptr) widen_bias();
    if (plan.packs_early) {
      pack_early(executor);
      if (has_non_finite_weight.load(std::memory_order_relaxed)) return false;
    }
    const int64_t rows = rows_to_clear(c);
    const int64_t kinds = c.classes() * c.groups;
    // What is read again by the next item should be the larger of source and weights.
    const bool blocks_inside =
        c.most_pixels() > c.result_channels * c.rows.most_taps() * c.columns.most_taps();
    for_each_tile(executor, rows + kinds * plan.blocks * plan.strips, [&](int64_t index, int worker) {
      if (index < rows) return clear_gaps(c, result, index);
      index -= rows;
      Item item;
      if (blocks_inside) {
        item.block = index % plan.blocks;
        index /= plan.blocks;
      } else {
        item.strip = index % plan.strips;
        index /= plan.strips;
      }
      item.group = index % c.groups;
      index /= c.groups;
      item.column_class = index % c.columns.count();
      index /= c.columns.count();
      item.row_class = index % c.rows.count();
      index /= c.rows.count();
      (blocks_inside ? item.strip : item.block) = index;
      run_item(item, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
    return !has_non_finite_weight.load(std::memory_order_relaxed);
  }

 private:
  using Real = Compute<T>;
  using Part = typename WeightPanels<T>::Part;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  struct Item {
    int64_t row_class;
    int64_t column_class;
    int64_t group;
    int64_t block;
    int64_t strip;
  };

  // Pixels that are read by one table of positions.
  struct Pixels {
    const Real** from;
    T** to;  // at the first channel of the item
    int64_t count = 0;
    const int32_t* terms;
  };

  // The scratch of an item and what is in it.
  struct Work {
    Patches<T> patches;
    Pixels inside;
    Pixels packed;
    bool has_windows;  // or else runs, of the pixels that are packed
    Window<T>* windows;
    int64_t* runs;  // pairs of first pixel and number
    int64_t run_count = 0;
    Real** sums;
    int32_t* inside_terms;
    Real* chains;
    Real* panel;
    Real* block;
    Part part;
    int64_t panels;
    int64_t chain;
  };

  const Correlation& c;
  const ChannelsInLanesPlan<T>& plan;
  const T* source;
  T* result;
  const T* bias;
  char* scratch;
  WeightPanels<T> weights;
  std::atomic<bool> has_non_finite_weight{false};

  // Of all groups, each in whole panels.
  Real* widened_bias() const { return reinterpret_cast<Real*>(scratch + plan.bias_offset); }

  void widen_bias() {
    const int64_t stride = plan.panels * plan.width;
    for (int64_t group = 0; group < c.groups; ++group) {
      Real* to = widened_bias() + group * stride;
      for (int64_t m = 0; m < stride; ++m) {
        to[m] = m < c.result_channels ? widen(bias[group * c.result_channels + m]) : Real{0};
      }
    }
  }

  Real* early_panel(const Part& part) const {
    const int64_t terms =
        c.rows.taps_of_set(part.row_set) * c.columns.taps_of_set(part.column_set) * c.source_channels;
    const int64_t before = c.groups * plan.panels * c.terms_before(part.row_set, part.column_set) +
                           (part.group * plan.panels + part.first_channel / plan.width) * terms;
    return reinterpret_cast<Real*>(scratch + plan.weights_offset) + (before + part.first_term) * plan.width;
  }

  void pack_early(const Executor& executor) {
    // Pieces that several workers share; but gathering reads best all terms of a channel at once.
    const int64_t piece = WeightPanels<T>::are_vectors(c) ? 128 : larger(1, c.most_terms());
    const int64_t pieces = ceil_div(c.most_terms(), piece);
    const int64_t tiles = c.tap_sets() * c.groups * plan.panels * pieces;
    const auto pack_piece = [&](int64_t index, int) {
      Part part;
      part.first_term = index % pieces * piece;
      index /= pieces;
      part.first_channel = index % plan.panels * plan.width;
      index /= plan.panels;
      part.group = index % c.groups;
      index /= c.groups;
      part.column_set = index % c.columns.tap_sets();
      part.row_set = index / c.columns.tap_sets();
      part.terms = smaller(piece, c.rows.taps_of_set(part.row_set) * c.columns.taps_of_set(part.column_set) *
                                          c.source_channels -
                                      part.first_term);
      if (part.terms > 0) pack(part, early_panel(part));
    };
    // Waking threads costs more than packing a few weights.
    const bool is_small = c.groups * plan.panels * plan.width * c.terms_before(c.rows.tap_sets(), 0) < 20000;
    for_each_tile(is_small ? Executor{} : executor, tiles, pack_piece);
  }

  void pack(const Part& part, Real* panel) {
    weights.pack(part, panel);
    if (!c.is_forward && !all_finite(panel, part.terms * plan.width)) {
      has_non_finite_weight.store(true, std::memory_order_relaxed);
    }
  }

  void run_item(const Item& item, char* own) {
    Work work;
    Patches<T>& patches = work.patches;
    patches.source = source + item.group * c.source_channels * c.source_strides.channel;
    patches.strides = c.source_strides;
    patches.batch = c.batch;
    patches.channels = c.source_channels;
    patches.rows = c.rows.at(item.row_class);
    patches.columns = c.columns.at(item.column_class);
    const int64_t strip = ceil_div(patches.pixels(), plan.strips);
    const int64_t first_pixel = item.strip * strip;
    const int64_t pixels = smaller(strip, patches.pixels() - first_pixel);
    const int64_t first_panel = item.block * plan.panels / plan.blocks;
    work.panels = (item.block + 1) * plan.panels / plan.blocks - first_panel;
    if (pixels <= 0 || work.panels <= 0) return;

    work.part.row_set = c.rows.tap_set_of(item.row_class);
    work.part.column_set = c.columns.tap_set_of(item.column_class);
    work.part.group = item.group;
    work.part.first_channel = first_panel * plan.width;
    const auto table = [&](int64_t index) {
      return own + plan.pointers_offset + index * plan.pointers() * static_cast<int64_t>(sizeof(void*));
    };
    work.inside.from = reinterpret_cast<const Real**>(table(0));
    work.inside.to = reinterpret_cast<T**>(table(1));
    work.packed.from = reinterpret_cast<const Real**>(table(2));
    work.packed.to = reinterpret_cast<T**>(table(3));
    work.sums = reinterpret_cast<Real**>(table(4));
    work.has_windows = !patches.in_border() && c.source_strides.channel == 1;
    work.windows = reinterpret_cast<Window<T>*>(own + plan.runs_offset);
    work.runs = reinterpret_cast<int64_t*>(own + plan.runs_offset);
    work.inside_terms = reinterpret_cast<int32_t*>(own + plan.terms_offset);
    work.chains = reinterpret_cast<Real*>(own + plan.chains_offset);
    work.panel = reinterpret_cast<Real*>(own + plan.panel_offset);
    work.block = reinterpret_cast<Real*>(own + plan.patches_offset);
    int32_t* const packed_terms = work.inside_terms + plan.terms;
    for (int64_t k = 0; k < plan.terms; ++k) packed_terms[k] = static_cast<int32_t>(k);
    work.inside.terms = work.inside_terms;
    work.packed.terms = packed_terms;
    Real* const sums = reinterpret_cast<Real*>(own + plan.sums_offset);
    for (int64_t p = 0; p < plan.pointers(); ++p) work.sums[p] = sums + p * plan.sums_stride;

    find_pixels(
        work, first_pixel, pixels,
        result + (item.group * c.result_channels + work.part.first_channel) * c.result_strides.channel);
    multiply(work);
  }

  // Result positions [begin, end) whose windows lie inside the source.
  static void find_inside(const Axis& axis, int64_t& begin, int64_t& end) {
    const int64_t reach = (axis.taps - 1) * axis.step;
    const int64_t lowest = axis.offset + smaller(0, reach);
    const int64_t highest = axis.offset + larger(0, reach);
    begin = Inside::first_at_least(axis.stride, -lowest, axis.count);
    end = larger(begin, Inside::first_at_least(axis.stride, axis.source_size - highest, axis.count));
  }

  bool reads_in_place(const Patches<T>& patches) const {
    if (!std::is_same_v<T, Real> || patches.in_border() || c.source_strides.channel != 1) return false;
    // Tables of positions hold 32 bits.
    const double reach =
        static_cast<double>(patches.rows.taps * patches.rows.step * c.source_strides.row) +
        static_cast<double>(patches.columns.taps * patches.columns.step * c.source_strides.column);
    return reach < 1e9 && reach > -1e9 && c.source_channels < (int64_t{1} << 29);
  }

  void find_pixels(Work& work, int64_t first_pixel, int64_t pixels, T* first_result) const {
    const Patches<T>& patches = work.patches;
    const Axis& rows = patches.rows;
    const Axis& columns = patches.columns;
    int64_t first_row = 0, end_row = 0, first_column = 0, end_column = 0;
    if (reads_in_place(patches)) {
      find_inside(rows, first_row, end_row);
      find_inside(columns, first_column, end_column);
    }
    const int64_t step = columns.stride * c.source_strides.column;
    for_each_segment(rows.count, columns.count, first_pixel, pixels, [&](const Segment& segment) {
      T* const line = first_result + segment.image * c.result_strides.batch +
                      rows.result_position(segment.row) * c.result_strides.row;
      const bool row_is_inside = segment.row >= first_row && segment.row < end_row;
      const int64_t end = segment.column + segment.length;
      const int64_t inside_begin = row_is_inside ? smaller(end, larger(segment.column, first_column)) : end;
      const int64_t inside_end = row_is_inside ? larger(inside_begin, smaller(end, end_column)) : end;
      const auto add_packed = [&](int64_t begin, int64_t behind) {
        if (begin >= behind) return;
        if (work.has_windows) {
          const T* const image = patches.source + segment.image * c.source_strides.batch;
          const int64_t row = segment.row * rows.stride + rows.offset;
          for (int64_t x = begin; x < behind; ++x) {
            work.windows[work.packed.count + x - begin] = {image, row, x * columns.stride + columns.offset};
          }
        } else {
          const int64_t first = first_pixel + segment.begin + begin - segment.column;
          work.runs[2 * work.run_count] = first;
          work.runs[2 * work.run_count++ + 1] = behind - begin;
        }
        for (int64_t x = begin; x < behind; ++x) {
          work.packed.from[work.packed.count] = work.block + work.packed.count * plan.patches_stride;
          work.packed.to[work.packed.count++] = line + columns.result_position(x) * c.result_strides.column;
        }
      };
      add_packed(segment.column, inside_begin);
      if constexpr (std::is_same_v<T, Real>) {
        const T* from = patches.source + segment.image * c.source_strides.batch +
                        (segment.row * rows.stride + rows.offset) * c.source_strides.row +
                        columns.offset * c.source_strides.column + inside_begin * step;
        T* to = line + (columns.first + inside_begin * columns.spacing) * c.result_strides.column;
        for (int64_t x = inside_begin; x < inside_end; ++x) {
          work.inside.from[work.inside.count] = from;
          work.inside.to[work.inside.count++] = to;
          from += step;
          to += columns.spacing * c.result_strides.column;
        }
      }
      add_packed(inside_end, end);
    });
    // Tiles fetch what the next one reads; the last one has no next.
    Pixels* const sets[] = {&work.inside, &work.packed};
    for (Pixels* set : sets) {
      for (int64_t p = 0; p < most_indirect_rows && set->count > 0; ++p) {
        set->from[set->count + p] = set->from[set->count - 1];
      }
    }
  }

  void multiply(Work& work) {
    const Patches<T>& patches = work.patches;
    const int64_t terms = patches.terms();
    work.chain = chain_length(c, terms);
    const int64_t size = plan.block_terms_of(work.chain);
    for (int64_t first = 0; first == 0 || first < terms; first += size) {
      const int64_t length = smaller(size, terms - first);
      if (work.inside.count > 0) fill_terms(patches, first, length, work.inside_terms);
      pack_outside(work, first, length);
      for (int64_t panel = 0; panel < work.panels; ++panel) {
        multiply_panel(work, panel, first, length, first + length >= terms);
      }
    }
  }

  // The patches of the pixels that are not read in place.
  void pack_outside(const Work& work, int64_t first, int64_t length) const {
    if (work.has_windows) {
      return pack_windows(work.patches, work.windows, work.packed.count, first, length, work.block,
                          plan.patches_stride);
    }
    int64_t packed = 0;
    for (int64_t r = 0; r < work.run_count; ++r) {
      pack_terms_fastest(work.patches, work.runs[2 * r], work.runs[2 * r + 1], first, length,
                         work.block + packed * plan.patches_stride, plan.patches_stride);
      packed += work.runs[2 * r + 1];
    }
  }

  void fill_terms(const Patches<T>& patches, int64_t first, int64_t length, int32_t* table) const {
    for_each_tap_run(c.source_channels, patches.columns.taps, first, length, [&](const TapRun& run) {
      const int64_t at = run.row_tap * patches.rows.step * c.source_strides.row +
                         run.column_tap * patches.columns.step * c.source_strides.column + run.channel;
      for (int64_t k = 0; k < run.length; ++k) table[run.begin + k] = static_cast<int32_t>(at + k);
    });
  }

  void multiply_panel(const Work& work, int64_t panel, int64_t first, int64_t length, bool is_last) {
    Part part = work.part;
    part.first_channel += panel * plan.width;
    part.first_term = first;
    part.terms = length;
    Real* weights_here = work.panel;
    if (plan.packs_early) {
      weights_here = early_panel(part);
    } else {
      pack(part, weights_here);
    }
    const int64_t channels = smaller(plan.width, c.result_channels - part.first_channel);
    const int64_t vectors = ceil_div(channels, lanes);
    const bool in_place = plan.writes_in_place && channels % lanes == 0;
    const bool is_single = first == 0 && is_last;

    Fetch fetch = next_weights(work, part, panel, is_last);
    IndirectTile<Real> tile;
    tile.b = weights_here;
    tile.b_stride = plan.width;
    tile.terms = length;
    tile.chain = work.chain;
    tile.column = panel * plan.width;
    tile.accumulate = first > 0;
    tile.bias = bias == nullptr ? nullptr
                                : widened_bias() + part.group * plan.panels * plan.width + part.first_channel;
    tile.fetch = &fetch;
    tile.chains = work.chains;
    const int64_t most_rows = indirect_rows(vectors);
    const int64_t all_tiles = ceil_div(work.inside.count, most_rows) + ceil_div(work.packed.count, most_rows);
    fetch.rate = ceil_div(fetch.left, larger(1, all_tiles * ceil_div(length, 64 / sizeof(Real))));
    int64_t before = 0;  // pixels
    const Pixels* const sets[] = {&work.inside, &work.packed};
    for (const Pixels* set : sets) {
      const int64_t tiles = ceil_div(set->count, most_rows);
      if (tiles == 0) continue;
      const int64_t height = set->count / tiles;
      const int64_t higher = set->count % tiles;  // tiles with one row more
      const IndirectKernel<Real> kernels[2] = {indirect_kernel_of<Real>(height, vectors),
                                               indirect_kernel_of<Real>(height + 1, vectors)};
      tile.a_terms = set->terms;
      tile.fetches_next_rows = set == &work.inside && panel == 0;
      int64_t pixel = 0;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t rows = height + (t < higher ? 1 : 0);
        tile.a = set->from + pixel;
        if (in_place) {
          if constexpr (std::is_same_v<T, Real>) tile.c = set->to + pixel;
        } else {
          tile.c = work.sums + (is_single ? 0 : before + pixel);
        }
        kernels[t < higher ? 1 : 0](tile);
        if (is_last && !in_place) {
          for (int64_t r = 0; r < rows; ++r) {
            store_channels(set->to[pixel + r] + tile.column * c.result_strides.channel,
                           tile.c[r] + tile.column, channels);
          }
        }
        pixel += rows;
      }
      before += set->count;
    }
  }

  // What the next panel will read.
  Fetch next_weights(const Work& work, Part part, int64_t panel, bool is_last) const {
    if (panel + 1 < work.panels) {
      part.first_channel += plan.width;
    } else if (!is_last) {
      part.first_channel = work.part.first_channel;
      part.first_term += part.terms;
      part.terms = smaller(part.terms, work.patches.terms() - part.first_term);
    } else {
      return {};
    }
    if (!plan.packs_early) return weights.lines_of(part);
    Fetch fetch;
    fetch.row = reinterpret_cast<const char*>(early_panel(part));
    fetch.lines = fetch.left = part.terms * plan.width * static_cast<int64_t>(sizeof(Real)) / 64;
    return fetch;
  }

  CONVEXT_INLINE void store_channels(T* to, const Real* values, int64_t channels) const {
    if (c.result_strides.channel != 1) {
      for (int64_t m = 0; m < channels; ++m) to[m * c.result_strides.channel] = narrow<T>(values[m]);
      return;
    }
    int64_t m = 0;
    for (; m + lanes <= channels; m += lanes) store_narrowed(to + m, load(values + m));
    if (m < channels) store_narrowed(to + m, load(values + m), channels - m);
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
