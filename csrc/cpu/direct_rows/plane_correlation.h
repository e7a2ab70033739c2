// Forward and the gradient of the input, plane by plane: each worker copies a band of source lines into
// scratch (padding resolved, widened, split by columns modulo the stride) and correlates them with the
// weights of one group. Vectors run along the rows.
//
// Scratch holds lines for [source channel][run of taps][band row + tap]; a line holds one *slot* for each run
// of column taps.
#pragma once

#include <atomic>
#include <type_traits>

#include "cpu/direct_rows/lines.h"
#include "cpu/direct_rows/plane_plan.h"
#include "cpu/direct_rows/tap_lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class PlaneCorrelation {
 public:
  using Real = Compute<T>;

  PlaneCorrelation(const PlaneCorrelationPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                   void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        source_rows{plan.is_forward ? p.input.height : p.output.height, plan.is_forward ? p.padding.top : 0,
                    plan.is_forward ? p.padding.bottom : 0,
                    plan.is_forward ? p.padding_mode : PaddingMode::zeros},
        source_columns{plan.is_forward ? p.input.width : p.output.width, plan.is_forward ? p.padding.left : 0,
                       plan.is_forward ? p.padding.right : 0, source_rows.mode},
        row_residues(plan.rows),
        column_residues(plan.columns),
        packed(static_cast<Real*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset),
        streams(is_result_streamed<T>(p)) {}

  // False, with nothing written, if a weight is not finite and the gradient of the input is wanted: the zeros
  // that stand for outputs that do not exist would turn into NaN.
  bool run(const Executor& executor) {
    constexpr int64_t worth_sharing = 1 << 15;
    std::atomic<bool> all_finite{true};
    const bool share =
        plan.groups * plan.result_channels * plan.source_channels * plan.kernel_area > worth_sharing;
    for_each_tile(share ? executor : Executor{}, plan.groups, [&](int64_t group, int) {
      if (!pack_weights(group)) all_finite.store(false, std::memory_order_relaxed);
    });
    if (!plan.is_forward && !all_finite.load(std::memory_order_relaxed)) return false;
    const int64_t tiles = plan.tiles_of_group();
    for_each_tile(executor, p.batch * plan.groups * tiles, [&](int64_t index, int worker) {
      tile(index / tiles / plan.groups, index / tiles % plan.groups, index % tiles, worker);
      if (streams) finish_streams();
    });
    return true;
  }

 private:
  // What a tile needs to know of itself.
  struct Tile {
    int64_t n;
    int64_t group;
    Real* lines;
    Real* part;
    Real* folded;
    int64_t* offsets;
    Real* whole;
  };

  Real* group_weights(int64_t group) const {
    return packed + group * plan.result_channels * plan.source_channels * plan.kernel_area;
  }
  // Of the gradient of the input: the weights of one pair of residues.
  Real* residue_weights(int64_t group, const Residue& row, const Residue& column) const {
    return group_weights(group) + plan.result_channels * plan.source_channels *
                                      (row.taps_before * plan.columns.kernel + row.taps * column.taps_before);
  }

  const T* weight_plane(int64_t group, int64_t result_channel, int64_t source_channel) const {
    const int64_t out = plan.is_forward ? result_channel : source_channel;
    const int64_t in = plan.is_forward ? source_channel : result_channel;
    const int64_t out_channels = plan.is_forward ? plan.result_channels : plan.source_channels;
    return weight + (group * out_channels + out) * p.weight_strides.out_channel +
           in * p.weight_strides.in_channel;
  }

  // In the order in which the micro-kernel reads them. False if one is not finite.
  bool pack_weights(int64_t group) {
    Real not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    const auto pack = [&](Real* to, const T* plane, int64_t first_row, int64_t row_step, int64_t row_taps,
                          int64_t first_column, int64_t column_step, int64_t column_taps) {
      for (int64_t m = 0; m < row_taps; ++m) {
        const T* from = plane + (first_row + m * row_step) * p.weight_strides.row +
                        first_column * p.weight_strides.column;
        for (int64_t k = 0; k < column_taps; ++k) {
          const Real value = widen(from[k * column_step * p.weight_strides.column]);
          not_finite += value * 0;
          *to++ = value;
        }
      }
      return to;
    };
    const int64_t row_residue_count = plan.is_forward ? 1 : plan.rows.stride;
    const int64_t column_residue_count = plan.is_forward ? 1 : plan.columns.stride;
    for (int64_t a = 0; a < row_residue_count; ++a) {
      for (int64_t b = 0; b < column_residue_count; ++b) {
        const Residue& row = row_residues.residues[a];
        const Residue& column = column_residues.residues[b];
        Real* to = plan.is_forward ? group_weights(group) : residue_weights(group, row, column);
        for (int64_t r = 0; r < plan.result_channels; ++r) {
          for (int64_t s = 0; s < plan.source_channels; ++s) {
            const T* plane = weight_plane(group, r, s);
            if (plan.is_forward) {
              for (int64_t u = 0; u < plan.row_runs; ++u)
                to = pack(to, plane, u, plan.rows.period, plan.rows.run_taps(u), 0, 1, plan.columns.kernel);
            } else {
              to = pack(to, plane, row.last_tap, -plan.rows.period, row.taps, column.last_tap,
                        -plan.columns.period, column.taps);
            }
          }
        }
      }
    }
    return not_finite == 0;
  }

  void tile(int64_t n, int64_t group, int64_t index, int worker) {
    char* own = scratch + worker * plan.worker_bytes;
    const Tile t{n,
                 group,
                 reinterpret_cast<Real*>(own + plan.lines_offset),
                 reinterpret_cast<Real*>(own + plan.part_offset),
                 reinterpret_cast<Real*>(own + plan.folded_offset),
                 reinterpret_cast<int64_t*>(own + plan.offsets_offset),
                 reinterpret_cast<Real*>(own + plan.whole_offset)};
    const int64_t first_column = index % plan.column_tiles * plan.tile_columns;
    const int64_t band = index / plan.column_tiles % plan.bands;
    const int64_t row_class = index / plan.column_tiles / plan.bands;
    if (plan.is_forward) {
      forward_tile(t, row_class, band * plan.band, first_column);
    } else {
      gradient_tile(t, row_class, band * plan.band, first_column);
    }
  }

  const T* source_plane(const Tile& t, int64_t channel) const {
    return source + t.n * source_strides.batch +
           (t.group * plan.source_channels + channel) * source_strides.channel;
  }
  T* result_plane(const Tile& t, int64_t channel) const {
    return result + t.n * result_strides.batch +
           (t.group * plan.result_channels + channel) * result_strides.channel;
  }

  // Scratch line for one source row, given as a position along the padded axis.
  template <class FillSlots>
  void fill_row(Real* line, const T* plane, int64_t position, const FillSlots& fill_slots) const {
    const int64_t row = source_rows.resolve(position);
    if (row < 0) {
      fill_zeros(line, 0, plan.slots * plan.slot_stride);
    } else {
      fill_slots(line, plane + row * source_strides.row);
    }
  }

  void forward_tile(const Tile& t, int64_t row_class, int64_t first_row, int64_t first_column) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const int64_t count = ceil_div(rows.output - row_class, rows.spread);
    const int64_t height = smaller(plan.band, count - first_row);
    const int64_t width = smaller(plan.tile_columns, columns.output - first_column);
    if (height <= 0) return;
    const int64_t y = row_class + first_row * rows.spread;
    TapLines<T> lines(rows, columns, plan.slot_stride, plan.line_stride, plan.run_stride);
    lines.segments = plan.segments;
    lines.whole = t.whole;
    lines.fill(t.lines, source_plane(t, 0), source_strides, plan.source_channels, y, height, first_column);
    lines.set_offsets(t.offsets);

    RowBlock<Real> block;
    block.lines = t.lines;
    block.line_stride = plan.line_stride;
    block.run_stride = plan.run_stride;
    block.channels = plan.source_channels;
    block.runs = plan.row_runs;
    block.long_taps = plan.long_taps;
    block.long_runs = rows.kernel - (plan.long_taps - 1) * rows.period;
    block.offsets = t.offsets;
    block.columns = columns.kernel;
    block.chain_terms = most_chain_terms(plan.source_channels, plan.kernel_area);
    block.valid_rows = height;
    block.valid_columns = width;
    for (int64_t r = 0; r < plan.result_channels; ++r) {
      T* target = result_plane(t, r) + y * result_strides.row + first_column * result_strides.column;
      const int64_t target_stride = rows.spread * result_strides.row;
      block.weights = group_weights(t.group) + r * plan.source_channels * plan.kernel_area;
      block.bias = bias == nullptr ? Real{} : widen(bias[t.group * plan.result_channels + r]);
      correlate(block, t, target, target_stride, result_strides.column);
    }
  }

  // Straight into the result where it is made of vectors, else by way of scratch.
  void correlate(RowBlock<Real>& block, const Tile& t, T* target, int64_t target_stride,
                 int64_t column_stride) const {
    if (plan.segments.are_used()) return correlate_segments(block, t, target, target_stride, column_stride);
    if constexpr (std::is_same_v<T, Real>) {
      if (column_stride == 1) {
        block.target = target;
        block.target_stride = target_stride;
        block.streams = streams;
        row_blocks(block);
        return;
      }
    }
    block.target = t.part;
    block.target_stride = plan.part_stride;
    block.streams = false;
    row_blocks(block);
    for (int64_t row = 0; row < block.valid_rows; ++row)
      store_line(target + row * target_stride, column_stride, t.part + row * plan.part_stride,
                 block.valid_columns);
  }

  // A few rows at a time, which are joined while the L1 cache holds them.
  void correlate_segments(const RowBlock<Real>& all, const Tile& t, T* target, int64_t target_stride,
                          int64_t column_stride) const {
    constexpr int64_t rows_at_once = 8;
    RowBlock<Real> block = all;
    block.target = t.part;
    block.target_stride = plan.part_stride;
    block.valid_columns = plan.tile_columns;
    const bool in_place =
        std::is_same_v<T, Real> && column_stride == 1 && all.valid_columns == plan.tile_columns;
    for (int64_t row = 0; row < all.valid_rows; row += rows_at_once) {
      block.lines = all.lines + row * all.line_stride;
      block.valid_rows = smaller(rows_at_once, all.valid_rows - row);
      row_blocks(block);
      for (int64_t q = 0; q < block.valid_rows; ++q, target += target_stride) {
        const Real* part = t.part + q * plan.part_stride;
        if constexpr (std::is_same_v<T, Real>) {
          if (in_place) {
            plan.segments.join(target, part);
            continue;
          }
        }
        plan.segments.join(t.whole, part);
        store_line(target, column_stride, t.whole, all.valid_columns);
      }
    }
  }

  // Lines for `count` rows of padded positions (t, t + spread, ...) * stride + residue.
  struct GradientRows {
    const Residue* residue;
    int64_t first;  // t
    int64_t count;
  };

  // Calls visit(block, first padded column) for every result channel and residue of the columns, for padded
  // columns [begin, end); `visit` is given the channel too.
  template <class Visit>
  void for_each_gradient_block(const Tile& t, const GradientRows& rows, int64_t begin, int64_t end,
                               const Visit& visit) const {
    const RowsAxis& columns = plan.columns;
    const int64_t longest_delay = (columns.kernel - 1) * columns.dilation / columns.stride;
    const int64_t first_line_column = begin / columns.stride - longest_delay;
    const Segments<Real>& segments = plan.segments;
    const LineSpan span(source_columns, segments.are_used() ? segments.whole_numbers() : plan.slot_stride,
                        first_line_column, 1);
    const auto fill_slots = [&](Real* line, const T* row) {
      fill_line<T>(segments.are_used() ? t.whole : line, row, source_strides.column, source_columns, span);
      if (segments.are_used()) segments.cut(line, t.whole);
    };
    for (int64_t c = 0; c < plan.source_channels; ++c) {
      Real* line = t.lines + c * plan.run_stride;
      const int64_t lines = rows.residue->taps == 0 ? 0 : rows.count + rows.residue->taps - 1;
      for (int64_t k = 0; k < lines; ++k, line += plan.line_stride) {
        fill_row(line, source_plane(t, c), rows.first - rows.residue->delay + k * plan.rows.spread,
                 fill_slots);
      }
    }
    RowBlock<Real> block;
    block.line_stride = plan.line_stride;
    block.run_stride = plan.run_stride;
    block.channels = plan.source_channels;
    block.runs = 1;
    block.long_runs = 1;
    block.long_taps = rows.residue->taps;
    block.offsets = t.offsets;
    block.valid_rows = rows.count;
    block.bias = 0;
    for (int64_t b = 0; b < columns.stride; ++b) {
      const Residue& residue = column_residues.residues[b];
      const PaddedPositions wanted(begin, end, b, columns.stride);
      if (wanted.begin >= wanted.end) continue;
      for (int64_t m = 0; m < residue.taps; ++m) t.offsets[m] = m * columns.spread * segments.step();
      block.columns = residue.taps;
      block.chain_terms = most_chain_terms(plan.source_channels, block.long_taps * block.columns);
      block.lines = t.lines + (wanted.begin - residue.delay - first_line_column);
      block.valid_columns = wanted.end - wanted.begin;
      for (int64_t r = 0; r < plan.result_channels; ++r) {
        block.weights = residue_weights(t.group, *rows.residue, residue) +
                        r * plan.source_channels * rows.residue->taps * residue.taps;
        visit(block, r, wanted.begin * columns.stride + b);
      }
    }
  }

  void gradient_tile(const Tile& t, int64_t row_class, int64_t first_row, int64_t first_column) const {
    const RowsAxis& rows = plan.rows;
    const int64_t residue = row_class % rows.stride;
    const int64_t a = row_class / rows.stride;
    const PaddedPositions all(rows.before, rows.before + rows.input, residue, rows.stride);
    const int64_t count = ceil_div(all.end - all.begin - a, rows.spread);
    const int64_t height = smaller(plan.band, count - first_row);
    if (height <= 0) return;
    GradientRows wanted{&row_residues.residues[residue], all.begin + a + first_row * rows.spread, height};
    const int64_t result_row = wanted.first * rows.stride + residue - rows.before;
    const int64_t row_spacing = rows.stride * rows.spread;
    if (plan.folds) return folded_tile(t, wanted, result_row, row_spacing);
    const int64_t width = smaller(plan.tile_columns, plan.columns.input - first_column);
    const int64_t from = plan.columns.before + first_column;
    for_each_gradient_block(t, wanted, from, from + width,
                            [&](RowBlock<Real>& block, int64_t channel, int64_t padded_column) {
                              T* target = result_plane(t, channel) + result_row * result_strides.row +
                                          (padded_column - plan.columns.before) * result_strides.column;
                              correlate(block, t, target, row_spacing * result_strides.row,
                                        plan.columns.stride * result_strides.column);
                            });
  }

  // The gradient of the padded rows, with what belongs to padding added to the input that it was read from:
  // rows in order of their padded position, then columns.
  void folded_tile(const Tile& t, const GradientRows& wanted, int64_t result_row, int64_t row_spacing) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const SourceAxis inside_rows{rows.input, rows.before, rows.after, rows.mode};
    const SourceAxis inside_columns{columns.input, columns.before, columns.after, columns.mode};
    for (int64_t channel = 0; channel < plan.result_channels; ++channel) {
      const auto add_rows = [&](const GradientRows& lines, Real* target, bool accumulate) {
        for_each_gradient_block(t, lines, 0, columns.padded(),
                                [&](RowBlock<Real>& block, int64_t r, int64_t padded_column) {
                                  if (r != channel) return;
                                  block.target = t.part;
                                  block.target_stride = plan.part_stride;
                                  row_blocks(block);
                                  for (int64_t row = 0; row < block.valid_rows; ++row) {
                                    const Real* from = t.part + row * plan.part_stride;
                                    Real* to = target + row * plan.folded_stride + padded_column;
                                    for (int64_t k = 0; k < block.valid_columns; ++k) {
                                      Real& element = to[k * columns.stride];
                                      element = accumulate ? element + from[k] : from[k];
                                    }
                                  }
                                });
      };
      add_rows(wanted, t.folded, false);
      for (int64_t position = -rows.before; position < rows.input + rows.after; ++position) {
        if (position == 0) position = rows.input;
        if (position >= rows.input + rows.after) break;
        const int64_t ahead = inside_rows.resolve(position) - result_row;
        if (ahead < 0 || ahead % row_spacing != 0 || ahead / row_spacing >= wanted.count) continue;
        const int64_t padded = position + rows.before;
        const GradientRows single{&row_residues.residues[padded % rows.stride], padded / rows.stride, 1};
        add_rows(single, t.folded + ahead / row_spacing * plan.folded_stride, true);
      }
      for (int64_t row = 0; row < wanted.count; ++row) {
        Real* line = t.folded + row * plan.folded_stride + columns.before;
        for (int64_t column = -columns.before; column < 0; ++column)
          line[inside_columns.resolve(column)] += line[column];
        for (int64_t column = columns.input; column < columns.input + columns.after; ++column)
          line[inside_columns.resolve(column)] += line[column];
        store_line(result_plane(t, channel) + (result_row + row * row_spacing) * result_strides.row,
                   result_strides.column, line, columns.input);
      }
    }
  }

  const PlaneCorrelationPlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  ImageStrides source_strides;
  ImageStrides result_strides;
  SourceAxis source_rows;
  SourceAxis source_columns;
  ResidueTable row_residues;
  ResidueTable column_residues;
  Real* packed;
  char* scratch;
  bool streams;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
