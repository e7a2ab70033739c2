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
  static constexpr int64_t numbers = 2 * lanes;
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
    const BFloat16** gradients;  // of each place, or nullptr
    BFloat16* lines;             // of a vector's output channels, place by place
    Pair* panel;
    BFloat16* planes;
    float* sums;
  };

  Own own_of(int worker) const {
    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    return {reinterpret_cast<const BFloat16**>(own + plan.places_offset),
            reinterpret_cast<BFloat16*>(own + plan.lines_offset),
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
    const TileConfiguration configuration(most_tile_pairs);
    const int64_t first_chunk = plan.chunks * part / plan.parts;
    const int64_t last_chunk = plan.chunks * (part + 1) / plan.parts;
    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      add_chunk(block, chunk, first_panel, last_panel, own, chunk > first_chunk, sums_of);
    }
    if (plan.parts > 1) return;
    for (int64_t panel = first_panel; panel < last_panel; ++panel) write(block, panel, sums_of(panel));
  }

  template <class SumsOf>
  void add_chunk(const Block& block, int64_t chunk, int64_t first_panel, int64_t last_panel, const Own& own,
                 bool continues, const SumsOf& sums_of) {
    const Patches<BFloat16> patches{input + block.group * c.source_channels * c.source_strides.channel,
                                    c.source_strides,
                                    c.batch,
                                    c.source_channels,
                                    c.rows.at(0),
                                    c.columns.at(0)};
    const PairStrips::Strip strip = plan.strips.at(chunk, patches.rows, patches.columns, c.batch);
    const ChannelPlanes planes(plan.places_of(strip), TilesGradientPlan::places_of_step);
    if (!planes.fill(patches, strip.image, block.first_channel, block.channels, own.planes)) {
      has_non_finite.store(true, std::memory_order_relaxed);
    }
    const int64_t counted = round_up(planes.places.counted(), TilesGradientPlan::places_of_step);
    const int64_t rows = TilesGradientPlan::rows_of(block.channels);
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      const BFloat16* const first =
          gradient + (block.group * c.result_channels + panel * panel_width) * gradient_strides.channel;
      find_gradients(first, strip, planes.places, counted, own.gradients);
      pack(counted, c.result_channels - panel * panel_width, own);
      const int64_t no_distance = 0;
      TileProduct product;
      product.row_stride = planes.pitch;
      product.taps = &no_distance;
      product.tap_count = 1;
      product.steps = TileSteps(counted / 2);
      product.b = own.panel;
      product.pair_stride = panel_width;
      product.tap_stride = 0;
      product.sums_stride = panel_width;
      product.continues = continues;
      product.bias = nullptr;
      // All taps of 32 channels, whose planes are in the first cache then.
      for (int64_t row = 0; row < rows; row += 2 * tile_height) {
        const int64_t tiles = smaller(2, (rows - row) / tile_height);
        for (int64_t tap = 0; tap < plan.taps; ++tap) {
          product.a = own.planes + row * planes.pitch +
                      planes.places.tap(tap / patches.columns.taps, tap % patches.columns.taps);
          product.sums = sums_of(panel) + (tap * rows + row) * panel_width;
          tile_rows_of_chunk(product, tiles, vectors_of(panel));
        }
      }
    }
  }

  // Where the gradient of each place has the first channel.
  void find_gradients(const BFloat16* first, const PairStrips::Strip& strip, const TilePlaces& places,
                      int64_t counted, const BFloat16** at) const {
    std::memset(at, 0, static_cast<size_t>(counted) * sizeof(*at));
    for (int64_t image = 0; image < strip.images; ++image) {
      for (int64_t row = 0; row < strip.rows; ++row) {
        const BFloat16* const line = first + (strip.image + image) * gradient_strides.batch +
                                     (strip.row + row) * gradient_strides.row +
                                     strip.column * gradient_strides.column;
        for (int64_t x = 0; x < strip.columns; ++x) {
          at[places.index_of(image, row, x)] = line + x * gradient_strides.column;
        }
      }
    }
  }

  // panel[pair of places][output channel], of up to two vectors' channels.
  void pack(int64_t counted, int64_t channels, const Own& own) const {
    for (int64_t v = 0; v < TilesGradientPlan::panel_vectors && v * lanes < channels; ++v) {
      const int64_t wanted = smaller(lanes, channels - v * lanes);
      Pair* const to = own.panel + v * lanes;
      if (gradient_strides.channel == 1) {
        for (int64_t place = 0; place < counted; place += 2) {
          const auto channels_at = [&](int64_t at) {
            static constexpr BFloat16 none[lanes] = {};
            return own.gradients[at] == nullptr ? none : own.gradients[at] + v * lanes;
          };
          store(to + place / 2 * panel_width, zip(channels_at(place), channels_at(place + 1), wanted));
        }
        continue;
      }
      copy_lines(counted, v * lanes, wanted, own);
      for (int64_t place = 0; place < counted; place += numbers) {
        PairVector square[lanes];
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] =
              lane < wanted ? load_neighbours(own.lines + lane * plan.counted + place, numbers) : no_pairs();
        }
        transpose(square);
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) store(to + (place / 2 + i) * panel_width, square[i]);
      }
    }
  }

  // lines[output channel][place], where pixels of a row are neighbours, or anything else.
  void copy_lines(int64_t counted, int64_t first, int64_t channels, const Own& own) const {
    int64_t place = 0;
    while (place < counted) {
      const BFloat16* const from = own.gradients[place];
      int64_t end = place + 1;
      if (from == nullptr) {
        while (end < counted && own.gradients[end] == nullptr) ++end;
      } else {
        while (end < counted && own.gradients[end] == from + (end - place) * gradient_strides.column) ++end;
      }
      for (int64_t c = 0; c < channels; ++c) {
        BFloat16* const to = own.lines + c * plan.counted;
        for (int64_t x = place; x < end; x += numbers) {
          const int64_t step = gradient_strides.column;
          const PairVector value =
              from == nullptr ? no_pairs()
                              : load_every(from + (first + c) * gradient_strides.channel + (x - place) * step,
                                           step, end - x);
          store_neighbours(to + x, value, end - x);
        }
      }
      place = end;
    }
  }

  // The sums of a block of channels and a panel, into the result.
  void write(const Block& block, int64_t panel, const float* sums) const {
    const int64_t rows = TilesGradientPlan::rows_of(block.channels);
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
        return sums + (at % taps * rows + at / taps) * panel_width;
      };
      return transpose_pairs_out(sums_of, count, wanted, to, strides.out_channel, 1);
    }
    for (int64_t tap = 0; tap < plan.taps; ++tap) {
      const auto sums_of = [&](int64_t channel) {
        return sums + (tap * rows + smaller(channel, block.channels - 1)) * panel_width;
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
    const int64_t count = TilesGradientPlan::rows_of(block.channels) * plan.taps * panel_width;
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
