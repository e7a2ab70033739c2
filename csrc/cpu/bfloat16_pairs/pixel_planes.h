// The input of a gradient of the weight, copied for a chunk of output pixels so that what a tap reads for two
// neighbouring pixels are neighbours: plane[channel][line][column], padding resolved. With a stride, a line's
// columns are sorted by their phase.
#pragma once

#include "cpu/bfloat16_pairs/pairs.h"
#include "cpu/implicit_gemm/band_places.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct PixelPlanes : BandPlaces {
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t numbers = 2 * lanes;  // of a vector

  int64_t phases;  // that columns are sorted by
  int64_t phase_length;
  int64_t pitch;  // from one line to the next
  int64_t plane;  // from one channel to the next

  // A place of BandPlaces is a column, and its lines are counted by ones.
  PixelPlanes(const Patches<BFloat16>& patches, int64_t first_pixel, int64_t pixels)
      : BandPlaces(patches.rows, patches.columns, first_pixel, pixels, 1) {
    phases = columns.is_shared ? columns.stride : 1;
    phase_length = ceil_div(columns.places, phases);
    pitch = pitch_of(columns);
    line_stride = 1;
    image_stride = rows.places;
    plane = plane_of(images * rows.places, pitch);
  }

  // A pair may end one number behind the line.
  static int64_t pitch_of(const PlaceAxis& columns) {
    const int64_t phases = columns.is_shared ? columns.stride : 1;
    return phases * ceil_div(columns.places, phases) + 1;
  }
  // Whole vectors are stored; an odd number of lines of the cache, so that channels do not fall into a few
  // sets of it.
  static int64_t plane_of(int64_t lines, int64_t pitch) {
    return (ceil_div(lines * pitch + numbers, numbers) | 1) * numbers;
  }

  // Where the line of output pixels finds its first tap, and how much further another tap is.
  int64_t line_of(int64_t image, int64_t row) const {
    return ((image - first_image) * image_stride + (row - first_row_of(image)) * rows.pixel_step) * pitch;
  }
  int64_t tap_of(int64_t i, int64_t j) const {
    const int64_t column = j * columns.tap_step;
    return i * rows.tap_step * pitch + column % phases * phase_length + column / phases;
  }

  // Copies the channels [first, first + count). Returns whether all are finite.
  bool fill(const Patches<BFloat16>& patches, BFloat16* to, int64_t first, int64_t count) const {
    NonFinite non_finite;
    const bool are_planes = patches.strides.channel != 1 || count == 1;
    for_each_line([&](int64_t image, int64_t row, int64_t line) {
      const int64_t source_row = patches.rows.resolve(row);
      BFloat16* const target = to + line * pitch;
      if (source_row < 0) {
        for (int64_t c = 0; c < count; ++c) clear(target + c * plane, pitch);
        return;
      }
      const BFloat16* const from = patches.source + image * patches.strides.batch +
                                   first * patches.strides.channel + source_row * patches.strides.row;
      for_each_run([&](int64_t place, int64_t column, int64_t step, int64_t places) {
        const Run run = run_of(patches, column, step, places);
        if (are_planes) {
          for (int64_t c = 0; c < count; ++c) {
            fill_run(patches, target + c * plane, from + c * patches.strides.channel, place, run, non_finite);
          }
        } else {
          transpose_run(patches, target, from, count, place, run, non_finite);
        }
      });
      // What an odd row's last pair may read besides.
      for (int64_t c = 0; c < count; ++c) {
        BFloat16* const of_channel = target + c * plane;
        of_channel[pitch - 1] = BFloat16{0};
        for (int64_t place = columns.places; place < phases * phase_length; ++place) {
          of_channel[position_of(place)] = BFloat16{0};
        }
      }
    });
    return non_finite.found == 0;
  }

 private:
  // Places of a line, and which of them are inside the source.
  struct Run {
    int64_t column;
    int64_t step;
    int64_t places;
    int64_t begin;
    int64_t end;
  };

  Run run_of(const Patches<BFloat16>& patches, int64_t column, int64_t step, int64_t places) const {
    const int64_t begin = Inside::first_at_least(step, -column, places);
    const int64_t end = Inside::first_at_least(step, patches.columns.source_size - column, places);
    return {column, step, places, begin, larger(begin, end)};
  }

  static void clear(BFloat16* to, int64_t count) {
    std::memset(to, 0, static_cast<size_t>(count) * sizeof(BFloat16));
  }

  int64_t position_of(int64_t place) const { return place % phases * phase_length + place / phases; }

  void fill_padding(const Patches<BFloat16>& patches, BFloat16* line, const BFloat16* from, int64_t place,
                    const Run& run) const {
    const auto fill_one = [&](int64_t x) {
      const int64_t at = patches.columns.resolve(run.column + x * run.step);
      line[position_of(place + x)] = at < 0 ? BFloat16{0} : from[at * patches.strides.column];
    };
    for (int64_t x = 0; x < run.begin; ++x) fill_one(x);
    for (int64_t x = run.end; x < run.places; ++x) fill_one(x);
  }

  void fill_run(const Patches<BFloat16>& patches, BFloat16* line, const BFloat16* from, int64_t place,
                const Run& run, NonFinite& non_finite) const {
    fill_padding(patches, line, from, place, run);
    const int64_t step = run.step * patches.strides.column;
    from += (run.column + run.begin * run.step) * patches.strides.column;
    const int64_t count = run.end - run.begin;
    if (phases == 1 && step == 1) {
      BFloat16* const to = line + place + run.begin;
      for (int64_t x = 0; x < count; x += numbers) {
        const PairVector value = load_neighbours(from + x, count - x);
        non_finite.look_at(value);
        store_neighbours(to + x, value, count - x);
      }
      return;
    }
    if ((phases == 2 || phases == 4) && step == 1) {
      BFloat16* sorted[4];
      for (int64_t phase = 0; phase < phases; ++phase) {
        sorted[phase] = line + position_of(place + run.begin + phase);
      }
      return phases == 2 ? sort<2>(sorted, from, count, non_finite)
                         : sort<4>(sorted, from, count, non_finite);
    }
    for (int64_t x = 0; x < count; ++x) {
      const BFloat16 value = from[x * step];
      non_finite.look_at(value);
      line[position_of(place + run.begin + x)] = value;
    }
  }

  // Every `phases`-th of `count` neighbours to a place of its own.
  template <int phases>
  static void sort(BFloat16* const (&to)[4], const BFloat16* from, int64_t count, NonFinite& non_finite) {
    for (int64_t x = 0; x < count; x += phases * numbers) {
      PairVector vector[phases];
      CONVEXT_UNROLL
      for (int v = 0; v < phases; ++v) {
        vector[v] = load_neighbours(from + x + v * numbers, count - x - v * numbers);
        non_finite.look_at(vector[v]);
      }
      const auto store_phase = [&](int phase, PairVector value) {
        const int64_t left = ceil_div(count - x - phase, phases);
        if (left > 0) store_neighbours(to[phase] + x / phases, value, left);
      };
      const PairVector even = lower_numbers(vector[0], vector[1]);
      const PairVector odd = upper_numbers(vector[0], vector[1]);
      if constexpr (phases == 2) {
        store_phase(0, even);
        store_phase(1, odd);
      } else {
        const PairVector next_even = lower_numbers(vector[2], vector[3]);
        const PairVector next_odd = upper_numbers(vector[2], vector[3]);
        store_phase(0, lower_numbers(even, next_even));
        store_phase(1, lower_numbers(odd, next_odd));
        store_phase(2, upper_numbers(even, next_even));
        store_phase(3, upper_numbers(odd, next_odd));
      }
    }
  }

  // Of an image whose channels are neighbours: 32 of them for 32 pixels at a time.
  void transpose_run(const Patches<BFloat16>& patches, BFloat16* line, const BFloat16* from, int64_t channels,
                     int64_t place, const Run& run, NonFinite& non_finite) const {
    for (int64_t c = 0; c < channels; ++c) {
      fill_padding(patches, line + c * plane, from + c, place, run);
    }
    const int64_t step = run.step * patches.strides.column;
    from += (run.column + run.begin * run.step) * patches.strides.column;
    // Of sorted columns, those of one phase at a time.
    for (int64_t phase = 0; phase < phases && phase < run.end - run.begin; ++phase) {
      const BFloat16* const pixels = from + phase * step;
      const int64_t count = ceil_div(run.end - run.begin - phase, phases);
      BFloat16* const to = line + position_of(place + run.begin + phase);
      for (int64_t first = 0; first < channels; first += numbers) {
        for (int64_t x = 0; x < count; x += numbers) {
          transpose_block(to + first * plane + x, pixels + x * phases * step + first, phases * step,
                          smaller(numbers, count - x), smaller(numbers, channels - first), non_finite);
        }
      }
    }
  }

  void transpose_block(BFloat16* to, const BFloat16* from, int64_t step, int64_t count, int64_t channels,
                       NonFinite& non_finite) const {
    PairVector halves[2][lanes];
    for (int64_t half = 0; half < 2; ++half) {
      PairVector square[lanes];
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        const int64_t x = half * lanes + i;
        square[i] = x < count ? load_neighbours(from + x * step, channels) : no_pairs();
        non_finite.look_at(square[i]);
      }
      transpose(square);
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) halves[half][i] = square[i];
    }
    for (int64_t i = 0; i < lanes && 2 * i < channels; ++i) {
      BFloat16* const line = to + 2 * i * plane;
      store_neighbours(line, lower_numbers(halves[0][i], halves[1][i]), count);
      if (2 * i + 1 < channels) {
        store_neighbours(line + plane, upper_numbers(halves[0][i], halves[1][i]), count);
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
