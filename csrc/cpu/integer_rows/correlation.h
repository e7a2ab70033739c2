// Correlations of integers: each worker copies a band of source lines into scratch and correlates them with
// the weights of one group. Vectors run along the rows; a block of result channels shares what it loads. Of
// depthwise problems with channels side by side, all channels are done at once.
//
// Scratch holds lines for [source channel][run of taps][band row + tap]; a line holds one *slot* for each run
// of column taps (direct_rows/axis.h).
#pragma once

#include "cpu/integer_rows/lines.h"
#include "cpu/integer_rows/plan.h"
#include "cpu/integer_rows/tile_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// `Out`: of the results' width; their low bits are stored, so signs do not matter.
template <class Arithmetic, class Out>
class IntegerRows {
 public:
  using Lane = typename Arithmetic::Lane;
  using Weight = typename Arithmetic::Weight;
  static constexpr int64_t lanes = Vector<Lane>::lanes;

  IntegerRows(const IntegerRowsPlan& cut, const ConvProblem& problem, const ConvData& tensors,
              void* workspace)
      : plan(cut),
        p(problem),
        data(tensors),
        packed(static_cast<char*>(workspace)),
        bias(reinterpret_cast<Lane*>(packed + plan.bias_offset)),
        offsets(reinterpret_cast<int32_t*>(packed + plan.offsets_offset)),
        scratch(packed + plan.workers_offset) {}

  template <class T>
  void run(const Executor& executor) const {
    set_offsets();
    constexpr int64_t worth_sharing = 1 << 15;
    if (plan.is_interleaved) {
      pack_pixels<T>();
    } else {
      const bool share = plan.units * plan.result_channels * plan.terms > worth_sharing;
      const int64_t blocks = plan.blocks();
      for_each_tile(share ? executor : Executor{}, plan.units * blocks,
                    [&](int64_t index, int) { pack_block<T>(index / blocks, index % blocks); });
    }
    const int64_t tiles = plan.tiles();
    for_each_tile(executor, p.batch * tiles,
                  [&](int64_t index, int worker) { tile<T>(index / tiles, index % tiles, worker); });
  }

 private:
  struct Block {
    int64_t first;  // channel of the unit
    int64_t channels;
  };

  const IntegerRowsPlan& plan;
  const ConvProblem& p;
  const ConvData& data;
  char* packed;
  Lane* bias;
  int32_t* offsets;
  char* scratch;

  Block block_at(int64_t index) const {
    const int64_t whole = plan.whole_blocks();
    if (index < whole) return {index * integer_block_channels, integer_block_channels};
    return {whole * integer_block_channels + index - whole, 1};
  }

  // Calls visit(source channel, run of taps down, tap of the run, tap across, whether a pair begins there)
  // for each term.
  template <class Visit>
  void for_each_term(const Visit& visit) const {
    const int64_t channels_together = plan.pairs_channels ? 2 : 1;
    const int64_t taps_together = Arithmetic::has_pairs && !plan.pairs_channels ? 2 : 1;
    for (int64_t c = 0; c < plan.source_channels; c += channels_together) {
      for (int64_t u = 0; u < plan.row_runs; ++u) {
        const int64_t taps = plan.rows.run_taps(u);
        for (int64_t m = 0; m < taps; m += taps_together) {
          const bool is_pair =
              Arithmetic::has_pairs && (plan.pairs_channels ? c + 1 < plan.source_channels : m + 1 < taps);
          for (int64_t j = 0; j < plan.columns.kernel; ++j) visit(c, u, m, j, is_pair);
        }
      }
    }
  }

  void set_offsets() const {
    const RowsAxis& columns = plan.columns;
    int32_t* to = offsets;
    for_each_term([&](int64_t c, int64_t u, int64_t m, int64_t j, bool) {
      const int64_t column =
          j % columns.period * plan.slot_stride + j / columns.period * columns.spread * plan.pixel;
      const int64_t number = (c * plan.row_runs + u) * plan.run_stride + m * plan.line_stride + column;
      *to++ = static_cast<int32_t>(number * plan.shape.lane_bytes);
    });
  }

  // Calls visit(where its weight is, whether it is the first of a pair) for each term of a result channel.
  template <class T, class Visit>
  void for_each_weight(int64_t channel, const Visit& visit) const {
    const WeightStrides& strides = p.weight_strides;
    const T* const weight = static_cast<const T*>(data.weight) + channel * strides.out_channel;
    for_each_term([&](int64_t c, int64_t u, int64_t m, int64_t j, bool is_pair) {
      visit(weight + c * strides.in_channel + (u + m * plan.rows.period) * strides.row + j * strides.column,
            is_pair);
    });
  }

  template <class T>
  int64_t partner(const T* weight, bool is_pair) const {
    const int64_t step =
        plan.pairs_channels ? p.weight_strides.in_channel : plan.rows.period * p.weight_strides.row;
    return is_pair ? static_cast<int64_t>(weight[step]) : 0;
  }

  template <class T>
  Lane bias_of(int64_t channel) const {
    return p.epilogue.bias ? static_cast<Lane>(static_cast<const T*>(data.bias)[channel]) : Lane{0};
  }

  Weight* block_weights(int64_t unit, const Block& block) const {
    return reinterpret_cast<Weight*>(packed) + (unit * plan.result_channels + block.first) * plan.terms;
  }

  template <class T>
  void pack_block(int64_t unit, int64_t index) const {
    const Block block = block_at(index);
    const int64_t channel = unit * plan.result_channels + block.first;
    if (block.channels == 1) {
      pack_channels<T, 1>(channel, block_weights(unit, block));
    } else {
      pack_channels<T, integer_block_channels>(channel, block_weights(unit, block));
    }
    for (int64_t c = 0; c < block.channels; ++c) bias[channel + c] = bias_of<T>(channel + c);
  }

  template <class T, int64_t channels>
  void pack_channels(int64_t first, Weight* to) const {
    for_each_weight<T>(first, [&](const T* from, bool is_pair) {
      for (int64_t c = 0; c < channels; ++c, from += p.weight_strides.out_channel)
        *to++ = Arithmetic::weight(*from, partner(from, is_pair));
    });
  }

  template <class T>
  void pack_pixels() const {
    Lane* const weights = reinterpret_cast<Lane*>(packed);
    for (int64_t channel = 0; channel < plan.pixel; ++channel) {
      Lane* to = weights + channel;
      for_each_weight<T>(channel, [&](const T* from, bool is_pair) {
        *to = Arithmetic::lane_weight(*from, partner(from, is_pair));
        to += plan.weights_stride;
      });
      bias[channel] = bias_of<T>(channel);
    }
    const auto repeat = [&](Lane* of_channels) {
      for (int64_t i = plan.pixel; i < plan.weights_stride; ++i) of_channels[i] = of_channels[i - plan.pixel];
    };
    for (int64_t k = 0; k < plan.terms; ++k) repeat(weights + k * plan.weights_stride);
    repeat(bias);
  }

  template <class T>
  void tile(int64_t n, int64_t index, int worker) const {
    const RowsAxis& rows = plan.rows;
    const int64_t first_column = index % plan.column_tiles * plan.tile_columns;
    index /= plan.column_tiles;
    const int64_t first_row = index % plan.bands * plan.band;
    index /= plan.bands;
    const int64_t row_class = index % plan.row_classes;
    index /= plan.row_classes;
    const int64_t part = index % plan.parts;
    const int64_t unit = index / plan.parts;
    const int64_t height = smaller(plan.band, ceil_div(rows.output - row_class, rows.spread) - first_row);
    const int64_t width = smaller(plan.tile_columns, plan.columns.output - first_column);
    if (height <= 0) return;
    const int64_t y = row_class + first_row * rows.spread;

    char* const own = scratch + worker * plan.worker_bytes;
    Lane* const lines = reinterpret_cast<Lane*>(own);
    Lane* const sums = reinterpret_cast<Lane*>(own + plan.sums_offset);
    const T* const source = static_cast<const T*>(data.input) + n * p.input_strides.batch +
                            unit * plan.source_channels * p.input_strides.channel;
    IntegerLines<T, Lane>(plan, source, p.input_strides).fill(lines, y, height, first_column);

    Out* const target = static_cast<Out*>(data.output) + n * p.output_strides.batch +
                        unit * plan.result_channels * p.output_strides.channel + y * p.output_strides.row +
                        first_column * p.output_strides.column;
    const int64_t target_stride = rows.spread * p.output_strides.row;
    if (plan.is_interleaved) {
      for (int64_t row = 0; row < height; ++row) {
        pixel_row<Arithmetic>(
            IntegerRow<Arithmetic>{lines + row * plan.line_stride, offsets, plan.terms, width * plan.pixel},
            reinterpret_cast<const Lane*>(packed), plan.weights_stride, plan.period, bias,
            target + row * target_stride);
      }
      return;
    }
    const int64_t blocks = plan.blocks();
    for (int64_t b = part * blocks / plan.parts; b < (part + 1) * blocks / plan.parts; ++b) {
      const Block block = block_at(b);
      Out* const first = target + block.first * p.output_strides.channel;
      if (plan.is_joined) {
        correlate(lines, unit, block, (height - 1) * plan.line_stride + width, sums, plan.sums_stride);
        for (int64_t row = 0; row < height; ++row)
          store_sums(sums + row * plan.line_stride, block.channels, width, first + row * target_stride);
      } else if (p.output_strides.column == 1) {
        for (int64_t row = 0; row < height; ++row)
          correlate(lines + row * plan.line_stride, unit, block, width, first + row * target_stride,
                    p.output_strides.channel);
      } else {
        for (int64_t row = 0; row < height; ++row) {
          correlate(lines + row * plan.line_stride, unit, block, width, sums, plan.sums_stride);
          store_sums(sums, block.channels, width, first + row * target_stride);
        }
      }
    }
  }

  template <class Target>
  void correlate(const Lane* line, int64_t unit, const Block& block, int64_t count, Target* target,
                 int64_t channel_stride) const {
    const IntegerRow<Arithmetic> row{line, offsets, plan.terms, count};
    const Weight* const weights = block_weights(unit, block);
    const Lane* const block_bias = bias + unit * plan.result_channels + block.first;
    if (block.channels == 1) {
      channel_row<Arithmetic, Target, 1>(row, weights, block_bias, target, channel_stride);
    } else {
      channel_row<Arithmetic, Target, integer_block_channels>(row, weights, block_bias, target,
                                                              channel_stride);
    }
  }

  void store_sums(const Lane* sums, int64_t channels, int64_t width, Out* target) const {
    // Copies: a store of a byte could change what is read through a reference.
    const int64_t column = p.output_strides.column;
    const int64_t channel = p.output_strides.channel;
    const int64_t stride = plan.sums_stride;
    if (column == 1) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t x = 0; x < width; x += lanes)
          store_results(target + c * channel + x, load(sums + c * stride + x), width - x);
      }
    } else if (channels == integer_block_channels && channel == 1) {
      for (int64_t x = 0; x < width; ++x) {
        CONVEXT_UNROLL
        for (int c = 0; c < integer_block_channels; ++c)
          target[x * column + c] = static_cast<Out>(sums[c * stride + x]);
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t x = 0; x < width; ++x)
          target[x * column + c * channel] = static_cast<Out>(sums[c * stride + x]);
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
