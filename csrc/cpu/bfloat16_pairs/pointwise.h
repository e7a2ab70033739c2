// Forward and the gradient of the input of 1x1 kernels on contiguous images, with pixels in the lanes, so
// that nothing is transposed: pairs of channels of 64 pixels are zipped, and the weights of a result channel
// are the rows that are broadcast,
//
//     result[channel][pixel] = sum over pairs: dot(weights[channel][pair], source[pair][pixel])
//
// Zipping vectors takes pixels out of order, four of each block of eight at a time; rounding two vectors of
// sums into one puts them back.
#pragma once

#include "cpu/bfloat16_pairs/micro_kernel.h"
#include "cpu/bfloat16_pairs/pointwise_weights.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct PairsPointwisePlan {
  static constexpr int64_t panel_pixels = most_pair_vectors * PairVector::lanes;
  static constexpr int64_t most_panels = 192 * 1024;  // bytes of a strip's panels, in the L2 cache
  static constexpr int64_t least_pixels = 256;        // fewer leave lanes empty

  int64_t pixels;       // of an image
  int64_t pairs;        // of source channels
  int64_t strip;        // pixels of an item
  int64_t strips;       // of an image
  int64_t row_numbers;  // of a result channel's weights, if they are copied
  bool copies_weights;

  int64_t weights_offset = 0;
  int64_t bias_offset;
  int64_t workers_offset;
  int64_t rows_offset;  // in a worker's part
  int64_t results_offset;
  int64_t panels_offset;
  int64_t worker_bytes;

  // Whether a problem, whose rows are joined where that can be, is for this.
  static bool fits(const ConvProblem& p) {
    const int64_t results = p.pass == Pass::forward ? out_channels_per_group(p) : in_channels_per_group(p);
    return is_pointwise(p) && p.pass != Pass::grad_weight && results >= PairVector::lanes &&
           p.input.height == 1 && p.input.width >= least_pixels && p.input_strides.column == 1 &&
           p.output_strides.column == 1;
  }

  PairsPointwisePlan(const Correlation& c, int workers) {
    pixels = c.columns.p.input;
    pairs = ceil_div(c.source_channels, 2);
    copies_weights = c.weight_source_stride != 1 || c.source_channels % 2 != 0;
    // An odd number of lines of the cache, so that rows do not fall into a few sets of it.
    row_numbers = (ceil_div(2 * pairs, 32) | 1) * 32;
    const int64_t panel_bytes = pairs * panel_pixels * static_cast<int64_t>(sizeof(Pair));
    const int64_t panels = ceil_div(pixels, panel_pixels);
    const int64_t most = larger(1, most_panels / panel_bytes);
    int64_t least = -1;
    for (int64_t size = smaller(most, panels); size >= 1; --size) {
      constexpr int64_t beside = 2;  // what an item costs besides, in sixteenths of a panel
      const int64_t items = c.batch * c.groups * ceil_div(panels, size);
      const int64_t cost = ceil_div(items, workers) * (16 * size + beside);
      if (least >= 0 && cost >= least) continue;
      least = cost;
      strip = size * panel_pixels;
    }
    strips = ceil_div(pixels, strip);
    Carver shared;
    weights_offset =
        shared.take(copies_weights ? c.groups * c.result_channels * row_numbers : 0, sizeof(BFloat16));
    bias_offset = shared.take(c.groups * c.result_channels, sizeof(float));
    workers_offset = shared.bytes;
    Carver own;
    rows_offset = own.take(c.result_channels, sizeof(void*));
    results_offset = own.take(c.result_channels, sizeof(void*));
    panels_offset = own.take(strip / panel_pixels * pairs * panel_pixels, sizeof(Pair));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

class PairsPointwise {
 public:
  PairsPointwise(const Correlation& correlation, const PairsPointwisePlan& cut, const ConvData& data,
                 void* workspace)
      : c(correlation),
        plan(cut),
        source(static_cast<const BFloat16*>(c.is_forward ? data.input : data.output)),
        result(static_cast<BFloat16*>(c.is_forward ? data.output : data.input)),
        bias(static_cast<const BFloat16*>(data.bias)),
        memory(static_cast<char*>(workspace)),
        weights(correlation, static_cast<const BFloat16*>(data.weight), cut.pairs, cut.row_numbers,
                reinterpret_cast<BFloat16*>(memory + cut.weights_offset)) {}

  void run(const Executor& executor) {
    float* const biases = reinterpret_cast<float*>(memory + plan.bias_offset);
    const int64_t channels = c.groups * c.result_channels;
    for (int64_t m = 0; bias != nullptr && m < channels; ++m) biases[m] = to_float(bias[m]);
    if (plan.copies_weights) weights.copy_all(executor);
    for_each_tile(executor, c.batch * c.groups * plan.strips,
                  [&](int64_t item, int worker) { run_item(item, worker); });
  }

 private:
  static constexpr int64_t lanes = PairVector::lanes;
  static constexpr int64_t numbers = 2 * lanes;
  static constexpr int64_t panel_pixels = PairsPointwisePlan::panel_pixels;

  const Correlation& c;
  const PairsPointwisePlan& plan;
  const BFloat16* source;
  BFloat16* result;
  const BFloat16* bias;
  char* memory;
  PointwiseWeights weights;

  void run_item(int64_t index, int worker) const {
    const int64_t strip = index % plan.strips;
    const int64_t group = index / plan.strips % c.groups;
    const int64_t image = index / plan.strips / c.groups;
    const int64_t first = strip * plan.strip;
    const int64_t count = smaller(plan.strip, plan.pixels - first);
    char* const own = memory + plan.workers_offset + worker * plan.worker_bytes;
    auto** const rows = reinterpret_cast<const BFloat16**>(own + plan.rows_offset);
    auto** const results = reinterpret_cast<BFloat16**>(own + plan.results_offset);
    auto* const panels = reinterpret_cast<Pair*>(own + plan.panels_offset);
    const BFloat16* const from = source + image * c.source_strides.batch +
                                 group * c.source_channels * c.source_strides.channel + first;
    zip_pixels(from, count, panels);
    BFloat16* const to = result + image * c.result_strides.batch +
                         group * c.result_channels * c.result_strides.channel + first;
    for (int64_t m = 0; m < c.result_channels; ++m) {
      const int64_t channel = group * c.result_channels + m;
      rows[m] = plan.copies_weights ? weights.copied(channel) : weights.in_place(channel);
      results[m] = to + m * c.result_strides.channel;
    }
    const int64_t no_taps = 0;
    PairTile tile{};
    tile.taps = &no_taps;
    tile.tap_count = 1;
    tile.pairs = plan.pairs;
    tile.has_pixels_in_lanes = true;
    for (int64_t x = 0; x < count; x += panel_pixels) {
      tile.first_result = x;
      tile.results_of_row = count - x;
      tile.b = panels + x * plan.pairs;
      const int64_t vectors = count - x > numbers ? most_pair_vectors : most_pair_vectors / 2;
      const int64_t tiles = ceil_div(c.result_channels, pair_rows(vectors));
      for (int64_t k = 0; k < tiles; ++k) {
        const int64_t begin = c.result_channels * k / tiles;
        tile.a = rows + begin;
        tile.results = results + begin;
        if (bias != nullptr) {
          tile.bias = reinterpret_cast<float*>(memory + plan.bias_offset) + group * c.result_channels + begin;
        }
        pair_kernel_of(c.result_channels * (k + 1) / tiles - begin, vectors)(tile);
      }
    }
  }

  // to[panel][pair of channels][pixel]; the last panel may be half as wide.
  void zip_pixels(const BFloat16* from, int64_t count, Pair* to) const {
    for (int64_t x = 0; x < count; x += panel_pixels) {
      const int64_t width = count - x > numbers ? panel_pixels : numbers;
      for (int64_t pair = 0; pair < plan.pairs; ++pair) {
        const BFloat16* const low = from + 2 * pair * c.source_strides.channel + x;
        const bool has_high = 2 * pair + 1 < c.source_channels;
        for (int64_t at = 0; at < width; at += numbers) {
          const PairVector lower = load_neighbours(low + at, count - x - at);
          const PairVector upper =
              has_high ? load_neighbours(low + c.source_strides.channel + at, count - x - at) : no_pairs();
          Pair* const target = to + x * plan.pairs + pair * width + at;
          store(target, zip_first_halves(lower, upper));
          store(target + lanes, zip_last_halves(lower, upper));
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
