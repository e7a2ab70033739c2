// Lines of the source in scratch, padding resolved, 16-bit types widened, each copied once for all the taps
// that read it. Results that are neighbours along a row lie in the lanes of a vector, so for one tap a vector
// of results reads consecutive elements of a line, and the next tap the same elements shifted: patches need
// not be written out.
//
// A stride splits positions into phases: result q and tap t read position q * stride + e(t), that is element
// q + floor(e / stride) of the phase e mod stride. Each phase is a plane of its own, in which stride is 1.
//
// All planes have one `pitch` from line to line, that of the results as well: result (y, x) is *place*
// y * pitch + x. The few places at the end of each line are computed and dropped, which is much cheaper than
// cutting vectors at the end of every line. The zeros of padding on the right of a line are also those on the
// left of the next one, so there are even fewer.
#pragma once

#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// One axis of a band, for results [first, first + count). Not for borders.
struct BandAxis {
  const Axis& axis;
  int64_t first;
  int64_t count;
  int64_t phases;  // that taps read
  int64_t length;  // elements of a phase
  int64_t least_shift;

  BandAxis(const Axis& of, int64_t first_result, int64_t results)
      : axis(of), first(first_result), count(results) {
    const int64_t step = axis.step < 0 ? -axis.step : axis.step;
    int64_t a = axis.stride;
    int64_t b = step % axis.stride;
    while (b != 0) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    phases = smaller(axis.taps, axis.stride / a);
    const int64_t first_shift = shift(0);
    const int64_t last_shift = shift(axis.taps - 1);
    least_shift = smaller(first_shift, last_shift);
    length = count + larger(first_shift, last_shift) - least_shift;
  }

  int64_t shift(int64_t tap) const { return floor_div(tap * axis.step + axis.offset, axis.stride); }
  // Taps t and t + phases read the same phase.
  int64_t phase_of(int64_t tap) const { return tap % phases; }
  // Where in its phase the first result reads for a tap.
  int64_t element(int64_t tap) const { return shift(tap) - least_shift; }
  // The source position of the first element of a phase; the next one is axis.stride further.
  int64_t position(int64_t phase) const {
    const int64_t e = phase * axis.step + axis.offset;
    return (first + least_shift) * axis.stride + (e - floor_div(e, axis.stride) * axis.stride);
  }
  // The elements [inside_begin, inside_end) of a phase are not padding.
  int64_t inside_begin(int64_t phase) const {
    return Inside::first_at_least(axis.stride, -position(phase), length);
  }
  int64_t inside_end(int64_t phase) const {
    return larger(inside_begin(phase),
                  Inside::first_at_least(axis.stride, axis.source_size - position(phase), length));
  }
  // Zeros that each phase has on both sides. Not for pieces of lines, which would differ.
  int64_t shared_zeros() const {
    if (axis.mode != PaddingMode::zeros || count < axis.count) return 0;
    int64_t least = length - count;  // lines of results must not overlap
    for (int64_t phase = 0; phase < phases; ++phase) {
      least = smaller(least, smaller(inside_begin(phase), length - inside_end(phase)));
    }
    return least;
  }

  static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
};

struct Band {
  BandAxis rows;
  BandAxis columns;
  int64_t pitch;
  int64_t plane_stride;
  int64_t channel_stride;

  Band(const Axis& row_axis, const Axis& column_axis, int64_t first_row, int64_t row_count,
       int64_t first_column, int64_t column_count)
      : rows(row_axis, first_row, row_count), columns(column_axis, first_column, column_count) {
    pitch = columns.length - columns.shared_zeros();
    plane_stride = (rows.length - 1) * pitch + columns.length;
    // An odd number of cache lines (of floats), lest channels fall into a few sets of the cache.
    channel_stride = (ceil_div(numbers(), 16) | 1) * 16;
  }

  int64_t places() const { return (rows.count - 1) * pitch + columns.count; }
  int64_t lines() const { return rows.phases * columns.phases * rows.length; }     // of a channel
  int64_t numbers() const { return rows.phases * columns.phases * plane_stride; }  // of a channel

  // Where place 0 reads for a tap.
  int64_t at(int64_t row_tap, int64_t column_tap) const {
    const int64_t plane = rows.phase_of(row_tap) * columns.phases + columns.phase_of(column_tap);
    return plane * plane_stride + rows.element(row_tap) * pitch + columns.element(column_tap);
  }
};

// Where element `position` of the padded axis comes from, or -1 for a zero. No tap reads further out.
inline int64_t band_source(const Axis& axis, int64_t position) {
  if (position >= 0 && position < axis.source_size) return position;
  const int64_t reach = (axis.taps - 1) * axis.step;
  const int64_t first = axis.offset + smaller(0, reach);
  const int64_t last = axis.offset + larger(0, reach) + (axis.count - 1) * axis.stride;
  return position < first || position > last ? -1 : axis.resolve(position);
}

// Fills the band of `channels` channels of one image, and `slack` zeros behind it for lanes past the last
// place. May write up to a vector further.
template <class T>
void fill_band(const Band& band, const T* source, const ImageStrides& strides, int64_t channels,
               int64_t slack, Compute<T>* band_lines) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  const Axis& rows = band.rows.axis;
  const Axis& columns = band.columns.axis;
  const int64_t step = columns.stride * strides.column;
  const int64_t width = band.columns.length;
  const int64_t line_of_cache = larger(1, 64 / static_cast<int64_t>(sizeof(T)) / larger(1, step));
  const int64_t channels_ahead = larger(1, 8 / band.lines());
  for (int64_t channel = 0; channel < channels; ++channel, source += strides.channel) {
    Real* plane = band_lines + channel * band.channel_stride;
    for (int64_t row_phase = 0; row_phase < band.rows.phases; ++row_phase) {
      const int64_t first_row = band.rows.position(row_phase);
      for (int64_t column_phase = 0; column_phase < band.columns.phases; ++column_phase) {
        const int64_t first_column = band.columns.position(column_phase);
        const int64_t begin = band.columns.inside_begin(column_phase);
        const int64_t end = band.columns.inside_end(column_phase);
        const int64_t inside = (first_column + begin * columns.stride) * strides.column;
        Real* target = plane;
        plane += band.plane_stride;
        for (int64_t line = 0; line < band.rows.length; ++line, target += band.pitch) {
          const int64_t row = band_source(rows, first_row + line * rows.stride);
          if (row < 0) {
            for (int64_t x = 0; x < width; x += lanes) store(target + x, zero<Real>());
            continue;
          }
          const T* from = source + row * strides.row;
          // Planes are far apart, so the hardware does not foresee the next channels' lines.
          if (channel + channels_ahead < channels) {
            const T* const next = from + channels_ahead * strides.channel + inside;
            for (int64_t x = 0; x < end - begin; x += line_of_cache) __builtin_prefetch(next + x * step);
          }
          if (columns.mode == PaddingMode::zeros) {
            for (int64_t x = 0; x < begin; x += lanes) store(target + x, zero<Real>());
            copy_widened(target + begin, from + inside, step, end - begin);
            for (int64_t x = end; x < width; x += lanes) store(target + x, zero<Real>());
            continue;
          }
          const auto pad = [&](int64_t first, int64_t last) {
            for (int64_t x = first; x < last; ++x) {
              const int64_t column = band_source(columns, first_column + x * columns.stride);
              target[x] = column < 0 ? Real{0} : widen(from[column * strides.column]);
            }
          };
          pad(0, begin);
          copy_widened(target + begin, from + inside, step, end - begin);
          pad(end, width);
        }
      }
    }
  }
  for (int64_t x = 0; x < slack; x += lanes)
    store(band_lines + channels * band.channel_stride + x, zero<Real>());
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
