// Weights as the micro-kernel reads them where result channels are in the lanes: panels of `width` result
// channels, panel[term][lane] with terms (i, j, c), widened; lanes without a channel are zero.
#pragma once

#include "cpu/implicit_gemm/correlation.h"
#include "cpu/implicit_gemm/indirect_kernel.h"
#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class WeightPanels {
 public:
  using Real = Compute<T>;

  WeightPanels(const Correlation& correlation, const T* weights, int64_t panel_width)
      : c(correlation), weight(weights), width(panel_width) {}

  // Whether any part of a panel is packed by whole vectors, and so can be packed just before it is used.
  static bool are_vectors(const Correlation& c) {
    return c.weight_result_stride == 1 || c.weight_source_stride == 1;
  }

  // Whether the taps of a pair of channels lie one after the other, as in contiguous weights, and enough of
  // them to be transposed.
  static bool has_transposed_taps(const Correlation& c) {
    const int64_t area = area_of(c);
    return area > 1 && (c.columns.p.kernel == 1 || c.weight_strides.column == 1) &&
           (c.rows.p.kernel == 1 || c.weight_strides.row == c.columns.p.kernel) &&
           (c.weight_source_stride == area || (c.weight_result_stride == area && 4 * area >= lanes));
  }

  // Which terms of which channels. Terms are those of a block of source channels.
  struct Part {
    int64_t row_set;
    int64_t column_set;
    int64_t group;
    int64_t first_channel;  // in the group
    int64_t first_source;
    int64_t sources;
    int64_t first_term;
    int64_t terms;
  };

  void pack(const Part& part, Real* panel) const {
    const int64_t column_taps = c.columns.taps_of_set(part.column_set);
    const T* first = weight + part.group * c.weight_group_stride +
                     part.first_channel * c.weight_result_stride + part.first_source * c.weight_source_stride;
    const int64_t channels = smaller(width, c.result_channels - part.first_channel);
    if (terms_are_neighbours() && part.sources == c.source_channels) {
      return transpose_run(first + part.first_term, channels, part.terms, panel);
    }
    const int64_t taps = c.rows.taps_of_set(part.row_set) * column_taps;
    if (has_transposed_taps(c) && part.terms == taps * part.sources) {
      pack_taps(part, [&](int64_t i, int64_t j) {
        i = c.rows.index_of(part.row_set, i);
        j = c.columns.index_of(part.column_set, j);
        return i < 0 || j < 0 ? nullptr : panel + (i * column_taps + j) * part.sources * width;
      });
      return;
    }
    if (!are_vectors(c)) return gather(part, first, channels, panel);
    for_each_tap_run(part.sources, column_taps, part.first_term, part.terms, [&](const TapRun& run) {
      const T* from =
          first + offset_of(part, run.row_tap, run.column_tap) + run.channel * c.weight_source_stride;
      if (c.weight_source_stride == 1) {
        transpose_run(from, channels, run.length, panel + run.begin * width);
      } else {
        copy_run(from, channels, run.length, panel + run.begin * width);
      }
    });
  }

  // Packs all taps of a part's channels in one pass over the weights, where taps are neighbours: in memory,
  // terms (c, i, j) of a result channel follow each other (forward), or taps (i, j) of a source channel do,
  // for neighbouring result channels. The panel of the tap (i, j) begins at to(i, j), if that is not nullptr.
  // Returns whether all are finite.
  template <class To>
  bool pack_taps(const Part& part, const To& to) const {
    constexpr int64_t most_taps = 128;
    Real* panels[most_taps];
    const int64_t channels = smaller(width, c.result_channels - part.first_channel);
    const int64_t area = area_of(c);
    Vector<Real> trace = zero<Real>();  // 0 * finite is 0, anything else is NaN
    for (int64_t first_tap = 0; first_tap < area; first_tap += most_taps) {
      const int64_t taps = smaller(most_taps, area - first_tap);
      for (int64_t tap = 0; tap < taps; ++tap) {
        panels[tap] = to((first_tap + tap) / c.columns.p.kernel, (first_tap + tap) % c.columns.p.kernel);
      }
      const bool all_follow = c.weight_source_stride == area && taps == area;
      const int64_t together = all_follow ? part.sources : 1;
      const int64_t ahead = all_follow ? 4 * lanes : c.weight_source_stride;
      const T* from = weight + part.group * c.weight_group_stride +
                      part.first_channel * c.weight_result_stride +
                      part.first_source * c.weight_source_stride + first_tap;
      for (int64_t source = 0; source < part.sources; source += together, from += c.weight_source_stride) {
        for (int64_t lane = 0; lane < width; lane += lanes) {
          int64_t tap = 0;
          int64_t channel = source;
          transpose_rows(from + lane * c.weight_result_stride, smaller(lanes, channels - lane),
                         together * taps, ahead, [&](Vector<Real> value) {
                           if (panels[tap] != nullptr) {
                             store(panels[tap] + channel * width + lane, value);
                             trace = fmadd(value, zero<Real>(), trace);
                           }
                           if (++tap == taps) {
                             tap = 0;
                             ++channel;
                           }
                         });
        }
      }
    }
    return sum(trace) == 0;
  }

  // The cache lines that packing a part reads, or about those.
  Fetch lines_of(const Part& part) const {
    Fetch fetch;
    if (!are_vectors(c) || part.terms <= 0) return fetch;
    const int64_t column_taps = c.columns.taps_of_set(part.column_set);
    const int64_t tap = part.first_term / part.sources;
    const int64_t channels = smaller(width, c.result_channels - part.first_channel);
    const T* from = weight + part.group * c.weight_group_stride +
                    part.first_channel * c.weight_result_stride +
                    offset_of(part, tap / column_taps, tap % column_taps) +
                    (part.first_source + part.first_term % part.sources) * c.weight_source_stride;
    const bool by_terms = c.weight_source_stride == 1;
    const int64_t rows = by_terms ? channels : part.terms;
    const int64_t bytes = (by_terms ? part.terms : channels) * static_cast<int64_t>(sizeof(T));
    fetch.row = reinterpret_cast<const char*>(from);
    fetch.pitch =
        (by_terms ? c.weight_result_stride : c.weight_source_stride) * static_cast<int64_t>(sizeof(T));
    fetch.lines = ceil_div(bytes, 64);
    fetch.left = fetch.lines * rows;
    return fetch;
  }

 private:
  static constexpr int64_t lanes = Vector<Real>::lanes;

  const Correlation& c;
  const T* weight;
  int64_t width;

  static int64_t area_of(const Correlation& c) { return c.rows.p.kernel * c.columns.p.kernel; }

  int64_t offset_of(const Part& part, int64_t row_tap, int64_t column_tap) const {
    return c.rows.tap(part.row_set, row_tap) * c.weight_strides.row +
           c.columns.tap(part.column_set, column_tap) * c.weight_strides.column;
  }

  // Whether the terms (i, j, c) lie one after the other, as in channels_last weights.
  bool terms_are_neighbours() const {
    return c.is_forward && (c.weight_source_stride == 1 || c.source_channels == 1) &&
           (c.columns.p.kernel == 1 || c.weight_strides.column == c.source_channels) &&
           (c.rows.p.kernel == 1 || c.weight_strides.row == c.columns.p.kernel * c.source_channels);
  }

  // Terms are neighbours, channels are apart.
  void transpose_run(const T* from, int64_t channels, int64_t terms, Real* to) const {
    constexpr int64_t distance = 2 * lanes;
    for (int64_t lane = 0; lane < width; lane += lanes, from += lanes * c.weight_result_stride) {
      const int64_t rows = smaller(lanes, channels - lane);
      for (int64_t k = 0; k < terms; k += lanes) {
        const int64_t count = smaller(lanes, terms - k);
        Vector<Real> block[lanes];
        if (rows == lanes && count == lanes) {
          CONVEXT_UNROLL
          for (int64_t row = 0; row < lanes; ++row) {
            const T* at = from + row * c.weight_result_stride + k;
            __builtin_prefetch(at + distance);
            block[row] = load_widened(at);
          }
        } else {
          CONVEXT_UNROLL
          for (int64_t row = 0; row < lanes; ++row) {
            block[row] =
                row < rows ? load_widened(from + row * c.weight_result_stride + k, count) : zero<Real>();
          }
        }
        transpose(block);
        Real* const target = to + k * width + lane;
        if (count == lanes) {
          CONVEXT_UNROLL
          for (int64_t row = 0; row < lanes; ++row) store(target + row * width, block[row]);
        } else {
          CONVEXT_UNROLL
          for (int64_t row = 0; row < lanes; ++row) {
            if (row < count) store(target + row * width, block[row]);
          }
        }
      }
    }
  }

  // Channels are neighbours, terms are apart.
  void copy_run(const T* from, int64_t channels, int64_t terms, Real* to) const {
    for (int64_t k = 0; k < terms; ++k, from += c.weight_source_stride, to += width) {
      int64_t lane = 0;
      for (; lane + lanes <= channels; lane += lanes) store(to + lane, load_widened(from + lane));
      for (; lane < width; lane += lanes) {
        store(to + lane, load_widened(from + lane, larger(0, channels - lane)));
      }
    }
  }

  // Calls visit for each of `count` columns of `rows` rows, as vectors, and fetches what is `ahead` of them.
  template <class Visit>
  CONVEXT_INLINE void transpose_rows(const T* from, int64_t rows, int64_t count, int64_t ahead,
                                     const Visit& visit) const {
    for (int64_t k = 0; k < count; k += lanes) {
      const int64_t length = smaller(lanes, count - k);
      for (int64_t row = 0; row < rows; ++row)
        __builtin_prefetch(from + row * c.weight_result_stride + k + ahead);
      Vector<Real> block[lanes];
      if (rows == lanes && length == lanes) {
        CONVEXT_UNROLL
        for (int64_t row = 0; row < lanes; ++row) {
          block[row] = load_widened(from + row * c.weight_result_stride + k);
        }
      } else {
        CONVEXT_UNROLL
        for (int64_t row = 0; row < lanes; ++row) {
          block[row] =
              row < rows ? load_widened(from + row * c.weight_result_stride + k, length) : zero<Real>();
        }
      }
      transpose(block);
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        if (i < length) visit(block[i]);
      }
    }
  }

  // Any strides. A few channels at a time for all taps: of contiguous weights, the lines that one tap reads
  // hold the other taps, too, and each tap's part of the panel is written in one go.
  void gather(const Part& part, const T* first, int64_t channels, Real* panel) const {
    constexpr int64_t together = 16;
    const int64_t column_taps = c.columns.taps_of_set(part.column_set);
    for (int64_t channel = 0; channel < part.sources; channel += together) {
      for_each_tap_run(part.sources, column_taps, part.first_term, part.terms, [&](const TapRun& run) {
        const int64_t begin = larger(channel, run.channel);
        const int64_t end = smaller(channel + together, run.channel + run.length);
        const T* from = first + offset_of(part, run.row_tap, run.column_tap);
        for (int64_t k = begin; k < end; ++k) {
          const T* at = from + k * c.weight_source_stride;
          Real* to = panel + (run.begin + k - run.channel) * width;
          int64_t lane = 0;
          for (; lane < channels; ++lane) to[lane] = widen(at[lane * c.weight_result_stride]);
          for (; lane < width; ++lane) to[lane] = 0;
        }
      });
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
