// Winograd's convolution, fused: a work item transforms a block of tiles into scratch that stays in the L2
// cache, multiplies it with the transformed weights (one small matrix product for each place of a tile), and
// transforms the sums back into the result. The transforms have channels in their lanes, whatever the layout;
// lines.h moves pixels between that form and the tensors.
//
// Each element of the result is the same sequence of operations wherever its tile falls into a block, so it
// depends neither on the batch nor on the number of workers.
//
// What Winograd's products cannot do as well as direct summation is left to the implicit_gemm kernel:
//   - all of the call, if the weights are not finite or not even in size (see weights.h);
//   - a sample in which a result is not finite: one of the transforms may have overflowed, and infinities
//   that
//     meet there give NaN where their sum would not;
//   - a sample in which one value makes up more than 1 / spread_limit of the absolute values that an output
//     reads. Winograd's rounding errors are relative to the largest value of a window, not to what it is
//     multiplied with.
// A sample's own values decide, so that the rest of the batch changes nothing.
#pragma once

#include <atomic>

#include "cpu/kernel_list.h"
#include "cpu/winograd/lines.h"
#include "cpu/winograd/product.h"
#include "cpu/winograd/weights.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int64_t spread_limit = 4;

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
        flags(reinterpret_cast<int32_t*>(scratch + plan.flags_offset)),
        packed_weights(reinterpret_cast<Real*>(scratch + plan.weights_offset)) {}

  // False, with nothing usable written, where the weights are not for this algorithm.
  bool run(const Executor& executor) {
    for (int64_t n = 0; n < c.batch; ++n) flags[n] = 0;
    for_each_tile(executor, c.groups * plan.panels, [&](int64_t index, int) {
      if (!pack_weights<Tile, T>(c, weight, index / plan.panels, index % plan.panels,
                                 packed_weights + index * weights_of_panel())) {
        weights_are_usable.store(false, std::memory_order_relaxed);
      }
    });
    if (!weights_are_usable.load(std::memory_order_relaxed)) return false;

    int64_t blocks = ceil_div(plan.tiles, plan.tiles_of_block);
    int64_t passes = ceil_div(plan.panels, plan.panels_of_pass);
    int64_t splits = 1;
    // Few items: split the result channels, too.
    while (blocks * c.groups * splits < 3 * executor.workers && splits < passes) ++splits;
    if (blocks * c.groups * splits < 2 * executor.workers) {
      const int64_t wanted = ceil_div(2 * executor.workers, c.groups * splits);
      blocks = larger(blocks, smaller(wanted, plan.tiles / (2 * block_rows)));
    }
    const int64_t tiles = ceil_div(plan.tiles, blocks);
    const int64_t panels = ceil_div(plan.panels, splits);
    for_each_tile(executor, blocks * c.groups * splits, [&](int64_t index, int worker) {
      Item item;
      item.first_panel = index % splits * panels;
      item.last_panel = smaller(plan.panels, item.first_panel + panels);
      index /= splits;
      item.group = index % c.groups;
      item.first_tile = index / c.groups * tiles;
      item.tiles = smaller(tiles, plan.tiles - item.first_tile);
      if (item.tiles > 0 && item.first_panel < item.last_panel) {
        run_item(item, scratch + plan.workers_offset + worker * plan.worker_bytes);
      }
    });
    return true;
  }

  bool is_flagged(int64_t sample) const { return flags[sample] != 0; }

 private:
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int inputs = Tile::inputs;
  static constexpr int outputs = Tile::outputs;
  static constexpr int64_t products = Plan<Tile, Real>::products;
  static constexpr int64_t line_size = Plan<Tile, Real>::line;

  struct Item {
    int64_t group;
    int64_t first_panel;
    int64_t last_panel;
    int64_t first_tile;
    int64_t tiles;
  };

  const Correlation& c;
  const Plan<Tile, Real>& plan;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  char* scratch;
  int32_t* flags;  // of each sample: must be computed in another way
  Real* packed_weights;
  std::atomic<bool> weights_are_usable{true};

  int64_t weights_of_panel() const { return products * c.source_channels * panel<Real>; }

  void flag(int64_t sample) { __atomic_store_n(flags + sample, 1, __ATOMIC_RELAXED); }

  void run_item(const Item& item, char* own) {
    Real* transformed = reinterpret_cast<Real*>(own + plan.inputs_offset);
    Real* sums = reinterpret_cast<Real*>(own + plan.sums_offset);
    Real* lines = reinterpret_cast<Real*>(own + plan.lines_offset);
    Real* spread = reinterpret_cast<Real*>(own + plan.spread_offset);
    transform_source(item, transformed, lines, spread);
    for (int64_t first = item.first_panel; first < item.last_panel; first += plan.panels_of_pass) {
      const int64_t count = smaller(plan.panels_of_pass, item.last_panel - first);
      multiply(item, first, count, transformed, sums);
      transform_result(item, first, count, sums, lines);
    }
  }

  void transform_source(const Item& item, Real* transformed, Real* lines, Real* spread) {
    const T* first_channel = source + item.group * c.source_channels * c.source_strides.channel;
    for (int64_t channel = 0; channel < c.source_channels; channel += lanes) {
      const int64_t channels = smaller(lanes, c.source_channels - channel);
      plan.for_each_segment(item.first_tile, item.tiles, [&](const Segment& segment) {
        const T* image =
            first_channel + segment.image * c.source_strides.batch + channel * c.source_strides.channel;
        for (int row = 0; row < inputs; ++row) {
          const int64_t at = c.rows.source(segment.tile_row * outputs + row);
          read_line(at < 0 ? nullptr : image + at * c.source_strides.row, c.source_strides, c.columns,
                    segment.tile_column * outputs, segment.tiles * outputs + 2, channels,
                    lines + row * line_size);
        }
        transform_segment(segment, lines, transformed + segment.begin * plan.inputs_stride + channel,
                          spread + 2 * segment.begin * lanes, channel == 0);
      });
    }
    plan.for_each_segment(item.first_tile, item.tiles, [&](const Segment& segment) {
      for (int64_t tile = 0; tile < segment.tiles; ++tile) {
        if (is_even(spread + 2 * (segment.begin + tile) * lanes)) continue;
        if (!has_even_windows(first_channel, segment, tile)) {
          flag(segment.image);
          return;
        }
      }
    });
  }

  // `spread`, for each tile, takes in the largest absolute value and the sum of the absolute values of the
  // pixels that all of its outputs read.
  void transform_segment(const Segment& segment, const Real* lines, Real* transformed, Real* spread,
                         bool is_first) {
    for (int64_t tile = 0; tile < segment.tiles; ++tile) {
      Vector<Real> d[inputs][inputs];
      CONVEXT_UNROLL
      for (int row = 0; row < inputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < inputs; ++column) {
          d[row][column] = load(lines + row * line_size + (tile * outputs + column) * lanes);
        }
      }
      Vector<Real> largest = is_first ? zero<Real>() : load(spread);
      Vector<Real> total = is_first ? zero<Real>() : load(spread + lanes);
      CONVEXT_UNROLL
      for (int row = 0; row < inputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < inputs; ++column) {
          const Vector<Real> size = absolute(d[row][column]);
          largest = maximum(largest, size);
          const bool in_all = row >= outputs - 1 && row <= 2 && column >= outputs - 1 && column <= 2;
          if (in_all) total = add(total, size);
        }
      }
      store(spread, largest);
      store(spread + lanes, total);
      spread += 2 * lanes;

      Vector<Real> v[inputs][inputs];
      transform_inputs<Tile>(d, v);
      CONVEXT_UNROLL
      for (int row = 0; row < inputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < inputs; ++column) {
          store(transformed + (row * inputs + column) * plan.inputs_plane, v[row][column]);
        }
      }
      transformed += plan.inputs_stride;
    }
  }

  static bool is_even(const Real* spread) {
    Real largest[lanes];
    store(largest, load(spread));
    for (int64_t half = lanes / 2; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i) {
        largest[i] = largest[i] > largest[i + half] ? largest[i] : largest[i + half];
      }
    }
    return spread_limit * largest[0] <= sum(load(spread + lanes));
  }

  // The same for each output's own window.
  bool has_even_windows(const T* first_channel, const Segment& segment, int64_t tile) const {
    Real largest[inputs][inputs] = {};
    Real total[inputs][inputs] = {};
    const T* image = first_channel + segment.image * c.source_strides.batch;
    const int64_t first_row = segment.tile_row * outputs;
    const int64_t first_column = (segment.tile_column + tile) * outputs;
    for (int row = 0; row < inputs; ++row) {
      const int64_t y = c.rows.source(first_row + row);
      for (int column = 0; y >= 0 && column < inputs; ++column) {
        const int64_t x = c.columns.source(first_column + column);
        const T* pixel = image + y * c.source_strides.row + x * c.source_strides.column;
        for (int64_t channel = 0; x >= 0 && channel < c.source_channels; ++channel) {
          const Real value = widen(pixel[channel * c.source_strides.channel]);
          const Real size = value < 0 ? -value : value;
          largest[row][column] = size > largest[row][column] ? size : largest[row][column];
          total[row][column] += size;
        }
      }
    }
    for (int row = 0; row < outputs && first_row + row < c.rows.results; ++row) {
      for (int column = 0; column < outputs && first_column + column < c.columns.results; ++column) {
        Real most = 0;
        Real all = 0;
        for (int i = 0; i < 9; ++i) {
          const Real size = largest[row + i / 3][column + i % 3];
          most = size > most ? size : most;
          all += total[row + i / 3][column + i % 3];
        }
        if (!(spread_limit * most <= all)) return false;
      }
    }
    return true;
  }

  void multiply(const Item& item, int64_t first_panel, int64_t panels, const Real* transformed, Real* sums) {
    constexpr int64_t terms_of_block = 256;  // of a panel of weights, to stay in the L1 cache
    const int64_t row_blocks = ceil_div(item.tiles, block_rows);
    const int64_t terms = c.source_channels;
    const Real* weights = packed_weights + (item.group * plan.panels + first_panel) * weights_of_panel();
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t channels = c.result_channels - (first_panel + p) * panel<Real>;
      for (int64_t product = 0; product < products; ++product, weights += terms * panel<Real>) {
        for (int64_t k = 0; k < terms; k += terms_of_block) {
          const int64_t length = smaller(terms_of_block, terms - k);
          // Blocks of equal height, give or take one.
          for (int64_t b = 0; b < row_blocks; ++b) {
            const int64_t begin = b * item.tiles / row_blocks;
            const int64_t end = (b + 1) * item.tiles / row_blocks;
            product_of<Real>(end - begin, channels)(
                transformed + product * plan.inputs_plane + begin * plan.inputs_stride + k,
                plan.inputs_stride, weights + k * panel<Real>, length,
                sums + product * plan.sums_plane + begin * plan.sums_stride + p * panel<Real>,
                plan.sums_stride, k > 0);
          }
        }
      }
    }
  }

  void transform_result(const Item& item, int64_t first_panel, int64_t panels, const Real* sums,
                        Real* lines) {
    const int64_t end = smaller((first_panel + panels) * panel<Real>, c.result_channels);
    for (int64_t channel = first_panel * panel<Real>; channel < end; channel += lanes) {
      const int64_t channels = smaller(lanes, end - channel);
      const int64_t channel_of_all = item.group * c.result_channels + channel;
      const Vector<Real> shift = bias == nullptr     ? zero<Real>()
                                 : channels == lanes ? load_widened(bias + channel_of_all)
                                                     : load_widened(bias + channel_of_all, channels);
      const Real* from = sums + channel - first_panel * panel<Real>;
      plan.for_each_segment(item.first_tile, item.tiles, [&](const Segment& segment) {
        if (!transform_back(segment, from + segment.begin * plan.sums_stride, shift, lines)) {
          flag(segment.image);
        }
        const int64_t first_column = segment.tile_column * outputs;
        const int64_t columns = smaller(segment.tiles * outputs, c.columns.results - first_column);
        T* image = result + segment.image * c.result_strides.batch +
                   channel_of_all * c.result_strides.channel + first_column * c.result_strides.column;
        for (int row = 0; row < outputs; ++row) {
          const int64_t at = segment.tile_row * outputs + row;
          if (at == c.rows.results) break;
          write_line(lines + row * line_size, columns, channels, c.result_strides,
                     image + at * c.result_strides.row);
        }
      });
    }
  }

  // False if a result is not finite.
  bool transform_back(const Segment& segment, const Real* sums, Vector<Real> shift, Real* lines) const {
    const Vector<Real> scale = broadcast(static_cast<Real>(Tile::scale));
    Vector<Real> product_with_zero = zero<Real>();  // 0 times a finite number is 0, anything else is NaN
    for (int64_t tile = 0; tile < segment.tiles; ++tile) {
      Vector<Real> m[inputs][inputs];
      CONVEXT_UNROLL
      for (int row = 0; row < inputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < inputs; ++column) {
          m[row][column] = load(sums + (row * inputs + column) * plan.sums_plane);
        }
      }
      sums += plan.sums_stride;
      Vector<Real> y[outputs][outputs];
      transform_outputs<Tile>(m, y);
      CONVEXT_UNROLL
      for (int row = 0; row < outputs; ++row) {
        CONVEXT_UNROLL
        for (int column = 0; column < outputs; ++column) {
          const Vector<Real> value = fmadd(y[row][column], scale, shift);
          product_with_zero = fmadd(value, zero<Real>(), product_with_zero);
          store(lines + row * line_size + (tile * outputs + column) * lanes, value);
        }
      }
    }
    return sum(product_with_zero) == 0;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
