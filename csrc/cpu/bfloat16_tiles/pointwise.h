// Forward and the gradient of the input of 1x1 kernels on contiguous images: rows of the products are result
// channels, lanes are pixels, so that neither the source nor the results are transposed,
//
//     sums[result channel][pixel] += weights[result channel][pair] . source[pair][pixel]
//
// Larger kernels read the source a pixel to the side for each tap, at addresses that are no multiples of a
// line of the cache: 1.15 to 1.3 times as long as correlation.h, transposing included.
#pragma once

#include "cpu/bfloat16_pairs/pointwise_weights.h"
#include "cpu/bfloat16_tiles/tile_product.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct PointwiseTilesPlan {
  static constexpr int64_t panel_rows = 2 * tile_height;     // result channels
  static constexpr int64_t block_pixels = 4 * tile_width;    // whose sums stay in the first cache
  static constexpr int64_t sums_stride = block_pixels + 16;  // an odd number of lines
  static constexpr int64_t most_copy = 768 * 1024;           // bytes of a strip, in the second cache
  static constexpr int64_t most_pixels = 512;
  static constexpr int64_t least_pixels = 128;  // fewer leave lanes empty

  TileSteps steps;
  int64_t pixels;       // of an image
  int64_t strip;        // pixels of an item
  int64_t strips;       // of an image
  int64_t row_numbers;  // of a result channel's weights, if they are copied
  bool copies_weights;

  int64_t weights_offset = 0;
  int64_t workers_offset;
  int64_t copy_offset;  // in a worker's part
  int64_t sums_offset;
  int64_t worker_bytes;

  // Whether a problem, whose rows are joined where that can be, is for this.
  static bool fits(const ConvProblem& p) {
    return is_pointwise(p) && p.pass != Pass::grad_weight && p.input.height == 1 &&
           p.input.width >= least_pixels && p.input_strides.column == 1 && p.output_strides.column == 1;
  }

  PointwiseTilesPlan(const Correlation& c, int workers)
      : steps(ceil_div(c.source_channels, 2)), pixels(c.columns.p.input) {
    copies_weights = c.weight_source_stride != 1 || c.source_channels != 2 * steps.all_pairs() ||
                     c.result_channels % panel_rows != 0;
    row_numbers = (ceil_div(2 * steps.all_pairs(), 32) | 1) * 32;
    const int64_t block_bytes = steps.all_pairs() * block_pixels * static_cast<int64_t>(sizeof(Pair));
    const int64_t blocks = ceil_div(pixels, block_pixels);
    const int64_t most = larger(1, smaller(most_pixels / block_pixels, most_copy / block_bytes));
    int64_t least = -1;
    for (int64_t size = smaller(most, blocks); size >= 1; --size) {
      constexpr int64_t beside = 2;  // what an item costs besides, in sixteenths of a block
      const int64_t items = c.batch * c.groups * ceil_div(blocks, size);
      const int64_t cost = ceil_div(items, workers) * (16 * size + beside);
      if (least >= 0 && cost >= least) continue;
      least = cost;
      strip = size * block_pixels;
    }
    strips = ceil_div(pixels, strip);
    Carver shared;
    const int64_t rows = c.groups * round_up(c.result_channels, panel_rows);
    weights_offset = shared.take(copies_weights ? rows * row_numbers : 0, sizeof(BFloat16));
    workers_offset = shared.bytes;
    Carver own;
    copy_offset = own.take(steps.all_pairs() * strip, sizeof(Pair));
    sums_offset = own.take(panel_rows * sums_stride, sizeof(float));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

class PointwiseTiles {
 public:
  PointwiseTiles(const Correlation& correlation, const PointwiseTilesPlan& cut, const ConvData& data,
                 void* workspace)
      : c(correlation),
        plan(cut),
        memory(static_cast<char*>(workspace)),
        weights(correlation, static_cast<const BFloat16*>(data.weight), cut.steps.all_pairs(),
                cut.row_numbers, reinterpret_cast<BFloat16*>(memory + cut.weights_offset)),
        source(static_cast<const BFloat16*>(c.is_forward ? data.input : data.output)),
        result(static_cast<BFloat16*>(c.is_forward ? data.output : data.input)),
        bias(static_cast<const BFloat16*>(data.bias)) {}

  void run(const Executor& executor) {
    if (plan.copies_weights) weights.copy_all(executor);
    for_each_tile(executor, c.batch * c.groups * plan.strips,
                  [&](int64_t item, int worker) { run_item(item, worker); });
  }

 private:
  static constexpr int64_t lanes = tile_width;
  static constexpr int64_t numbers = 2 * lanes;
  static constexpr int64_t panel_rows = PointwiseTilesPlan::panel_rows;
  static constexpr int64_t block_pixels = PointwiseTilesPlan::block_pixels;
  static constexpr int64_t sums_stride = PointwiseTilesPlan::sums_stride;

  const Correlation& c;
  const PointwiseTilesPlan& plan;
  char* memory;
  PointwiseWeights weights;
  const BFloat16* source;
  BFloat16* result;
  const BFloat16* bias;

  void run_item(int64_t index, int worker) const {
    const int64_t group = index / plan.strips % c.groups;
    const int64_t image = index / plan.strips / c.groups;
    const int64_t first = index % plan.strips * plan.strip;
    const int64_t count = smaller(plan.strip, plan.pixels - first);
    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    auto* const copy = reinterpret_cast<Pair*>(own + plan.copy_offset);
    auto* const sums = reinterpret_cast<float*>(own + plan.sums_offset);
    zip_pixels(source + image * c.source_strides.batch +
                   group * c.source_channels * c.source_strides.channel + first,
               count, copy);
    configure_tiles(plan.steps.pairs);
    const int64_t no_distance = 0;
    TileProduct product;
    product.a_taps = product.b_taps = &no_distance;
    product.tap_count = 1;
    product.steps = plan.steps;
    product.row_stride = plan.copies_weights ? plan.row_numbers : c.weight_result_stride;
    product.pair_stride = block_pixels;
    product.sums = sums;
    product.sums_stride = sums_stride;
    product.continues = false;
    product.bias = nullptr;
    for (int64_t m = 0; m < c.result_channels; m += panel_rows) {
      const int64_t channels = smaller(panel_rows, c.result_channels - m);
      const int64_t channel = group * c.result_channels + m;
      product.a = plan.copies_weights ? weights.copied(channel) : weights.in_place(channel);
      BFloat16* const to =
          result + image * c.result_strides.batch + channel * c.result_strides.channel + first;
      for (int64_t x = 0; x < count; x += block_pixels) {
        product.b = copy + x * plan.steps.all_pairs();
        tile_products(product, ceil_div(channels, tile_height),
                      ceil_div(smaller(block_pixels, count - x), tile_width));
        write(sums, channel, channels, count - x, to + x);
      }
    }
    release_tiles();
  }

  void write(const float* sums, int64_t first_channel, int64_t channels, int64_t count, BFloat16* to) const {
    for (int64_t k = 0; k < channels; ++k, sums += sums_stride, to += c.result_strides.channel) {
      const Vector<float> added = broadcast(bias == nullptr ? 0 : to_float(bias[first_channel + k]));
      for (int64_t x = 0; x < block_pixels && x < count; x += numbers) {
        Vector<float> low = load(sums + x);
        Vector<float> high = load(sums + x + lanes);
        if (bias != nullptr) {
          low = add(low, added);
          high = add(high, added);
        }
        store_neighbours(to + x, round_neighbours(low, high), count - x);
      }
    }
  }

  // to[block of pixels][pair of channels][pixel]
  void zip_pixels(const BFloat16* from, int64_t count, Pair* to) const {
    const int64_t stride = c.source_strides.channel;
    const int64_t pairs = plan.steps.all_pairs();
    constexpr int64_t ahead =
        8;  // channels; rows of them are too short for the processor to foresee the next
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const bool has_low = 2 * pair < c.source_channels;
      const bool has_high = 2 * pair + 1 < c.source_channels;
      const BFloat16* const low = from + 2 * pair * stride;
      for (int64_t x = 0; x < round_up(count, block_pixels); x += numbers) {
        __builtin_prefetch(low + ahead * stride + x);
        __builtin_prefetch(low + (ahead + 1) * stride + x);
        const PairVector a = has_low ? load_neighbours(low + x, count - x) : no_pairs();
        const PairVector b = has_high ? load_neighbours(low + stride + x, count - x) : no_pairs();
        Pair* const target = to + (x / block_pixels * pairs + pair) * block_pixels + x % block_pixels;
        store(target, zip_lower_half(a, b));
        store(target + lanes, zip_upper_half(a, b));
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
