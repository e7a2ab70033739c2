// Weights as the micro-kernel reads them: panels of result channels, panel[tap][pair of source
// channels][lane], for a block of source channels at a time. Lanes without a channel, and the second of an
// odd number, are zero.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"
#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

class PairWeights {
 public:
  PairWeights(const Correlation& correlation, const BFloat16* weights)
      : c(correlation), weight(weights), taps_are_neighbours(has_neighbouring_taps(correlation)) {}

  struct Part {
    int64_t row_set;
    int64_t column_set;
    int64_t group;
    int64_t first_result;  // in the group
    int64_t vectors;
    int64_t first_source;  // in the group
    int64_t sources;
  };

  // Returns whether all are finite.
  bool pack(const Part& part, Pair* panel) const {
    NonFinite non_finite;
    const BFloat16* const first = weight + part.group * c.weight_group_stride +
                                  part.first_result * c.weight_result_stride +
                                  part.first_source * c.weight_source_stride;
    for (int64_t v = 0; v < part.vectors; ++v) {
      const int64_t results = smaller(lanes, c.result_channels - part.first_result - v * lanes);
      const BFloat16* const from = first + v * lanes * c.weight_result_stride;
      if (taps_are_neighbours) {
        pack_taps(part, from, results, panel + v * lanes, non_finite);
        continue;
      }
      Pair* to = panel + v * lanes;
      for (int64_t i = 0; i < c.rows.taps_of_set(part.row_set); ++i) {
        for (int64_t j = 0; j < c.columns.taps_of_set(part.column_set); ++j) {
          const BFloat16* const tap = from + c.rows.tap(part.row_set, i) * c.weight_strides.row +
                                      c.columns.tap(part.column_set, j) * c.weight_strides.column;
          pack_tap(part, tap, results, to, non_finite);
          to += ceil_div(part.sources, 2) * part.vectors * lanes;
        }
      }
    }
    return non_finite.found == 0;
  }

 private:
  static constexpr int64_t lanes = PairVector::lanes;

  const Correlation& c;
  const BFloat16* weight;
  bool taps_are_neighbours;

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

  // All taps of a pair of channels are read at once, for a vector of result channels.
  void pack_taps(const Part& part, const BFloat16* from, int64_t results, Pair* panel,
                 NonFinite& non_finite) const {
    const int64_t area = c.rows.p.kernel * c.columns.p.kernel;
    const int64_t column_taps = c.columns.taps_of_set(part.column_set);
    const int64_t pitch = part.vectors * lanes;
    const int64_t tap_pitch = ceil_div(part.sources, 2) * pitch;
    for (int64_t first_tap = 0; first_tap < area; first_tap += lanes) {
      const int64_t taps = smaller(lanes, area - first_tap);
      int64_t place[lanes];  // of each tap in the panel, or -1
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t i = c.rows.index_of(part.row_set, (first_tap + t) / c.columns.p.kernel);
        const int64_t j = c.columns.index_of(part.column_set, (first_tap + t) % c.columns.p.kernel);
        place[t] = i < 0 || j < 0 ? -1 : (i * column_taps + j) * tap_pitch;
      }
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
          non_finite.look_at(block[lane]);
        }
        transpose(block);
        Pair* const to = panel + source / 2 * pitch;
        CONVEXT_UNROLL
        for (int64_t t = 0; t < lanes; ++t) {
          if (t < taps && place[t] >= 0) store(to + place[t], block[t]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
