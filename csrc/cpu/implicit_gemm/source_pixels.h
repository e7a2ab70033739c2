// What the pixels of a strip read, where result channels are in the lanes: a pointer for each pixel and one
// table of positions for all pixels of a set. The strip's pixels are of one or two sets:
// - those that are read in place, or in a band (channel_band.h);
// - those whose patches are packed, block by block of terms.
#pragma once

#include "cpu/implicit_gemm/channels_plan.h"
#include "cpu/implicit_gemm/window_patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Pixels that are read by one table of positions.
template <class T>
struct PixelSet {
  const Compute<T>** from;
  T** to;  // at the first channel of the item
  int64_t count = 0;
  int32_t* terms;
  PixelTaps* taps = nullptr;  // of each pixel, if some read nothing but padding
};

template <class T>
class SourcePixels {
 public:
  using Real = Compute<T>;

  Patches<T> patches;  // of the channels that were taken
  int64_t first_pixel;
  int64_t count;
  PixelSet<T> inside;  // in place or in the band
  PixelSet<T> packed;

  SourcePixels(const Correlation& correlation, const ChannelsInLanesPlan<T>& cut, const Patches<T>& all,
               int64_t first, int64_t pixels, char* own)
      : patches(all),
        first_pixel(first),
        count(pixels),
        c(correlation),
        plan(cut),
        source(all.source),
        has_band(plan.has_band && !all.in_border()),
        has_windows(!all.in_border() && c.source_strides.channel == 1),
        windows(reinterpret_cast<Window<T>*>(own + plan.runs_offset)),
        runs(reinterpret_cast<int64_t*>(own + plan.runs_offset)),
        block(reinterpret_cast<Real*>(own + plan.patches_offset)) {
    const auto table = [&](int64_t index) {
      return own + plan.pointers_offset + index * plan.pointers() * static_cast<int64_t>(sizeof(void*));
    };
    inside.from = reinterpret_cast<const Real**>(table(0));
    inside.to = reinterpret_cast<T**>(table(1));
    packed.from = reinterpret_cast<const Real**>(table(2));
    packed.to = reinterpret_cast<T**>(table(3));
    inside.terms = reinterpret_cast<int32_t*>(own + plan.terms_offset);
    packed.terms = inside.terms + plan.terms;
    for (int64_t k = 0; k < plan.terms; ++k) packed.terms[k] = static_cast<int32_t>(k);
    if (plan.skips_padding && (has_band || has_windows)) {
      const bool are_inside = has_band || (plan.splits_tiles && reads_in_place());
      (are_inside ? inside : packed).taps = reinterpret_cast<PixelTaps*>(own + plan.taps_offset);
    }
    if (has_band) band = ChannelBand<T>(patches, first_pixel, count, plan.band_channels());
  }

  // `first_result`: the first channel that is computed, of the first pixel of the tensor.
  void find(T* first_result) {
    if (has_band) {
      find_in_band(first_result);
    } else {
      find_in_place(first_result);
    }
    // Tiles fetch what the next one reads; the last one has no next.
    PixelSet<T>* const sets[] = {&inside, &packed};
    for (PixelSet<T>* set : sets) {
      for (int64_t p = 0; p < most_indirect_rows && set->count > 0; ++p) {
        set->from[set->count + p] = set->from[set->count - 1];
      }
    }
  }

  // Terms are counted from here on in the source channels [first, first + channels).
  void take_channels(int64_t first, int64_t channels) {
    patches.source = source + first * c.source_strides.channel;
    patches.channels = channels;
    if (has_band && has_taps()) band.fill(patches, block, 0, channels);
  }

  // Makes the terms [first, first + length) readable.
  void take_terms(int64_t first, int64_t length) {
    first_term = first;
    last_term = first + length;
    first_tap = first / larger(1, patches.channels);
    last_tap = (first + length - 1) / larger(1, patches.channels);
    if (has_band) {
      // Of a single tap, terms are channels, and only those are in the band.
      if (!has_taps()) band.fill(patches, block, first, length);
      fill_terms(has_taps() ? first : 0, length,
                 [&](const TapRun& run) { return band.tap(run.row_tap, run.column_tap); });
      return;
    }
    if (inside.count > 0) {
      fill_terms(first, length, [&](const TapRun& run) {
        return run.row_tap * patches.rows.step * c.source_strides.row +
               run.column_tap * patches.columns.step * c.source_strides.column;
      });
    }
    pack(first, length);
  }

  // How many pixels of the set, if all are in it, tiles may be made of that are split: those of a row; if
  // only rows of taps are told apart, of all the next rows that read the source by the same ones.
  int64_t pixels_alike(const PixelSet<T>& set, int64_t pixel) const {
    const int64_t columns = patches.columns.count;
    int64_t end = smaller(count, pixel + columns - (first_pixel + pixel) % columns);
    if (plan.splits_by_columns) return end - pixel;
    while (end < count && set.taps[end].rows == set.taps[pixel].rows) end = smaller(count, end + columns);
    return end - pixel;
  }

  // Some terms, of those that were taken, which the pixels [first_pixel, last_pixel) of a tile read from the
  // source.
  struct TilePart {
    int64_t first_term;
    int64_t last_term;
    int64_t first_pixel;
    int64_t last_pixel;
  };

  // Calls visit(part) for what the pixels [first, first + pixels) of a set, all of one row, read from the
  // source.
  template <class Visit>
  void for_each_part(const PixelSet<T>& set, int64_t first, int64_t pixels, const Visit& visit) const {
    const PixelTaps* const taps = set.taps + first;
    const int64_t column_taps = patches.columns.taps;
    if (!plan.splits_by_columns) {
      const int64_t terms_of_row = column_taps * patches.channels;
      const int64_t begin = larger(first_term, taps->rows.begin * terms_of_row) - first_term;
      const int64_t end = smaller(last_term, taps->rows.end * terms_of_row) - first_term;
      if (begin < end) visit(TilePart{begin, end, 0, pixels});
      return;
    }
    TilePart part{0, 0, 0, 0};
    for (int64_t tap = first_tap; tap <= last_tap; ++tap) {
      if (!taps->rows.has(tap / column_taps)) continue;
      const int64_t column_tap = tap % column_taps;
      int64_t begin = 0;
      int64_t end = pixels;
      while (begin < end && !taps[begin].columns.has(column_tap)) ++begin;
      while (begin < end && !taps[end - 1].columns.has(column_tap)) --end;
      if (begin == end) continue;
      const TilePart next{larger(first_term, tap * patches.channels) - first_term,
                          smaller(last_term, (tap + 1) * patches.channels) - first_term, begin, end};
      if (part.last_term == next.first_term && part.first_pixel == begin && part.last_pixel == end) {
        part.last_term = next.last_term;
        continue;
      }
      if (part.first_pixel < part.last_pixel) visit(part);
      part = next;
    }
    if (part.first_pixel < part.last_pixel) visit(part);
  }

  // Does one of the pixels [first, first + pixels) of a set read more than padding by those terms?
  bool read_source(const PixelSet<T>& set, int64_t first, int64_t pixels) const {
    if (set.taps == nullptr) return true;
    PixelTaps taps = set.taps[first];
    for (int64_t p = first + 1; p < first + pixels; ++p) {
      taps.rows.include(set.taps[p].rows);
      taps.columns.include(set.taps[p].columns);
    }
    return taps.meet(first_tap, last_tap, patches.columns.taps);
  }

 private:
  const Correlation& c;
  const ChannelsInLanesPlan<T>& plan;
  const T* source;
  int64_t first_term = 0;  // of those that were taken
  int64_t last_term = 0;
  int64_t first_tap = 0;
  int64_t last_tap = 0;
  bool has_band;
  bool has_windows;  // or else runs, of the pixels that are packed
  Window<T>* windows;
  int64_t* runs;  // pairs of first pixel and number
  int64_t run_count = 0;
  Real* block;  // patches or the band
  ChannelBand<T> band;

  bool has_taps() const { return patches.rows.taps * patches.columns.taps > 1; }

  template <class At>
  void fill_terms(int64_t first, int64_t length, const At& at) {
    for_each_tap_run(patches.channels, patches.columns.taps, first, length, [&](const TapRun& run) {
      const int64_t position = at(run) + run.channel;
      for (int64_t k = 0; k < run.length; ++k)
        inside.terms[run.begin + k] = static_cast<int32_t>(position + k);
    });
  }

  void find_in_band(T* first_result) {
    const Axis& rows = patches.rows;
    const Axis& columns = patches.columns;
    for_each_segment(rows.count, columns.count, first_pixel, count, [&](const Segment& segment) {
      T* const line = first_result + segment.image * c.result_strides.batch +
                      rows.result_position(segment.row) * c.result_strides.row;
      const Real* from = block + band.at(segment.image, segment.row, segment.column);
      if (inside.taps != nullptr) note_taps(inside, segment.row, segment.column, segment.length);
      for (int64_t x = 0; x < segment.length; ++x, from += band.columns.pixel_step * band.pixel_stride) {
        inside.from[inside.count] = from;
        inside.to[inside.count++] =
            line + columns.result_position(segment.column + x) * c.result_strides.column;
      }
    });
  }

  // What the pixels read that are added to the set next.
  void note_taps(PixelSet<T>& set, int64_t row, int64_t column, int64_t pixels) const {
    const TapRange row_taps = TapRange::of(patches.rows, row);
    for (int64_t x = 0; x < pixels; ++x) {
      set.taps[set.count + x] = {row_taps, TapRange::of(patches.columns, column + x)};
    }
  }

  // Result positions [begin, end) whose windows lie inside the source.
  static void find_inside(const Axis& axis, int64_t& begin, int64_t& end) {
    const int64_t reach = (axis.taps - 1) * axis.step;
    const int64_t lowest = axis.offset + smaller(0, reach);
    const int64_t highest = axis.offset + larger(0, reach);
    begin = Inside::first_at_least(axis.stride, -lowest, axis.count);
    end = larger(begin, Inside::first_at_least(axis.stride, axis.source_size - highest, axis.count));
  }

  bool reads_in_place() const {
    if (!std::is_same_v<T, Real> || patches.in_border() || c.source_strides.channel != 1) return false;
    // Tables of positions hold 32 bits.
    const double reach =
        static_cast<double>(patches.rows.taps * patches.rows.step * c.source_strides.row) +
        static_cast<double>(patches.columns.taps * patches.columns.step * c.source_strides.column);
    return reach < 1e9 && reach > -1e9 && c.source_channels < (int64_t{1} << 29);
  }

  void find_in_place(T* first_result) {
    const Axis& rows = patches.rows;
    const Axis& columns = patches.columns;
    int64_t first_row = 0, end_row = 0, first_column = 0, end_column = 0;
    if (inside.taps != nullptr) {
      // Padding is left out, so all else is in place.
      end_row = rows.count;
      end_column = columns.count;
    } else if (reads_in_place()) {
      find_inside(rows, first_row, end_row);
      find_inside(columns, first_column, end_column);
    }
    const int64_t step = columns.stride * c.source_strides.column;
    for_each_segment(rows.count, columns.count, first_pixel, count, [&](const Segment& segment) {
      T* const line = first_result + segment.image * c.result_strides.batch +
                      rows.result_position(segment.row) * c.result_strides.row;
      const bool row_is_inside = segment.row >= first_row && segment.row < end_row;
      const int64_t end = segment.column + segment.length;
      const int64_t inside_begin = row_is_inside ? smaller(end, larger(segment.column, first_column)) : end;
      const int64_t inside_end = row_is_inside ? larger(inside_begin, smaller(end, end_column)) : end;
      const auto add_packed = [&](int64_t begin, int64_t behind) {
        if (begin >= behind) return;
        if (packed.taps != nullptr) note_taps(packed, segment.row, begin, behind - begin);
        if (has_windows) {
          const T* const image = patches.source + segment.image * c.source_strides.batch;
          const int64_t row = segment.row * rows.stride + rows.offset;
          for (int64_t x = begin; x < behind; ++x) {
            windows[packed.count + x - begin] = {image, row, x * columns.stride + columns.offset};
          }
        } else {
          const int64_t first = first_pixel + segment.begin + begin - segment.column;
          runs[2 * run_count] = first;
          runs[2 * run_count++ + 1] = behind - begin;
        }
        for (int64_t x = begin; x < behind; ++x) {
          packed.from[packed.count] = block + packed.count * plan.patches_stride;
          packed.to[packed.count++] = line + columns.result_position(x) * c.result_strides.column;
        }
      };
      add_packed(segment.column, inside_begin);
      if constexpr (std::is_same_v<T, Real>) {
        const T* from = patches.source + segment.image * c.source_strides.batch +
                        (segment.row * rows.stride + rows.offset) * c.source_strides.row +
                        columns.offset * c.source_strides.column + inside_begin * step;
        T* to = line + (columns.first + inside_begin * columns.spacing) * c.result_strides.column;
        if (inside.taps != nullptr) note_taps(inside, segment.row, inside_begin, inside_end - inside_begin);
        for (int64_t x = inside_begin; x < inside_end; ++x) {
          inside.from[inside.count] = from;
          inside.to[inside.count++] = to;
          from += step;
          to += columns.spacing * c.result_strides.column;
        }
      }
      add_packed(inside_end, end);
    });
  }

  // The patches of the pixels that are not read in place.
  void pack(int64_t first, int64_t length) {
    if (has_windows) {
      return pack_windows(patches, windows, packed.count, first, length, block, plan.patches_stride);
    }
    int64_t done = 0;
    for (int64_t r = 0; r < run_count; ++r) {
      pack_terms_fastest(patches, runs[2 * r], runs[2 * r + 1], first, length,
                         block + done * plan.patches_stride, plan.patches_stride);
      done += runs[2 * r + 1];
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
