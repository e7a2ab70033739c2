// The gradient of the weight: for each group
//
//     gradient[term][o] = sum over pixels (n, y, x) of patch[pixel][term] * grad_output[pixel][o]
//
// with terms (i, j, c). Output channels are spread over the lanes, so the patches are used in whichever of
// the two orders packing makes from whole vectors, and only the gradient of the output, the smaller of the
// two, may have to be transposed while packing.
//
// The sum runs over all pixels of the batch. It is cut into blocks of at most 256 pixels, and the blocks into
// chunks, each summed into a partial result of its own, so that there is work for many threads where the
// result is small. Both cuts depend on the shape alone, and the chunks are added in order.
#pragma once

#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// How the gradient of the weight is cut, and the workspace that it needs.
template <class T>
struct WeightGradientPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  // Terms that are packed at a time, next to the output channels of an item: both stay in the L2 cache.
  static constexpr int64_t terms_at_a_time = 48;
  static constexpr int64_t channels_of_item = 512 / sizeof(Real);
  static constexpr int64_t terms_of_item = 576;
  static_assert(terms_at_a_time % tile_rows == 0 && terms_of_item % terms_at_a_time == 0, "whole tiles");
  static_assert(channels_of_item % tile_columns<Real> == 0, "whole tiles");

  bool terms_fastest;  // in a block of patches: channels_last
  int64_t terms;
  int64_t channels;  // output channels of one group
  ReductionBlocks blocks;
  int64_t chunks;
  int64_t blocks_of_chunk;
  int64_t channel_items;
  int64_t term_items;

  int64_t partial_rows;
  int64_t partial_stride;
  int64_t patches_stride;
  int64_t outputs_stride;

  int64_t partials_offset;
  int64_t workers_offset;
  int64_t patches_offset;  // in a worker's part
  int64_t outputs_offset;
  int64_t worker_bytes;

  explicit WeightGradientPlan(const ConvProblem& p)
      : terms_fastest(p.input_strides.channel == 1 && p.input_strides.column != 1),
        terms(in_channels_per_group(p) * p.kernel.height * p.kernel.width),
        channels(out_channels_per_group(p)),
        blocks(p.batch * p.output.height * p.output.width, p.pass) {
    partial_rows = round_up(terms, tile_rows);
    partial_stride = round_up(channels, lanes);
    channel_items = ceil_div(channels, channels_of_item);
    term_items = ceil_div(terms, terms_of_item);

    // Enough items for the threads of a large machine; few enough that the partial results stay small, and
    // that a chunk is much more work than adding it up.
    constexpr int64_t wanted_items = 48;
    constexpr int64_t least_blocks = 4;
    constexpr int64_t most_numbers = int64_t{1} << 22;
    const int64_t items = larger(1, p.groups * channel_items * term_items);
    const int64_t numbers = larger(1, p.groups * partial_rows * partial_stride);
    chunks = smaller(ceil_div(wanted_items, items), blocks.count / least_blocks);
    chunks = larger(1, smaller(chunks, most_numbers / numbers));
    blocks_of_chunk = ceil_div(blocks.count, chunks);
    chunks = ceil_div(blocks.count, blocks_of_chunk);

    const int64_t packed_terms = smaller(terms_at_a_time, partial_rows);
    const int64_t packed_channels = smaller(channels_of_item, partial_stride);
    outputs_stride = spread_stride<Real>(packed_channels);
    patches_stride = spread_stride<Real>(terms_fastest ? packed_terms : blocks.size);
    Carver shared;
    partials_offset = shared.take(chunks * numbers, sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    patches_offset = own.take((terms_fastest ? blocks.size : packed_terms) * patches_stride, sizeof(Real));
    outputs_offset = own.take(blocks.size * outputs_stride, sizeof(Real));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

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
    const int64_t items = plan.chunks * p.groups * plan.term_items * plan.channel_items;
    for_each_tile(executor, items, [&](int64_t index, int worker) {
      const int64_t channel_item = index % plan.channel_items;
      index /= plan.channel_items;
      const int64_t term_item = index % plan.term_items;
      index /= plan.term_items;
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

  // [term][output channel]
  Real* partial(int64_t chunk, int64_t group) const {
    return partials + (chunk * p.groups + group) * plan.partial_rows * plan.partial_stride;
  }

  Patches<T> input_patches(int64_t group) const {
    const int64_t channels = in_channels_per_group(p);
    return {input + group * channels * p.input_strides.channel,
            p.input_strides,
            p.batch,
            channels,
            AxisClasses(problem_rows(p), true).at(0),
            AxisClasses(problem_columns(p), true).at(0)};
  }

  // The gradient of the output as the patches of a 1x1 kernel.
  Patches<T> output_patches(int64_t group) const {
    Axis rows;
    rows.count = rows.source_size = p.output.height;
    rows.taps = 1;
    Axis columns;
    columns.count = columns.source_size = p.output.width;
    columns.taps = 1;
    return {grad_output + group * plan.channels * p.output_strides.channel,
            p.output_strides,
            p.batch,
            plan.channels,
            rows,
            columns};
  }

  void sum_item(int64_t chunk, int64_t group, int64_t term_item, int64_t channel_item, char* own) {
    Patches<T> inputs = input_patches(group);
    Patches<T> outputs = output_patches(group);
    flatten(inputs);
    flatten(outputs);
    Real* input_block = reinterpret_cast<Real*>(own + plan.patches_offset);
    Real* output_block = reinterpret_cast<Real*>(own + plan.outputs_offset);
    const int64_t first_term = term_item * Plan::terms_of_item;
    const int64_t last_term = smaller(plan.terms, first_term + Plan::terms_of_item);
    const int64_t first_channel = channel_item * Plan::channels_of_item;
    const int64_t channels = smaller(Plan::channels_of_item, plan.channels - first_channel);
    Real* sums = partial(chunk, group) + first_channel;
    const int64_t first_block = chunk * plan.blocks_of_chunk;
    const int64_t last_block = smaller(plan.blocks.count, first_block + plan.blocks_of_chunk);
    for (int64_t b = first_block; b < last_block; ++b) {
      const int64_t first_pixel = plan.blocks.first(b);
      const int64_t pixels = plan.blocks.length(b);
      pack_terms_fastest(outputs, first_pixel, pixels, first_channel, channels, output_block,
                         plan.outputs_stride);
      clear_missing_lanes(output_block, pixels, channels);
      for (int64_t term = first_term; term < last_term; term += Plan::terms_at_a_time) {
        const int64_t terms = smaller(Plan::terms_at_a_time, last_term - term);
        pack_inputs(inputs, first_pixel, pixels, term, terms, input_block);
        multiply(input_block, terms, output_block, channels, pixels, sums + term * plan.partial_stride,
                 b > first_block);
      }
    }
  }

  void clear_missing_lanes(Real* block, int64_t pixels, int64_t channels) const {
    const int64_t missing = round_up(channels, lanes) - channels;
    if (missing == 0) return;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      for (int64_t lane = 0; lane < missing; ++lane) block[pixel * plan.outputs_stride + channels + lane] = 0;
    }
  }

  // Rows of the last tile without a term are zero.
  void pack_inputs(const Patches<T>& inputs, int64_t first_pixel, int64_t pixels, int64_t term, int64_t terms,
                   Real* block) const {
    const int64_t missing = round_up(terms, tile_rows) - terms;
    if (plan.terms_fastest) {
      pack_terms_fastest(inputs, first_pixel, pixels, term, terms, block, plan.patches_stride);
      if (missing == 0) return;
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        for (int64_t k = 0; k < missing; ++k) block[pixel * plan.patches_stride + terms + k] = 0;
      }
    } else {
      pack_pixels_fastest(inputs, first_pixel, pixels, pixels, term, terms, block, plan.patches_stride);
      for (int64_t k = terms; k < terms + missing; ++k) fill_zero(block + k * plan.patches_stride, pixels);
    }
  }

  void multiply(const Real* input_block, int64_t terms, const Real* output_block, int64_t channels,
                int64_t pixels, Real* sums, bool accumulate) const {
    for (int64_t channel = 0; channel < channels; channel += tile_columns<Real>) {
      const int64_t vectors = ceil_div(smaller(tile_columns<Real>, channels - channel), lanes);
      const MicroKernel<Real> kernel = plan.terms_fastest
                                           ? micro_kernel_of_vectors<Real, Operand::interleaved>(vectors)
                                           : micro_kernel_of_vectors<Real, Operand::rows>(vectors);
      const int64_t row_stride = plan.terms_fastest ? 1 : plan.patches_stride;
      for (int64_t term = 0; term < terms; term += tile_rows) {
        kernel(input_block + term * row_stride, plan.patches_stride, output_block + channel,
               plan.outputs_stride, pixels, plan.blocks.chain, sums + term * plan.partial_stride + channel,
               plan.partial_stride, accumulate);
      }
    }
  }

  // Adds the chunks and writes one vector of output channels for some input channels.
  void store_gradient(int64_t group, int64_t first_output, int64_t first_input) const {
    const int64_t input_channels = in_channels_per_group(p);
    const int64_t last_input = smaller(input_channels, first_input + channels_at_a_time);
    const int64_t outputs = smaller(lanes, plan.channels - first_output);
    const int64_t chunk_stride = p.groups * plan.partial_rows * plan.partial_stride;
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
