// The gradient of the weight: for each group
//
//     gradient[term][o] = sum over pixels (n, y, x) of patch[pixel][term] * grad_output[pixel][o]
//
// with terms (i, j, c). Output channels are spread over the lanes, and only the gradient of the output, the
// smaller of the two, may have to be transposed while packing. The rows of a tile are terms: of contiguous
// inputs, channels of a band of lines (see band.h) that every tap reads shifted, or taps where there are
// fewer channels; of channels_last inputs, columns of a matrix of patches.
//
// The sum runs over all pixels of the batch. It is cut into blocks of whole rows, or of pieces of long ones,
// and the blocks into chunks, each summed into a partial result of its own, so that there is work for many
// threads where the result is small. Both cuts depend on the shape and layout alone, and the chunks are added
// in order.
#pragma once

#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/implicit_gemm/weight_gradient_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class WeightGradientRun {
 public:
  WeightGradientRun(const ConvProblem& problem, const WeightGradientPlan<T>& cut, const ConvData& data,
                    void* workspace)
      : p(problem),
        plan(cut),
        input(static_cast<const T*>(data.input)),
        grad_output(static_cast<const T*>(data.output)),
        grad_weight(static_cast<T*>(data.weight)),
        scratch(static_cast<char*>(workspace)),
        partials(reinterpret_cast<Real*>(scratch + plan.partials_offset)) {}

  void run(const Executor& executor) {
    if (plan.terms == 0 || plan.channels == 0) return;
    // Terms do not depend on each other, so their items may follow the number of workers.
    const int64_t all = plan.terms_fastest ? plan.terms : plan.input_channels;
    const int64_t least = plan.terms_fastest ? Plan::terms_at_a_time : plan.tile_height;
    terms_of_item = plan.terms_fastest ? Plan::terms_of_item : plan.inputs_of_item;
    const int64_t others = plan.chunks * p.groups * plan.channel_items;
    while (executor.workers > 1 && others * ceil_div(all, terms_of_item) < 2 * executor.workers &&
           terms_of_item >= 2 * least) {
      terms_of_item = round_up(ceil_div(smaller(all, terms_of_item), 2), least);
    }
    const int64_t term_items = ceil_div(all, terms_of_item);
    for_each_tile(executor, others * term_items, [&](int64_t index, int worker) {
      const int64_t channel_item = index % plan.channel_items;
      index /= plan.channel_items;
      const int64_t term_item = index % term_items;
      index /= term_items;
      const int64_t group = index % p.groups;
      sum_item(index / p.groups, group, term_item, channel_item,
               scratch + plan.workers_offset + worker * plan.worker_bytes);
    });

    const int64_t channel_blocks = ceil_div(in_channels_per_group(p), channels_at_a_time);
    const int64_t vectors = ceil_div(plan.channels, lanes);
    for_each_tile(executor, p.groups * vectors * channel_blocks, [&](int64_t index, int) {
      const int64_t block = index % channel_blocks;
      index /= channel_blocks;
      store_gradient(index / vectors, index % vectors * lanes, block * channels_at_a_time);
    });
  }

 private:
  using Real = Compute<T>;
  using Plan = WeightGradientPlan<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t channels_at_a_time = 64;

  const ConvProblem& p;
  const Plan& plan;
  const T* input;
  const T* grad_output;
  T* grad_weight;
  char* scratch;
  Real* partials;
  int64_t terms_of_item = 1;  // of a band, input channels

  // [term][output channel]
  Real* partial(int64_t chunk, int64_t group) const {
    return partials + (chunk * p.groups + group) * plan.terms * plan.partial_stride;
  }

  Patches<T> input_patches(int64_t group) const {
    return {input + group * plan.input_channels * p.input_strides.channel,
            p.input_strides,
            p.batch,
            plan.input_channels,
            plan.rows,
            plan.columns};
  }

  // The gradient of the output as the patches of a 1x1 kernel.
  Patches<T> output_patches(int64_t group) const {
    Axis rows;
    rows.count = rows.source_size = plan.rows.count;
    rows.taps = 1;
    Axis columns;
    columns.count = columns.source_size = plan.columns.count;
    columns.taps = 1;
    return {grad_output + group * plan.channels * p.output_strides.channel,
            p.output_strides,
            p.batch,
            plan.channels,
            rows,
            columns};
  }

  void sum_item(int64_t chunk, int64_t group, int64_t term_item, int64_t channel_item, char* own) {
    const Patches<T> inputs = input_patches(group);
    const Patches<T> outputs = output_patches(group);
    Real* const input_block = reinterpret_cast<Real*>(own + plan.inputs_offset);
    Real* const output_block = reinterpret_cast<Real*>(own + plan.outputs_offset);
    int32_t* const a_terms = reinterpret_cast<int32_t*>(own + plan.terms_offset);
    int32_t* const b_terms = a_terms + plan.blocks.most_pixels();
    for (int64_t k = 0; k < plan.blocks.most_pixels(); ++k)
      b_terms[k] = static_cast<int32_t>(k * plan.outputs_stride);
    const int64_t first_channel = channel_item * Plan::channels_of_item;
    const int64_t channels = smaller(Plan::channels_of_item, plan.channels - first_channel);
    Real* const sums = partial(chunk, group) + first_channel;
    const int64_t first_block = chunk * plan.blocks_of_chunk;
    const int64_t last_block = smaller(plan.blocks.count, first_block + plan.blocks_of_chunk);
    if (first_block >= last_block) return clear_partial(sums, term_item, channels);
    for (int64_t b = first_block; b < last_block; ++b) {
      const PixelBlocks::Block block = plan.blocks.at(b);
      const int64_t pixels = block.rows * block.columns;
      const int64_t first_pixel =
          (block.image * plan.rows.count + block.row) * plan.columns.count + block.column;
      pack_terms_fastest(outputs, first_pixel, pixels, first_channel, channels, output_block,
                         plan.outputs_stride);
      clear_missing_lanes(output_block, pixels, channels);
      TileOperands<Real> operands{input_block, 1,      a_terms,           output_block,
                                  b_terms,     pixels, plan.blocks.chain, {}};
      if (plan.terms_fastest) {
        const int64_t first_term = term_item * terms_of_item;
        const int64_t last_term = smaller(plan.terms, first_term + terms_of_item);
        for (int64_t k = 0; k < pixels; ++k) a_terms[k] = static_cast<int32_t>(k * plan.patches_stride);
        for (int64_t term = first_term; term < last_term; term += Plan::terms_at_a_time) {
          const int64_t terms = smaller(Plan::terms_at_a_time, last_term - term);
          pack_terms_fastest(inputs, first_pixel, pixels, term, terms, input_block, plan.patches_stride);
          multiply(operands, terms, channels, sums + term * plan.partial_stride, plan.partial_stride,
                   b > first_block);
        }
      } else {
        const int64_t first_input = term_item * terms_of_item;
        const int64_t last_input = smaller(plan.input_channels, first_input + terms_of_item);
        sum_band(inputs, block, first_input, last_input - first_input, channels, operands, a_terms,
                 input_block, sums, b > first_block);
      }
    }
  }

  void sum_band(const Patches<T>& inputs, const PixelBlocks::Block& block, int64_t first_input,
                int64_t input_count, int64_t channels, TileOperands<Real> operands, int32_t* a_terms,
                Real* lines, Real* sums, bool accumulate) const {
    const Band band(inputs.rows, inputs.columns, block.row, block.rows, block.column, block.columns);
    fill_band(band,
              inputs.source + block.image * p.input_strides.batch + first_input * p.input_strides.channel,
              p.input_strides, input_count, 0, lines);
    for (int64_t y = 0; y < block.rows; ++y) {
      for (int64_t x = 0; x < block.columns; ++x) {
        a_terms[y * block.columns + x] = static_cast<int32_t>(y * band.pitch + x);
      }
    }
    const int64_t row_taps = inputs.rows.taps;
    const int64_t column_taps = inputs.columns.taps;
    for (int64_t i = 0; i < row_taps; ++i) {
      // Taps that read the same phase are rows of one tile: the next one reads a fixed distance further on.
      const int64_t runs = plan.rows_are_taps ? band.columns.phases : column_taps;
      for (int64_t j = 0; j < runs; ++j) {
        Real* const to =
            sums + ((i * column_taps + j) * plan.input_channels + first_input) * plan.partial_stride;
        operands.a = lines + band.at(i, j);
        if (!plan.rows_are_taps) {
          operands.a_row = band.channel_stride;
          multiply(operands, input_count, channels, to, plan.partial_stride, accumulate);
          continue;
        }
        const int64_t taps = ceil_div(column_taps - j, runs);
        operands.a_row = taps > 1 ? band.at(i, j + runs) - band.at(i, j) : 0;
        for (int64_t k = 0; k < input_count; ++k) {
          multiply(operands, taps, channels, to + k * plan.partial_stride,
                   runs * plan.input_channels * plan.partial_stride, accumulate);
          operands.a += band.channel_stride;
        }
      }
    }
  }

  // For the sum of no pixels.
  void clear_partial(Real* sums, int64_t term_item, int64_t channels) const {
    if (term_item > 0) return;
    for (int64_t term = 0; term < plan.terms; ++term) {
      for (int64_t o = 0; o < channels; o += lanes)
        store(sums + term * plan.partial_stride + o, zero<Real>());
    }
  }

  void clear_missing_lanes(Real* block, int64_t pixels, int64_t channels) const {
    const int64_t missing = round_up(channels, lanes) - channels;
    if (missing == 0) return;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      for (int64_t lane = 0; lane < missing; ++lane) block[pixel * plan.outputs_stride + channels + lane] = 0;
    }
  }

  // `rows` rows for all output channels; the tile's b stays in the L1 cache.
  void multiply(TileOperands<Real> operands, int64_t rows, int64_t channels, Real* sums, int64_t sums_row,
                bool accumulate) const {
    const Real* const a = operands.a;
    const Real* const b = operands.b;
    for (int64_t channel = 0; channel < channels; channel += plan.tile_width) {
      const int64_t vectors = ceil_div(smaller(plan.tile_width, channels - channel), lanes);
      operands.b = b + channel;
      for (int64_t row = 0; row < rows; row += plan.tile_height) {
        operands.a = a + row * operands.a_row;
        micro_kernel_of<Real>(smaller(plan.tile_height, rows - row), vectors)(
            operands, sums + row * sums_row + channel, sums_row, accumulate);
      }
    }
  }

  // Adds the chunks and writes one vector of output channels for some input channels.
  void store_gradient(int64_t group, int64_t first_output, int64_t first_input) const {
    const int64_t input_channels = in_channels_per_group(p);
    const int64_t last_input = smaller(input_channels, first_input + channels_at_a_time);
    const int64_t outputs = smaller(lanes, plan.channels - first_output);
    const int64_t chunk_stride = p.groups * plan.terms * plan.partial_stride;
    T* first = grad_weight + (group * plan.channels + first_output) * p.weight_strides.out_channel;
    for (int64_t i = 0; i < p.kernel.height; ++i) {
      for (int64_t j = 0; j < p.kernel.width; ++j) {
        for (int64_t c = first_input; c < last_input; ++c) {
          const int64_t term = (i * p.kernel.width + j) * input_channels + c;
          const Real* from = partial(0, group) + term * plan.partial_stride + first_output;
          Vector<Real> sum = load(from);
          for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) {
            sum = add(sum, load(from + chunk * chunk_stride));
          }
          Real values[lanes];
          store(values, sum);
          T* to = first + c * p.weight_strides.in_channel + i * p.weight_strides.row +
                  j * p.weight_strides.column;
          for (int64_t o = 0; o < outputs; ++o) {
            to[o * p.weight_strides.out_channel] = narrow<T>(values[o]);
          }
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
