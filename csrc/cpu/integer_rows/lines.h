// Copies lines of the source into scratch: padding resolved, widened to the lanes' type, split by columns
// modulo the stride.
#pragma once

#include "cpu/direct_rows/lines.h"
#include "cpu/integer_rows/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Writes nothing past the last number.
template <class Lane, class T>
CONVEXT_INLINE void copy_integers(Lane* target, const T* source, int64_t step, int64_t count) {
  constexpr int64_t lanes = Vector<Lane>::lanes;
  if (step == 1 && count >= lanes) {
    for (int64_t i = 0; i + lanes <= count; i += lanes) store(target + i, load_as<Lane>(source + i));
    store(target + count - lanes, load_as<Lane>(source + count - lanes));
  } else {
    for (int64_t i = 0; i < count; ++i) target[i] = source[i * step];
  }
}

template <class T, class Lane>
class IntegerLines {
 public:
  IntegerLines(const IntegerRowsPlan& cut, const T* first, const ImageStrides& source_strides)
      : plan(cut),
        source(first),
        strides(source_strides),
        rows{plan.rows.input, plan.rows.before, plan.rows.after, plan.rows.mode},
        columns{plan.columns.input, plan.columns.before, plan.columns.after, plan.columns.mode} {}

  // Those that output rows y, y + spread, ... (height of them) read from output column first_column on.
  void fill(Lane* target, int64_t y, int64_t height, int64_t first_column) const {
    const RowsAxis& axis = plan.rows;
    const LineSpan first_span = span_of(first_column, 0);
    for (int64_t u = 0; u < plan.row_runs; ++u) {
      const int64_t first_row = y * axis.stride + u * axis.dilation - axis.before;
      const int64_t count = height + axis.run_taps(u) - 1;
      const auto fill_one = [&](int64_t c, int64_t k) {
        const int64_t row = rows.resolve(first_row + k * axis.stride * axis.spread);
        Lane* const line = target + (c * plan.row_runs + u) * plan.run_stride + k * plan.line_stride;
        if (row < 0) {
          fill_zeros(line, 0, plan.line_stride);
        } else {
          fill_line(line, source + c * strides.channel + row * strides.row, first_column, first_span);
        }
      };
      if (strides.column == plan.pixel) {
        for (int64_t c = 0; c < plan.source_channels; ++c) {
          for (int64_t k = 0; k < count; ++k) fill_one(c, k);
        }
      } else {  // what is gathered for one channel is in the cache for the next
        for (int64_t k = 0; k < count; ++k) {
          for (int64_t c = 0; c < plan.source_channels; ++c) fill_one(c, k);
        }
      }
    }
    if constexpr (sizeof(Lane) == 4 && sizeof(T) == 1) join_pairs(target, height);
  }

 private:
  const IntegerRowsPlan& plan;
  const T* source;
  ImageStrides strides;
  SourceAxis rows;
  SourceAxis columns;

  LineSpan span_of(int64_t first_column, int64_t slot) const {
    const RowsAxis& axis = plan.columns;
    return {columns, plan.slot_stride / plan.pixel,
            first_column * axis.stride + slot * axis.dilation - axis.before, axis.stride};
  }

  void fill_line(Lane* line, const T* from, int64_t first_column, const LineSpan& first_span) const {
    fill_slot(line, from, first_span);
    const int64_t slots = plan.columns.runs();
    for (int64_t slot = 1; slot < slots; ++slot)
      fill_slot(line + slot * plan.slot_stride, from, span_of(first_column, slot));
  }

  // What is written past the slot is filled later, or is not read.
  void fill_slot(Lane* line, const T* from, const LineSpan& span) const {
    const int64_t pixel = plan.pixel;
    fill_padding(line, from, span, 0, span.begin);
    const T* const inside = from + (span.first + span.begin * span.step) * strides.column;
    const int64_t step = span.step * strides.column;
    const int64_t count = span.end - span.begin;
    if (pixel == 1) {
      copy_integers(line + span.begin, inside, step, count);
    } else if (step == pixel) {
      copy_integers(line + span.begin * pixel, inside, 1, count * pixel);
    } else {
      for (int64_t k = 0; k < count; ++k)
        copy_integers(line + (span.begin + k) * pixel, inside + k * step, 1, pixel);
    }
    fill_padding(line, from, span, span.end, span.length);
  }

  CONVEXT_INLINE void fill_padding(Lane* line, const T* from, const LineSpan& span, int64_t begin,
                                   int64_t end) const {
    fill_zero_vectors(line + begin * plan.pixel, (end - begin) * plan.pixel);
    if (columns.mode == PaddingMode::zeros) return;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t column = columns.resolve(span.first + k * span.step);
      if (column >= 0) copy_integers(line + k * plan.pixel, from + column * strides.column, 1, plan.pixel);
    }
  }

  // Lines take what is multiplied together with them into their upper halves: the same line of the next
  // channel, or else the next line. What has no such partner is multiplied by zero there, and so are the
  // numbers that the last vector changes behind a line.
  void join_pairs(Lane* target, int64_t height) const {
    const int64_t channels = plan.source_channels;
    const int64_t next_channel = plan.row_runs * plan.run_stride;
    for (int64_t u = 0; u < plan.row_runs; ++u) {
      const int64_t taps = plan.rows.run_taps(u);
      Lane* const run = target + u * plan.run_stride;
      if (plan.pairs_channels) {
        for (int64_t c = 0; c + 1 < channels; c += 2)
          join(run + c * next_channel, next_channel, (height + taps - 1) * plan.line_stride);
      } else if (taps > 1) {
        for (int64_t c = 0; c < channels; ++c)
          join(run + c * next_channel, plan.line_stride, (height + taps - 2) * plan.line_stride);
      }
    }
  }

  static void join(Lane* lines, int64_t partner, int64_t numbers) {
    for (int64_t i = 0; i < numbers; i += Vector<Lane>::lanes)
      store(lines + i, join_halves(load(lines + i), load(lines + i + partner)));
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
