// The gradient of the weight: output channels in the lanes, terms of the sum are pixels, two neighbours of a
// row at a time,
//
//     sums[(channel, tap)][output channel] += dot(input pair at the tap, gradient pair)
//
// where the gradient of the output is packed into panels [pair][lane] and the input copied so that every tap
// reads neighbours (pixel_planes.h). A row of an odd number of pixels ends with a pair whose second number of
// the gradient is zero.
#pragma once

#include <atomic>

#include "cpu/bfloat16_pairs/transposed_results.h"
#include "cpu/bfloat16_pairs/weight_gradient_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

class PairsGradient {
 public:
  PairsGradient(const PairsGradientPlan& cut, const ConvProblem& problem, const ConvData& data,
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
  static constexpr int64_t lanes = PairVector::lanes;

  const PairsGradientPlan& plan;
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

  void run_item(int64_t index, int worker) {
    const int64_t panel_block = index % plan.panel_blocks;
    const int64_t in_group = index / plan.panel_blocks;
    const int64_t of_part = in_group / plan.channel_blocks;
    const Block block = block_of(of_part % c.groups, in_group % plan.channel_blocks);
    const int64_t part = of_part / c.groups;
    const int64_t first_panel = plan.panels * panel_block / plan.panel_blocks;
    const int64_t last_panel = plan.panels * (panel_block + 1) / plan.panel_blocks;
    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    auto* const sums = reinterpret_cast<float*>(own + plan.sums_offset);
    const auto sums_of = [&](int64_t panel) {
      return plan.parts > 1 ? partial_sums(part, block, panel)
                            : sums + (panel - first_panel) * plan.sums_of_panel;
    };
    const int64_t first_chunk = plan.chunks * part / plan.parts;
    const int64_t last_chunk = plan.chunks * (part + 1) / plan.parts;
    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      add_chunk(block, chunk, first_panel, last_panel, own, chunk > first_chunk, sums_of);
    }
    if (plan.parts > 1) return;
    for (int64_t panel = first_panel; panel < last_panel; ++panel) write(block, panel, sums_of(panel));
  }

  template <class SumsOf>
  void add_chunk(const Block& block, int64_t chunk, int64_t first_panel, int64_t last_panel, char* own,
                 bool continues, const SumsOf& sums_of) {
    auto** const rows = reinterpret_cast<const BFloat16**>(own + plan.rows_offset);
    auto* const lines = reinterpret_cast<int64_t*>(own + plan.lines_offset);
    auto* const panel_memory = reinterpret_cast<Pair*>(own + plan.panel_offset);
    auto* const planes_memory = reinterpret_cast<BFloat16*>(own + plan.planes_offset);

    const Patches<BFloat16> patches{input + block.group * c.source_channels * c.source_strides.channel,
                                    c.source_strides,
                                    c.batch,
                                    c.source_channels,
                                    c.rows.at(0),
                                    c.columns.at(0)};
    const PairStrips::Strip strip = plan.strips().at(chunk, patches.rows, patches.columns, c.batch);
    const int64_t image = strip.image;
    const int64_t row = strip.row;
    const int64_t column = strip.column;
    const int64_t row_count = strip.rows;
    const int64_t length = strip.columns;
    const int64_t line_count = strip.images * row_count;
    const PixelPlanes planes(patches, (image * patches.rows.count + row) * patches.columns.count + column,
                             line_count * length);
    const bool is_finite = planes.fill(patches, planes_memory, block.first_channel, block.channels);
    if (!is_finite && length % 2 != 0) has_non_finite.store(true, std::memory_order_relaxed);

    for (int64_t line = 0; line < line_count; ++line) {
      lines[line] = planes.line_of(image + line / row_count, row + line % row_count);
    }
    for (int64_t channel = 0; channel < block.channels; ++channel) {
      for (int64_t i = 0; i < patches.rows.taps; ++i) {
        for (int64_t j = 0; j < patches.columns.taps; ++j) {
          const int64_t tap = i * patches.columns.taps + j;
          const int64_t at = plan.by_taps ? tap * block.channels + channel : channel * plan.taps + tap;
          rows[at] = planes_memory + channel * planes.plane + planes.tap_of(i, j);
        }
      }
    }
    const int64_t row_of_sums = block.channels * plan.taps;
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      const int64_t vectors = plan.vectors_of(panel);
      const int64_t first = plan.first_vector(panel) * lanes;
      for (int64_t line = 0; line < line_count; ++line) {
        const BFloat16* const from =
            gradient + (block.group * c.result_channels + first) * gradient_strides.channel +
            (image + line / row_count) * gradient_strides.batch +
            (row + line % row_count) * gradient_strides.row + column * gradient_strides.column;
        pack_line(from, length, c.result_channels - first, vectors,
                  panel_memory + line * ceil_div(length, 2) * vectors * lanes);
      }
      PairTile tile{};
      tile.taps = lines;
      tile.tap_count = line_count;
      tile.pairs = ceil_div(length, 2);
      tile.b = panel_memory;
      tile.sums_stride = plan.panel_width;
      tile.continues = continues;
      const int64_t tiles = ceil_div(row_of_sums, pair_rows(vectors));
      for (int64_t index = 0; index < tiles; ++index) {
        const int64_t begin = row_of_sums * index / tiles;
        tile.a = rows + begin;
        tile.sums = sums_of(panel) + begin * plan.panel_width;
        pair_kernel_of(row_of_sums * (index + 1) / tiles - begin, vectors)(tile);
      }
    }
  }

  // Pairs of neighbours of a row of the gradient: to[pair][channel].
  void pack_line(const BFloat16* from, int64_t count, int64_t channels, int64_t vectors, Pair* to) const {
    const int64_t pitch = vectors * lanes;
    const ImageStrides& strides = gradient_strides;
    for (int64_t v = 0; v < vectors; ++v, to += lanes, from += lanes * strides.channel, channels -= lanes) {
      if (strides.column != 1) {
        for (int64_t x = 0; x < count; x += 2) {
          const BFloat16* const low = from + x * strides.column;
          const BFloat16* const high = x + 1 < count ? low + strides.column : nullptr;
          if (strides.channel == 1) {
            store(to + x / 2 * pitch, zip(low, high, channels));
            continue;
          }
          BFloat16 gathered[2][lanes] = {};
          for (int64_t lane = 0; lane < lanes && lane < channels; ++lane) {
            gathered[0][lane] = low[lane * strides.channel];
            if (high != nullptr) gathered[1][lane] = high[lane * strides.channel];
          }
          store(to + x / 2 * pitch, zip(gathered[0], gathered[1], lanes));
        }
        continue;
      }
      for (int64_t x = 0; x < count; x += 2 * lanes) {
        PairVector square[lanes];
        CONVEXT_UNROLL
        for (int64_t lane = 0; lane < lanes; ++lane) {
          square[lane] =
              lane < channels ? load_neighbours(from + lane * strides.channel + x, count - x) : no_pairs();
        }
        transpose(square);
        const int64_t pairs = ceil_div(count - x, 2);
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (i < pairs) store(to + (x / 2 + i) * pitch, square[i]);
        }
      }
    }
  }

  // The sums of a block of channels and a panel, into the result.
  void write(const Block& block, int64_t panel, const float* sums) const {
    const int64_t first = plan.first_vector(panel) * lanes;
    const int64_t wanted = smaller(plan.vectors_of(panel) * lanes, c.result_channels - first);
    BFloat16* const to = result + (block.group * c.result_channels + first) * plan.strides.out_channel +
                         block.first_channel * plan.strides.in_channel;
    if (!plan.by_taps) {
      return transpose_pairs_out(sums, plan.panel_width, block.channels * plan.taps, wanted, to,
                                 plan.strides.out_channel, 1);
    }
    const int64_t column_taps = c.columns.p.kernel;
    for (int64_t tap = 0; tap < plan.taps; ++tap) {
      transpose_pairs_out(sums + tap * block.channels * plan.panel_width, plan.panel_width, block.channels,
                          wanted,
                          to + tap / column_taps * plan.strides.row + tap % column_taps * plan.strides.column,
                          plan.strides.out_channel, plan.strides.in_channel);
    }
  }

  // The parts of a sum, in order.
  void add_parts(int64_t index) const {
    const int64_t panel = index % plan.panels;
    const int64_t blocks = index / plan.panels;
    const Block block = block_of(blocks / plan.channel_blocks, blocks % plan.channel_blocks);
    float* const sums = partial_sums(0, block, panel);
    const int64_t count = block.channels * plan.taps * plan.panel_width;
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
