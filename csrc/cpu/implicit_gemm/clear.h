// Zeros for the positions of an input gradient that no tap reaches: the caller clears all of it before the
// phases are written.
#pragma once

#include <cstring>

#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

inline int64_t rows_to_clear(const Correlation& c) {
  return c.rows.cover_all() && c.columns.cover_all() ? 0 : c.batch * c.rows.p.input;
}

// One row of one image, all channels, in the order in which they lie in memory.
template <class T>
void clear_row(const Correlation& c, T* result, int64_t index) {
  const ImageStrides& strides = c.result_strides;
  T* row = result + index / c.rows.p.input * strides.batch + index % c.rows.p.input * strides.row;
  const int64_t channels = c.groups * c.result_channels;
  const int64_t columns = c.columns.p.input;
  if (strides.channel == 1) {
    for (int64_t column = 0; column < columns; ++column) {
      T* pixel = row + column * strides.column;
      for (int64_t channel = 0; channel < channels; ++channel) pixel[channel] = T{};
    }
  } else {
    for (int64_t channel = 0; channel < channels; ++channel) {
      T* line = row + channel * strides.channel;
      if (strides.column == 1) {
        std::memset(line, 0, static_cast<size_t>(columns) * sizeof(T));  // all types' zero
      } else {
        for (int64_t column = 0; column < columns; ++column) line[column * strides.column] = T{};
      }
    }
  }
}

// Whether some tap reaches a position.
inline bool reaches(const AxisClasses& axis, int64_t position) {
  if (position < axis.inside_begin || position >= axis.inside_end) return true;  // of the border
  for (int64_t u = 0; u < axis.phases; ++u) {
    if ((position + axis.p.before - u * axis.p.dilation) % axis.p.stride == 0) return true;
  }
  return false;
}

// Of one row of one image the pixels that no tap reaches, and only those.
template <class T>
void clear_gaps(const Correlation& c, T* result, int64_t index) {
  const ImageStrides& strides = c.result_strides;
  const bool whole = !reaches(c.rows, index % c.rows.p.input);
  if (whole) return clear_row(c, result, index);
  T* row = result + index / c.rows.p.input * strides.batch + index % c.rows.p.input * strides.row;
  const int64_t channels = c.groups * c.result_channels;
  // Gaps come again after a stride.
  const AxisClasses& columns = c.columns;
  const int64_t period = smaller(columns.p.stride, columns.inside_end - columns.inside_begin);
  for (int64_t first = columns.inside_begin; first < columns.inside_begin + period; ++first) {
    if (reaches(columns, first)) continue;
    if (strides.channel == 1) {
      for (int64_t column = first; column < columns.inside_end; column += columns.p.stride) {
        T* pixel = row + column * strides.column;
        for (int64_t channel = 0; channel < channels; ++channel) pixel[channel] = T{};
      }
    } else {
      for (int64_t channel = 0; channel < channels; ++channel) {
        T* line = row + channel * strides.channel;
        for (int64_t column = first; column < columns.inside_end; column += columns.p.stride) {
          line[column * strides.column] = T{};
        }
      }
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
