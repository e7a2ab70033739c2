// Where kernels are large or dilated and maps are small, many taps read nothing but zeros of padding.
// Products with those add zeros to a sum, so they are left out; no bit changes by it. (Unless a weight is not
// finite: see channels_in_lanes.h.)
//
// Of correlations: if chains end where taps do, a tile of pixels of one row takes each tap for those of its
// pixels that read the source by it. Else tiles leave out the blocks of terms by which none of their pixels
// does.
#pragma once

#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The taps [begin, end) that read a source position and not padding.
struct TapRange {
  int64_t begin;
  int64_t end;

  // Of the result position q. Not for borders.
  static TapRange of(const Axis& axis, int64_t q) {
    const int64_t first = q * axis.stride + axis.offset;
    const auto taps_below = [&](int64_t distance) {  // with t * |step| < distance
      const int64_t size = axis.step < 0 ? -axis.step : axis.step;
      return distance <= 0 ? 0 : smaller(axis.taps, (distance - 1) / size + 1);
    };
    if (axis.step < 0) return {taps_below(first - axis.source_size + 1), taps_below(first + 1)};
    return {taps_below(-first), taps_below(axis.source_size - first)};
  }

  void include(const TapRange& other) {
    begin = smaller(begin, other.begin);
    end = larger(end, other.end);
  }
  bool meets(int64_t first, int64_t last) const { return first < end && last >= begin; }
  bool operator==(const TapRange& other) const { return begin == other.begin && end == other.end; }
  bool has(int64_t tap) const { return tap >= begin && tap < end; }
};

// Of one pixel, or all that several pixels read.
struct PixelTaps {
  TapRange rows;
  TapRange columns;

  // Is one of the taps [first, last], counted along rows of `column_taps`, among them?
  bool meet(int64_t first, int64_t last, int64_t column_taps) const {
    const int64_t first_row = first / column_taps;
    const int64_t last_row = last / column_taps;
    for (int64_t i = larger(first_row, rows.begin); i <= last_row && i < rows.end; ++i) {
      const int64_t from = i == first_row ? first - first_row * column_taps : 0;
      const int64_t to = i == last_row ? last - last_row * column_taps : column_taps - 1;
      if (columns.meets(from, to)) return true;
    }
    return false;
  }
};

// The result positions [begin, end) that read a source position by a tap. Not for borders.
struct PositionRange {
  int64_t begin;
  int64_t end;

  static PositionRange of(const Axis& axis, int64_t tap) {
    const int64_t at = tap * axis.step + axis.offset;
    const int64_t begin = Inside::first_at_least(axis.stride, -at, axis.count);
    return {begin, larger(begin, Inside::first_at_least(axis.stride, axis.source_size - at, axis.count))};
  }

  int64_t count() const { return end - begin; }
};

// The share of an axis' pairs of result position and tap that read the source.
inline double real_share(const Axis& axis) {
  if (axis.count * axis.taps == 0) return 1;
  int64_t pairs = 0;
  for (int64_t tap = 0; tap < axis.taps; ++tap) pairs += PositionRange::of(axis, tap).count();
  return static_cast<double>(pairs) / static_cast<double>(axis.count * axis.taps);
}

// The share of what the windows read that is no padding of zeros; 1 where that is not worth counting.
inline double source_share(const Correlation& c) {
  const Axis rows = c.rows.at(0);
  const Axis columns = c.columns.at(0);
  if (rows.is_border || columns.is_border || rows.mode != PaddingMode::zeros) return 1;
  // Spares the counting where windows are small beside the map.
  const auto reaches_far = [](const Axis& axis) {
    const int64_t reach = (axis.taps - 1) * (axis.step < 0 ? -axis.step : axis.step);
    return 16 * reach >= axis.count;
  };
  if (!reaches_far(rows) && !reaches_far(columns)) return 1;
  return real_share(rows) * real_share(columns);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
