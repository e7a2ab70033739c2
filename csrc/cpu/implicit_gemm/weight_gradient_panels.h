// The operand of the gradient of the weight that lies in the lanes, made of the input: panels
// [place][channel or term]. Places are the pixels of a block and, where lines are padded, the few between the
// end of one line and the next.
#pragma once

#include <cstddef>
#include <type_traits>

#include "cpu/implicit_gemm/band.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// target[place][row] for one vector of rows, which begin at lines[row]; those from `rows` on are zero. What
// is `ahead` of these lines may be fetched meanwhile.
template <class T, bool fetches>
CONVEXT_INLINE void transpose_lines(Compute<T>* target, int64_t target_stride,
                                    const T* const (&lines)[Vector<Compute<T>>::lanes], int64_t rows,
                                    int64_t places, int64_t ahead) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (int64_t x = 0; x < places; x += lanes, target += lanes * target_stride) {
    Vector<Real> v[lanes];
    if (rows == lanes && places - x >= lanes) {
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        v[i] = load_widened(lines[i] + x);
        // One by one between the loads: all before them took 3 % longer, of the whole gradient.
        if constexpr (fetches) __builtin_prefetch(lines[i] + x + ahead);
      }
      transpose(v);
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) store(target + i * target_stride, v[i]);
      continue;
    }
    const int64_t count = smaller(lanes, places - x);
    CONVEXT_UNROLL
    for (int64_t i = 0; i < lanes; ++i) {
      v[i] = zero<Real>();
      if (i < rows) v[i] = count == lanes ? load_widened(lines[i] + x) : load_widened(lines[i] + x, count);
    }
    transpose(v);
    CONVEXT_UNROLL
    for (int64_t i = 0; i < lanes; ++i) {
      if (i < count) store(target + i * target_stride, v[i]);
    }
  }
}

// target[place][row] for `rows` rows, zeros up to a whole vector; ahead(row), where given, is how far what is
// read next lies behind those from `row` on.
template <class T, class LineOf, class Ahead = std::nullptr_t>
CONVEXT_INLINE void transpose_rows(Compute<T>* target, int64_t target_stride, int64_t rows, int64_t places,
                                   const LineOf& line_of, const Ahead& ahead = nullptr) {
  constexpr bool fetches = !std::is_same_v<Ahead, std::nullptr_t>;
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  for (int64_t row = 0; row < rows; row += lanes) {
    const int64_t count = smaller(lanes, rows - row);
    const T* lines[lanes];
    for (int64_t i = 0; i < lanes; ++i) lines[i] = line_of(row + smaller(i, count - 1));
    int64_t distance = 0;
    if constexpr (fetches) distance = ahead(row);
    transpose_lines<T, fetches>(target + row, target_stride, lines, count, places, distance);
  }
}

// Widens `channels` neighbours, zeros up to a whole vector.
template <class T>
CONVEXT_INLINE void copy_channels(Compute<T>* target, const T* source, int64_t channels) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  int64_t c = 0;
  for (; c + lanes <= channels; c += lanes) store(target + c, load_widened(source + c));
  if (c < channels) store(target + c, load_widened(source + c, channels - c));
}

// Widens `channels` neighbours to groups of `group` that are `group_stride` apart. May write up to a vector
// past the last one of a group.
template <class T>
CONVEXT_INLINE void copy_groups(Compute<T>* target, int64_t group_stride, const T* source, int64_t group,
                                int64_t channels) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  for (; channels > 0; channels -= group, source += group, target += group_stride) {
    int64_t c = 0;
    for (; c < group && c + lanes <= channels; c += lanes) store(target + c, load_widened(source + c));
    if (c < group && c < channels) store(target + c, load_widened(source + c, channels - c));
  }
}

// The band of lines of `channels` neighbouring channels, [place][channel].
template <class T>
void fill_channel_band(const Band& band, const T* source, const ImageStrides& strides, int64_t channels,
                       Compute<T>* plane, int64_t target_stride) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  const Axis& rows = band.rows.axis;
  const Axis& columns = band.columns.axis;
  const int64_t width = band.columns.length;
  const int64_t step = columns.stride * strides.column;
  for (int64_t row_phase = 0; row_phase < band.rows.phases; ++row_phase) {
    const int64_t first_row = band.rows.position(row_phase);
    for (int64_t column_phase = 0; column_phase < band.columns.phases; ++column_phase) {
      const int64_t first_column = band.columns.position(column_phase);
      const int64_t begin = band.columns.inside_begin(column_phase);
      const int64_t end = band.columns.inside_end(column_phase);
      for (int64_t line = 0; line < band.rows.length; ++line) {
        Compute<T>* target = plane + line * band.pitch * target_stride;
        const int64_t row = band_source(rows, first_row + line * rows.stride);
        const T* const from = source + row * strides.row;
        const auto pad = [&](int64_t first, int64_t last) {
          for (int64_t x = first; x < last; ++x, target += target_stride) {
            const int64_t column = row < 0 ? -1 : band_source(columns, first_column + x * columns.stride);
            if (column < 0) {
              for (int64_t c = 0; c < channels; c += lanes) store(target + c, zero<Real>());
            } else {
              copy_channels(target, from + column * strides.column, channels);
            }
          }
        };
        if (row < 0) {
          pad(0, width);
          continue;
        }
        pad(0, begin);
        const T* inside = from + (first_column + begin * columns.stride) * strides.column;
        for (int64_t x = begin; x < end; ++x, inside += step, target += target_stride) {
          copy_channels(target, inside, channels);
        }
        pad(end, width);
      }
      plane += band.plane_stride * target_stride;
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
