// Patches of single pixels of a source whose channels are neighbours. Fewer steps for each than
// pack_terms_fastest takes, which is made for long rows of them.
#pragma once

#include "cpu/implicit_gemm/patches.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Where the window of a pixel begins: the position that its first tap reads.
template <class T>
struct Window {
  const T* image;
  int64_t row;
  int64_t column;
};

// block[pixel][term], terms (i, j, c) from `first` on. May write up to a vector's lanes behind each row. Not
// for borders.
template <class T>
void pack_windows(const Patches<T>& patches, const Window<T>* windows, int64_t count, int64_t first,
                  int64_t terms, Compute<T>* block, int64_t block_stride) {
  const Axis& rows = patches.rows;
  const Axis& columns = patches.columns;
  const int64_t channels = patches.channels;
  // Where the channels of neighbouring columns follow each other, so do the terms of a row of taps.
  const bool joins_taps = columns.taps > 1 && columns.step == 1 && columns.mode == PaddingMode::zeros &&
                          patches.strides.column == channels;
  const int64_t run_channels = joins_taps ? channels * columns.taps : channels;
  for_each_tap_run(run_channels, joins_taps ? 1 : columns.taps, first, terms, [&](const TapRun& run) {
    for (int64_t p = 0; p < count; ++p) {
      const Window<T>& window = windows[p];
      Compute<T>* to = block + p * block_stride + run.begin;
      const int64_t row = rows.resolve(window.row + run.row_tap * rows.step);
      const T* line = window.image + row * patches.strides.row;
      if (joins_taps) {
        // Of the row of taps, those from `begin` to `end` are real; counted in terms.
        const int64_t begin = smaller(columns.taps, larger(0, -window.column)) * channels;
        const int64_t end = larger(0, columns.source_size - window.column) * channels;
        const int64_t last = run.channel + run.length;
        const int64_t real = row < 0 ? last : smaller(last, larger(run.channel, begin));
        const int64_t behind = larger(real, smaller(last, end));
        fill_zero_vectors(to, real - run.channel);
        copy_widened(to + (real - run.channel), line + window.column * patches.strides.column + real, 1,
                     behind - real);
        fill_zero_vectors(to + (behind - run.channel), last - behind);
        continue;
      }
      const int64_t column = columns.resolve(window.column + run.column_tap * columns.step);
      if (row < 0 || column < 0) {
        fill_zero_vectors(to, run.length);
      } else {
        copy_widened(to, line + column * patches.strides.column + run.channel, 1, run.length);
      }
    }
  });
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
