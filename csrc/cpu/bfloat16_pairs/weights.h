// Weights as the micro-kernel reads them: panels of result channels, panel[tap][pair of source
// channels][lane], for a block of source channels at a time. Lanes without a channel, and the second of an
// odd number, are zero.
//
// Where the columns of a kernel are joined, (column, channel) counts as the source channels of a kernel one
// column wide: see PairsPlan. A tap may be given more pairs than it has: those are zeros.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"
#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

class PairWeights {
 public:
  // Behind each tap of a panel, so that taps do not fall into one set of the cache: all are written in turns.
  static constexpr int64_t gap = PairVector::lanes;

  // Numbers of pairs that a panel takes.
  static int64_t panel_size(int64_t taps, int64_t pairs, int64_t vectors) {
    return taps * (pairs * vectors * PairVector::lanes + gap);
  }

  PairWeights(const Correlation& correlation, const BFloat16* weights, bool are_columns_joined,
              int64_t pairs_of_each_tap = 0)
      : c(correlation),
        weight(weights),
        joins_columns(are_columns_joined),
        least_pairs(pairs_of_each_tap),
        taps_are_neighbours(has_neighbouring_taps(correlation)) {
    if (taps_are_neighbours && has_short_runs()) order_runs();
  }

  struct Part {
    int64_t row_set;
    int64_t column_set;
    int64_t group;
    int64_t first_result;  // in the group
    int64_t vectors;
    int64_t first_source;  // in the group
    int64_t sources;
  };

  // Whether one pass over the weights packs the taps of all sets, which else would be as many.
  bool can_pack_sets() const { return taps_are_neighbours && c.tap_sets() > 1 && c.has_each_tap_once(); }

  // Packs the taps of all sets; to(row_set, column_set) is where those of one begin. Returns whether all are
  // finite.
  template <class To>
  bool pack_sets(const Part& part, const To& to) const {
    NonFinite non_finite;
    const int64_t tap_pitch = panel_size(1, pairs_of(part), part.vectors);
    const BFloat16* const first = weight + part.group * c.weight_group_stride +
                                  part.first_result * c.weight_result_stride +
                                  part.first_source * c.weight_source_stride;
    for (int64_t row_set = 0; row_set < c.rows.tap_sets(); ++row_set) {
      for (int64_t column_set = 0; column_set < c.columns.tap_sets(); ++column_set) {
        clear_pairs_behind(part, taps_of_sets(row_set, column_set), to(row_set, column_set));
      }
    }
    for (int64_t v = 0; v < part.vectors; ++v) {
      const int64_t results = smaller(lanes, c.result_channels - part.first_result - v * lanes);
      pack_taps(
          part, first + v * lanes * c.weight_result_stride, results,
          [&](int64_t tap) {
            const int64_t i = tap / c.columns.p.kernel;
            const int64_t j = tap % c.columns.p.kernel;
            const int64_t row_set = c.rows.set_of_tap(i);
            const int64_t column_set = c.columns.set_of_tap(j);
            const int64_t index = c.rows.index_of(row_set, i) * c.columns.taps_of_set(column_set) +
                                  c.columns.index_of(column_set, j);
            return to(row_set, column_set) + v * lanes + index * tap_pitch;
          },
          non_finite);
    }
    return non_finite.found == 0;
  }

  // Returns whether all are finite.
  bool pack(const Part& part, Pair* panel) const {
    NonFinite non_finite;
    clear_pairs_behind(part, taps_of_sets(part.row_set, part.column_set), panel);
    const BFloat16* const first = weight + part.group * c.weight_group_stride +
                                  part.first_result * c.weight_result_stride +
                                  part.first_source * c.weight_source_stride;
    for (int64_t v = 0; v < part.vectors; ++v) {
      const int64_t results = smaller(lanes, c.result_channels - part.first_result - v * lanes);
      const BFloat16* const from = first + v * lanes * c.weight_result_stride;
      if (joins_columns) {
        pack_joined(part, from, results, panel + v * lanes);
        continue;
      }
      if (taps_are_neighbours && has_short_runs()) {
        pack_runs(part, from, results, panel + v * lanes);
        continue;
      }
      if (taps_are_neighbours) {
        const int64_t tap_pitch = panel_size(1, pairs_of(part), part.vectors);
        pack_taps(
            part, from, results,
            [&](int64_t tap) -> Pair* {
              const int64_t i = c.rows.index_of(part.row_set, tap / c.columns.p.kernel);
              const int64_t j = c.columns.index_of(part.column_set, tap % c.columns.p.kernel);
              if (i < 0 || j < 0) return nullptr;
              return panel + v * lanes + (i * c.columns.taps_of_set(part.column_set) + j) * tap_pitch;
            },
            non_finite);
        continue;
      }
      Pair* to = panel + v * lanes;
      for (int64_t i = 0; i < c.rows.taps_of_set(part.row_set); ++i) {
        for (int64_t j = 0; j < c.columns.taps_of_set(part.column_set); ++j) {
          const BFloat16* const tap = from + c.rows.tap(part.row_set, i) * c.weight_strides.row +
                                      c.columns.tap(part.column_set, j) * c.weight_strides.column;
          pack_tap(part, tap, results, to, non_finite);
          to += panel_size(1, pairs_of(part), part.vectors);
        }
      }
    }
    return non_finite.found == 0;
  }

 private:
  static constexpr int64_t lanes = PairVector::lanes;

  const Correlation& c;
  const BFloat16* weight;
  bool joins_columns;
  int64_t least_pairs;
  bool taps_are_neighbours;
  // Where sixteen pairs lie that begin with a tap, counted from the first tap of its pair of channels.
  uint16_t orders[lanes][2 * lanes];

  // Of a tap, or of a row of joined ones.
  int64_t filled_pairs_of(const Part& part) const {
    return ceil_div(joins_columns ? c.columns.p.kernel * c.source_channels : part.sources, 2);
  }
  int64_t pairs_of(const Part& part) const { return larger(least_pairs, filled_pairs_of(part)); }

  int64_t taps_of_sets(int64_t row_set, int64_t column_set) const {
    return c.rows.taps_of_set(row_set) * (joins_columns ? 1 : c.columns.taps_of_set(column_set));
  }

  void clear_pairs_behind(const Part& part, int64_t taps, Pair* panel) const {
    const int64_t filled = filled_pairs_of(part) * part.vectors * lanes;
    const int64_t all = pairs_of(part) * part.vectors * lanes;
    for (int64_t tap = 0; filled < all && tap < taps; ++tap) {
      Pair* const of_tap = panel + tap * panel_size(1, pairs_of(part), part.vectors);
      for (int64_t i = filled; i < all; i += lanes) store(of_tap + i, no_pairs());
    }
  }

  // As in contiguous weights, and so many that it pays to transpose them.
  static bool has_neighbouring_taps(const Correlation& c) {
    return c.rows.p.kernel * c.columns.p.kernel > 1 && c.weight_source_stride != 1 &&
           c.weight_result_stride != 1 && (c.columns.p.kernel == 1 || c.weight_strides.column == 1) &&
           (c.rows.p.kernel == 1 || c.weight_strides.row == c.columns.p.kernel);
  }

  void pack_tap(const Part& part, const BFloat16* from, int64_t results, Pair* to,
                NonFinite& non_finite) const {
    const int64_t pitch = part.vectors * lanes;
    if (c.weight_source_stride == 1) {
      for (int64_t source = 0; source < part.sources; source += 2 * lanes, to += lanes * pitch) {
        PairVector block[lanes];
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          block[lane] = lane < results ? load_neighbours(from + lane * c.weight_result_stride + source,
                                                         part.sources - source)
                                       : no_pairs();
          non_finite.look_at(block[lane]);
        }
        transpose(block);
        const int64_t pairs = ceil_div(smaller(2 * lanes, part.sources - source), 2);
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (i < pairs) store(to + i * pitch, block[i]);
        }
      }
      return;
    }
    for (int64_t source = 0; source < part.sources; source += 2, to += pitch) {
      const BFloat16* const low = from + source * c.weight_source_stride;
      const BFloat16* const high = source + 1 < part.sources ? low + c.weight_source_stride : nullptr;
      PairVector value;
      if (c.weight_result_stride == 1) {
        value = zip(low, high, results);
      } else {
        BFloat16 gathered[2][lanes] = {};
        for (int64_t lane = 0; lane < results; ++lane) {
          gathered[0][lane] = low[lane * c.weight_result_stride];
          if (high != nullptr) gathered[1][lane] = high[lane * c.weight_result_stride];
        }
        value = zip(gathered[0], gathered[1], lanes);
      }
      non_finite.look_at(value);
      store(to, value);
    }
  }

  // Whether all terms of a result channel follow each other, and sixteen pairs of them are among 64 numbers:
  // two vectors, which one permutation reads.
  bool has_short_runs() const {
    const int64_t area = c.rows.p.kernel * c.columns.p.kernel;
    return c.is_forward && c.weight_source_stride == area && (area <= 12 || area == 16);
  }

  void order_runs() {
    const int64_t area = c.rows.p.kernel * c.columns.p.kernel;
    for (int64_t first = 0; first < area; ++first) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t at = (first + lane) / area * 2 * area + (first + lane) % area;
        orders[first][2 * lane] = static_cast<uint16_t>(at);
        orders[first][2 * lane + 1] = static_cast<uint16_t>(at + area);
      }
    }
  }

  // Vectors of pairs (channel, tap), one after the other, are transposed for a vector of result channels.
  void pack_runs(const Part& part, const BFloat16* from, int64_t results, Pair* panel) const {
    constexpr int64_t distance = 8 * 2 * lanes;
    const int64_t area = c.rows.p.kernel * c.columns.p.kernel;
    const int64_t pitch = part.vectors * lanes;
    const int64_t pairs = ceil_div(part.sources, 2);
    const int64_t tap_pitch = panel_size(1, pairs_of(part), part.vectors);
    for (int64_t first = 0; first < pairs * area; first += lanes) {
      const int64_t first_pair = first / area;
      const auto& order = orders[first % area];
      const int64_t begin = 2 * area * first_pair;
      const int64_t left = part.sources * area - begin;
      PairVector block[lanes];
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const BFloat16* const at = from + lane * c.weight_result_stride + begin;
        __builtin_prefetch(at + distance);
        block[lane] = lane < results
                          ? permute_numbers(load_neighbours(at, left),
                                            load_neighbours(at + 2 * lanes, left - 2 * lanes), order)
                          : no_pairs();
      }
      transpose(block);
      int64_t pair = first_pair;
      int64_t tap = first % area;
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < lanes; ++lane) {
        if (pair < pairs) store(panel + tap * tap_pitch + pair * pitch, block[lane]);
        if (++tap == area) {
          tap = 0;
          ++pair;
        }
      }
    }
  }

  // Few numbers: one at a time.
  void pack_joined(const Part& part, const BFloat16* from, int64_t results, Pair* panel) const {
    const int64_t terms = c.columns.p.kernel * c.source_channels;
    for (int64_t i = 0; i < c.rows.p.kernel; ++i, panel += panel_size(1, pairs_of(part), part.vectors)) {
      Pair* to = panel;
      for (int64_t term = 0; term < terms; term += 2, to += part.vectors * lanes) {
        BFloat16 gathered[2][lanes] = {};
        for (int64_t k = term; k < term + 2 && k < terms; ++k) {
          const BFloat16* const at = from + i * c.weight_strides.row +
                                     k / c.source_channels * c.weight_strides.column +
                                     k % c.source_channels * c.weight_source_stride;
          for (int64_t lane = 0; lane < results; ++lane) {
            gathered[k - term][lane] = at[lane * c.weight_result_stride];
          }
        }
        store(to, zip(gathered[0], gathered[1], lanes));
      }
    }
  }

  // All taps of a pair of channels are read at once, for a vector of result channels. The first pair of a tap
  // of the kernel begins at to(tap), unless that is nullptr.
  template <class To>
  void pack_taps(const Part& part, const BFloat16* from, int64_t results, const To& to,
                 NonFinite& non_finite) const {
    const int64_t area = c.rows.p.kernel * c.columns.p.kernel;
    const int64_t pitch = part.vectors * lanes;
    for (int64_t first_tap = 0; first_tap < area; first_tap += lanes) {
      const int64_t taps = smaller(lanes, area - first_tap);
      Pair* place[lanes] = {};
      for (int64_t t = 0; t < taps; ++t) place[t] = to(first_tap + t);
      for (int64_t source = 0; source < part.sources; source += 2) {
        const BFloat16* const low = from + source * c.weight_source_stride + first_tap;
        const bool has_next = source + 1 < part.sources;
        PairVector block[lanes];
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          block[lane] = no_pairs();
          if (lane >= results) continue;
          const BFloat16* const at = low + lane * c.weight_result_stride;
          block[lane] = zip(at, has_next ? at + c.weight_source_stride : nullptr, taps);
        }
        transpose(block);
        CONVEXT_UNROLL
        for (int64_t t = 0; t < lanes; ++t) {
          if (place[t] == nullptr) continue;
          non_finite.look_at(block[t]);
          store(place[t] + source / 2 * pitch, block[t]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
