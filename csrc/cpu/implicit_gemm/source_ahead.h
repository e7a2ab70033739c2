// The part of the source that a worker will copy next, brought closer while it multiplies. The lines of one
// copy lie far apart, so the hardware does not foresee them, and the copy itself would wait for each.
#pragma once

#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Positions [begin, end) of the source that results [first, first + count) of an axis read; none for borders.
struct SourceRange {
  int64_t begin = 0;
  int64_t end = 0;

  SourceRange(const Axis& axis, int64_t first, int64_t count) {
    if (axis.is_border || count <= 0) return;
    const int64_t reach = (axis.taps - 1) * axis.step;
    begin = larger(0, first * axis.stride + axis.offset + smaller(0, reach));
    end = smaller(axis.source_size, (first + count - 1) * axis.stride + axis.offset + larger(0, reach) + 1);
    if (end < begin) end = begin;
  }
};

class SourceAhead {
 public:
  SourceAhead() = default;

  // Some channels of a rectangle of one image.
  template <class T>
  SourceAhead(const T* first_channel, const ImageStrides& strides, int64_t channels, const SourceRange& rows,
              int64_t row_step, const SourceRange& columns) {
    constexpr int64_t size = sizeof(T);
    if (strides.column != 1) return;
    first = reinterpret_cast<const char*>(first_channel + rows.begin * strides.row + columns.begin);
    channel_bytes = strides.channel * size;
    row_bytes = row_step * strides.row * size;
    rows_of_channel = ceil_div(rows.end - rows.begin, row_step);
    lines_of_row = ceil_div((columns.end - columns.begin) * size, line_bytes);
    if (row_step == 1 && strides.row == columns.end - columns.begin) {  // rows follow each other
      lines_of_row = ceil_div(rows_of_channel * row_bytes, line_bytes);
      rows_of_channel = 1;
    }
    lines = channels * rows_of_channel * lines_of_row;
  }

  // The `part`-th of `parts` about equal parts.
  void fetch(int64_t part, int64_t parts) const {
    int64_t line = part * lines / parts;
    const int64_t end = (part + 1) * lines / parts;
    if (line >= end) return;
    int64_t of_row = line % lines_of_row;
    int64_t row = line / lines_of_row % rows_of_channel;
    int64_t channel = line / lines_of_row / rows_of_channel;
    for (; line < end; ++line) {
      __builtin_prefetch(first + channel * channel_bytes + row * row_bytes + of_row * line_bytes, 0, 2);
      if (++of_row < lines_of_row) continue;
      of_row = 0;
      if (++row < rows_of_channel) continue;
      row = 0;
      ++channel;
    }
  }

 private:
  static constexpr int64_t line_bytes = 64;

  const char* first = nullptr;
  int64_t channel_bytes = 0;
  int64_t row_bytes = 0;
  int64_t rows_of_channel = 0;
  int64_t lines_of_row = 0;
  int64_t lines = 0;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
