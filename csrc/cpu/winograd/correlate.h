// Winograd's convolution, fused: a work item transforms a block of tiles into scratch that stays in the L2
// cache, multiplies it with the transformed weights (one small matrix product for each place of a tile), and
// transforms the sums back into the result. The transforms have channels in their lanes, whatever the layout;
// lines.h moves pixels between that form and the tensors.
//
// Each element of the result is the same sequence of operations wherever its tile falls into a block, so it
// depends neither on the batch nor on the number of workers.
//
// What Winograd's products cannot do as well as direct summation is left to the implicit_gemm kernel:
//   - all of the call, if the weights are not finite or not even in size (see tap_sizes.h);
//   - a sample in which a result is not finite: one of the transforms may have overflowed, and infinities
//     that meet there give NaN where their sum would not;
//   - a sample in which one value makes up too much of what an output reads (see spread.h).
// A sample's own values decide, so that the rest of the batch changes nothing.
#pragma once

#include <atomic>
#include <new>

#include "cpu/kernel_list.h"
#include "cpu/winograd/lines.h"
#include "cpu/winograd/product.h"
#include "cpu/winograd/spread.h"
#include "cpu/winograd/weights.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Tile, class T>
class WinogradRun {
 public:
  using Real = Compute<T>;

  WinogradRun(const Correlation& correlation, const Plan<Tile, Real>& cut, const ConvProblem& problem,
              const ConvData& data, void* workspace)
      : c(correlation),
        plan(cut),
        source(static_cast<const T*>(c.is_forward ? data.input : data.output)),
        result(static_cast<T*>(c.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(problem.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        scratch(static_cast<char*>(workspace)),
        streams(vector_is_line && is_worth_streaming<T>(c.result_numbers()) &&
                are_whole_lines<T>(c.result_strides.channel == 1 ? c.result_strides.column
                                                                 : c.result_strides.channel)),
        flags(reinterpret_cast<int32_t*>(scratch + plan.flags_offset)) {}

  // False, with nothing usable written, where the weights are not for this algorithm.
  bool run(const Executor& executor) {
    for (int64_t n = 0; n < c.batch; ++n) flags[n] = 0;
    if (plan.tiles_first) {
      run_tiles_first(executor);
      return weights_are_usable.load(std::memory_order_relaxed);
    }
    transform_weights_first(executor);
    if (!weights_are_usable.load(std::memory_order_relaxed)) return false;
    run_weights_first(executor);
    return true;
  }

  bool is_flagged(int64_t sample) const { return flags[sample] != 0; }

 private:
  static constexpr int64_t lanes = Vector<Real>::lanes;
  using Rows = typename Tile::Rows;
  using Columns = typename Tile::Columns;
  static constexpr int64_t products = Tile::products;
  static constexpr int64_t line_size = line_numbers<Real>;

  struct Block {
    int64_t group;
    int64_t first_tile;
    int64_t tiles;
  };

  // Of sums: for some panels of result channels.
  struct Terms {
    int64_t first_panel;
    int64_t panels;
    int64_t first_source;
    int64_t sources;
    int64_t sources_at_a_time;
  };

  const Correlation& c;
  const Plan<Tile, Real>& plan;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  char* scratch;
  bool streams;    // results
  int32_t* flags;  // of each sample: must be computed in another way
  std::atomic<bool> weights_are_usable{true};

  void flag(int64_t sample) { __atomic_store_n(flags + sample, 1, __ATOMIC_RELAXED); }

  void check(const TapRange<Tile, Real>& range) {
    if (!range.is_even()) weights_are_usable.store(false, std::memory_order_relaxed);
  }

  void transform_weights_first(const Executor& executor) {
    using Range = TapRange<Tile, Real>;
    using Sizes = TapSizes<Tile, Real>;
    const int64_t rows = plan.blocks.rows.size();
    const int64_t columns = plan.blocks.columns.size();
    Range* const ranges = reinterpret_cast<Range*>(scratch + plan.ranges_offset);
    for_each_tile(executor, c.groups * plan.panels * rows, [&](int64_t index, int worker) {
      char* const own = scratch + plan.workers_offset + worker * plan.worker_bytes;
      const int64_t row = index % rows;
      const int64_t panel_index = index / rows;
      const WeightPart part{
          panel_index / plan.panels, panel_index % plan.panels, 0, c.source_channels, row, 0, columns};
      Sizes* const sizes = reinterpret_cast<Sizes*>(own + plan.sizes_offset);
      for (int64_t column = 0; column < columns; ++column) new (sizes + column) Sizes();
      pack_weights<Tile, T>(c, plan.blocks, weight, part, reinterpret_cast<Real*>(own + plan.taps_offset),
                            reinterpret_cast<Real*>(scratch + plan.weights_offset) +
                                panel_index * plan.weights_of_panel + row * columns * plan.weights_of_block,
                            plan.weights_of_block, c.source_channels * panel<Real>, sizes);
      Range* const range = new (ranges + index) Range();
      for (int64_t column = 0; column < columns; ++column) range->add(sizes[column]);
    });
    for (int64_t index = 0; index < c.groups * plan.panels * rows; index += rows) {
      for (int64_t row = 1; row < rows; ++row) ranges[index].add(ranges[index + row]);
      check(ranges[index]);
    }
  }

  void run_weights_first(const Executor& executor) {
    int64_t blocks = ceil_div(plan.tiles, plan.tiles_of_block);
    const int64_t passes = ceil_div(plan.panels, plan.panels_of_pass);
    int64_t splits = 1;
    // Few items: split the result channels, then the tiles.
    while (blocks * c.groups * splits < 3 * executor.workers && splits < passes) ++splits;
    // A few items should be as many for each worker.
    constexpr int64_t few_rounds = 8;
    const int64_t items = blocks * c.groups * splits;
    if (items < few_rounds * executor.workers) {
      const int64_t even = round_up(larger(items, 2 * executor.workers), executor.workers);
      const int64_t wanted = ceil_div(even, c.groups * splits);
      blocks = larger(blocks, smaller(wanted, plan.tiles / (2 * block_rows)));
    }
    const int64_t tiles = ceil_div(plan.tiles, blocks);
    const int64_t panels = ceil_div(plan.panels, splits);
    const Real* weights = reinterpret_cast<Real*>(scratch + plan.weights_offset);
    for_each_tile(executor, blocks * c.groups * splits, [&](int64_t index, int worker) {
      const int64_t first_panel = index % splits * panels;
      const int64_t last_panel = smaller(plan.panels, first_panel + panels);
      index /= splits;
      const int64_t group = index % c.groups;
      const int64_t first_tile = index / c.groups * tiles;
      const Block block{group, first_tile, smaller(tiles, plan.tiles - first_tile)};
      if (block.tiles <= 0 || first_panel >= last_panel) return;
      char* own = scratch + plan.workers_offset + worker * plan.worker_bytes;
      Real* transformed = reinterpret_cast<Real*>(own + plan.inputs_offset);
      Real* sums = reinterpret_cast<Real*>(own + plan.sums_offset);
      for (int64_t first = first_panel; first < last_panel; first += plan.panels_of_pass) {
        const int64_t count = smaller(plan.panels_of_pass, last_panel - first);
        for (int64_t kernel_index = 0; kernel_index < plan.blocks.size(); ++kernel_index) {
          const KernelBlock kernel = plan.blocks.at(kernel_index);
          // The cache has room for the tiles of one block of the kernel, which the next one overwrites.
          if (first == first_panel || plan.blocks.size() > 1)
            transform_source(block, kernel, transformed, own);
          // A panel's weights of one product, or 256 channels of them, stay in the L1 cache.
          const Terms terms{first, count, 0, c.source_channels, 4 * packed_terms};
          multiply(block, kernel, terms, transformed,
                   weights + (group * plan.panels + first) * plan.weights_of_panel +
                       kernel_index * plan.weights_of_block,
                   plan.weights_of_panel, sums);
        }
        transform_result(block, first, count, sums, own);
      }
    });
  }

  void run_tiles_first(const Executor& executor) {
    constexpr int64_t tiles_of_item = Plan<Tile, Real>::tiles_of_transform;
    Real* transformed = reinterpret_cast<Real*>(scratch + plan.inputs_offset);
    const auto transformed_of = [&](int64_t group, int64_t kernel_index) {
      return transformed + (group * plan.blocks.size() + kernel_index) * products * plan.inputs_plane;
    };
    for_each_tile(executor, c.groups * ceil_div(plan.tiles, tiles_of_item), [&](int64_t index, int worker) {
      const int64_t group = index % c.groups;
      const int64_t first = index / c.groups * tiles_of_item;
      const Block block{group, first, smaller(tiles_of_item, plan.tiles - first)};
      for (int64_t kernel_index = 0; kernel_index < plan.blocks.size(); ++kernel_index) {
        transform_source(block, plan.blocks.at(kernel_index),
                         transformed_of(group, kernel_index) + first * line_channels<Real>,
                         scratch + plan.workers_offset + worker * plan.worker_bytes);
      }
    });
    // At least as many items as workers, if there are as many panels.
    const int64_t panels =
        larger(1, smaller(plan.panels_of_pass, c.groups * plan.panels / (2 * executor.workers)));
    const int64_t passes = ceil_div(plan.panels, panels);
    for_each_tile(executor, c.groups * passes, [&](int64_t index, int worker) {
      const Block block{index / passes, 0, plan.tiles};
      const int64_t first = index % passes * panels;
      const int64_t count = smaller(panels, plan.panels - first);
      char* own = scratch + plan.workers_offset + worker * plan.worker_bytes;
      Real* sums = reinterpret_cast<Real*>(own + plan.sums_offset);
      TapRange<Tile, Real> ranges[Plan<Tile, Real>::most_panels_of_pass];
      for (int64_t kernel_index = 0; kernel_index < plan.blocks.size(); ++kernel_index) {
        multiply_with_new_weights(block, kernel_index, first, count,
                                  transformed_of(block.group, kernel_index), own, sums, ranges);
      }
      for (int64_t p = 0; p < count; ++p) check(ranges[p]);
      transform_result(block, first, count, sums, own);
    });
  }

  // Transforms the weights of a few source channels at a time.
  void multiply_with_new_weights(const Block& block, int64_t kernel_index, int64_t first_panel,
                                 int64_t panels, const Real* transformed, char* own, Real* sums,
                                 TapRange<Tile, Real>* ranges) {
    const KernelBlock kernel = plan.blocks.at(kernel_index);
    Real* packed = reinterpret_cast<Real*>(own + plan.weights_offset);
    TapSizes<Tile, Real> sizes[Plan<Tile, Real>::most_panels_of_pass];
    for (int64_t k = 0; k < c.source_channels; k += packed_terms) {
      const int64_t terms = smaller(packed_terms, c.source_channels - k);
      const int64_t step = products * terms * panel<Real>;
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t columns = plan.blocks.columns.size();
        const WeightPart part{
            block.group, first_panel + p, k, terms, kernel_index / columns, kernel_index % columns, 1};
        pack_weights<Tile, T>(c, plan.blocks, weight, part, reinterpret_cast<Real*>(own + plan.taps_offset),
                              packed + p * step, 0, terms * panel<Real>, sizes + p);
      }
      multiply(block, kernel, {first_panel, panels, k, terms, packed_terms}, transformed, packed, step, sums);
    }
    for (int64_t p = 0; p < panels; ++p) ranges[p].add(sizes[p]);
  }

  void transform_source(const Block& block, const KernelBlock& kernel, Real* transformed, char* own) {
    const Side rows = c.rows.from_tap(kernel.rows.first);
    const Side columns = c.columns.from_tap(kernel.columns.first);
    const CommonPlaces<Tile, Real> common(kernel);
    Real* lines = reinterpret_cast<Real*>(own + plan.lines_offset);
    Real* spread = reinterpret_cast<Real*>(own + plan.spread_offset);
    const T* first_channel = source + block.group * c.source_channels * c.source_strides.channel;
    for (int64_t channel = 0; channel < c.source_channels; channel += lanes) {
      const int64_t channels = smaller(lanes, c.source_channels - channel);
      TileLines<Rows, Columns, T> tiles(first_channel + channel * c.source_strides.channel, c.source_strides,
                                        rows, columns, lines);
      plan.for_each_segment(block.first_tile, block.tiles, [&](const Segment& segment) {
        tiles.read(segment, channels);
        transform_segment(segment, tiles.rows,
                          transformed + channel / line_channels<Real> * plan.inputs_step +
                              segment.begin * line_channels<Real> + channel % line_channels<Real>,
                          common, spread + 2 * segment.begin * lanes, kernel.index + channel == 0);
      });
    }
    if (!Tile::windows_are_separate || kernel.index + 1 < plan.blocks.size()) return;
    plan.for_each_segment(block.first_tile, block.tiles, [&](const Segment& segment) {
      for (int64_t tile = 0; tile < segment.tiles; ++tile) {
        if (is_even(spread + 2 * (segment.begin + tile) * lanes)) continue;
        if (!has_even_windows<Tile>(c, first_channel, segment, tile)) {
          flag(segment.image);
          return;
        }
      }
    });
  }

  void transform_segment(const Segment& segment, const Real* const (&rows)[Rows::inputs], Real* transformed,
                         const CommonPlaces<Tile, Real>& common, Real* spread, bool is_first) {
    for (int64_t tile = 0; tile < segment.tiles; ++tile) {
      Vector<Real> d[Rows::inputs][Columns::inputs];
      CONVEXT_UNROLL
      for (int row = 0; row < Rows::inputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < Columns::inputs; ++column) {
          d[row][column] = load(rows[row] + (tile * Columns::outputs + column) * lanes);
        }
      }
      if constexpr (Tile::windows_are_separate) {
        measure_spread<Tile>(d, common, spread + 2 * tile * lanes, is_first);
      }
      Vector<Real> v[Rows::inputs][Columns::inputs];
      transform_inputs<Tile>(d, v);
      CONVEXT_UNROLL
      for (int row = 0; row < Rows::inputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < Columns::inputs; ++column) {
          store(transformed + (row * Columns::inputs + column) * plan.inputs_plane, v[row][column]);
        }
      }
      transformed += line_channels<Real>;
    }
  }

  // Adds the terms of one block of the kernel, whose weights are packed[panel][product][source][lane].
  void multiply(const Block& block, const KernelBlock& kernel, const Terms& terms, const Real* transformed,
                const Real* packed, int64_t packed_panel, Real* sums) {
    // Blocks of equal height, give or take one.
    const int64_t blocks = ceil_div(block.tiles, block_rows);
    const int64_t rows = block.tiles / blocks;
    const int64_t higher = block.tiles % blocks;  // by one: the first
    // Weights to be fetched with each chain, for all to be there after the last block.
    const int64_t ahead_step = ceil_div(chain_terms * panel<Real>, blocks);
    const auto weights_of = [&](int64_t product, int64_t p) {
      return packed + p * packed_panel + product * terms.sources * panel<Real>;
    };
    for (int64_t product = 0; product < products; ++product) {
      if (!plan.blocks.has_product(kernel, product)) continue;
      const bool is_first_block = plan.blocks.is_first_with(kernel, product);
      for (int64_t p = 0; p < terms.panels; ++p) {
        const int64_t channels = c.result_channels - (terms.first_panel + p) * panel<Real>;
        const Real* next = p + 1 < terms.panels ? weights_of(product, p + 1) : weights_of(product + 1, 0);
        Real* to = sums + (p * products + product) * plan.sums_plane;
        for (int64_t k = 0; k < terms.sources; k += terms.sources_at_a_time) {
          const int64_t length = smaller(terms.sources_at_a_time, terms.sources - k);
          const Real* inputs = transformed + product * plan.inputs_plane +
                               (terms.first_source + k) / line_channels<Real> * plan.inputs_step;
          const Real* weights = weights_of(product, p) + k * panel<Real>;
          const Real* ahead = k + length < terms.sources ? weights + length * panel<Real> : next;
          const bool adds = !is_first_block || terms.first_source + k > 0;
          if (higher > 0) {
            product_of<Real>(rows + 1, channels)(inputs, plan.inputs_step, weights, length, to, adds, higher,
                                                 ahead, ahead_step);
          }
          const int64_t done = higher * (rows + 1);
          product_of<Real>(rows, channels)(
              inputs + done * line_channels<Real>, plan.inputs_step, weights, length, to + done * panel<Real>,
              adds, blocks - higher, ahead + higher * ceil_div(length, chain_terms) * ahead_step, ahead_step);
        }
      }
    }
  }

  void transform_result(const Block& block, int64_t first_panel, int64_t panels, const Real* sums,
                        char* own) {
    Real* lines = reinterpret_cast<Real*>(own + plan.lines_offset);
    const int64_t end = smaller((first_panel + panels) * panel<Real>, c.result_channels);
    for (int64_t channel = first_panel * panel<Real>; channel < end; channel += lanes) {
      const int64_t channels = smaller(lanes, end - channel);
      const int64_t channel_of_all = block.group * c.result_channels + channel;
      const Vector<Real> shift = bias == nullptr     ? zero<Real>()
                                 : channels == lanes ? load_widened(bias + channel_of_all)
                                                     : load_widened(bias + channel_of_all, channels);
      const Real* from =
          sums + (channel / panel<Real> - first_panel) * products * plan.sums_plane + channel % panel<Real>;
      plan.for_each_segment(block.first_tile, block.tiles, [&](const Segment& segment) {
        if (!transform_back(segment, from + segment.begin * panel<Real>, shift, lines)) {
          flag(segment.image);
        }
        const Side of_rows = c.rows.of_phase(segment.row_phase);
        const Side of_columns = c.columns.of_phase(segment.column_phase);
        const int64_t first_column = segment.tile_column * Columns::outputs;
        const int64_t columns = smaller(segment.tiles * Columns::outputs, of_columns.results - first_column);
        T* image = result + segment.image * c.result_strides.batch +
                   channel_of_all * c.result_strides.channel +
                   (segment.column_phase + first_column * c.columns.step) * c.result_strides.column;
        for (int row = 0; row < Rows::outputs; ++row) {
          const int64_t at = segment.tile_row * Rows::outputs + row;
          if (at >= of_rows.results) break;
          write_line(lines + row * line_size, columns, channels, c.result_strides, c.columns.step,
                     image + (segment.row_phase + at * c.rows.step) * c.result_strides.row, streams);
        }
      });
    }
    if (streams) finish_streams();
  }

  // False if a result is not finite.
  bool transform_back(const Segment& segment, const Real* sums, Vector<Real> shift, Real* lines) const {
    const Vector<Real> scale = broadcast(static_cast<Real>(Tile::scale));
    Vector<Real> product_with_zero = zero<Real>();  // 0 times a finite number is 0, anything else is NaN
    for (int64_t tile = 0; tile < segment.tiles; ++tile) {
      Vector<Real> m[Rows::inputs][Columns::inputs];
      CONVEXT_UNROLL
      for (int row = 0; row < Rows::inputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < Columns::inputs; ++column) {
          m[row][column] = load(sums + (row * Columns::inputs + column) * plan.sums_plane);
        }
      }
      sums += panel<Real>;
      Vector<Real> y[Rows::outputs][Columns::outputs];
      transform_outputs<Tile>(m, y);
      CONVEXT_UNROLL
      for (int row = 0; row < Rows::outputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < Columns::outputs; ++column) {
          const Vector<Real> value = fmadd(y[row][column], scale, shift);
          product_with_zero = fmadd(value, zero<Real>(), product_with_zero);
          store(lines + row * line_size + (tile * Columns::outputs + column) * lanes, value);
        }
      }
    }
    return sum(product_with_zero) == 0;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
