// The weights of 1x1 kernels, a row of source channels for each result channel of all groups: read in place,
// or from a copy where channels are no neighbours, or are to be followed by zeros.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"
#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

class PointwiseWeights {
 public:
  // `pairs` of source channels of a row; `row_numbers` from one row of the copy to the next.
  PointwiseWeights(const Correlation& correlation, const BFloat16* weights, int64_t pairs_of_row,
                   int64_t row_numbers, BFloat16* memory)
      : c(correlation), weight(weights), pairs(pairs_of_row), row_stride(row_numbers), copy(memory) {}

  const BFloat16* in_place(int64_t channel) const {
    return weight + channel / c.result_channels * c.weight_group_stride +
           channel % c.result_channels * c.weight_result_stride;
  }
  BFloat16* copied(int64_t channel) const { return copy + channel * row_stride; }

  void copy_all(const Executor& executor) const {
    const int64_t channels = c.groups * c.result_channels;
    const bool is_small = channels * c.source_channels < 20000;
    for_each_tile(is_small ? Executor{} : executor, ceil_div(channels, lanes), [&](int64_t block, int) {
      copy_rows(lanes * block, smaller(channels, lanes * block + lanes));
    });
  }

 private:
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t numbers = 2 * lanes;

  const Correlation& c;
  const BFloat16* weight;
  int64_t pairs;
  int64_t row_stride;
  BFloat16* copy;

  // Of up to a vector's lanes of result channels.
  void copy_rows(int64_t first, int64_t last) const {
    if (c.weight_result_stride == 1 && (c.groups == 1 || c.result_channels % lanes == 0)) {
      return transpose_rows(first, last);
    }
    for (int64_t m = first; m < last; ++m) {
      const BFloat16* const from = in_place(m);
      BFloat16* const to = copied(m);
      if (c.weight_source_stride == 1) {
        for (int64_t k = 0; k < 2 * pairs; k += numbers) {
          store_neighbours(to + k, load_neighbours(from + k, c.source_channels - k), 2 * pairs - k);
        }
        continue;
      }
      for (int64_t k = 0; k < c.source_channels; ++k) to[k] = from[k * c.weight_source_stride];
      for (int64_t k = c.source_channels; k < 2 * pairs; ++k) to[k] = BFloat16{0};
    }
  }

  // Whose weights are neighbours, 32 source channels at a time.
  void transpose_rows(int64_t first, int64_t last) const {
    const BFloat16* const from = in_place(first);
    for (int64_t k = 0; k < 2 * pairs; k += numbers) {
      PairVector square[lanes];
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t source_channel = k + 2 * lane;
        square[lane] = no_pairs();
        if (source_channel >= c.source_channels) continue;
        const BFloat16* const low = from + source_channel * c.weight_source_stride;
        const bool has_high = source_channel + 1 < c.source_channels;
        square[lane] = zip(low, has_high ? low + c.weight_source_stride : nullptr, last - first);
      }
      transpose(square);
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < lanes; ++lane) {
        if (first + lane < last) store_neighbours(copied(first + lane) + k, square[lane], 2 * pairs - k);
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
