// Correlations whose source is contiguous along channels (channels_last): neighbouring result channels lie in
// the lanes of a vector, and a tile is some result pixels times some vectors of channels, with k = (i, j, c).
// The weights are packed once per call, in the order of k, widened. Then a work item is a block of result
// channels for a strip of pixels, which may run across rows and images: it packs its patches block by block
// and feeds them to the micro-kernel.
#pragma once

#include <atomic>

#include "cpu/implicit_gemm/clear.h"
#include "cpu/implicit_gemm/correlation.h"
#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// How a correlation is cut, and the workspace that it needs. A work item's patches and sums are meant to stay
// in the L2 cache.
template <class T>
struct ChannelsInLanesPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t channels_of_item = 256;

  int64_t tile_vectors;
  int64_t tile_height;    // pixels of a tile
  int64_t width;          // result channels of a tile of packed weights
  int64_t weight_tiles;   // of one group
  int64_t strip;          // pixels of a work item
  int64_t tiles_of_item;  // weight tiles of a work item, at most
  int64_t patches_stride;
  int64_t sums_stride;

  int64_t weights_offset;
  int64_t workers_offset;
  int64_t patches_offset;  // in a worker's part
  int64_t sums_offset;
  int64_t terms_offset;
  int64_t worker_bytes;

  explicit ChannelsInLanesPlan(const Correlation& c) {
    const int64_t channels = larger(1, c.result_channels);
    const int64_t pixels = larger(1, c.most_pixels());
    const int64_t terms = smaller(block_terms, c.most_terms());
    const int64_t vectors = ceil_div(channels, lanes);
    tile_vectors = ceil_div(vectors, ceil_div(vectors, most_tile_vectors));
    tile_height = tile_rows(tile_vectors);
    width = tile_vectors * lanes;
    weight_tiles = ceil_div(channels, width);
    tiles_of_item = smaller(weight_tiles, ceil_div(channels_of_item, width));

    Carver shared;
    weights_offset =
        shared.take(c.groups * weight_tiles * width * c.terms_before(c.rows.tap_sets(), 0), sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    strip = smaller(96 / tile_height * tile_height, round_up(pixels, tile_height));
    patches_stride = spread_stride<Real>(terms);
    sums_stride = spread_stride<Real>(tiles_of_item * width);
    patches_offset = own.take(strip * patches_stride, sizeof(Real));
    sums_offset = own.take(strip * sums_stride, sizeof(Real));
    terms_offset = own.take(2 * block_terms, sizeof(int32_t));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class ChannelsInLanes {
 public:
  ChannelsInLanes(const Correlation& correlation, const ChannelsInLanesPlan<T>& cut,
                  const ConvProblem& problem, const ConvData& data, void* workspace)
      : c(correlation),
        plan(cut),
        source(static_cast<const T*>(c.is_forward ? data.input : data.output)),
        result(static_cast<T*>(c.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(problem.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        scratch(static_cast<char*>(workspace)),
        packed_weights(reinterpret_cast<Real*>(scratch + plan.weights_offset)) {}

  // False, with nothing usable written, where a weight of an input gradient is not finite. Past the edge of
  // the gradient of the output, patches hold zeros for terms that do not exist, and times infinity those
  // would be NaN.
  bool run(const Executor& executor) {
    const int64_t rows = rows_to_clear(c);
    const int64_t tiles = c.tap_sets() * c.groups * plan.weight_tiles;
    for_each_tile(executor, rows + tiles, [&](int64_t index, int) {
      if (index < rows) {
        clear_row(c, result, index);
      } else {
        pack_weights(index - rows);
      }
    });
    if (!c.is_forward && has_non_finite_weight.load(std::memory_order_relaxed)) return false;

    const int64_t strips = ceil_div(c.most_pixels(), plan.strip);
    int64_t blocks = ceil_div(plan.weight_tiles, plan.tiles_of_item);
    const int64_t items = c.classes() * c.groups * strips;
    if (executor.workers > 1 && items * blocks < 3 * executor.workers && items > 0) {
      // Few items: smaller blocks of channels, as long as a block is worth packing patches for.
      const int64_t wanted = ceil_div(3 * executor.workers, items);
      blocks = larger(blocks, smaller(wanted, plan.weight_tiles * plan.width / 32));
    }
    const int64_t tiles_of_block = ceil_div(plan.weight_tiles, blocks);
    for_each_tile(executor, items * blocks, [&](int64_t index, int worker) {
      Item item;
      item.strip = index % strips;
      index /= strips;
      item.first_tile = index % blocks * tiles_of_block;
      index /= blocks;
      item.group = index % c.groups;
      index /= c.groups;
      item.column_class = index % c.columns.count();
      item.row_class = index / c.columns.count();
      item.tiles = smaller(tiles_of_block, plan.weight_tiles - item.first_tile);
      if (item.tiles > 0) {
        run_item(item, scratch + plan.workers_offset + worker * plan.worker_bytes);
      }
    });
    return true;
  }

 private:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  struct Item {
    int64_t row_class;
    int64_t column_class;
    int64_t group;
    int64_t first_tile;
    int64_t tiles;
    int64_t strip;
  };

  // The result's channel and position of an item.
  struct Target {
    T* first;  // at the first channel of the item
    const T* bias;
    int64_t channels;
    int64_t first_pixel;
    int64_t pixels;
  };

  const Correlation& c;
  const ChannelsInLanesPlan<T>& plan;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  char* scratch;
  Real* packed_weights;
  std::atomic<bool> has_non_finite_weight{false};

  // packed[term][lane] for the channels of one tile; lanes without a channel are zero.
  void pack_weights(int64_t index) {
    const int64_t tile = index % plan.weight_tiles;
    index /= plan.weight_tiles;
    const int64_t group = index % c.groups;
    index /= c.groups;
    const int64_t column_set = index % c.columns.tap_sets();
    const int64_t row_set = index / c.columns.tap_sets();
    const int64_t row_taps = c.rows.taps_of_set(row_set);
    const int64_t column_taps = c.columns.taps_of_set(column_set);
    const int64_t terms = row_taps * column_taps * c.source_channels;
    Real* packed = packed_tile(row_set, column_set, terms, group, tile);
    const T* first = weight + group * c.weight_group_stride + tile * plan.width * c.weight_result_stride;
    const int64_t channels = smaller(plan.width, c.result_channels - tile * plan.width);
    // A few channels at a time for all taps: of contiguous weights, the lines that one tap reads hold the
    // other taps, too, and each tap's part of the packed tile is written in one go.
    constexpr int64_t together = 16;
    for (int64_t first_channel = 0; first_channel < c.source_channels; first_channel += together) {
      const int64_t last_channel = smaller(c.source_channels, first_channel + together);
      for (int64_t i = 0; i < row_taps; ++i) {
        for (int64_t j = 0; j < column_taps; ++j) {
          const T* from = first + c.rows.tap(row_set, i) * c.weight_strides.row +
                          c.columns.tap(column_set, j) * c.weight_strides.column;
          Real* to = packed + (i * column_taps + j) * c.source_channels * plan.width;
          for (int64_t channel = first_channel; channel < last_channel; ++channel) {
            pack_lanes(to + channel * plan.width, from + channel * c.weight_source_stride, channels);
          }
        }
      }
    }
    if (!c.is_forward && !all_finite(packed, terms * plan.width)) {
      has_non_finite_weight.store(true, std::memory_order_relaxed);
    }
  }

  CONVEXT_INLINE void pack_lanes(Real* to, const T* from, int64_t channels) const {
    int64_t lane = 0;
    for (; lane + lanes <= channels; lane += lanes) {
      if (c.weight_result_stride == 1) {
        store(to + lane, load_widened(from + lane));
        continue;
      }
      CONVEXT_UNROLL
      for (int64_t k = 0; k < lanes; ++k) to[lane + k] = widen(from[(lane + k) * c.weight_result_stride]);
    }
    for (; lane < channels; ++lane) to[lane] = widen(from[lane * c.weight_result_stride]);
    for (; lane < plan.width; ++lane) to[lane] = 0;
  }

  static bool all_finite(const Real* values, int64_t count) {
    Vector<Real> product = zero<Real>();  // 0 * finite is 0, anything else is NaN
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) product = fmadd(load(values + i), zero<Real>(), product);
    product = fmadd(load(values + i, count - i), zero<Real>(), product);
    return sum(product) == 0;
  }

  Real* packed_tile(int64_t row_set, int64_t column_set, int64_t terms, int64_t group, int64_t tile) const {
    return packed_weights + plan.width * (c.groups * plan.weight_tiles * c.terms_before(row_set, column_set) +
                                          (group * plan.weight_tiles + tile) * terms);
  }

  void run_item(const Item& item, char* own) {
    Patches<T> patches;
    patches.source = source + item.group * c.source_channels * c.source_strides.channel;
    patches.strides = c.source_strides;
    patches.batch = c.batch;
    patches.channels = c.source_channels;
    patches.rows = c.rows.at(item.row_class);
    patches.columns = c.columns.at(item.column_class);

    const bool result_is_flat = c.result_strides.row == patches.columns.count * c.result_strides.column;
    if (result_is_flat) flatten(patches);

    const int64_t first_channel = item.first_tile * plan.width;
    const int64_t channel_of_all = item.group * c.result_channels + first_channel;
    Target target;
    target.first = result + channel_of_all * c.result_strides.channel;
    target.bias = bias == nullptr ? nullptr : bias + channel_of_all;
    target.channels = smaller(item.tiles * plan.width, c.result_channels - first_channel);
    target.first_pixel = item.strip * plan.strip;
    target.pixels = smaller(plan.strip, patches.pixels() - target.first_pixel);
    if (target.pixels <= 0 || target.channels <= 0) return;

    Real* block = reinterpret_cast<Real*>(own + plan.patches_offset);
    Real* sums = reinterpret_cast<Real*>(own + plan.sums_offset);
    const Real* weights =
        packed_tile(c.rows.tap_set_of(item.row_class), c.columns.tap_set_of(item.column_class),
                    patches.terms(), item.group, item.first_tile);
    int32_t* terms = reinterpret_cast<int32_t*>(own + plan.terms_offset);
    sum_item(patches, weights, target, block, sums, terms);
    store_item(patches, target, sums);
  }

  // sums[pixel][channel]
  void sum_item(const Patches<T>& patches, const Real* weights, const Target& target, Real* block, Real* sums,
                int32_t* a_terms) {
    const int64_t terms = patches.terms();
    const ReductionBlocks blocks(terms);
    int32_t* const b_terms = a_terms + block_terms;
    for (int64_t k = 0; k < smaller(blocks.size, terms); ++k) {
      a_terms[k] = static_cast<int32_t>(k);
      b_terms[k] = static_cast<int32_t>(k * plan.width);
    }
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t length = blocks.length(b);
      pack_terms_fastest(patches, target.first_pixel, target.pixels, blocks.first(b), length, block,
                         plan.patches_stride);
      const Real* tile_weights = weights + blocks.first(b) * plan.width;
      for (int64_t channel = 0; channel < target.channels; channel += plan.width) {
        const int64_t vectors = ceil_div(smaller(plan.width, target.channels - channel), lanes);
        for (int64_t pixel = 0; pixel < target.pixels; pixel += plan.tile_height) {
          const TileOperands<Real> operands{block + pixel * plan.patches_stride,
                                            plan.patches_stride,
                                            a_terms,
                                            tile_weights + channel * terms,
                                            b_terms,
                                            length,
                                            blocks.chain,
                                            {}};
          const int64_t pixels = smaller(plan.tile_height, target.pixels - pixel);
          micro_kernel_of<Real>(pixels, vectors)(operands, sums + pixel * plan.sums_stride + channel,
                                                 plan.sums_stride, b > 0);
        }
      }
    }
  }

  void store_item(const Patches<T>& patches, const Target& target, const Real* sums) {
    const Axis& rows = patches.rows;
    const Axis& columns = patches.columns;
    const ImageStrides& strides = c.result_strides;
    for_each_segment(
        rows.count, columns.count, target.first_pixel, target.pixels, [&](const Segment& segment) {
          T* line =
              target.first + segment.image * strides.batch + rows.result_position(segment.row) * strides.row;
          for (int64_t x = 0; x < segment.length; ++x) {
            T* to = line + columns.result_position(segment.column + x) * strides.column;
            const Real* values = sums + (segment.begin + x) * plan.sums_stride;
            int64_t m = 0;
            if (strides.channel == 1) {
              for (; m + lanes <= target.channels; m += lanes) {
                const Vector<Real> value = load(values + m);
                store_narrowed(to + m,
                               target.bias == nullptr ? value : add(value, load_widened(target.bias + m)));
              }
            }
            for (; m < target.channels; ++m) {
              to[m * strides.channel] =
                  narrow<T>(target.bias == nullptr ? values[m] : values[m] + widen(target.bias[m]));
            }
          }
        });
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
