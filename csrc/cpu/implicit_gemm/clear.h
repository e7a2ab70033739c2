// Zeros for the positions of an input gradient that no tap reaches: the caller clears all of it before the
// phases are written.
#pragma once

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
      for (int64_t column = 0; column < columns; ++column) line[column * strides.column] = T{};
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
