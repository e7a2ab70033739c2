// The patches of a strip of neighbouring result pixels, panel[term][pixel] with terms (c, i, j), and the way of
// its results into a tensor. All channels of a tap are copied alike, so the runs of neighbouring pixels that
// read neighbouring source positions, or padding, are found once.
#pragma once

#include "cpu/implicit_gemm/patches.h"
#include "cpu/panel_gemm/correlation_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class Strip {
 public:
  Strip(const PixelClass& pixel_class, const ImageStrides& source_strides, int64_t strip, void* runs_of_taps)
      : pixels(pixel_class),
        strides(source_strides),
        first_pixel(PanelPlan<T>::first_vector(pixels, strip) * lanes),
        vectors(PanelPlan<T>::first_vector(pixels, strip + 1) - PanelPlan<T>::first_vector(pixels, strip)),
        count(smaller(vectors * lanes, pixels.pixels() - first_pixel)),
        runs(static_cast<Run*>(runs_of_taps)) {}

  const PixelClass& pixels;
  const ImageStrides& strides;
  int64_t first_pixel;
  int64_t vectors;
  int64_t count;  // of pixels

  bool is_whole() const { return count == vectors * lanes; }

  // Before pack.
  void find_runs() {
    const Axis& rows = pixels.rows;
    const Axis& columns = pixels.columns;
    run_count = 0;
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t j = 0; j < columns.taps; ++j) {
        for_each_segment(rows.count, columns.count, first_pixel, count, [&](const Segment& segment) {
          const int64_t row = rows.source(segment.row, i);
          if (row < 0) return add_run(segment.begin, padding, segment.length);
          const Inside inside(columns, segment, j);
          const int64_t end = larger(inside.begin, inside.end);
          add_outside(segment, row, j, 0, inside.begin);
          add_run(segment.begin + inside.begin,
                  row * strides.row + (inside.at + inside.begin * columns.stride), end - inside.begin);
          add_outside(segment, row, j, end, segment.length);
        });
        runs[run_count++] = {0, end_of_tap, 0};
      }
    }
  }

  // Packs all taps of `channels` channels, the first of which begins at `source`.
  void pack(const T* source, int64_t channels, T* panel) const {
    for (int64_t channel = 0; channel < channels; ++channel, source += strides.channel) {
      for (int64_t r = 0; r < run_count; ++r) {
        const Run& run = runs[r];
        if (run.from >= 0) {
          copy_widened(panel + run.to, source + run.from, pixels.columns.stride, run.length);
        } else if (run.from == padding) {
          fill_zero_vectors(panel + run.to, run.length);
        } else {
          panel += vectors * lanes;
        }
      }
    }
  }

  // Writes a row of results.
  void store(const T* from, T* row_of_planes, const ImageStrides& result) const {
    const Axis& rows = pixels.rows;
    const Axis& columns = pixels.columns;
    for_each_segment(rows.count, columns.count, first_pixel, count, [&](const Segment& segment) {
      T* const to = row_of_planes + rows.result_position(segment.row) * result.row +
                    columns.result_position(segment.column);
      const T* const values = from + segment.begin;
      if (columns.spacing == 1) {
        int64_t x = 0;
        for (; x + lanes <= segment.length; x += lanes) convext::CONVEXT_ISA_NAMESPACE::store(to + x, load(values + x));
        if (x < segment.length)
          convext::CONVEXT_ISA_NAMESPACE::store(to + x, load(values + x), segment.length - x);
        return;
      }
      for (int64_t x = 0; x < segment.length; ++x) to[x * columns.spacing] = values[x];
    });
  }

 private:
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t padding = -1;
  static constexpr int64_t end_of_tap = -2;

  struct Run {
    int64_t to;    // in a line of the panel
    int64_t from;  // in a plane, or one of the two above
    int64_t length;
  };

  Run* runs;
  int64_t run_count = 0;

  void add_run(int64_t to, int64_t from, int64_t length) {
    if (length > 0) runs[run_count++] = {to, from, length};
  }

  // The pixels [begin, end) of a segment, whose tap lies before the first column or past the last one.
  void add_outside(const Segment& segment, int64_t row, int64_t tap, int64_t begin, int64_t end) {
    if (pixels.columns.mode == PaddingMode::zeros) return add_run(segment.begin + begin, padding, end - begin);
    for (int64_t x = begin; x < end; ++x) {
      add_run(segment.begin + x, row * strides.row + pixels.columns.source(segment.column + x, tap), 1);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
