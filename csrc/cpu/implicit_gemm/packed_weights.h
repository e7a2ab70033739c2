// The weights of a correlation with channels in the lanes, packed into panels: all of them before the first
// product, or each by the item that uses it. Notes on the way whether all are finite.
#pragma once

#include <atomic>

#include "cpu/implicit_gemm/channels_plan.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class PackedWeights {
 public:
  using Real = Compute<T>;
  using Part = typename WeightPanels<T>::Part;

  PackedWeights(const Correlation& correlation, const ChannelsInLanesPlan<T>& cut, const T* weight,
                void* packed)
      : c(correlation),
        plan(cut),
        weights(correlation, weight, plan.width),
        panels(static_cast<Real*>(packed)) {}

  // Of those that were looked at: all of gradients, and where padding is left out.
  bool are_finite() const { return !has_non_finite.load(std::memory_order_relaxed); }

  // All, in advance.
  void pack(const Executor& executor) {
    // Waking threads costs more than packing a few weights.
    const bool is_small = c.groups * plan.panels * plan.width * c.terms_before(c.rows.tap_sets(), 0) < 20000;
    const Executor& workers = is_small ? Executor{} : executor;
    WeightPanels<T>::has_transposed_taps(c) && c.has_each_tap_once() ? pack_taps(workers)
                                                                     : pack_pieces(workers);
  }

  // Where they then are.
  Real* panel_of(const Part& part) const {
    const int64_t taps = c.rows.taps_of_set(part.row_set) * c.columns.taps_of_set(part.column_set);
    const int64_t before =
        c.groups * plan.panels * c.terms_before(part.row_set, part.column_set) +
        (part.group * plan.panels + part.first_channel / plan.width) * taps * c.source_channels;
    return panels + (before + part.first_source * taps + part.first_term) * plan.width;
  }

  // Some terms of a panel.
  void pack(const Part& part, Real* panel) {
    weights.pack(part, panel);
    // Forward, zeros of padding times infinity are NaN, so then none of them is left out.
    if ((!c.is_forward || plan.skips_padding) && !all_finite(panel, part.terms * plan.width)) {
      has_non_finite.store(true, std::memory_order_relaxed);
    }
  }

  // All taps of some source channels, where there is one set of them.
  void pack_taps(const Part& part, Real* panel) {
    const int64_t column_taps = c.columns.taps_of_set(0);
    const bool is_finite = weights.pack_taps(part, [&](int64_t i, int64_t j) {
      i = c.rows.index_of(0, i);
      j = c.columns.index_of(0, j);
      return panel + (i * column_taps + j) * part.sources * plan.width;
    });
    if (!is_finite) has_non_finite.store(true, std::memory_order_relaxed);
  }

  // What packing a part will read, or where it is read if it is packed.
  Fetch fetch_of(const Part& part) const {
    if (!plan.packs_early) return weights.lines_of(part);
    Fetch fetch;
    fetch.row = reinterpret_cast<const char*>(panel_of(part));
    fetch.lines = fetch.left = part.terms * plan.width * static_cast<int64_t>(sizeof(Real)) / 64;
    return fetch;
  }

 private:
  const Correlation& c;
  const ChannelsInLanesPlan<T>& plan;
  WeightPanels<T> weights;
  Real* panels;
  std::atomic<bool> has_non_finite{false};

  void pack_pieces(const Executor& executor) {
    // Pieces that several workers share; but weights that are no vectors are read best in one go.
    const int64_t block_terms = plan.block_channels * c.rows.most_taps() * c.columns.most_taps();
    const int64_t piece = WeightPanels<T>::are_vectors(c) ? 128 : larger(1, block_terms);
    const int64_t pieces = ceil_div(block_terms, piece);
    const int64_t blocks = ceil_div(c.source_channels, plan.block_channels);
    const int64_t tiles = c.tap_sets() * c.groups * plan.panels * blocks * pieces;
    const auto pack_piece = [&](int64_t index, int) {
      Part part;
      part.first_term = index % pieces * piece;
      index /= pieces;
      part.first_source = index % blocks * plan.block_channels;
      part.sources = smaller(plan.block_channels, c.source_channels - part.first_source);
      index /= blocks;
      part.first_channel = index % plan.panels * plan.width;
      index /= plan.panels;
      part.group = index % c.groups;
      index /= c.groups;
      part.column_set = index % c.columns.tap_sets();
      part.row_set = index / c.columns.tap_sets();
      part.terms = smaller(
          piece, c.rows.taps_of_set(part.row_set) * c.columns.taps_of_set(part.column_set) * part.sources -
                     part.first_term);
      if (part.terms > 0) pack(part, panel_of(part));
    };
    for_each_tile(executor, tiles, pack_piece);
  }

  // One pass over the weights for all tap sets.
  void pack_taps(const Executor& executor) {
    constexpr int64_t piece = 32;  // source channels
    const int64_t pieces = ceil_div(plan.block_channels, piece);
    const int64_t blocks = ceil_div(c.source_channels, plan.block_channels);
    for_each_tile(executor, c.groups * plan.panels * blocks * pieces, [&](int64_t index, int) {
      Part block;
      const int64_t first_of_piece = index % pieces * piece;
      index /= pieces;
      block.first_source = index % blocks * plan.block_channels;
      block.sources = smaller(plan.block_channels, c.source_channels - block.first_source);
      index /= blocks;
      block.first_channel = index % plan.panels * plan.width;
      block.group = index / plan.panels;
      block.first_term = 0;
      Part part = block;
      part.first_source += first_of_piece;
      part.sources = smaller(piece, block.sources - first_of_piece);
      if (part.sources <= 0) return;
      const bool is_finite = weights.pack_taps(part, [&](int64_t i, int64_t j) {
        block.row_set = c.rows.set_of_tap(i);
        block.column_set = c.columns.set_of_tap(j);
        const int64_t tap = c.rows.index_of(block.row_set, i) * c.columns.taps_of_set(block.column_set) +
                            c.columns.index_of(block.column_set, j);
        return panel_of(block) + (tap * block.sources + first_of_piece) * plan.width;
      });
      if (!is_finite) has_non_finite.store(true, std::memory_order_relaxed);
    });
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
