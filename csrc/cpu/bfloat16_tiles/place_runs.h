// Tensors whose pixels are neighbours, beside places that have gaps: which numbers of a channel's row of the
// tensor belong to which of 32 places.
#pragma once

#include "cpu/bfloat16_pairs/correlation_plan.h"
#include "cpu/bfloat16_tiles/channel_planes.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t places_of_step = 2 * most_tile_pairs;

// Numbers of the tensor, a constant distance apart, that fill some of the places of a step, in order.
struct PlaceRun {
  int64_t offset;
  int64_t step;
  uint32_t mask;

  int64_t count() const { return __builtin_popcount(mask); }
};

// The runs of a strip's pixels; returns how many there are, at most as many as pixels. Pixels are `distance`
// apart, offset_of(image, row) is where the first of a row of the strip lies. Rows that follow each other in
// memory are one run, whatever is between their places.
template <class OffsetOf>
int64_t find_place_runs(const PairStrips::Strip& strip, const TilePlaces& places, int64_t distance,
                        const OffsetOf& offset_of, PlaceRun* runs) {
  int64_t count = 0;
  for (int64_t image = 0; image < strip.images; ++image) {
    for (int64_t row = 0; row < strip.rows; ++row) {
      const int64_t first = places.index_of(image, row, 0);
      const int64_t offset = offset_of(image, row);
      for (int64_t x = 0; x < strip.columns;) {
        const int64_t step = (first + x) / places_of_step;
        const int64_t at = (first + x) % places_of_step;
        const int64_t length = smaller(strip.columns - x, places_of_step - at);
        const auto mask = static_cast<uint32_t>(((uint64_t{1} << length) - 1) << at);
        const int64_t from = offset + x * distance;
        PlaceRun* const last = runs + count - 1;
        if (count > 0 && last->step == step && last->offset + last->count() * distance == from) {
          last->mask |= mask;
        } else {
          runs[count++] = {from, step, mask};
        }
        x += length;
      }
    }
  }
  return count;
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
