// The innermost loops: a block of `channels` x `vectors` results in registers, each the sum over the terms of
// a number of a line times a weight. The sums wait for nothing but an addition, so a few of them keep the
// multipliers busy.
#pragma once

#include <cstring>

#include "cpu/integer_rows/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Neighbouring results of one line.
template <class Arithmetic>
struct IntegerRow {
  using Lane = typename Arithmetic::Lane;

  const Lane* line;  // what the first result reads for a term is offsets[term] bytes behind
  const int32_t* offsets;
  int64_t terms;
  int64_t count;
};

template <class Lane>
CONVEXT_INLINE const Lane* at_term(const Lane* line, int64_t offset) {
  return reinterpret_cast<const Lane*>(reinterpret_cast<const char*>(line) + offset);
}

template <class Lane, class Out>
CONVEXT_INLINE void store_results(Out* target, Vector<Lane> sums, int64_t count) {
  if (count >= Vector<Lane>::lanes) {
    store_narrowed(target, sums);
  } else if (count > 0) {
    Out results[Vector<Lane>::lanes];
    store_narrowed(results, sums);
    std::memcpy(target, results, static_cast<size_t>(count) * sizeof(Out));
  }
}

// Whether a block of that many vectors is faster for what is left of a row than several smaller ones: if no
// more than a quarter of them are without a result.
template <int64_t lanes, int vectors>
CONVEXT_INLINE bool fills_block(int64_t left) {
  return left > (vectors - vectors / 4 - 1) * lanes;
}

// `weights`: for each term, one of each channel. `bias`: one of each channel.
template <class Arithmetic, class Out, int channels, int vectors>
CONVEXT_INLINE void channel_block(const IntegerRow<Arithmetic>& row, int64_t first,
                                  const typename Arithmetic::Weight* weights,
                                  const typename Arithmetic::Lane* bias, Out* target,
                                  int64_t channel_stride) {
  using Lane = typename Arithmetic::Lane;
  constexpr int64_t lanes = Vector<Lane>::lanes;
  Vector<Lane> sum[channels][vectors];
  CONVEXT_UNROLL
  for (int c = 0; c < channels; ++c) {
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) sum[c][v] = broadcast(bias[c]);
  }
  const Lane* const line = row.line + first;
  for (int64_t k = 0; k < row.terms; ++k, weights += channels) {
    const Lane* const from = at_term(line, row.offsets[k]);
    Vector<Lane> values[vectors];
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) values[v] = load(from + v * lanes);
    CONVEXT_UNROLL
    for (int c = 0; c < channels; ++c) {
      const Vector<Lane> weight = Arithmetic::multiplier(weights[c]);
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sum[c][v] = Arithmetic::add_product(values[v], weight, sum[c][v]);
    }
  }
  CONVEXT_UNROLL
  for (int c = 0; c < channels; ++c) {
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v)
      store_results(target + c * channel_stride + first + v * lanes, sum[c][v],
                    row.count - first - v * lanes);
  }
}

template <class Arithmetic, class Out, int channels>
void channel_row(const IntegerRow<Arithmetic>& row, const typename Arithmetic::Weight* weights,
                 const typename Arithmetic::Lane* bias, Out* target, int64_t channel_stride) {
  constexpr int64_t lanes = Vector<typename Arithmetic::Lane>::lanes;
  constexpr int most = channels == 1 ? 8 : sizeof(Vector<typename Arithmetic::Lane>) == 64 ? 4 : 2;
  int64_t first = 0;
  const auto blocks_of = [&](auto vectors) {
    for (; fills_block<lanes, vectors>(row.count - first); first += vectors * lanes)
      channel_block<Arithmetic, Out, channels, vectors>(row, first, weights, bias, target, channel_stride);
  };
  if constexpr (most >= 8) blocks_of(std::integral_constant<int, 8>{});
  if constexpr (most >= 4) blocks_of(std::integral_constant<int, 4>{});
  blocks_of(std::integral_constant<int, 2>{});
  blocks_of(std::integral_constant<int, 1>{});
}

// Of pixels that hold a channel in each number: a weight for each lane. `weights` has a vector for each lane
// position of the period, and some of them once more behind, from one term to the next `stride` apart; `bias`
// is laid out like a term.
template <class Arithmetic, class Out, int vectors>
CONVEXT_INLINE void pixel_block(const IntegerRow<Arithmetic>& row, int64_t first,
                                const typename Arithmetic::Lane* weights, int64_t stride,
                                const typename Arithmetic::Lane* bias, Out* target) {
  using Lane = typename Arithmetic::Lane;
  constexpr int64_t lanes = Vector<Lane>::lanes;
  Vector<Lane> sum[vectors];
  CONVEXT_UNROLL
  for (int v = 0; v < vectors; ++v) sum[v] = load(bias + v * lanes);
  const Lane* const line = row.line + first;
  for (int64_t k = 0; k < row.terms; ++k, weights += stride) {
    const Lane* const from = at_term(line, row.offsets[k]);
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v)
      sum[v] = Arithmetic::add_product(load(from + v * lanes), load(weights + v * lanes), sum[v]);
  }
  CONVEXT_UNROLL
  for (int v = 0; v < vectors; ++v)
    store_results(target + first + v * lanes, sum[v], row.count - first - v * lanes);
}

template <class Arithmetic, class Out>
void pixel_row(const IntegerRow<Arithmetic>& row, const typename Arithmetic::Lane* weights, int64_t stride,
               int64_t period, const typename Arithmetic::Lane* bias, Out* target) {
  constexpr int64_t lanes = Vector<typename Arithmetic::Lane>::lanes;
  int64_t first = 0;
  int64_t phase = 0;
  const auto blocks_of = [&](auto vectors) {
    for (; fills_block<lanes, vectors>(row.count - first); first += vectors * lanes) {
      pixel_block<Arithmetic, Out, vectors>(row, first, weights + phase * lanes, stride, bias + phase * lanes,
                                            target);
      for (phase += vectors; phase >= period;) phase -= period;
    }
  };
  blocks_of(std::integral_constant<int, integer_block_vectors>{});
  blocks_of(std::integral_constant<int, 2>{});
  blocks_of(std::integral_constant<int, 1>{});
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
