// A strip's part of the source, copied channel by channel, copy[channel][place], so that neighbouring places
// are neighbouring numbers. Places are counted as in tile_places.h, padding is resolved.
#pragma once

#include "cpu/bfloat16_tiles/tile_places.h"
#include "cpu/bfloat16_tiles/tile_registers.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Every third of the first `count` of 96 numbers.
CONVEXT_INLINE PairVector load_every_third(const BFloat16* from, int64_t count) {
  constexpr int64_t numbers = 2 * PairVector::lanes;
  struct Order {
    uint16_t of_two[numbers] = {};
    uint16_t of_last[numbers] = {};
    uint32_t is_last = 0;
    constexpr Order() {
      for (int64_t i = 0; i < numbers; ++i) {
        if (3 * i < 2 * numbers) {
          of_two[i] = static_cast<uint16_t>(3 * i);
        } else {
          of_last[i] = static_cast<uint16_t>(3 * i - 2 * numbers);
          is_last |= uint32_t{1} << i;
        }
      }
    }
  };
  static constexpr Order order;
  const PairVector two = permute_numbers(load_neighbours(from, count),
                                         load_neighbours(from + numbers, count - numbers), order.of_two);
  return replace_numbers(two, order.is_last, load_neighbours(from + 2 * numbers, count - 2 * numbers),
                         order.of_last);
}

inline PairVector load_far_apart(const BFloat16* from, int64_t step, int64_t count);

// Every `step`-th of the numbers from `from` on, 32 of them or `count`; nothing behind the last one is read.
CONVEXT_INLINE PairVector load_every(const BFloat16* from, int64_t step, int64_t count) {
  constexpr int64_t numbers = 2 * PairVector::lanes;
  if (step == 1) return load_neighbours(from, count);
  if (step != 2) return load_far_apart(from, step, count);
  const int64_t left = 2 * count - 1;
  return lower_numbers(load_neighbours(from, left), load_neighbours(from + numbers, left - numbers));
}

inline PairVector load_far_apart(const BFloat16* from, int64_t step, int64_t count) {
  constexpr int64_t numbers = 2 * PairVector::lanes;
  if (count <= 0) return no_pairs();
  if (step == 3) return load_every_third(from, 3 * count - 2);
  if (step == 4 || step == 6) {
    const int64_t half = step / 2;
    const int64_t wanted = 2 * smaller(count, numbers) - 1;  // of every `half`-th
    return lower_numbers(load_every(from, half, wanted),
                         load_every(from + numbers * half, half, wanted - numbers));
  }
  BFloat16 gathered[numbers] = {};
  for (int64_t i = 0; i < numbers && i < count; ++i) gathered[i] = from[i * step];
  return load_neighbours(gathered, numbers);
}

struct ChannelPlanes {
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t numbers = 2 * lanes;  // of a vector

  TilePlaces places;
  int64_t pitch;  // from one channel to the next

  ChannelPlanes(const TilePlaces& of_one_channel, int64_t numbers_behind)
      : places(of_one_channel), pitch(pitch_of(of_one_channel, numbers_behind)) {}

  // Channels follow each other as the planes of one do.
  static ChannelPlanes joined(const TilePlaces& of_one_channel) {
    ChannelPlanes planes(of_one_channel, 0);
    planes.pitch = of_one_channel.all_places();
    return planes;
  }

  // Whole vectors are stored behind a plane, and products read there; an odd number of lines of the cache, so
  // that channels do not fall into a few sets of it.
  static int64_t pitch_of(const TilePlaces& places, int64_t numbers_behind) {
    return (ceil_div(places.all_places() + numbers_behind + numbers, numbers) | 1) * numbers;
  }

  // Copies the channels [first, first + count), and zeros behind each. Returns whether all are finite.
  bool fill(const Patches<BFloat16>& patches, int64_t first_image, int64_t first, int64_t count,
            BFloat16* copy) const {
    NonFinite non_finite;
    for (int64_t row_plane = 0; row_plane < places.rows.planes; ++row_plane) {
      for (int64_t line = 0; line < places.images * places.rows.length; ++line) {
        const int64_t place = line % places.rows.length;
        const int64_t row = places.rows.is_used(row_plane, place)
                                ? patches.rows.resolve(places.rows.source(row_plane, place))
                                : -1;
        const BFloat16* const from = patches.source +
                                     (first_image + line / places.rows.length) * patches.strides.batch +
                                     first * patches.strides.channel + row * patches.strides.row;
        for (int64_t plane = 0; plane < places.columns.planes; ++plane) {
          BFloat16* const to = copy + (row_plane * places.columns.planes + plane) * places.plane_numbers() +
                               line * places.columns.length;
          if (row < 0) {
            for (int64_t c = 0; c < count; ++c) clear(to + c * pitch, places.columns.length);
          } else {
            fill_line(patches, from, plane, count, to, non_finite);
          }
        }
      }
    }
    const int64_t behind = pitch - places.all_places();
    for (int64_t c = 0; c < count && behind > 0; ++c) clear(copy + c * pitch + places.all_places(), behind);
    // Products read behind the last of joined channels.
    if (behind == 0) clear(copy + count * pitch, 2 * numbers);
    return non_finite.found == 0;
  }

 private:
  static void clear(BFloat16* to, int64_t count) {
    std::memset(to, 0, static_cast<size_t>(count) * sizeof(BFloat16));
  }

  void fill_line(const Patches<BFloat16>& patches, const BFloat16* from, int64_t plane, int64_t channels,
                 BFloat16* to, NonFinite& non_finite) const {
    const PlaneAxis& columns = places.columns;
    const int64_t first = columns.source(plane, 0);
    const int64_t begin = Inside::first_at_least(columns.stride, -first, columns.length);
    const int64_t end = larger(
        begin, Inside::first_at_least(columns.stride, patches.columns.source_size - first, columns.length));
    const auto fill_padding = [&](int64_t x) {
      const int64_t at = columns.is_used(plane, x) ? patches.columns.resolve(first + x * columns.stride) : -1;
      for (int64_t c = 0; c < channels; ++c) {
        const BFloat16 value =
            at < 0 ? BFloat16{0} : from[c * patches.strides.channel + at * patches.strides.column];
        non_finite.look_at(value);
        to[c * pitch + x] = value;
      }
    };
    for (int64_t x = 0; x < begin; ++x) fill_padding(x);
    for (int64_t x = end; x < columns.length; ++x) fill_padding(x);
    const int64_t step = columns.stride * patches.strides.column;
    const BFloat16* const inside = from + (first + begin * columns.stride) * patches.strides.column;
    const int64_t count = end - begin;
    constexpr int64_t few = 4;  // channels, which are faster picked out of pixels one by one
    if (patches.strides.channel != 1 || channels <= few) {
      for (int64_t c = 0; c < channels; ++c) {
        const BFloat16* const source = inside + c * patches.strides.channel;
        BFloat16* const target = to + c * pitch + begin;
        for (int64_t x = 0; x < count; x += numbers) {
          const PairVector value = load_every(source + x * step, step, count - x);
          non_finite.look_at(value);
          store_neighbours(target + x, value, count - x);
        }
      }
      return;
    }
    // Pixel by pixel, as they lie in memory.
    for (int64_t x = 0; x < count; x += numbers) {
      for (int64_t c = 0; c < channels; c += numbers) {
        transpose_block(inside + x * step + c, step, smaller(numbers, count - x),
                        smaller(numbers, channels - c), to + c * pitch + begin + x, non_finite);
      }
    }
  }

  // Up to 32 pixels that are `step` apart, and 32 channels.
  void transpose_block(const BFloat16* from, int64_t step, int64_t count, int64_t channels, BFloat16* to,
                       NonFinite& non_finite) const {
    for (int64_t half = 0; half * lanes < channels; ++half) {
      PairVector square[lanes];
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        const auto load_pixel = [&](int64_t x) {
          return x < count ? load_neighbours(from + x * step, channels) : no_pairs();
        };
        const PairVector low = load_pixel(2 * i);
        const PairVector high = load_pixel(2 * i + 1);
        square[i] = half == 0 ? zip_lower_half(low, high) : zip_upper_half(low, high);
        non_finite.look_at(square[i]);
      }
      transpose(square);
      CONVEXT_UNROLL
      for (int64_t i = 0; i < lanes; ++i) {
        const int64_t channel = half * lanes + i;
        if (channel < channels) store_neighbours(to + channel * pitch, square[i], count);
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
