// How a correlation with pixels in the lanes is cut, and the workspace that it needs. See pixels_in_lanes.h.
#pragma once

#include <type_traits>

#include "cpu/implicit_gemm/band.h"
#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// How the results of one class are cut into strips.
struct Strips {
  bool is_band;     // or patches
  int64_t size;     // rows of a band; pixels of patches
  int64_t columns;  // for a band
  int64_t across;   // for a band: strips beside each other
  int64_t count;    // of an image; for patches, of the batch
  int64_t total;
};

template <class T>
struct PixelsInLanesPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  // What is to stay in the L2 cache, in numbers.
  static constexpr int64_t most_band = 160 * 1024 / sizeof(Real);
  static constexpr int64_t most_sums = 128 * 1024 / sizeof(Real);
  static constexpr int64_t channels_of_item = 128;
  static constexpr int64_t most_places = 2048 / sizeof(Real);
  static constexpr int64_t pixels_worth_packing = 512;
  static constexpr int64_t slack = most_tile_vectors * lanes;

  const Correlation& c;
  int64_t width;          // result channels of a tile
  int64_t tiles;          // of one group
  int64_t tiles_of_item;  // at most
  int64_t tiles_of_sums;  // that are in scratch at a time
  int64_t places;         // of a strip, at most
  int64_t patches_stride;
  int64_t sums_stride;
  bool packs_weights;

  int64_t workers_offset;
  int64_t source_offset;  // in a worker's part
  int64_t sums_offset;
  int64_t terms_offset;
  int64_t worker_bytes;

  explicit PixelsInLanesPlan(const Correlation& correlation) : c(correlation) {
    const int64_t channels = larger(1, c.result_channels);
    width = rows_of_tile(channels);
    tiles = ceil_div(channels, width);
    // Sums of a single block of terms go to the result tile by tile, of more blocks they wait for the next.
    const bool has_single_block = ReductionBlocks(c.most_terms()).count == 1;
    tiles_of_item = has_single_block ? tiles : smaller(tiles, ceil_div(channels_of_item, width));
    tiles_of_sums = has_single_block ? 1 : tiles_of_item;
    places = larger(2 * slack, smaller(most_places, most_sums / (tiles_of_sums * width))) / lanes * lanes;
    patches_stride = sums_stride = spread_stride<Real>(places);
    // In place, weights of neighbouring terms should be neighbours, as those of forward are: the lines of the
    // cache that a tile reads are too many otherwise, and often fall into a few of its sets.
    packs_weights =
        !std::is_same_v<T, Real> || is_far(c.weight_source_stride) || is_far(c.weight_result_stride) ||
        (c.weight_result_stride < c.weight_source_stride && c.most_pixels() >= pixels_worth_packing);

    Carver shared;
    if (packs_weights)
      shared.take(c.groups * tiles * width * c.terms_before(c.rows.tap_sets(), 0), sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    const int64_t terms = smaller(block_terms, c.most_terms());
    source_offset = own.take(larger(most_band, terms * patches_stride) + lanes, sizeof(Real));
    sums_offset = own.take(tiles_of_sums * width * sums_stride, sizeof(Real));
    terms_offset = own.take(2 * block_terms, sizeof(int32_t));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  // Tables of positions hold 32 bits.
  static bool is_far(int64_t stride) {
    constexpr int64_t most = (int64_t{1} << 30) / block_terms;
    return stride > most || stride < -most;
  }

  // Channels that a block of terms touches, at most.
  int64_t channels_of_block(int64_t taps) const {
    return smaller(c.source_channels, (block_terms + taps - 2) / taps + 1);
  }

  // Chooses by a rough count of cycles for each result; any choice gives the same bits.
  Strips cut(const Axis& rows, const Axis& columns) const {
    const int64_t pixels = rows.count * columns.count;
    const int64_t taps = rows.taps * columns.taps;
    const double terms = static_cast<double>(taps * c.source_channels);
    const double channel_tiles = static_cast<double>(smaller(tiles, tiles_of_item));
    // A strip of that many vectors: the products, in tiles of which small ones wait for the latency; its
    // weights, at 16 bytes a cycle from the L2 cache or 6 from further away; and the copying, done again for
    // each block of channels.
    constexpr double cached_weights = 512 * 1024 / sizeof(Real);
    const double weight_cycles = static_cast<double>(width) * sizeof(Real) /
                                 (terms * static_cast<double>(c.result_channels) > cached_weights ? 6 : 16);
    const auto cost_of = [&](int64_t vectors, double copying, double results) {
      const int64_t most = tile_vectors(width);
      const int64_t pixel_tiles = ceil_div(vectors, most);
      const double products = static_cast<double>(larger(8 * pixel_tiles, vectors * width)) / 2;
      return (terms * channel_tiles * (products + weight_cycles) + copying) / results;
    };

    const int64_t all_pixels = c.batch * pixels;
    const int64_t patch_strips = larger(1, ceil_div(all_pixels, places));
    const int64_t size = larger(lanes, round_up(ceil_div(all_pixels, patch_strips), lanes));
    const int64_t count = ceil_div(all_pixels, size);
    Strips best{false, size, 0, 1, count, count};
    if (rows.is_border || columns.is_border || pixels == 0) return best;
    const double segments = static_cast<double>(size) / static_cast<double>(columns.count) + 1.5;
    double least = cost_of(size / lanes, terms * (segments * 20 + 2.0 * static_cast<double>(size / lanes)),
                           static_cast<double>(smaller(size, all_pixels)));

    const int64_t channels = channels_of_block(taps);
    const auto fits = [&](const Band& band) {
      return band.places() <= places && channels * band.channel_stride + slack <= most_band;
    };
    int64_t across = ceil_div(columns.count, places);
    int64_t piece = columns.count;
    while (true) {
      if (across > 1) piece = round_up(ceil_div(columns.count, across), lanes);
      if (fits(Band(rows, columns, 0, 1, 0, piece))) break;
      if (piece <= lanes) return best;
      ++across;
    }
    across = ceil_div(columns.count, piece);
    for (int64_t height = 1; height <= smaller(rows.count, places); ++height) {
      const int64_t down = ceil_div(rows.count, height);
      if (height != ceil_div(rows.count, down)) continue;  // as many strips as with fewer rows
      const Band band(rows, columns, 0, height, 0, piece);
      if (!fits(band)) break;
      const double gather = columns.stride * c.source_strides.column <= 2 ? 2.0 / lanes : 1.0;
      const double copying = static_cast<double>(c.source_channels * band.lines()) *
                             (18 + gather * static_cast<double>(band.pitch));
      const double cost =
          cost_of(ceil_div(band.places(), lanes), copying, static_cast<double>(height * piece));
      if (cost < least) {
        least = cost;
        best = {true, height, piece, across, down * across, c.batch * down * across};
      }
    }
    return best;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
