// Correlations with neighbouring result channels in the lanes of a vector: a tile is some result pixels times
// some vectors of channels, with k = (i, j, c).
//
// A work item is a block of result channels for a strip of pixels, which may run across rows and images. Each
// pixel is read by a pointer of its own, and all by one table of positions. In channels_last tensors, pixels
// whose whole window lies inside the source are read in place; for the others (near padding; all, if the
// source is of a 16-bit type) patches are packed, block by block of terms. Of contiguous tensors, a band is
// copied with its channels side by side (channel_band.h), some channels at a time, k = (some c, i, j, c); so
// are padded channels_last ones of a few channels.
// Weights are packed into panels, once per call or, if few items use a panel, in the item. Results are
// written to their tensor as soon as they are final.
#pragma once

#include "cpu/implicit_gemm/clear.h"
#include "cpu/implicit_gemm/packed_weights.h"
#include "cpu/implicit_gemm/source_pixels.h"
#include "cpu/implicit_gemm/transposed_results.h"
#include "cpu/scratch.h"
#include "cpu/streaming.h"

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
        is_large(is_worth_streaming<T>(c.result_numbers())),
        streams_planes(is_large && vector_is_line && begins_line(result) &&
                       are_whole_lines<T>(c.result_strides.channel) &&
                       are_whole_lines<T>(c.result_strides.batch)),
        streams_pixels(is_large && are_whole_lines<T>(plan.width) &&
                       are_pixels_whole_lines(result, c.result_strides)),
        weights(correlation, cut, static_cast<const T*>(data.weight), scratch + cut.weights_offset) {}

  // False, with nothing usable written, where a weight of an input gradient is not finite. Past the edge of
  // the gradient of the output, patches hold zeros for terms that do not exist, and times infinity those
  // would be NaN. Also where a weight is not finite and tiles were split to leave out zeros of padding: times
  // infinity those have to be NaN.
  bool run(const Executor& executor) {
    if (has_start()) widen_bias();
    if (plan.packs_early) {
      weights.pack(executor);
      if (!is_usable()) return false;
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
    return is_usable();
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

  // The scratch of an item and what is in it.
  struct Work {
    SourcePixels<T> pixels;
    Real** sums;
    Real* chains;
    Real* panel;
    Part part{};
    int64_t panels;
    int64_t chain = 1;
  };

  const Correlation& c;
  const ChannelsInLanesPlan<T>& plan;
  const T* source;
  T* result;
  const T* bias;
  char* scratch;
  bool is_large;        // the result
  bool streams_planes;  // where results are transposed
  bool streams_pixels;  // where the micro-kernel writes them in place
  PackedWeights<T> weights;

  bool is_usable() const { return (c.is_forward && !plan.splits_tiles) || weights.are_finite(); }

  // Whether sums begin with a bias, or with a zero: added to it, a first sum of a whole tile has the same
  // bits as that of a part of one.
  bool has_start() const { return bias != nullptr || plan.even_chain > 0; }

  // Of all groups, each in whole panels.
  Real* widened_bias() const { return reinterpret_cast<Real*>(scratch + plan.bias_offset); }

  void widen_bias() {
    const int64_t stride = plan.panels * plan.width;
    for (int64_t group = 0; group < c.groups; ++group) {
      Real* to = widened_bias() + group * stride;
      for (int64_t m = 0; m < stride; ++m) {
        const bool has_bias = bias != nullptr && m < c.result_channels;
        to[m] = has_bias ? widen(bias[group * c.result_channels + m]) : Real{0};
      }
    }
  }

  void run_item(const Item& item, char* own) {
    Patches<T> patches;
    patches.source = source + item.group * c.source_channels * c.source_strides.channel;
    patches.strides = c.source_strides;
    patches.batch = c.batch;
    patches.channels = c.source_channels;
    patches.rows = c.rows.at(item.row_class);
    patches.columns = c.columns.at(item.column_class);
    const auto [first_pixel, count] = strip_of(patches, item.strip);
    const int64_t first_panel = item.block * plan.panels / plan.blocks;
    const int64_t panels = (item.block + 1) * plan.panels / plan.blocks - first_panel;
    if (count <= 0 || panels <= 0) return;

    Work work{SourcePixels<T>(c, plan, patches, first_pixel, count, own),
              reinterpret_cast<Real**>(own + plan.sum_pointers_offset),
              reinterpret_cast<Real*>(own + plan.chains_offset),
              reinterpret_cast<Real*>(own + plan.panel_offset),
              {},
              panels};
    work.part.row_set = c.rows.tap_set_of(item.row_class);
    work.part.column_set = c.columns.tap_set_of(item.column_class);
    work.part.group = item.group;
    work.part.first_channel = first_panel * plan.width;
    Real* const sums = reinterpret_cast<Real*>(own + plan.sums_offset);
    for (int64_t p = 0; p < plan.pointers(); ++p) work.sums[p] = sums + p * plan.sums_stride;
    T* const first_result =
        result + (item.group * c.result_channels + work.part.first_channel) * c.result_strides.channel;
    work.pixels.find(first_result);
    multiply(work, first_result);
    if (is_large) finish_streams();
  }

  struct Strip {
    int64_t first_pixel;
    int64_t pixels;
  };
  Strip strip_of(const Patches<T>& patches, int64_t index) const {
    const int64_t columns = patches.columns.count;
    if (plan.pieces == 0 || patches.in_border()) {
      const int64_t size = ceil_div(patches.pixels(), plan.strips);
      return {index * size, smaller(size, patches.pixels() - index * size)};
    }
    const int64_t row = index / plan.pieces;
    if (row >= patches.batch * patches.rows.count) return {0, 0};
    const int64_t size = round_up(ceil_div(columns, plan.pieces), lanes);
    const int64_t first = index % plan.pieces * size;
    return {row * columns + first, smaller(size, columns - first)};
  }

  void multiply(Work& work, T* first_result) {
    SourcePixels<T>& pixels = work.pixels;
    const int64_t chain = chain_length(c, pixels.patches.terms());
    bool is_first = true;
    for (int64_t source = 0; source == 0 || source < c.source_channels; source += plan.block_channels) {
      work.part.first_source = source;
      work.part.sources = smaller(plan.block_channels, c.source_channels - source);
      pixels.take_channels(source, work.part.sources);
      if (plan.packs_taps_late) {
        Part part = work.part;
        for (int64_t panel = 0; panel < work.panels; ++panel, part.first_channel += plan.width) {
          weights.pack_taps(part, work.panel + panel * plan.late_panel);
        }
      }
      const int64_t terms = pixels.patches.terms();
      work.chain = larger(1, ceil_div(terms, larger(1, ceil_div(terms, chain))));
      // Blocks of a few terms of several taps would be computed where one of those taps is not padding.
      const bool by_taps = plan.skips_padding && !plan.splits_tiles && plan.has_band &&
                           work.part.sources == ChannelsInLanesPlan<T>::usual_block_channels;
      if (by_taps) work.chain = work.part.sources;
      if (plan.even_chain > 0) work.chain = plan.even_chain;
      const int64_t size = by_taps ? work.chain : plan.block_terms_of(work.chain);
      for (int64_t first = 0; first == 0 || first < terms; first += size) {
        const int64_t length = smaller(size, terms - first);
        pixels.take_terms(first, length);
        const bool is_last = source + work.part.sources >= c.source_channels && first + length >= terms;
        for (int64_t panel = 0; panel < work.panels; ++panel) {
          multiply_panel(work, panel, first, length, is_first, is_last, first_result);
        }
        is_first = false;
      }
    }
  }

  void multiply_panel(const Work& work, int64_t panel, int64_t first, int64_t length, bool is_first,
                      bool is_last, T* first_result) {
    Part part = work.part;
    part.first_channel += panel * plan.width;
    part.first_term = first;
    part.terms = length;
    Real* weights_here = work.panel;
    if (plan.packs_early) {
      weights_here = weights.panel_of(part);
    } else if (plan.packs_taps_late) {
      weights_here += panel * plan.late_panel + first * plan.width;
    } else {
      weights.pack(part, weights_here);
    }
    const int64_t channels = smaller(plan.width, c.result_channels - part.first_channel);
    const int64_t vectors = ceil_div(channels, lanes);
    const bool in_place = plan.writes_in_place && channels % lanes == 0;
    // Sums that are written at once take the place of those before. In a band, pixels are in order.
    const bool is_transposed = plan.has_band && c.result_strides.channel != 1;
    const bool is_single = is_first && is_last && !is_transposed;

    Fetch fetch = next_weights(work, part, panel, is_last);
    IndirectTile<Real> tile;
    tile.b = weights_here;
    tile.b_stride = plan.width;
    tile.terms = length;
    tile.chain = work.chain;
    tile.column = panel * plan.width;
    tile.accumulate = !is_first;
    tile.streams = in_place && is_first && is_last && streams_pixels && begins_line(first_result);
    tile.bias =
        has_start() ? widened_bias() + part.group * plan.panels * plan.width + part.first_channel : nullptr;
    tile.fetch = &fetch;
    tile.chains = work.chains;
    Fetch lines;
    tile.fetch_results = is_last && is_transposed && !streams_planes ? &lines : nullptr;
    const bool skips = plan.skips_padding && weights.are_finite();
    // In a border, pixels read what they read through the padding as well.
    const bool splits_tiles = plan.splits_tiles && !work.pixels.patches.in_border();
    const int64_t most_rows = indirect_rows(vectors);
    // The lines of the cache where the block of results from `pixel` on ends, one for each channel; those
    // where it begins belong to the block before.
    const auto fetch_results = [&](int64_t pixel) {
      if (pixel >= work.pixels.count) return;
      const int64_t last = work.pixels.first_pixel + smaller(pixel + lanes, work.pixels.count) - 1;
      lines.row = reinterpret_cast<const char*>(first_result + tile.column * c.result_strides.channel +
                                                position_of(work.pixels.patches, c.result_strides, last));
      lines.pitch = c.result_strides.channel * static_cast<int64_t>(sizeof(T));
      lines.line = 0;
      lines.left = channels;
      lines.rate = ceil_div(channels * most_rows, lanes * ceil_div(length, 64 / sizeof(Real)));
    };
    if (is_last && is_transposed) fetch_results(0);
    const int64_t all_tiles =
        ceil_div(work.pixels.inside.count, most_rows) + ceil_div(work.pixels.packed.count, most_rows);
    fetch.rate = ceil_div(fetch.left, larger(1, all_tiles * ceil_div(length, 64 / sizeof(Real))));
    IndirectKernel<Real> kernels[most_indirect_rows + 1];
    for (int64_t rows = 1; rows <= most_rows; ++rows) kernels[rows] = indirect_kernel_of<Real>(rows, vectors);
    int64_t before = 0;   // pixels
    int64_t written = 0;  // pixels, where results are transposed
    const PixelSet<T>* const sets[] = {&work.pixels.inside, &work.pixels.packed};
    for (const PixelSet<T>* set : sets) {
      tile.a_terms = set->terms;
      // Of a band, the next rows are in the L2 cache at least.
      tile.fetches_next_rows = set == &work.pixels.inside && panel == 0 && !plan.has_band;
      const auto multiply_tile = [&](int64_t pixel, int64_t rows) {
        tile.a = set->from + pixel;
        if (in_place) {
          if constexpr (std::is_same_v<T, Real>) tile.c = set->to + pixel;
        } else {
          tile.c = work.sums + (is_single ? 0 : before + pixel);
        }
        if (splits_tiles) {
          multiply_parts(work, *set, tile, pixel, rows, kernels);
        } else {
          // The first terms write the sums, and the last ones the result, even if there is nothing to add.
          const bool is_read = !skips || work.pixels.read_source(*set, pixel, rows);
          tile.terms = is_read ? length : 0;
          if (is_read || is_first || is_last) kernels[rows](tile);
        }
        if (is_last && !in_place && !is_transposed) {
          for (int64_t r = 0; r < rows; ++r) {
            store_channels(set->to[pixel + r] + tile.column * c.result_strides.channel,
                           tile.c[r] + tile.column, channels);
          }
        }
        // While stores of a few results wait for memory, the next ones are computed.
        if (is_last && is_transposed) {
          const int64_t all = pixel + rows - written;
          const int64_t ready = pixel + rows == set->count ? all : all / lanes * lanes;
          if (ready > 0) {
            write_transposed(work.pixels.patches, c.result_strides, work.pixels.first_pixel + written, ready,
                             work.sums[written] + tile.column, plan.sums_stride, channels,
                             first_result + tile.column * c.result_strides.channel, streams_planes);
            written += ready;
            fetch_results(written);
          }
        }
      };
      int64_t pixel = 0;
      while (pixel < set->count) {
        const int64_t run = splits_tiles ? work.pixels.pixels_alike(*set, pixel) : set->count;
        const int64_t end = pixel + run;
        // As equal as can be, higher ones first.
        for (int64_t tiles = ceil_div(run, most_rows); tiles > 0; --tiles) {
          const int64_t rows = ceil_div(end - pixel, tiles);
          multiply_tile(pixel, rows);
          pixel += rows;
        }
      }
      before += set->count;
    }
  }

  // A tile of pixels that are alike, each with what it reads from the source.
  void multiply_parts(const Work& work, const PixelSet<T>& set, IndirectTile<Real> tile, int64_t pixel,
                      int64_t rows, const IndirectKernel<Real>* kernels) const {
    const Real* const* const a = tile.a;
    Real* const* const to = tile.c;
    const int32_t* const a_terms = tile.a_terms;
    const Real* const b = tile.b;
    const bool is_first = !tile.accumulate;
    bool has_begun = !is_first;
    work.pixels.for_each_part(set, pixel, rows, [&](const typename SourcePixels<T>::TilePart& part) {
      if (!has_begun && part.last_pixel - part.first_pixel < rows) {
        tile.terms = 0;
        kernels[rows](tile);
        has_begun = true;
      }
      tile.accumulate = has_begun;
      tile.streams = false;
      tile.a = a + part.first_pixel;
      tile.c = to + part.first_pixel;
      tile.a_terms = a_terms + part.first_term;
      tile.b = b + part.first_term * tile.b_stride;
      tile.terms = part.last_term - part.first_term;
      kernels[part.last_pixel - part.first_pixel](tile);
      has_begun = true;
    });
    if (has_begun) return;
    tile.terms = 0;
    kernels[rows](tile);
  }

  // What the next panel will read.
  Fetch next_weights(const Work& work, Part part, int64_t panel, bool is_last) const {
    if (panel + 1 < work.panels) {
      part.first_channel += plan.width;
    } else if (!is_last) {
      part.first_channel = work.part.first_channel;
      part.first_term += part.terms;
      part.terms = smaller(part.terms, work.pixels.patches.terms() - part.first_term);
    } else {
      return {};
    }
    return weights.fetch_of(part);
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
