// Sums [pixel][channel] on their way into a tensor whose channels are not neighbours: rounded two pixels at a
// time, which are then transposed as one lane, so that a vector of 32 pixels is stored.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"
#include "cpu/implicit_gemm/transposed_results.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// `count` results of one row, `step` apart in memory; sums_of(x) is where those of the x-th lie. Sums of up
// to 31 pixels more are read.
template <class SumsOf>
CONVEXT_INLINE void transpose_pairs_out(const SumsOf& sums_of, int64_t count, int64_t channels, BFloat16* to,
                                        int64_t channel_stride, int64_t step) {
  constexpr int64_t lanes = PairVector::lanes;
  constexpr int64_t together = 2 * lanes;
  for (int64_t x = 0; x < count; x += together, to += together * step) {
    const int64_t length = smaller(together, count - x);
    for (int64_t channel = 0; channel < channels; channel += lanes) {
      const int64_t wanted = smaller(lanes, channels - channel);
      PairVector square[lanes];
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        square[i] = round_and_zip(load(sums_of(x + 2 * i) + channel), load(sums_of(x + 2 * i + 1) + channel));
      }
      transpose(square);
      BFloat16* const first = to + channel * channel_stride;
      if (step == 1) {
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          if (lane < wanted) store_neighbours(first + lane * channel_stride, square[lane], length);
        }
        continue;
      }
      if (step == 2 || step == 4) {
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          if (lane < wanted) store_every(first + lane * channel_stride, step, square[lane], length);
        }
        continue;
      }
      BFloat16 lines[lanes * together];
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < lanes; ++lane) {
        store_neighbours(lines + lane * together, square[lane], together);
      }
      for (int64_t lane = 0; lane < wanted; ++lane) {
        BFloat16* const line = first + lane * channel_stride;
        for (int64_t i = 0; i < length; ++i) line[i * step] = lines[lane * together + i];
      }
    }
  }
}

inline void transpose_pairs_out(const float* sums, int64_t sums_stride, int64_t count, int64_t channels,
                                BFloat16* to, int64_t channel_stride, int64_t step) {
  transpose_pairs_out([&](int64_t x) { return sums + x * sums_stride; }, count, channels, to, channel_stride,
                      step);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
