// How a correlation with channels in the lanes is cut, and the workspace that it needs. See
// channels_in_lanes.h.
#pragma once

#include <type_traits>

#include "cpu/implicit_gemm/channel_band.h"
#include "cpu/implicit_gemm/channels_cut.h"
#include "cpu/implicit_gemm/padding_taps.h"
#include "cpu/implicit_gemm/weight_panels.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Chains of equal length, added in order; depends on the number of terms and the problem's kind alone.
//
// F.conv2d adds the channels of a pixel in one chain each where it has a single tap or, in channels_last,
// goes forward, and often in eight otherwise: see SumShape.
constexpr int64_t most_chain = 128;
inline int64_t chain_length(const Correlation& c, int64_t terms) {
  int64_t most = sum_shape(terms, Pass::forward).chain;
  const bool is_single_tap = c.rows.p.kernel * c.columns.p.kernel == 1;
  const bool is_channels_last = c.source_strides.channel == 1;
  if (is_single_tap && terms < 512) most = 64;
  if (is_channels_last && (c.is_forward || is_single_tap)) most = terms < 512 ? 64 : most_chain;
  while (most < most_chain && most * most < terms) most *= 2;
  return larger(1, ceil_div(terms, larger(1, ceil_div(terms, most))));
}

template <class T>
struct ChannelsInLanesPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  // Numbers of a panel that are to stay in the L1 cache beside a tile's pixels, of a strip's patches in the
  // L2 cache.
#if defined(__AVX512F__)
  static constexpr int64_t most_block = 32 * 1024 / sizeof(Real);
#else
  static constexpr int64_t most_block = 18 * 1024 / sizeof(Real);
#endif
  static constexpr int64_t most_block_terms = 512;
  static constexpr int64_t most_patches = 256 * 1024 / sizeof(Real);
  static constexpr int64_t usual_block_channels = 64;
  static constexpr double worth_splitting = 0.96;  // shares of what windows read
  static constexpr double worth_splitting_rows = 0.985;
  static constexpr int64_t shortest_even_chain = 24;
  static constexpr double worth_skipping = 0.8;

  int64_t width;           // result channels of a panel
  int64_t panels;          // of one group
  int64_t panels_of_item;  // at most
  int64_t blocks;          // items of one strip of pixels
  int64_t strips;          // of a class
  int64_t strip;           // pixels of one, at most
  int64_t terms;           // of a block, about
  bool packs_early;        // all panels once per call, or each in the items that use it
  bool packs_taps_late;    // and then all terms of a block of source channels at once, of all its panels
  bool writes_in_place;    // the micro-kernel writes the result itself
  bool skips_padding;      // see padding_taps.h
  bool splits_tiles;       // and not only whole blocks of terms
  bool splits_by_columns;  // and those: each tap has pixels of its own, not only each row of taps
  int64_t even_chain;      // where chains end with a tap or a row of taps, so that tiles may be split; else 0
  bool has_band;           // of source pixels with their channels side by side: see channel_band.h
  int64_t block_channels;  // source channels whose terms follow each other: all, but for some bands
  int64_t pieces = 0;      // strips that a row of results is cut into; 0: strips run across rows
  int64_t late_panel;      // numbers of a panel where packs_taps_late
  int64_t patches_stride;
  int64_t sums_stride;

  int64_t weights_offset;
  int64_t bias_offset;
  int64_t workers_offset;
  int64_t pointers_offset;  // in a worker's part
  int64_t sum_pointers_offset;
  int64_t runs_offset;
  int64_t taps_offset;
  int64_t terms_offset;
  int64_t chains_offset;
  int64_t panel_offset;
  int64_t patches_offset;
  int64_t sums_offset;
  int64_t worker_bytes;

  ChannelsInLanesPlan(const Correlation& c, int workers) {
    const int64_t channels = larger(1, c.result_channels);
    const int64_t pixels = larger(1, c.most_pixels());
    has_band = c.source_strides.channel != 1 || copies_few_channels(c);
    block_channels = has_band ? band_block_channels(c) : larger(1, c.source_channels);
    const double share = source_share(c);
    even_chain = has_band && is_worth_splitting_rows(c) ? even_chain_of_row(c) : 0;
    splits_by_columns = even_chain == 0;
    if (splits_by_columns && share * splitting_cost(c) < worth_splitting) even_chain = even_chain_of_tap(c);
    splits_tiles = even_chain > 0;
    skips_padding = splits_tiles || share < worth_skipping;
    const int64_t most_terms = larger(1, block_channels * c.rows.most_taps() * c.columns.most_taps());
    const bool has_tiles_of_rows = splits_tiles && splits_by_columns;
    const ChannelsCut cut = ChannelsCutter<T>(c, has_band, has_tiles_of_rows, most_terms, workers).best();
    width = cut.vectors * lanes;
    panels = cut.panels;
    blocks = cut.blocks;
    strips = cut.strips;
    packs_early = cut.packs_early;
    panels_of_item = ceil_div(panels, blocks);
    strip = ceil_div(pixels, strips);
    const int64_t columns = most_count(c.columns);
    if (has_band && columns > strip) {
      const int64_t piece = round_up(strip, lanes);
      pieces = ceil_div(columns, piece);
      strips = pieces * larger(1, c.batch) * most_count(c.rows);
      strip = larger(piece, ceil_div(pixels, strips));  // the border has no pieces
    }
    terms = smaller(smaller(most_block / width, most_block_terms), most_patches / strip);
    // A tile of few vectors waits for no weights from the L2 cache, but at the ends of its sums.
    constexpr int64_t most_of_narrow_tiles = 1024;
    if (!splits_by_columns) terms = most_of_narrow_tiles;
    terms = smaller(most_terms, larger(terms, most_chain));
    writes_in_place = std::is_same_v<T, Real> && c.result_strides.channel == 1;
    patches_stride = spread_stride<Real>(terms);
    sums_stride = spread_stride<Real>(panels_of_item * width);

    Carver shared;
    weights_offset = shared.take(
        packs_early ? c.groups * panels * width * c.terms_before(c.rows.tap_sets(), 0) : 0, sizeof(Real));
    bias_offset = shared.take(c.groups * panels * width, sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    pointers_offset = own.take(4 * pointers(), sizeof(void*));
    sum_pointers_offset = own.take(pointers(), sizeof(void*));
    runs_offset = own.take(3 * strip, sizeof(int64_t));  // runs or windows
    taps_offset = own.take(skips_padding ? strip : 0, sizeof(PixelTaps));
    terms_offset = own.take(2 * terms, sizeof(int32_t));
    chains_offset = own.take(most_indirect_rows * most_tile_vectors * lanes, sizeof(Real));
    packs_taps_late = !packs_early && !WeightPanels<T>::are_vectors(c);
    late_panel = packs_taps_late ? most_terms * width : 0;
    panel_offset = own.take(packs_early       ? 0
                            : packs_taps_late ? panels_of_item * late_panel
                                              : terms * width,
                            sizeof(Real));
    const int64_t patches = splits_by_columns ? strip * patches_stride : 0;  // or else no class is a border
    patches_offset = own.take(
        larger(patches, has_band ? band_numbers(c, strip, c.batch, band_channels()) : 0), sizeof(Real));
    sums_offset =
        own.take(writes_in_place && channels % lanes == 0 ? 0 : (strip + lanes) * sums_stride, sizeof(Real));
    worker_bytes = own.bytes;
  }

  // Zeros of padding, too: times a weight that is not finite they are NaN. All else has the same bits.
  void read_padding() { skips_padding = splits_tiles = false; }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  // Of a table: one for each pixel, and some behind the last to be fetched in vain.
  int64_t pointers() const { return strip + most_indirect_rows; }

  // Channels that are in the band at a time: of a single tap as many as are multiplied at a time.
  int64_t band_channels() const { return smaller(block_channels, larger(terms, usual_block_channels)); }

  // Of few channels, a copy with its padding costs less than patches of the pixels near the border; of some
  // more, if it lets tiles leave out rows of taps.
  static bool copies_few_channels(const Correlation& c) {
    const int64_t few = is_worth_splitting_rows(c) ? 32 : 4;
    if (c.source_channels > few) return false;
    const auto is_padded = [](const ProblemAxis& p) { return p.before != 0 || p.after != 0; };
    const bool is_inside = c.is_forward && !is_padded(c.rows.p) && !is_padded(c.columns.p);
    return (!is_inside || !std::is_same_v<T, Real>) && band_block_channels(c) == c.source_channels;
  }

  // Source channels of a block of terms (block of channels, i, j, channel), so that the band of a usual strip
  // stays in the L2 cache; 0 if not even that of few channels does. It follows from the shape alone, since
  // the order of the additions follows from it.
  static int64_t band_block_channels(const Correlation& c) {
    if (c.rows.p.kernel * c.columns.p.kernel == 1) return larger(1, c.source_channels);
    for (int64_t most = usual_block_channels; most >= lanes; most /= 2) {
      const int64_t blocks = larger(1, ceil_div(c.source_channels, most));
      const int64_t even =
          blocks == 1 ? larger(1, c.source_channels) : round_up(ceil_div(c.source_channels, blocks), lanes);
      if (band_numbers(c, usual_strip, 1, even) <= most_patches) return even;
    }
    return 0;
  }

  // Tiles of one row of a narrow map are lower, and so read the weights more often. Measured where a tile has
  // six rows; what a tile has follows from the number of workers, and the order of additions must not.
  static double splitting_cost(const Correlation& c) {
    const int64_t usual_rows = has_narrow_tiles(c) ? indirect_rows(2) : 6;
    constexpr double cost_of_lower_tiles = 0.22;
    const int64_t width = larger(1, c.columns.at(0).count);
    const auto places = static_cast<double>(round_up(width, usual_rows));
    return 1 + cost_of_lower_tiles * (places / static_cast<double>(width) - 1);
  }

  // Tiles of one or two vectors, which have rows enough to read the weights seldom.
  static bool has_narrow_tiles(const Correlation& c) { return c.result_channels <= 2 * lanes; }

  // Whether tiles leave out rows of taps, but no single taps: long chains, and one call for nearly all tiles.
  static bool is_worth_splitting_rows(const Correlation& c) {
    if (!has_narrow_tiles(c) || c.classes() != 1 || c.rows.p.kernel * c.columns.p.kernel < 25) return false;
    if (band_block_channels(c) != c.source_channels) return false;
    const double share = source_share(c);
    if (share == 1 || real_share(c.rows.at(0)) >= worth_splitting_rows) return false;
    return share > worth_skipping || c.source_channels < shortest_even_chain;
  }

  // The length of chains that end where a row of taps does; 0 if none is about as long as usual.
  static int64_t even_chain_of_row(const Correlation& c) {
    const int64_t terms_of_row = c.columns.most_taps() * c.source_channels;
    const int64_t longest = chain_length(c, c.most_terms()) * 5 / 4;
    int64_t chains = larger(1, ceil_div(terms_of_row, longest));
    while (terms_of_row % chains != 0) ++chains;
    return terms_of_row / chains >= shortest_even_chain ? terms_of_row / chains : 0;
  }

  // The length of chains that end where the channels of a tap do; 0 if they would be short or of unequal
  // length.
  int64_t even_chain_of_tap(const Correlation& c) const {
    const int64_t channels = block_channels;
    const int64_t chains = ceil_div(channels, chain_length(c, c.most_terms()));
    const bool is_even = channels % chains == 0 && c.source_channels % channels == 0;
    return is_even && channels / chains >= shortest_even_chain ? channels / chains : 0;
  }

  // Terms of a block: whole chains, so that blocks change nothing in a result.
  int64_t block_terms_of(int64_t chain) const { return larger(1, terms / chain) * chain; }

 private:
  static int64_t least_count(const AxisClasses& axis) {
    int64_t least = most_count(axis);
    for (int64_t k = 0; k < axis.count(); ++k) {
      const Axis of_class = axis.at(k);
      if (!of_class.is_border && of_class.count > 0) least = smaller(least, of_class.count);
    }
    return least;
  }
  static int64_t most_places(const AxisClasses& axis, int64_t positions) {
    int64_t most = 0;
    for (int64_t k = 0; k < axis.count(); ++k) {
      const Axis of_class = axis.at(k);
      if (!of_class.is_border) most = larger(most, PlaceAxis(of_class, positions).places);
    }
    return most;
  }

  // Of a band for any strip of so many pixels, which may begin and end anywhere.
  static int64_t band_numbers(const Correlation& c, int64_t pixels, int64_t batch, int64_t channels) {
    const int64_t columns = most_count(c.columns);
    if (columns > pixels) {
      return ChannelBand<T>::capacity(most_places(c.rows, 1), most_places(c.columns, pixels), 1, channels);
    }
    const int64_t least_columns = least_count(c.columns);
    const int64_t rows = smaller(most_count(c.rows), pixels / least_columns + 2);
    const int64_t images = smaller(batch, pixels / (least_columns * least_count(c.rows)) + 2);
    return ChannelBand<T>::capacity(most_places(c.rows, rows), most_places(c.columns, columns), images,
                                    channels);
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
