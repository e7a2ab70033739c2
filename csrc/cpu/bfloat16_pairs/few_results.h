// Forward and the gradient of the input, stride 1, where a group has fewer result channels than a vector has
// lanes: pixels in the lanes. Source channels are zipped into planes of pairs, padding and all, so that a tap
// is a shift,
//
//     sums[result channel][pixel] += dot(weights[result channel][tap][pair], planes[pair][pixel + tap])
//
// Rows of a plane follow each other without a gap, and a vector runs on from one to the next: what it
// computes for the places between two rows is dropped.
#pragma once

#include <atomic>

#include "cpu/bfloat16_pairs/correlation_plan.h"
#include "cpu/bfloat16_pairs/transposed_results.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int most_few_rows = 8;
constexpr int few_vectors = 3;  // 24 sums of 32 registers

struct FewResultsTile {
  const BFloat16* weights;  // of the first row: [tap][pair]
  int64_t row_numbers;      // from the weights of one row to those of the next
  const Pair* planes;       // where the first pixel's first tap finds its first pair
  int64_t plane;            // from one pair to the next
  const int64_t* taps;
  int64_t tap_count;
  int64_t pairs;
  const float* bias;  // of the first row, or nullptr
  float* sums;        // [row][pixel]
  int64_t sums_stride;
};

template <int rows>
void few_results_kernel(const FewResultsTile& tile) {
  constexpr int64_t lanes = PairVector::lanes;
  Vector<float> sum[rows][few_vectors];
  CONVEXT_UNROLL
  for (int r = 0; r < rows; ++r) {
    const Vector<float> first = tile.bias == nullptr ? zero<float>() : broadcast(tile.bias[r]);
    CONVEXT_UNROLL
    for (int v = 0; v < few_vectors; ++v) sum[r][v] = first;
  }
  const BFloat16* weights = tile.weights;
  for (int64_t tap = 0; tap < tile.tap_count; ++tap) {
    const Pair* from = tile.planes + tile.taps[tap];
    for (int64_t pair = 0; pair < tile.pairs; ++pair, from += tile.plane, weights += 2) {
      PairVector pixels[few_vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < few_vectors; ++v) pixels[v] = load_pairs(from + v * lanes);
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        const PairVector weight = broadcast_pair(weights + r * tile.row_numbers);
        CONVEXT_UNROLL
        for (int v = 0; v < few_vectors; ++v) sum[r][v] = dot(sum[r][v], pixels[v], weight);
      }
    }
  }
  CONVEXT_UNROLL
  for (int r = 0; r < rows; ++r) {
    CONVEXT_UNROLL
    for (int v = 0; v < few_vectors; ++v) store(tile.sums + r * tile.sums_stride + v * lanes, sum[r][v]);
  }
}

using FewResultsKernel = void (*)(const FewResultsTile&);

template <int rows = most_few_rows>
FewResultsKernel few_results_kernel_of(int64_t wanted) {
  if constexpr (rows > 1) {
    if (wanted < rows) return few_results_kernel_of<rows - 1>(wanted);
  }
  return few_results_kernel<rows>;
}

struct FewResultsPlan {
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t tile_pixels = few_vectors * lanes;
  static constexpr int64_t usual_pixels = 1024;
  static constexpr int64_t most_planes = 256 * 1024;  // bytes of the L2 cache

  int64_t pairs;  // of a group
  int64_t taps;
  int64_t item_groups;  // whose channels fill a vector of pairs
  int64_t group_blocks;
  int64_t pixels;       // of a strip, about
  int64_t row_numbers;  // of the weights of a result channel
  int64_t places;       // of a strip, at most
  int64_t plane;
  int64_t sums_stride;
  bool meets_padding;

  int64_t bias_offset;
  int64_t workers_offset;
  int64_t taps_offset;  // in a worker's part
  int64_t planes_offset;
  int64_t sums_offset;
  int64_t worker_bytes;

  // Whether the places between rows, which are computed in vain, are few.
  static bool fits(const Correlation& c) {
    if (c.classes() != 1 || c.result_channels >= lanes) return false;
    const Axis rows = c.rows.at(0);
    const Axis columns = c.columns.at(0);
    const bool is_dense =
        rows.stride == 1 && columns.stride == 1 && rows.spacing == 1 && columns.spacing == 1;
    const PlaceAxis line(columns, columns.count);
    return is_dense && line.is_shared && line.places * 5 <= columns.count * 8;
  }

  FewResultsPlan(const Correlation& c, int workers)
      : pairs(ceil_div(c.source_channels, 2)), taps(c.rows.p.kernel * c.columns.p.kernel) {
    item_groups = smaller(c.groups, larger(1, lanes / pairs));
    group_blocks = ceil_div(c.groups, item_groups);
    meets_padding = real_share(c.rows.at(0)) < 1 || real_share(c.columns.at(0)) < 1;
    row_numbers = taps * pairs * 2;
    pixels = usual_pixels;
    while (pixels > tile_pixels) {
      find_places(c);
      const int64_t items = c.batch * group_blocks * strips(c).count();
      const bool is_shared_out = items >= 3 * workers || items % workers == 0;
      if (item_groups * pairs * plane * static_cast<int64_t>(sizeof(Pair)) <= most_planes && is_shared_out)
        break;
      pixels /= 2;
    }
    find_places(c);
    sums_stride = spread_stride<float>(round_up(places, tile_pixels) + 2 * lanes);
    Carver shared;
    shared.take(c.groups * c.result_channels * row_numbers, sizeof(BFloat16));
    bias_offset = shared.take(c.groups * c.result_channels, sizeof(float));
    workers_offset = shared.bytes;
    Carver own;
    taps_offset = own.take(taps, sizeof(int64_t));
    planes_offset = own.take(item_groups * pairs * plane + tile_pixels, sizeof(Pair));
    sums_offset = own.take(lanes * sums_stride, sizeof(float));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  PairStrips strips(const Correlation& c) const { return {c.rows.at(0), c.columns.at(0), 1, pixels}; }

 private:
  void find_places(const Correlation& c) {
    const PairStrips of = strips(c);
    const PlaceAxis lines(c.rows.at(0), of.rows);
    const PlaceAxis columns(c.columns.at(0), of.columns);
    places = of.rows * columns.places;
    // An odd number of lines of the cache, so that planes do not fall into a few sets of it. Tiles read on
    // behind the last place.
    plane = (ceil_div(lines.places * columns.places + tile_pixels, lanes) | 1) * lanes;
  }
};

class FewResults {
 public:
  FewResults(const Correlation& correlation, const FewResultsPlan& cut, const ConvData& data, void* workspace)
      : c(correlation),
        plan(cut),
        weight(static_cast<const BFloat16*>(data.weight)),
        source(static_cast<const BFloat16*>(c.is_forward ? data.input : data.output)),
        result(static_cast<BFloat16*>(c.is_forward ? data.output : data.input)),
        bias(static_cast<const BFloat16*>(data.bias)),
        weights(static_cast<BFloat16*>(workspace)),
        memory(static_cast<char*>(workspace)) {}

  // False where zeros of padding would meet weights that are not finite: in the gradient of the input those
  // are no terms of the sum.
  bool run(const Executor& executor) {
    const bool is_small = c.groups * c.result_channels * plan.row_numbers < 20000;
    for_each_tile(is_small ? Executor{} : executor, c.groups, [&](int64_t group, int) { pack(group); });
    if (has_non_finite.load(std::memory_order_relaxed) && !c.is_forward && plan.meets_padding) return false;
    const int64_t items = c.batch * plan.group_blocks * plan.strips(c).count();
    for_each_tile(executor, items, [&](int64_t item, int worker) { run_item(item, worker); });
    return true;
  }

 private:
  static constexpr int64_t lanes = PairVector::lanes;

  const Correlation& c;
  const FewResultsPlan& plan;
  const BFloat16* weight;
  const BFloat16* source;
  BFloat16* result;
  const BFloat16* bias;
  BFloat16* weights;
  char* memory;
  std::atomic<bool> has_non_finite{false};

  void pack(int64_t group) {
    NonFinite non_finite;
    float* const biases = reinterpret_cast<float*>(memory + plan.bias_offset) + group * c.result_channels;
    for (int64_t m = 0; m < c.result_channels; ++m) {
      if (bias != nullptr) biases[m] = to_float(bias[group * c.result_channels + m]);
      BFloat16* to = weights + (group * c.result_channels + m) * plan.row_numbers;
      const BFloat16* const from = weight + group * c.weight_group_stride + m * c.weight_result_stride;
      for (int64_t i = 0; i < c.rows.p.kernel; ++i) {
        for (int64_t j = 0; j < c.columns.p.kernel; ++j, to += 2 * plan.pairs) {
          const BFloat16* const tap = from + i * c.weight_strides.row + j * c.weight_strides.column;
          to[2 * plan.pairs - 1] = BFloat16{0};
          for (int64_t k = 0; k < c.source_channels; ++k) {
            to[k] = tap[k * c.weight_source_stride];
            non_finite.look_at(to[k]);
          }
        }
      }
    }
    if (non_finite.found != 0) has_non_finite.store(true, std::memory_order_relaxed);
  }

  void run_item(int64_t index, int worker) const {
    const PairStrips strips = plan.strips(c);
    const int64_t strip = index % strips.count();
    const int64_t first_group = index / strips.count() % plan.group_blocks * plan.item_groups;
    const int64_t groups = smaller(plan.item_groups, c.groups - first_group);
    const int64_t image = index / strips.count() / plan.group_blocks;
    const Patches<BFloat16> patches{source + first_group * c.source_channels * c.source_strides.channel,
                                    c.source_strides,
                                    c.batch,
                                    groups * c.source_channels,
                                    c.rows.at(0),
                                    c.columns.at(0)};
    const PairStrips::Strip at = strips.at(strip, patches.rows, patches.columns, 1);
    const int64_t row = at.row;
    const int64_t column = at.column;
    const int64_t row_count = at.rows;
    const int64_t length = at.columns;
    const int64_t first_pixel = (image * patches.rows.count + row) * patches.columns.count + column;
    const BandPlaces band(patches.rows, patches.columns, first_pixel, row_count * length, 1);

    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    auto* const taps = reinterpret_cast<int64_t*>(own + plan.taps_offset);
    auto* const planes = reinterpret_cast<Pair*>(own + plan.planes_offset);
    auto* const sums = reinterpret_cast<float*>(own + plan.sums_offset);
    for (int64_t i = 0; i < patches.rows.taps; ++i) {
      for (int64_t j = 0; j < patches.columns.taps; ++j) taps[i * patches.columns.taps + j] = band.tap(i, j);
    }
    fill(patches, band, groups, planes);

    FewResultsTile tile{};
    tile.row_numbers = plan.row_numbers;
    tile.plane = plan.plane;
    tile.taps = taps;
    tile.tap_count = plan.taps;
    tile.pairs = plan.pairs;
    tile.sums_stride = plan.sums_stride;
    const int64_t places = (row_count - 1) * band.line_stride + length;
    const int64_t tiles_of_rows = ceil_div(c.result_channels, most_few_rows);
    for (int64_t group = 0; group < groups; ++group) {
      const Pair* const from = planes + group * plan.pairs * plan.plane + band.at(image, row, column);
      const int64_t first_channel = (first_group + group) * c.result_channels;
      for (int64_t k = 0; k < tiles_of_rows; ++k) {
        const int64_t begin = c.result_channels * k / tiles_of_rows;
        const int64_t rows = c.result_channels * (k + 1) / tiles_of_rows - begin;
        tile.weights = weights + (first_channel + begin) * plan.row_numbers;
        if (bias != nullptr) {
          tile.bias = reinterpret_cast<float*>(memory + plan.bias_offset) + first_channel + begin;
        }
        for (int64_t x = 0; x < places; x += FewResultsPlan::tile_pixels) {
          tile.planes = from + x;
          tile.sums = sums + begin * plan.sums_stride + x;
          few_results_kernel_of(rows)(tile);
        }
      }
      write(image, row, row_count, column, length, first_channel, sums, band.line_stride);
    }
  }

  // planes[group][pair][place]
  void fill(const Patches<BFloat16>& patches, const BandPlaces& band, int64_t groups, Pair* planes) const {
    const int64_t size = patches.columns.source_size;
    band.for_each_line([&](int64_t image, int64_t row, int64_t line) {
      const int64_t source_row = patches.rows.resolve(row);
      const int64_t first_column = band.columns.source(band.first_column, 0);
      const int64_t begin = Inside::first_at_least(1, -first_column, band.columns.places);
      const int64_t end = larger(begin, Inside::first_at_least(1, size - first_column, band.columns.places));
      const BFloat16* const from =
          patches.source + image * patches.strides.batch + larger(0, source_row) * patches.strides.row;
      const bool is_transposed = patches.strides.channel == 1 && c.source_channels % 2 == 0;
      for (int64_t pair = 0; pair < groups * plan.pairs; ++pair) {
        Pair* const to = planes + pair * plan.plane + line;
        if (source_row < 0) {
          std::memset(to, 0, static_cast<size_t>(band.columns.places) * sizeof(Pair));
          continue;
        }
        const int64_t channel = pair / plan.pairs * c.source_channels + pair % plan.pairs * 2;
        const bool has_next = pair % plan.pairs * 2 + 1 < c.source_channels;
        const BFloat16* const low = from + channel * patches.strides.channel;
        const BFloat16* const high = has_next ? low + patches.strides.channel : nullptr;
        const auto fill_one = [&](int64_t place) {
          const int64_t at = patches.columns.resolve(first_column + place);
          to[place] = at < 0 ? 0 : pair_of(low, high, at * patches.strides.column);
        };
        for (int64_t place = 0; place < begin; ++place) fill_one(place);
        for (int64_t place = end; place < band.columns.places; ++place) fill_one(place);
        if (is_transposed) continue;
        if (patches.strides.column != 1) {
          for (int64_t place = begin; place < end; ++place) fill_one(place);
          continue;
        }
        for (int64_t place = begin; place < end; place += lanes) {
          const int64_t at = first_column + place;
          const int64_t count = smaller(lanes, end - place);
          store_lanes(to + place, zip(low + at, high == nullptr ? nullptr : high + at, count), count);
        }
      }
      if (source_row < 0 || !is_transposed) return;
      for (int64_t first = 0; first < groups * plan.pairs; first += lanes) {
        for (int64_t place = begin; place < end; place += lanes) {
          const int64_t count = smaller(lanes, end - place);
          const BFloat16* const pixel = from + (first_column + place) * patches.strides.column + 2 * first;
          PairVector square[lanes];
          CONVEXT_UNROLL
          for (int64_t i = 0; i < lanes; ++i) {
            square[i] = i < count ? load_neighbours(pixel + i * patches.strides.column,
                                                    2 * (groups * plan.pairs - first))
                                  : no_pairs();
          }
          transpose(square);
          CONVEXT_UNROLL
          for (int64_t i = 0; i < lanes; ++i) {
            if (first + i < groups * plan.pairs) {
              store_lanes(planes + (first + i) * plan.plane + line + place, square[i], count);
            }
          }
        }
      }
    });
  }

  static Pair pair_of(const BFloat16* low, const BFloat16* high, int64_t at) {
    const Pair upper = high == nullptr ? 0 : high[at].bits;
    return low[at].bits | upper << 16;
  }

  // The sums of a group's channels, [channel][place], into the rows of the result.
  void write(int64_t image, int64_t row, int64_t rows, int64_t column, int64_t length, int64_t first_channel,
             const float* sums, int64_t pitch) const {
    const ImageStrides& strides = c.result_strides;
    for (int64_t y = 0; y < rows; ++y, sums += pitch) {
      BFloat16* const to = result + image * strides.batch + first_channel * strides.channel +
                           (row + y) * strides.row + column * strides.column;
      if (strides.column == 1) {
        for (int64_t m = 0; m < c.result_channels; ++m) {
          for (int64_t x = 0; x < length; x += lanes) {
            store_rounded(to + m * strides.channel + x, load(sums + m * plan.sums_stride + x), length - x);
          }
        }
        continue;
      }
      for (int64_t x = 0; x < length; x += lanes) {
        write_pixels(to + x * strides.column, sums + x, length - x);
      }
    }
  }

  // Up to a vector of pixels whose channels are neighbours, or anywhere.
  void write_pixels(BFloat16* to, const float* sums, int64_t count) const {
    const ImageStrides& strides = c.result_strides;
    Vector<float> square[lanes];
    CONVEXT_UNROLL
    for (int64_t m = 0; m < lanes; ++m) {
      square[m] = m < c.result_channels ? load(sums + m * plan.sums_stride) : zero<float>();
    }
    transpose(square);
    CONVEXT_UNROLL
    for (int64_t i = 0; i < lanes; ++i) {
      if (i >= count) continue;
      BFloat16* const pixel = to + i * strides.column;
      if (strides.channel == 1) {
        store_rounded(pixel, square[i], c.result_channels);
        continue;
      }
      BFloat16 numbers[lanes];
      store_rounded(numbers, square[i], lanes);
      for (int64_t m = 0; m < c.result_channels; ++m) pixel[m * strides.channel] = numbers[m];
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
