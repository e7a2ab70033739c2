// The patches of a strip of neighbouring result pixels, panel[term][pixel] with terms (c, i, j), and the way
// of its results into a tensor. All channels of a tap are copied alike, so the runs of neighbouring pixels
// that read neighbouring source positions, or padding, are found once.
#pragma once

#include "cpu/implicit_gemm/patches.h"
#include "cpu/panel_gemm/correlation_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class Strip {
 public:
  Strip(const PanelPlan<T>& plan, int64_t index, void* runs_of_taps)
      : grid(plan.grid),
        strides(plan.c.source_strides),
        first_pixel(plan.first_vector(index) * lanes),
        vectors(plan.first_vector(index + 1) - plan.first_vector(index)),
        count(smaller(vectors * lanes, plan.pixels() - first_pixel)),
        runs(static_cast<PixelRun*>(runs_of_taps)) {}

  const ResultGrid& grid;
  const ImageStrides& strides;
  int64_t first_pixel;
  int64_t vectors;
  int64_t count;  // of pixels

  int64_t image() const { return first_pixel / grid.pixels(); }
  int64_t first_of_image() const { return first_pixel % grid.pixels(); }

  // Whether it lies in one image and leaves no lane empty.
  bool is_whole() const { return count == vectors * lanes && first_of_image() + count <= grid.pixels(); }

  // Before pack.
  void find_runs() {
    const Axis& rows = grid.rows;
    const Axis& columns = grid.columns;
    run_count = 0;
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t j = 0; j < columns.taps; ++j) {
        for_each_segment(rows.count, columns.count, first_pixel, count, [&](const Segment& segment) {
          const int64_t row = rows.source(segment.row, i);
          if (row < 0) return add_run(segment.begin, PixelRun::padding, segment.length);
          const Inside inside(columns, segment, j);
          const int64_t end = larger(inside.begin, inside.end);
          const int64_t line = segment.image * strides.batch + row * strides.row;
          add_outside(segment, line, j, 0, inside.begin);
          add_run(segment.begin + inside.begin, line + (inside.at + inside.begin * columns.stride),
                  end - inside.begin);
          add_outside(segment, line, j, end, segment.length);
        });
        runs[run_count++] = {0, PixelRun::end_of_tap, 0};
      }
    }
  }

  // Packs all taps of `channels` channels, the first of which begins at `source` in the first image.
  void pack(const T* source, int64_t channels, T* panel) const {
    for (int64_t channel = 0; channel < channels; ++channel, source += strides.channel) {
      for (int64_t r = 0; r < run_count; ++r) {
        const PixelRun& run = runs[r];
        if (run.from >= 0) {
          copy_widened(panel + run.to, source + run.from, grid.columns.stride, run.length);
        } else if (run.from == PixelRun::padding) {
          fill_zero_vectors(panel + run.to, run.length);
        } else {
          panel += vectors * lanes;
        }
      }
    }
  }

  // Writes results of one channel, whose plane in the first image is given.
  void store(const T* from, T* plane, const ImageStrides& result) const {
    const Axis& rows = grid.rows;
    const Axis& columns = grid.columns;
    for_each_segment(rows.count, columns.count, first_pixel, count, [&](const Segment& segment) {
      T* const to = plane + segment.image * result.batch + rows.result_position(segment.row) * result.row +
                    columns.result_position(segment.column);
      const T* const values = from + segment.begin;
      if (columns.spacing == 1) {
        int64_t x = 0;
        for (; x + lanes <= segment.length; x += lanes)
          CONVEXT_ISA_NAMESPACE::store(to + x, load(values + x));
        if (x < segment.length) CONVEXT_ISA_NAMESPACE::store(to + x, load(values + x), segment.length - x);
        return;
      }
      for (int64_t x = 0; x < segment.length; ++x) to[x * columns.spacing] = values[x];
    });
  }

  // Writes the results of one row of windows' numbers, `kernel.width` rows of this strip that are
  // `from_row` apart, to where they lie among each other.
  void store_woven(const T* from, int64_t from_row, const Size2& output, const Size2& kernel, int64_t row_tap,
                   T* plane, const ImageStrides& result) const {
    for_each_segment(output.height, output.width, first_pixel, count, [&](const Segment& segment) {
      T* const to = plane + segment.image * result.batch +
                    (segment.row * kernel.height + row_tap) * result.row + segment.column * kernel.width;
      const T* const values = from + segment.begin;
      int64_t x = 0;
      if (kernel.width == 2) {
        for (; x + lanes <= segment.length; x += lanes) {
          const Vector<T> first = load(values + x);
          const Vector<T> second = load(values + from_row + x);
          CONVEXT_ISA_NAMESPACE::store(to + 2 * x, interleave_low(first, second));
          CONVEXT_ISA_NAMESPACE::store(to + 2 * x + lanes, interleave_high(first, second));
        }
      }
      for (; x < segment.length; ++x) {
        for (int64_t j = 0; j < kernel.width; ++j) to[x * kernel.width + j] = values[j * from_row + x];
      }
    });
  }

  // Writes results of one channel that are two columns apart, each with the zero that follows it before
  // `width`.
  void store_pairs(const T* from, T* plane, const ImageStrides& result, int64_t width) const {
    for_each_segment(grid.rows.count, grid.columns.count, first_pixel, count, [&](const Segment& segment) {
      T* const row =
          plane + segment.image * result.batch + grid.rows.result_position(segment.row) * result.row;
      T* const to = row + 2 * segment.column;
      const T* const values = from + segment.begin;
      int64_t x = 0;
      for (; x + lanes <= segment.length && 2 * (segment.column + x + lanes) <= width; x += lanes) {
        const Vector<T> value = load(values + x);
        CONVEXT_ISA_NAMESPACE::store(to + 2 * x, interleave_low(value, zero<T>()));
        CONVEXT_ISA_NAMESPACE::store(to + 2 * x + lanes, interleave_high(value, zero<T>()));
      }
      for (; x < segment.length; ++x) {
        to[2 * x] = values[x];
        if (2 * (segment.column + x) + 1 < width) to[2 * x + 1] = 0;
      }
    });
  }

 private:
  static constexpr int64_t lanes = Vector<T>::lanes;

  PixelRun* runs;
  int64_t run_count = 0;

  void add_run(int64_t to, int64_t from, int64_t length) {
    if (length > 0) runs[run_count++] = {to, from, length};
  }

  // The pixels [begin, end) of a segment, whose tap lies before the first column or past the last one.
  void add_outside(const Segment& segment, int64_t line, int64_t tap, int64_t begin, int64_t end) {
    if (grid.columns.mode == PaddingMode::zeros)
      return add_run(segment.begin + begin, PixelRun::padding, end - begin);
    for (int64_t x = begin; x < end; ++x) {
      add_run(segment.begin + x, line + grid.columns.source(segment.column + x, tap), 1);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
