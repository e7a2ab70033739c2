// The weights of one vector of result channels as [term][lane], and the way back for the gradient of the
// weight. Terms (source channel k, taps i and j) are adjacent in memory in one of a few orders; runs of them
// are transposed, one lane after the other being far away.
#pragma once

#include "cpu/grouped/layout.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Where the terms of one tap are packed: that of channel 0, and from channel to channel.
struct TermPlace {
  int64_t first;
  int64_t step;
};

template <class T>
class GroupWeights {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  GroupWeights(const GroupLayout<T>& group_layout, const ConvProblem& p, bool results_are_outputs)
      : layout(group_layout), strides(p.weight_strides), kernel(p.kernel), channels(layout.source_channels) {
    group_stride = p.out_channels / p.groups * strides.out_channel;
    source_stride = results_are_outputs ? strides.in_channel : strides.out_channel;
    result_stride = results_are_outputs ? strides.out_channel : strides.in_channel;
    const int64_t area = kernel.height * kernel.width;
    const auto is = [](int64_t stride, int64_t size, int64_t wanted) {
      return size == 1 || stride == wanted;
    };
    if (is(strides.column, kernel.width, 1) && is(strides.row, kernel.height, kernel.width)) {
      const bool adjacent = is(source_stride, channels, area);
      runs = adjacent ? 1 : channels;
      run = adjacent ? channels * area : area;
    } else if (is(source_stride, channels, 1) && is(strides.column, kernel.width, channels) &&
               is(strides.row, kernel.height, kernel.width * channels)) {
      channels_fastest = true;
      runs = 1;
      run = channels * area;
    }
  }

  int64_t terms() const { return channels * kernel.height * kernel.width; }

  // places[t] = first + k * step, where {first, step} = place_of(i, j), for the terms t in the order in which
  // they lie in memory.
  template <class PlaceOf>
  void fill_places(int32_t* places, const PlaceOf& place_of) const {
    const int64_t area = kernel.height * kernel.width;
    for (int64_t i = 0; i < kernel.height; ++i) {
      for (int64_t j = 0; j < kernel.width; ++j) {
        const int64_t tap = i * kernel.width + j;
        const TermPlace place = place_of(i, j);
        for (int64_t k = 0; k < channels; ++k) {
          places[channels_fastest ? tap * channels + k : k * area + tap] =
              static_cast<int32_t>(place.first + k * place.step);
        }
      }
    }
  }

  // Lanes without a channel get some other weight.
  void pack(Real* packed, const T* weight, int64_t tile, int64_t vector, const int32_t* places) const {
    int64_t offsets[lanes];
    set_offsets(offsets, tile, vector);
    if (run == 0) {
      switch (has_adjacent_results() ? layout.result_channels : 0) {
        case 2:
          return copy_groups<2>(packed, weight, offsets, places);
        case 4:
          return copy_groups<4>(packed, weight, offsets, places);
        case 8:
          return copy_groups<8>(packed, weight, offsets, places);
        case 16:
          return copy_groups<16>(packed, weight, offsets, places);
        default:
          return copy_groups<1>(packed, weight, offsets, places);
      }
    }
    for (int64_t outer = 0; outer < runs; ++outer) {
      const T* from = weight + outer * source_stride;
      const int32_t* place = places + outer * run;
      for_each_pixel_group(lanes, run, [&](int64_t first, int64_t n) {
        Vector<Real> v[lanes];
        if (n == lanes) {
          CONVEXT_UNROLL
          for (int64_t i = 0; i < lanes; ++i) v[i] = load_widened(from + offsets[i] + first);
        } else {
          CONVEXT_UNROLL
          for (int64_t i = 0; i < lanes; ++i) v[i] = load_widened(from + offsets[i] + first, n);
        }
        transpose(v);
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (i < n) store(packed + place[first + i] * lanes, v[i]);
        }
      });
    }
  }

  void unpack(const Real* packed, T* weight, int64_t tile, int64_t vector, int64_t valid_lanes,
              const int32_t* places) const {
    int64_t offsets[lanes];
    set_offsets(offsets, tile, vector);
    if (run == 0) {
      for_each_scattered(places, [&](int64_t offset, int64_t place) {
        for (int64_t lane = 0; lane < valid_lanes; ++lane)
          weight[offsets[lane] + offset] = narrow<T>(packed[place * lanes + lane]);
      });
      return;
    }
    for (int64_t outer = 0; outer < runs; ++outer) {
      T* to = weight + outer * source_stride;
      const int32_t* place = places + outer * run;
      for_each_pixel_group(lanes, run, [&](int64_t first, int64_t n) {
        Vector<Real> v[lanes];
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) v[i] = load(packed + place[first + smaller(i, n - 1)] * lanes);
        transpose(v);
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (i >= valid_lanes) continue;
          if (n == lanes) {
            store_narrowed(to + offsets[i] + first, v[i]);
          } else {
            store_narrowed(to + offsets[i] + first, v[i], n);
          }
        }
      });
    }
  }

 private:
  void set_offsets(int64_t* offsets, int64_t tile, int64_t vector) const {
    const int64_t first_group =
        tile * layout.tile_groups + vector / layout.vectors_of_group * layout.groups_of_vector;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const int64_t group = layout.group_of_lane(lane);
      const int64_t channel = layout.broadcasts ? vector % layout.vectors_of_group * lanes + lane
                                                : lane - group * layout.result_channels;
      offsets[lane] = smaller(first_group + group, layout.groups - 1) * group_stride +
                      smaller(channel, layout.result_channels - 1) * result_stride;
    }
  }

  // Whether the result channels of a group are adjacent in memory, and lanes hold all or none of them.
  bool has_adjacent_results() const {
    return result_stride == 1 &&
           lanes == layout.groups_of_vector * layout.result_channels / layout.vectors_of_group;
  }

  // The weights of `size` lanes at a time are adjacent.
  template <int size>
  void copy_groups(Real* packed, const T* weight, const int64_t* offsets, const int32_t* places) const {
    for_each_scattered(places, [&](int64_t offset, int64_t place) {
      Real* to = packed + place * lanes;
      constexpr int64_t together = size < lanes ? size : lanes;
      for (int64_t lane = 0; lane < lanes; lane += together) {
        const T* from = weight + offsets[lane] + offset;
        for (int64_t i = 0; i < together; ++i) to[lane + i] = widen(from[i]);
      }
    });
  }

  template <class Visit>
  void for_each_scattered(const int32_t* places, const Visit& visit) const {
    for (int64_t k = 0; k < channels; ++k) {
      for (int64_t i = 0; i < kernel.height; ++i) {
        for (int64_t j = 0; j < kernel.width; ++j, ++places)
          visit(k * source_stride + i * strides.row + j * strides.column, *places);
      }
    }
  }

  const GroupLayout<T>& layout;
  WeightStrides strides;
  Size2 kernel;
  int64_t channels;
  int64_t group_stride;
  int64_t source_stride;
  int64_t result_stride;
  bool channels_fastest = false;
  int64_t runs = 0;  // of adjacent terms, `source_stride` apart if there are several
  int64_t run = 0;   // terms of a run; 0: no terms are adjacent
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
