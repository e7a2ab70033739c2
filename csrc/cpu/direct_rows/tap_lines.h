// Scratch lines for passes that read the input through the taps (forward and the gradient of the weight):
// for [channel][run of taps down], the lines that `height` output rows of one class read; a line holds one
// slot for each run of taps across.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/lines.h"
#include "cpu/direct_rows/segments.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct TapLines {
  using Real = Compute<T>;

  const RowsAxis& rows;
  const RowsAxis& columns;
  int64_t slot_stride;
  int64_t line_stride;
  int64_t run_stride;
  Segments<Real> segments;
  Real* whole = nullptr;  // scratch for a line that is to be cut

  TapLines(const RowsAxis& vertical, const RowsAxis& horizontal, int64_t slot, int64_t line, int64_t run)
      : rows(vertical), columns(horizontal), slot_stride(slot), line_stride(line), run_stride(run) {}

  // Where tap j of a line begins.
  void set_offsets(int64_t* offsets) const {
    for (int64_t j = 0, u = 0, m = 0; j < columns.kernel; ++j) {
      offsets[j] = u * slot_stride + m * columns.spread * segments.step();
      if (++u == columns.period) {
        u = 0;
        ++m;
      }
    }
  }

  // For output rows y, y + spread, ... (height of them) and output columns from first_column on.
  void fill(Real* target, const T* source, const ImageStrides& strides, int64_t channels, int64_t y,
            int64_t height, int64_t first_column) const {
    const SourceAxis source_rows{rows.input, rows.before, rows.after, rows.mode};
    const SourceAxis source_columns{columns.input, columns.before, columns.after, columns.mode};
    const int64_t slots = columns.runs();
    const auto span_of = [&](int64_t slot) {
      return LineSpan(source_columns, segments.are_used() ? segments.whole_numbers() : slot_stride,
                      first_column * columns.stride + slot * columns.dilation - columns.before,
                      columns.stride);
    };
    const LineSpan first_span = span_of(0);
    for (int64_t c = 0; c < channels; ++c) {
      const T* plane = source + c * strides.channel;
      for (int64_t u = 0; u < rows.runs(); ++u, target += run_stride) {
        const int64_t first_row = y * rows.stride + u * rows.dilation - rows.before;
        const int64_t count = height + rows.run_taps(u) - 1;
        Real* line = target;
        for (int64_t k = 0; k < count; ++k, line += line_stride) {
          const int64_t row = source_rows.resolve(first_row + k * rows.stride * rows.spread);
          if (row < 0) {
            fill_zeros(line, 0, slots * slot_stride);
            continue;
          }
          const T* from = plane + row * strides.row;
          if (segments.are_used()) {
            fill_line<T>(whole, from, strides.column, source_columns, first_span);
            segments.cut(line, whole);
            continue;
          }
          fill_line<T>(line, from, strides.column, source_columns, first_span);
          for (int64_t v = 1; v < slots; ++v)
            fill_line<T>(line + v * slot_stride, from, strides.column, source_columns, span_of(v));
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
