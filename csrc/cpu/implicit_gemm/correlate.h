// Forward and the gradient of the input: one correlation of a source with weights,
//
//     result[n, m, pixel] = bias[m] + sum over k of weights[m, k] * patch[n, pixel, k],   k = (i, j, c)
//
// for each group and each class of positions (see axis.h; forward has one class). The weights are packed once
// per call, in the order of k, widened. Then a work item is a block of result channels for a strip of pixels,
// which may run across rows and images: it packs its patches block by block and feeds them to the
// micro-kernel.
//
// Which of the two is spread over the lanes of a vector depends on the layout: pixels where the source is
// contiguous along rows, result channels where channels are contiguous (channels_last), so that packing and
// storing move whole vectors. Either way each element is the same sum in the same order (blocks of terms in
// order, chains in order within a block, term by term within a chain), so the result depends neither on the
// layout, nor on how the items are cut, nor on the batch or the number of workers.
#pragma once

#include <atomic>

#include "cpu/implicit_gemm/correlation.h"
#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/implicit_gemm/patches.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class CorrelationRun {
 public:
  CorrelationRun(const Correlation& correlation, const CorrelationPlan<T>& cut, const ConvProblem& problem,
                 const ConvData& data, void* workspace)
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
    const int64_t planes =
        c.rows.cover_all() && c.columns.cover_all() ? 0 : c.batch * c.groups * c.result_channels;
    const int64_t tiles = c.tap_sets() * c.groups * plan.weight_tiles;
    for_each_tile(executor, planes + tiles, [&](int64_t index, int) {
      if (index < planes) {
        clear_plane(index);
      } else {
        pack_weights(index - planes);
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
  const CorrelationPlan<T>& plan;
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
    if (channels == tile_rows && plan.width == tile_rows) {
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < tile_rows; ++lane) to[lane] = widen(from[lane * c.weight_result_stride]);
    } else if (channels == tile_columns<Real> && plan.width == tile_columns<Real>) {
      if (c.weight_result_stride == 1) return copy_widened(to, from, 1, tile_columns<Real>);
      CONVEXT_UNROLL
      for (int64_t lane = 0; lane < tile_columns<Real>; ++lane) {
        to[lane] = widen(from[lane * c.weight_result_stride]);
      }
    } else {
      for (int64_t lane = 0; lane < channels; ++lane) to[lane] = widen(from[lane * c.weight_result_stride]);
      for (int64_t lane = channels; lane < plan.width; ++lane) to[lane] = 0;
    }
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

  void clear_plane(int64_t index) {
    const int64_t channels = c.groups * c.result_channels;
    T* plane =
        result + index / channels * c.result_strides.batch + index % channels * c.result_strides.channel;
    for (int64_t row = 0; row < c.rows.p.input; ++row) {
      for (int64_t column = 0; column < c.columns.p.input; ++column) {
        plane[row * c.result_strides.row + column * c.result_strides.column] = narrow<T>(Real{0});
      }
    }
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
    if (plan.channels_in_lanes) {
      sum_with_channels_in_lanes(patches, weights, target, block, sums);
      store_with_channels_in_lanes(patches, target, sums);
    } else {
      sum_with_pixels_in_lanes(patches, weights, target, block, sums);
      store_with_pixels_in_lanes(patches, target, sums);
    }
  }

  // sums[channel][pixel]
  void sum_with_pixels_in_lanes(const Patches<T>& patches, const Real* weights, const Target& target,
                                Real* block, Real* sums) {
    constexpr int64_t columns = tile_columns<Real>;
    const int64_t whole_pixels = round_up(target.pixels, columns);
    const int64_t terms = patches.terms();
    const ReductionBlocks blocks(terms, c.is_forward ? Pass::forward : Pass::grad_input);
    const MicroKernel<Real> full = micro_kernel_of_rows<Real, Operand::interleaved>(plan.width);
    const int64_t rest_rows = target.channels % plan.width;
    const MicroKernel<Real> rest = micro_kernel_of_rows<Real, Operand::interleaved>(rest_rows);
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t length = blocks.length(b);
      pack_pixels_fastest(patches, target.first_pixel, target.pixels, whole_pixels, blocks.first(b), length,
                          block, plan.patches_stride);
      const Real* tile_weights = weights + blocks.first(b) * plan.width;
      for (int64_t pixel = 0; pixel < whole_pixels; pixel += columns) {
        int64_t channel = 0;
        for (; channel + plan.width <= target.channels; channel += plan.width) {
          full(tile_weights + channel * terms, plan.width, block + pixel, plan.patches_stride, length,
               blocks.chain, sums + channel * plan.sums_stride + pixel, plan.sums_stride, b > 0);
        }
        if (rest_rows > 0) {
          rest(tile_weights + channel * terms, plan.width, block + pixel, plan.patches_stride, length,
               blocks.chain, sums + channel * plan.sums_stride + pixel, plan.sums_stride, b > 0);
        }
      }
    }
  }

  // sums[pixel][channel]
  void sum_with_channels_in_lanes(const Patches<T>& patches, const Real* weights, const Target& target,
                                  Real* block, Real* sums) {
    const int64_t terms = patches.terms();
    const ReductionBlocks blocks(terms, c.is_forward ? Pass::forward : Pass::grad_input);
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t length = blocks.length(b);
      pack_terms_fastest(patches, target.first_pixel, target.pixels, blocks.first(b), length, block,
                         plan.patches_stride);
      // Rows of the last tile that have no pixel are computed from the first pixel's patch and ignored.
      for (int64_t pixel = target.pixels; pixel < round_up(target.pixels, tile_rows); ++pixel) {
        copy_widened(block + pixel * plan.patches_stride, block, 1, length);
      }
      const Real* tile_weights = weights + blocks.first(b) * plan.width;
      for (int64_t channel = 0; channel < target.channels; channel += plan.width) {
        const int64_t vectors = ceil_div(smaller(plan.width, target.channels - channel), lanes);
        const MicroKernel<Real> kernel = micro_kernel_of_vectors<Real, Operand::rows>(vectors);
        for (int64_t pixel = 0; pixel < target.pixels; pixel += tile_rows) {
          kernel(block + pixel * plan.patches_stride, plan.patches_stride, tile_weights + channel * terms,
                 plan.width, length, blocks.chain, sums + pixel * plan.sums_stride + channel,
                 plan.sums_stride, b > 0);
        }
      }
    }
  }

  void store_with_pixels_in_lanes(const Patches<T>& patches, const Target& target, const Real* sums) {
    const Axis& rows = patches.rows;
    const Axis& columns = patches.columns;
    const ImageStrides& strides = c.result_strides;
    const bool contiguous = strides.column == 1 && columns.spacing == 1 && !columns.is_border;
    for_each_segment(
        rows.count, columns.count, target.first_pixel, target.pixels, [&](const Segment& segment) {
          T* line =
              target.first + segment.image * strides.batch + rows.result_position(segment.row) * strides.row;
          for (int64_t m = 0; m < target.channels; ++m, line += strides.channel) {
            const Real* values = sums + m * plan.sums_stride + segment.begin;
            const Real shift = target.bias == nullptr ? Real{0} : widen(target.bias[m]);
            int64_t x = 0;
            if (contiguous) {
              T* to = line + columns.result_position(segment.column) * strides.column;
              const Vector<Real> shifts = broadcast(shift);
              for (; x + lanes <= segment.length; x += lanes) {
                store_narrowed(to + x,
                               target.bias == nullptr ? load(values + x) : add(load(values + x), shifts));
              }
            }
            for (; x < segment.length; ++x) {
              line[columns.result_position(segment.column + x) * strides.column] =
                  narrow<T>(target.bias == nullptr ? values[x] : values[x] + shift);
            }
          }
        });
  }

  void store_with_channels_in_lanes(const Patches<T>& patches, const Target& target, const Real* sums) {
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
