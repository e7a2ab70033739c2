// How groups of few channels are laid out in vectors. A vector of result channels holds those of several
// groups side by side, and for each source channel k of a group the matching operand is one permutation of a
// vector of source channels: lane l takes channel k of the group that l belongs to. Where a group fills more
// than half of a vector, vectors hold (a part of) one group, and the operand is a broadcast.
#pragma once

#include "cpu/direct_rows/pixel_lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Channels of an image as vectors in scratch: `unit` channels side by side (some groups, or one) fill
// `vectors_of_unit` vectors, whose last lanes may stay empty.
struct Pieces {
  int64_t unit;
  int64_t vectors_of_unit;
  int64_t lanes;
  int64_t channels;

  int64_t count() const { return ceil_div(channels, unit) * vectors_of_unit; }
  int64_t pixel_stride() const { return count() * lanes; }
  int64_t first(int64_t piece) const {
    return piece / vectors_of_unit * unit + piece % vectors_of_unit * lanes;
  }
  int64_t size(int64_t piece) const {
    const int64_t end = smaller(channels, (piece / vectors_of_unit + 1) * unit);
    return larger(0, smaller(lanes, end - first(piece)));
  }
};

template <class T>
struct GroupLayout {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  int64_t groups;
  int64_t source_channels;  // of a group
  int64_t result_channels;
  bool broadcasts;
  int64_t groups_of_vector;  // 1 with broadcasts
  int64_t vectors_of_group;  // 1 without
  int64_t tile_groups;       // enough to read whole cache lines of channels
  int64_t tiles;

  GroupLayout(int64_t group_count, int64_t source, int64_t result)
      : groups(group_count), source_channels(source), result_channels(result) {
    const int64_t widest = larger(source, result);
    broadcasts = 2 * widest > lanes;
    groups_of_vector = broadcasts ? 1 : lanes / widest;
    vectors_of_group = broadcasts ? ceil_div(result, lanes) : 1;
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t least = larger(1, line / (groups_of_vector * source_channels)) * groups_of_vector;
    tiles = ceil_div(groups, least);
    tile_groups = round_up(ceil_div(groups, tiles), groups_of_vector);
    tiles = ceil_div(groups, tile_groups);
  }

  int64_t groups_of_tile(int64_t tile) const { return smaller(tile_groups, groups - tile * tile_groups); }
  Pieces source_pieces(int64_t tile_group_count) const {
    return {lanes, 1, lanes, tile_group_count * source_channels};
  }
  Pieces result_pieces(int64_t tile_group_count) const {
    return {groups_of_vector * result_channels, vectors_of_group, lanes, tile_group_count * result_channels};
  }
  // The most vectors of results of a tile.
  int64_t tile_vectors() const { return result_pieces(tile_groups).count(); }

  // Lanes of all the vectors of results, and those that hold a channel.
  int64_t all_lanes() const { return result_pieces(groups).count() * lanes; }
  int64_t used_lanes() const { return groups * result_channels; }

  // Where in a pixel of the source the operands of a vector of results begin.
  int64_t source_of_vector(int64_t vector) const {
    return vector / vectors_of_group * groups_of_vector * source_channels;
  }
  int64_t group_of_lane(int64_t lane) const {
    return broadcasts ? 0 : smaller(lane / result_channels, groups_of_vector - 1);
  }

  // [source channel][lane], not needed for broadcasts.
  void fill_orders(int32_t* orders) const {
    for (int64_t k = 0; k < source_channels; ++k) {
      for (int64_t lane = 0; lane < lanes; ++lane)
        *orders++ = static_cast<int32_t>(group_of_lane(lane) * source_channels + k);
    }
  }
};

// Reads the operand of source channel k at one pixel.
template <class Real, bool broadcasts>
struct Operand {
  LaneOrder<Real> order;

  CONVEXT_INLINE Operand(const int32_t* orders, int64_t k)
      : order(lane_order<Real>(orders + k * Vector<Real>::lanes)) {}
  CONVEXT_INLINE Vector<Real> operator()(const Real* pixel) const { return permute(load(pixel), order); }
};

template <class Real>
struct Operand<Real, true> {
  int64_t channel;

  CONVEXT_INLINE Operand(const int32_t*, int64_t k) : channel(k) {}
  CONVEXT_INLINE Vector<Real> operator()(const Real* pixel) const { return broadcast(pixel[channel]); }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
