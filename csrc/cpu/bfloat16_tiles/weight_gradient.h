// The gradient of the weight: rows of the products are input channels, lanes are output channels, the terms
// of a sum are pixels, 32 places of a chunk at a time,
//
//     sums[tap][input channel][output channel] += input[channel][place at the tap] . gradient[place][channel]
//
// Places that are no output pixels (tile_places.h), and those behind the last one, have a gradient of zero.
//
// Floor: as for forward. Beside it stand copying the input and packing the gradient, once for each block of
// channels, and the sums, which every chunk loads and stores.
#pragma once

#include <atomic>

#include "cpu/bfloat16_pairs/transposed_results.h"
#include "cpu/bfloat16_tiles/weight_gradient_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

class TilesGradient {
 public:
  TilesGradient(const TilesGradientPlan& cut, const ConvProblem& problem, const ConvData& data,
                void* workspace)
      : plan(cut),
        c(cut.c),
        input(static_cast<const BFloat16*>(data.input)),
        gradient(static_cast<const BFloat16*>(data.output)),
        gradient_strides(problem.output_strides),
        result(static_cast<BFloat16*>(data.weight)),
        memory(static_cast<char*>(workspace)) {}

  // False where a number that is not finite was multiplied by a zero that is no term of the sum.
  bool run(const Executor& executor) {
    for_each_tile(executor, plan.items(), [&](int64_t item, int worker) { run_item(item, worker); });
    if (has_non_finite.load(std::memory_order_relaxed)) return false;
    if (plan.parts > 1) {
      const int64_t count = c.groups * plan.channel_blocks * plan.panels;
      for_each_tile(executor, count, [&](int64_t index, int) { add_parts(index); });
    }
    return true;
  }

 private:
  static constexpr int64_t lanes = tile_width;
  static constexpr int64_t panel_width = TilesGradientPlan::panel_width;

  const TilesGradientPlan& plan;
  const Correlation& c;
  const BFloat16* input;
  const BFloat16* gradient;
  ImageStrides gradient_strides;
  BFloat16* result;
  char* memory;
  std::atomic<bool> has_non_finite{false};

  struct Block {
    int64_t group;
    int64_t index;  // of the block of channels
    int64_t first_channel;
    int64_t channels;
  };

  // A worker's part of the workspace.
  struct Own {
    const BFloat16** gradients;  // of each place, or nullptr; or else
    PlaceRun* runs;
    Pair* panel;
    BFloat16* planes;
    float* sums;
  };

  Own own_of(int worker) const {
    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    return {reinterpret_cast<const BFloat16**>(own + plan.places_offset),
            reinterpret_cast<PlaceRun*>(own + plan.places_offset),
            reinterpret_cast<Pair*>(own + plan.panel_offset),
            reinterpret_cast<BFloat16*>(own + plan.planes_offset),
            reinterpret_cast<float*>(own + plan.sums_offset)};
  }

  Block block_of(int64_t group, int64_t index) const {
    const int64_t first = index * plan.channels;
    return {group, index, first, smaller(plan.channels, c.source_channels - first)};
  }

  float* partial_sums(int64_t part, const Block& block, int64_t panel) const {
    const int64_t blocks = c.groups * plan.channel_blocks;
    const int64_t before =
        (part * blocks + block.group * plan.channel_blocks + block.index) * plan.panels + panel;
    return reinterpret_cast<float*>(memory + plan.partial_offset) + before * plan.sums_of_panel;
  }

  int64_t vectors_of(int64_t panel) const {
    return ceil_div(smaller(panel_width, c.result_channels - panel * panel_width), lanes);
  }

  void run_item(int64_t index, int worker) {
    const int64_t panel_block = index % plan.panel_blocks;
    const int64_t in_group = index / plan.panel_blocks;
    const int64_t of_part = in_group / plan.channel_blocks;
    const Block block = block_of(of_part % c.groups, in_group % plan.channel_blocks);
    const int64_t part = of_part / c.groups;
    const int64_t first_panel = plan.panels * panel_block / plan.panel_blocks;
    const int64_t last_panel = plan.panels * (panel_block + 1) / plan.panel_blocks;
    const Own own = own_of(worker);
    const auto sums_of = [&](int64_t panel) {
      return plan.parts > 1 ? partial_sums(part, block, panel)
                            : own.sums + (panel - first_panel) * plan.sums_of_panel;
    };
    configure_tiles(most_tile_pairs);
    const int64_t first_chunk = plan.chunks * part / plan.parts;
    const int64_t last_chunk = plan.chunks * (part + 1) / plan.parts;
    for (int64_t chunk = first_chunk; chunk < last_chunk; chunk += plan.chunks_together) {
      const int64_t end = smaller(last_chunk, chunk + plan.chunks_together);
      for (int64_t k = chunk; k < end; ++k) copy_input(block, k, planes_of(own, k - chunk));
      for (int64_t panel = first_panel; panel < last_panel; ++panel) {
        for (int64_t k = chunk; k < end; ++k) {
          pack_gradient(block, k, panel, own);
          multiply(block, k, panel, planes_of(own, k - chunk), own, k > first_chunk, sums_of(panel));
        }
      }
    }
    release_tiles();
    if (plan.parts > 1) return;
    for (int64_t panel = first_panel; panel < last_panel; ++panel) write(block, panel, sums_of(panel));
  }

  BFloat16* planes_of(const Own& own, int64_t index) const {
    return own.planes + index * plan.planes_numbers();
  }

  PairStrips::Strip strip_of(int64_t chunk) const {
    return plan.strips.at(chunk, c.rows.at(0), c.columns.at(0), c.batch);
  }

  void copy_input(const Block& block, int64_t chunk, BFloat16* copy) {
    const Patches<BFloat16> patches{input + block.group * c.source_channels * c.source_strides.channel,
                                    c.source_strides,
                                    c.batch,
                                    c.source_channels,
                                    c.rows.at(0),
                                    c.columns.at(0)};
    const PairStrips::Strip strip = strip_of(chunk);
    const ChannelPlanes planes = planes_of(strip);
    if (planes.fill(patches, strip.image, block.first_channel, block.channels, copy)) return;
    has_non_finite.store(true, std::memory_order_relaxed);
  }

  ChannelPlanes planes_of(const PairStrips::Strip& strip) const {
    const TilePlaces places = plan.places_of(strip);
    if (plan.joins_taps) return ChannelPlanes::joined(places);
    return {places, places_of_step};
  }

  void multiply(const Block& block, int64_t chunk, int64_t panel, const BFloat16* copy, const Own& own,
                bool continues, float* sums) const {
    const ChannelPlanes planes = planes_of(strip_of(chunk));
    const int64_t taps = plan.joins_taps ? 1 : plan.taps;
    const int64_t rows = plan.sums_rows(block.channels) / taps;
    const int64_t no_distance = 0;
    TileProduct product;
    product.row_stride = plan.joins_taps ? planes.places.plane_numbers() : planes.pitch;
    product.a_taps = product.b_taps = &no_distance;
    product.tap_count = 1;
    product.steps = TileSteps(plan.counted_of(planes.places) / 2);
    product.b = own.panel;
    product.pair_stride = panel_width;

    product.sums_stride = panel_width;
    product.continues = continues;
    product.bias = nullptr;
    // All taps of 32 channels, whose planes are in the first cache then.
    for (int64_t row = 0; row < rows; row += 2 * tile_height) {
      const int64_t tiles = smaller(2, (rows - row) / tile_height);
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t column_taps = c.columns.p.kernel;
        product.a = copy + row * product.row_stride + planes.places.tap(tap / column_taps, tap % column_taps);
        product.sums = sums + (tap * rows + row) * panel_width;
        tile_blocks(product, tiles, vectors_of(panel));
      }
    }
  }

  void pack_gradient(const Block& block, int64_t chunk, int64_t panel, const Own& own) const {
    const PairStrips::Strip strip = strip_of(chunk);
    const TilePlaces places = plan.places_of(strip);
    const int64_t counted = plan.counted_of(places);
    const BFloat16* const first =
        gradient + (block.group * c.result_channels + panel * panel_width) * gradient_strides.channel;
    const int64_t channels = c.result_channels - panel * panel_width;
    if (gradient_strides.channel == 1) {
      find_gradients(first, strip, places, counted, own.gradients);
      pack_pixels(counted, channels, own);
    } else {
      const int64_t runs = find_place_runs(
          strip, places, gradient_strides.column,
          [&](int64_t image, int64_t row) { return offset_of(strip, image, row); }, own.runs);
      pack_planes(first, counted, runs, channels, own);
    }
  }

  // Where the gradient has the first pixel of a strip's row.
  int64_t offset_of(const PairStrips::Strip& strip, int64_t image, int64_t row) const {
    return (strip.image + image) * gradient_strides.batch + (strip.row + row) * gradient_strides.row +
           strip.column * gradient_strides.column;
  }

  // Where the gradient of each place has its first channel.
  void find_gradients(const BFloat16* first, const PairStrips::Strip& strip, const TilePlaces& places,
                      int64_t counted, const BFloat16** at) const {
    std::memset(at, 0, static_cast<size_t>(counted) * sizeof(*at));
    for (int64_t image = 0; image < strip.images; ++image) {
      for (int64_t row = 0; row < strip.rows; ++row) {
        const BFloat16* const line = first + offset_of(strip, image, row);
        for (int64_t x = 0; x < strip.columns; ++x) {
          at[places.index_of(image, row, x)] = line + x * gradient_strides.column;
        }
      }
    }
  }

  // panel[pair of places][output channel] of `channels` neighbouring channels, or a whole panel.
  void pack_pixels(int64_t counted, int64_t channels, const Own& own) const {
    const auto load_channels = [&](int64_t place) {
      const BFloat16* const from = own.gradients[place];
      return from == nullptr ? no_pairs() : load_neighbours(from, channels);
    };
    for (int64_t place = 0; place < counted; place += 2) {
      Pair* const to = own.panel + place / 2 * panel_width;
      const PairVector low = load_channels(place);
      const PairVector high = load_channels(place + 1);
      store(to, zip_lower_half(low, high));
      store(to + lanes, zip_upper_half(low, high));
    }
  }

  // The same where channels are no neighbours: 16 of them and 32 places are transposed at a time.
  void pack_planes(const BFloat16* from, int64_t counted, int64_t runs, int64_t channels,
                   const Own& own) const {
    const int64_t channel_stride = gradient_strides.channel;
    int64_t first_run = 0;
    for (int64_t step = 0; step < counted / places_of_step; ++step) {
      int64_t last_run = first_run;
      while (last_run < runs && own.runs[last_run].step == step) ++last_run;
      Pair* const to = own.panel + step * most_tile_pairs * panel_width;
      for (int64_t first = 0; first < smaller(panel_width, channels); first += lanes) {
        PairVector square[lanes];
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) square[lane] = no_pairs();
        for (int64_t index = first_run; index < last_run; ++index) {
          const PlaceRun& run = own.runs[index];
          const BFloat16* const at = from + run.offset + first * channel_stride;

          CONVEXT_UNROLL
          for (int64_t lane = 0; lane < lanes; ++lane) {
            if (first + lane >= channels) continue;
            expand_into(square[lane], run.mask,
                        load_every(at + lane * channel_stride, gradient_strides.column, run.count()));
          }
        }
        transpose(square);
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) store(to + i * panel_width + first, square[i]);
      }
      first_run = last_run;
    }
  }

  // The sums of a block of channels and a panel, into the result.
  void write(const Block& block, int64_t panel, const float* sums) const {
    const int64_t rows = TilesGradientPlan::rows_of(block.channels);
    const auto row_of = [&](uint32_t channel, uint32_t tap) {
      return plan.joins_taps ? channel * static_cast<uint32_t>(plan.taps) + tap
                             : tap * static_cast<uint32_t>(rows) + channel;
    };
    const int64_t first = panel * panel_width;
    const int64_t wanted = smaller(panel_width, c.result_channels - first);
    const WeightStrides& strides = plan.strides;
    const int64_t column_taps = c.columns.p.kernel;
    BFloat16* const to = result + (block.group * c.result_channels + first) * strides.out_channel +
                         block.first_channel * strides.in_channel;
    const bool taps_are_neighbours = strides.in_channel == plan.taps &&
                                     (column_taps == 1 || strides.column == 1) &&
                                     (c.rows.p.kernel == 1 || strides.row == column_taps);
    if (taps_are_neighbours) {
      const int64_t count = block.channels * plan.taps;
      const auto sums_of = [&](int64_t x) {
        const auto at = static_cast<uint32_t>(smaller(x, count - 1));
        const auto taps = static_cast<uint32_t>(plan.taps);
        return sums + row_of(at / taps, at % taps) * panel_width;
      };
      return transpose_pairs_out(sums_of, count, wanted, to, strides.out_channel, 1);
    }
    for (int64_t tap = 0; tap < plan.taps; ++tap) {
      const auto sums_of = [&](int64_t channel) {
        const auto at = static_cast<uint32_t>(smaller(channel, block.channels - 1));
        return sums + row_of(at, static_cast<uint32_t>(tap)) * panel_width;
      };
      transpose_pairs_out(sums_of, block.channels, wanted,
                          to + tap / column_taps * strides.row + tap % column_taps * strides.column,
                          strides.out_channel, strides.in_channel);
    }
  }

  // The parts of a sum, in order.
  void add_parts(int64_t index) const {
    const int64_t panel = index % plan.panels;
    const int64_t blocks = index / plan.panels;
    const Block block = block_of(blocks / plan.channel_blocks, blocks % plan.channel_blocks);
    float* const sums = partial_sums(0, block, panel);
    const int64_t count = plan.sums_rows(block.channels) * panel_width;
    for (int64_t part = 1; part < plan.parts; ++part) {
      const float* const other = partial_sums(part, block, panel);
      for (int64_t i = 0; i < count; i += lanes) store(sums + i, add(load(sums + i), load(other + i)));
    }
    write(block, panel, sums);
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
