// The gradient of the weight: for each group
//
//     gradient[o][term] = sum over pixels (n, y, x) of grad_output[o][pixel] * patch[pixel][term]
//
// Terms lie in the lanes, in the order in which the result has them, so a tile of sums is stored straight to
// its place, whole vectors at a time: of small maps there are as many results as numbers to multiply, and
// nothing but their arithmetic and their memory may cost. The lanes' operand is packed into panels (see
// weight_gradient_panels.h), by transposing where pixels are neighbours; the gradient of the output, whose
// numbers are broadcast, is read where it lies if its pixels are neighbours.
//
// Where a panel holds channels and each tap reads it shifted, the pixels whose tap is padding are left out
// (weight_gradient_pixels.h).
//
// The sum runs over all pixels of the batch. It is cut into blocks, and where the result is small and the
// pixels are many, the blocks into chunks, each summed into a partial result of its own, so that there is
// work for several threads. Both cuts depend on the shape and layout alone, and the chunks are added in
// order.
#pragma once

#include <atomic>

#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/implicit_gemm/weight_gradient_panels.h"
#include "cpu/implicit_gemm/weight_gradient_pixels.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class WeightGradientRun {
 public:
  WeightGradientRun(const WeightGradientPlan<T>& cut, const ConvData& data, void* workspace)
      : p(cut.problem),
        plan(cut),
        input(static_cast<const T*>(cut.is_swapped ? data.output : data.input)),
        grad_output(static_cast<const T*>(cut.is_swapped ? data.input : data.output)),
        grad_weight(static_cast<T*>(data.weight)),
        scratch(static_cast<char*>(workspace)),
        partials(reinterpret_cast<Real*>(scratch + plan.partials_offset)),
        pixels(plan, reinterpret_cast<int32_t*>(scratch + plan.terms_offset)),
        skips_padding(plan.skips_padding) {}

  void run(const Executor& executor) {
    if (plan.terms == 0 || plan.channels == 0) return;
    if (plan.blocks.count == 0) return clear();
    pixels.fill();
    add_up_items(executor);
    if (has_non_finite_output.load(std::memory_order_relaxed)) {
      skips_padding = false;
      add_up_items(executor);
    }
    if (plan.is_direct) return;

    const int64_t all_rows = p.groups * plan.channels;
    const int64_t rows_of_item = larger(1, 16384 / (plan.terms * plan.chunks));
    for_each_tile(executor, ceil_div(all_rows, rows_of_item), [&](int64_t index, int) {
      const int64_t last = smaller(all_rows, (index + 1) * rows_of_item);
      for (int64_t row = index * rows_of_item; row < last; ++row) store_gradient(row);
    });
  }

 private:
  using Real = Compute<T>;
  using Plan = WeightGradientPlan<T>;
  using Block = PixelBlocks::Block;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  // What one worker computes at a time: the sums of some panels' terms, of all or some taps, for some output
  // channels, over a chunk.
  struct Item {
    int64_t chunk;
    int64_t group;
    int64_t first_panel;
    int64_t panels;
    int64_t first_tap;  // that read the panels
    int64_t last_tap;
    int64_t first_output;
    int64_t outputs;
  };

  const ConvProblem& p;
  const Plan& plan;
  const T* input;
  const T* grad_output;
  T* grad_weight;
  char* scratch;
  Real* partials;
  PixelTables<T> pixels;
  bool skips_padding;
  // Past the edge of the input it meets a zero of the padding, and their product is NaN.
  mutable std::atomic<bool> has_non_finite_output{false};

  void add_up_items(const Executor& executor) const {
    // Results do not depend on each other, so items may follow the number of workers.
    int64_t panels_of_item = plan.panels_of_item;
    int64_t taps_of_item = plan.panel_taps;
    int64_t outputs_of_item = plan.outputs_of_item;
    const auto items = [&] {
      return plan.chunks * p.groups * ceil_div(plan.panels, panels_of_item) *
             ceil_div(plan.panel_taps, taps_of_item) * ceil_div(plan.channels, outputs_of_item);
    };
    if (executor.workers > 1) {
      while (panels_of_item > 1 && items() < 4 * executor.workers)
        panels_of_item = ceil_div(panels_of_item, 2);
      // Each part of the taps fills the panels again, and packs the outputs.
      while (taps_of_item >= 16 && items() < 4 * executor.workers) taps_of_item = ceil_div(taps_of_item, 2);
      // Each part of the outputs packs the panels again.
      while (items() < 4 * executor.workers && outputs_of_item >= 512)
        outputs_of_item = half(outputs_of_item);
      while (items() < 2 * executor.workers && outputs_of_item >= 2 * plan.outputs_group) {
        outputs_of_item = half(outputs_of_item);
      }
    }
    const int64_t panel_items = ceil_div(plan.panels, panels_of_item);
    const int64_t tap_items = ceil_div(plan.panel_taps, taps_of_item);
    const int64_t output_items = ceil_div(plan.channels, outputs_of_item);
    for_each_tile(executor, items(), [&](int64_t index, int worker) {
      Item item;
      item.first_output = index % output_items * outputs_of_item;
      item.outputs = smaller(outputs_of_item, plan.channels - item.first_output);
      index /= output_items;
      item.first_tap = index % tap_items * taps_of_item;
      item.last_tap = smaller(plan.panel_taps, item.first_tap + taps_of_item);
      index /= tap_items;
      item.first_panel = index % panel_items * panels_of_item;
      item.panels = smaller(panels_of_item, plan.panels - item.first_panel);
      index /= panel_items;
      item.group = index % p.groups;
      item.chunk = index / p.groups;
      sum_item(item, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
  }

  int64_t half(int64_t outputs) const { return round_up(ceil_div(outputs, 2), plan.outputs_group); }

  // The sum of no pixels.
  void clear() const {
    for (int64_t o = 0; o < p.out_channels; ++o) {
      for (int64_t c = 0; c < plan.input_channels; ++c) {
        for (int64_t i = 0; i < p.kernel.height; ++i) {
          for (int64_t j = 0; j < p.kernel.width; ++j) *weight_at(o, c, i, j) = narrow<T>(0);
        }
      }
    }
  }

  T* weight_at(int64_t o, int64_t c, int64_t i, int64_t j) const {
    const WeightStrides& strides = p.weight_strides;
    return grad_weight + o * strides.out_channel + c * strides.in_channel + i * strides.row +
           j * strides.column;
  }

  // Whether the block's gradient of the output is finite, for an item's channels.
  bool has_finite_outputs(const Item& item, const Block& block) const {
    const ImageStrides& strides = p.output_strides;
    const T* const from = output_at(item, block);
    const bool are_channels_neighbours = strides.channel == 1;
    const int64_t inner = are_channels_neighbours ? item.outputs : block.columns;
    const int64_t inner_stride = are_channels_neighbours ? 1 : strides.column;
    const int64_t outer = are_channels_neighbours ? block.columns : item.outputs;
    const int64_t outer_stride = are_channels_neighbours ? strides.column : strides.channel;
    FiniteCheck<T> check;
    for (int64_t image = 0; image < block.images; ++image) {
      for (int64_t y = 0; y < block.rows; ++y) {
        const T* const row = from + image * strides.batch + y * strides.row;
        for (int64_t k = 0; k < outer; ++k) {
          check.add(row + k * outer_stride, inner, inner_stride);
        }
      }
    }
    return check.all();
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

  int64_t first_pixel(const Block& block) const {
    return (block.image * plan.rows.count + block.row) * plan.columns.count + block.column;
  }

  void sum_item(const Item& item, char* own) const {
    Real* const panels = reinterpret_cast<Real*>(own + plan.panels_offset);
    Real* const lines = reinterpret_cast<Real*>(own + plan.lines_offset);
    Real* const packed = reinterpret_cast<Real*>(own + plan.outputs_offset);
    const int64_t first_block = item.chunk * plan.blocks_of_chunk;
    const int64_t last_block = smaller(plan.blocks.count, first_block + plan.blocks_of_chunk);
    for (int64_t b = first_block; b < last_block; ++b) {
      const Block block = plan.blocks.at(b);
      if (skips_padding) {
        if (has_non_finite_output.load(std::memory_order_relaxed)) return;
        if (item.first_panel == 0 && item.first_tap == 0 && !has_finite_outputs(item, block))
          return has_non_finite_output.store(true, std::memory_order_relaxed);
      }
      fill_panels(item, block, b == first_block, lines, panels);
      TileOperands<Real> operands{};
      pixels.point_to_all(operands, block);
      operands.a_row = plan.outputs_in_place  ? p.output_strides.channel
                       : plan.outputs_by_rows ? plan.outputs_stride
                                              : 1;
      const Real* const outputs = rows_operand(item, block, packed);
      const Band band(plan.rows, plan.columns, block.row, block.rows, block.column, block.columns);
      for (int64_t first = 0; first < item.outputs; first += plan.rows_at_a_time) {
        const int64_t rows = smaller(plan.rows_at_a_time, item.outputs - first);
        for (int64_t k = 0; k < item.panels; ++k) {
          const int64_t first_lane = (item.first_panel + k) * plan.tile_width;
          for (int64_t tap = item.first_tap; tap < item.last_tap; ++tap) {
            operands.b = panels + k * plan.panel_step;
            if (plan.by_channels) {
              operands.b += band.at(tap / plan.columns.taps, tap % plan.columns.taps) * plan.panel_stride;
            }
            if (skips_padding) {
              pixels.point_to_tap(operands, block, tap);
              // The first block of a chunk writes the sum of no pixels, too.
              if (operands.terms == 0 && b > first_block) continue;
            }
            multiply(operands, outputs, item, first, rows, tap * plan.input_channels + first_lane,
                     smaller(plan.tile_width, panel_lanes() - first_lane), b > first_block);
          }
        }
      }
    }
  }

  const T* output_at(const Item& item, const Block& block) const {
    const ImageStrides& strides = p.output_strides;
    return grad_output + (item.group * plan.channels + item.first_output) * strides.channel +
           block.image * strides.batch + block.row * strides.row + block.column * strides.column;
  }

  // The gradient of the output, see row_of.
  const Real* rows_operand(const Item& item, const Block& block, Real* packed) const {
    const ImageStrides& strides = p.output_strides;
    const T* const at_block = output_at(item, block);
    if constexpr (std::is_same_v<T, Real>) {
      if (plan.outputs_in_place) return at_block;
    }
    if (plan.outputs_by_rows) {
      pack_pixels_fastest(output_patches(item.group), first_pixel(block), block.pixels(), block.pixels(),
                          item.first_output, item.outputs, packed, plan.outputs_stride);
      return packed;
    }
    Real* to = packed;
    for (int64_t image = 0; image < block.images; ++image) {
      for (int64_t y = 0; y < block.rows; ++y) {
        const T* from = at_block + image * strides.batch + y * strides.row;
        for (int64_t x = 0; x < block.columns; ++x, from += strides.column, to += plan.outputs_group) {
          copy_groups(to, plan.outputs_stride, from, plan.outputs_group, item.outputs);
        }
      }
    }
    return packed;
  }

  const Real* row_of(const Real* outputs, int64_t row) const {
    if (plan.outputs_in_place) return outputs + row * p.output_strides.channel;
    if (plan.outputs_by_rows) return outputs + row * plan.outputs_stride;
    return outputs + row / plan.outputs_group * plan.outputs_stride + row % plan.outputs_group;
  }

  int64_t panel_lanes() const { return plan.by_channels ? plan.input_channels : plan.terms; }

  void fill_panels(const Item& item, const Block& block, bool is_first, Real* lines, Real* panels) const {
    const int64_t first = item.first_panel * plan.tile_width;
    if (plan.source == PanelSource::patches) {
      const int64_t terms = smaller(item.panels * plan.tile_width, plan.terms - first);
      pack_terms_fastest(input_patches(item.group), first_pixel(block), block.pixels(), first, terms, panels,
                         plan.panel_stride);
      if (is_first) clear_missing_lanes(panels, plan.blocks.most_pixels(), terms);
      return;
    }
    for (int64_t image = 0; image < block.images; ++image) {
      for (int64_t k = 0; k < item.panels; ++k) {
        fill_panel(item, block, image, first + k * plan.tile_width, lines,
                   panels + k * plan.panel_step + image * plan.panel_places * plan.panel_stride);
      }
    }
  }

  // What one image of the block adds to the panel of the channels or terms from `first` on.
  void fill_panel(const Item& item, const Block& block, int64_t image, int64_t first, Real* lines,
                  Real* panel) const {
    const ImageStrides& strides = p.input_strides;
    const T* const source = input_patches(item.group).source + (block.image + image) * strides.batch;
    const T* const at_block = source + first * strides.channel + block.column * strides.column;
    const int64_t first_of_item = item.first_panel * plan.tile_width;
    const int64_t last_of_item = smaller(panel_lanes(), first_of_item + item.panels * plan.tile_width);
    const int64_t used = smaller(plan.tile_width, panel_lanes() - first);
    const Band band(plan.rows, plan.columns, block.row, block.rows, block.column, block.columns);
    switch (plan.source) {
      case PanelSource::pixels:
        for (int64_t x = 0; x < block.columns; ++x) {
          copy_channels(panel + x * plan.panel_stride, at_block + x * strides.column, used);
        }
        break;
      case PanelSource::planes:
        // Planes are far apart, so the hardware does not foresee the next channels' pieces.
        transpose_rows<T>(
            panel, plan.panel_stride, used, block.columns,
            [&](int64_t row) { return at_block + row * strides.channel; },
            [&](int64_t row) {
              const int64_t channel = first + row;
              return channel + lanes < last_of_item
                         ? lanes * strides.channel
                         : block.columns - (channel - first_of_item) * strides.channel;
            });
        break;
      case PanelSource::lines:
        fill_from_lines(band, source, first, used, first == first_of_item, lines, panel);
        break;
      default:
        fill_shifted(band, source + first * strides.channel, used, lines, panel);
    }
  }

  // Every term is a line of the band, shifted.
  void fill_from_lines(const Band& band, const T* image, int64_t first, int64_t terms, bool is_first,
                       Real* lines, Real* target) const {
    const int64_t channels = plan.input_channels;
    int64_t first_channel = 0;
    int64_t last_channel = channels;
    if (plan.all_lines) {
      // Filled once for all panels.
    } else if (plan.taps_fastest) {
      first_channel = first / plan.taps;
      last_channel = (first + terms - 1) / plan.taps + 1;
    } else if (channels > plan.tile_width) {
      // At most one end of the channels lies in the panel: those from the first term's on, or up to there.
      first_channel = first % channels;
      last_channel = first_channel + terms;
    }
    const auto fill = [&](int64_t from, int64_t to, Real* band_lines) {
      fill_band(band, image + from * p.input_strides.channel, p.input_strides, to - from, 0, band_lines);
    };
    if (plan.all_lines && !is_first) {
      // Still there.
    } else if (last_channel <= channels) {
      fill(first_channel, last_channel, lines);
    } else {
      fill(first_channel, channels, lines);
      fill(0, last_channel - channels, lines + (channels - first_channel) * band.channel_stride);
    }
    transpose_rows<Real>(target, plan.panel_stride, terms, band.places(), [&](int64_t row) {
      const int64_t term = first + row;
      const int64_t channel = plan.taps_fastest ? term / plan.taps : term % channels;
      const int64_t tap = plan.taps_fastest ? term % plan.taps : term / channels;
      const int64_t place =
          channel >= first_channel ? channel - first_channel : channel + channels - first_channel;
      return lines + place * band.channel_stride + band.at(tap / plan.columns.taps, tap % plan.columns.taps);
    });
  }

  // A band with channels in the lanes.
  void fill_shifted(const Band& band, const T* source, int64_t channels, Real* lines, Real* target) const {
    if (plan.channels_are_neighbours) {
      return fill_channel_band(band, source, p.input_strides, channels, target, plan.panel_stride);
    }
    for (int64_t c = 0; c < channels; c += lanes) {
      const int64_t count = smaller(lanes, channels - c);
      fill_band(band, source + c * p.input_strides.channel, p.input_strides, count, 0, lines);
      transpose_rows<Real>(target + c, plan.panel_stride, count, band.numbers(),
                           [&](int64_t row) { return lines + row * band.channel_stride; });
    }
  }

  void clear_missing_lanes(Real* panel, int64_t pixels, int64_t used) const {
    const int64_t missing = round_up(used, lanes) - used;
    for (int64_t pixel = 0; missing > 0 && pixel < pixels; ++pixel) {
      fill_zero(panel + pixel * plan.panel_stride + used, missing);
    }
  }

  // Adds the sums of `used` terms from `term` on for some of the item's outputs to the result, or to the
  // chunk's.
  void multiply(TileOperands<Real> operands, const Real* outputs, const Item& item, int64_t first,
                int64_t rows, int64_t term, int64_t used, bool accumulate) const {
    const int64_t vectors = ceil_div(used, lanes);
    const int64_t output = item.group * plan.channels + item.first_output + first;
    int64_t stride = plan.partial_stride;
    Real* sums = partials + (item.chunk * p.groups * plan.channels + output) * stride + term;
    if constexpr (std::is_same_v<T, Real>) {
      if (plan.is_direct) {
        stride = p.weight_strides.out_channel;
        sums = grad_weight + output * stride + term;
      }
    }
    // Rows of partial results have room for whole vectors.
    const bool is_whole = used % lanes == 0 || !(plan.is_direct || plan.by_channels);
    const MicroKernel<Real> full = micro_kernel_of<Real>(smaller(rows, plan.tile_height), vectors);
    for (int64_t row = 0; row < rows; row += plan.tile_height) {
      const int64_t height = smaller(plan.tile_height, rows - row);
      const bool is_full = height == smaller(rows, plan.tile_height);
      const MicroKernel<Real> kernel = is_full ? full : micro_kernel_of<Real>(height, vectors);
      Real* const to = sums + row * stride;
      operands.a = row_of(outputs, first + row);
      operands.ahead = {to, pixels.result_lines(), 1, vectors, stride, is_whole ? height : 0};
      if (is_whole) {
        kernel(operands, to, stride, accumulate);
      } else {
        Real tile[most_tile_rows * most_tile_vectors * lanes];
        kernel(operands, tile, vectors * lanes, false);
        add_tile(tile, vectors, height, used, to, stride, accumulate);
      }
    }
  }

  static void add_tile(const Real* tile, int64_t vectors, int64_t rows, int64_t used, Real* to,
                       int64_t stride, bool accumulate) {
    for (int64_t row = 0; row < rows; ++row, tile += vectors * lanes, to += stride) {
      for (int64_t v = 0; v < used; v += lanes) {
        const int64_t count = smaller(lanes, used - v);
        const Vector<Real> sum = load(tile + v);
        store(to + v, accumulate ? add(load(to + v, count), sum) : sum, count);
      }
    }
  }

  // Adds the chunks of one output channel and writes its weights.
  void store_gradient(int64_t output) const {
    const int64_t chunk_stride = p.groups * plan.channels * plan.partial_stride;
    const Real* const first = partials + output * plan.partial_stride;
    const auto sum_at = [&](int64_t term) {
      Vector<Real> sum = load(first + term);
      for (int64_t chunk = 1; chunk < plan.chunks; ++chunk)
        sum = add(sum, load(first + chunk * chunk_stride + term));
      return sum;
    };
    if (plan.lies_as_terms(p.weight_strides, p.kernel)) {
      T* const to = weight_at(output, 0, 0, 0);
      for (int64_t term = 0; term < plan.terms; term += lanes) {
        store_narrowed(to + term, sum_at(term), smaller(lanes, plan.terms - term));
      }
      return;
    }
    if (plan.by_channels && lies_with_taps_fastest())
      return interleave_taps(weight_at(output, 0, 0, 0), sum_at);
    const int64_t columns = p.kernel.width;
    for (int64_t term = 0; term < plan.terms; term += lanes) {
      Real values[lanes];
      store(values, sum_at(term));
      const int64_t last = smaller(plan.terms, term + lanes);
      int64_t channel = plan.taps_fastest ? term / plan.taps : term % plan.input_channels;
      int64_t tap = plan.taps_fastest ? term % plan.taps : term / plan.input_channels;
      for (int64_t t = term; t < last; ++t) {
        *weight_at(output, channel, tap / columns, tap % columns) = narrow<T>(values[t - term]);
        if (plan.taps_fastest ? ++tap == plan.taps : ++channel == plan.input_channels) {
          (plan.taps_fastest ? tap : channel) = 0;
          ++(plan.taps_fastest ? channel : tap);
        }
      }
    }
  }

  bool lies_with_taps_fastest() const {
    const WeightStrides& strides = p.weight_strides;
    return (strides.column == 1 || p.kernel.width == 1) &&
           (strides.row == p.kernel.width || p.kernel.height == 1) && strides.in_channel == plan.taps;
  }

  // Writes sums in the order (tap, channel) to the order (channel, tap).
  template <class SumAt>
  void interleave_taps(T* to, const SumAt& sum_at) const {
    const int64_t channels = plan.input_channels;
    for (int64_t c = 0; c < channels; c += lanes) {
      // A whole vector may be written past the last tap, onto the next channel's first ones: those come
      // later.
      for (int64_t tap = (plan.taps - 1) / lanes * lanes; tap >= 0; tap -= lanes) {
        const int64_t count = smaller(lanes, plan.taps - tap);
        Vector<Real> v[lanes];
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i)
          v[i] = i < count ? sum_at((tap + i) * channels + c) : zero<Real>();
        transpose(v);
        T* const first = to + c * plan.taps + tap;
        CONVEXT_UNROLL
        for (int64_t i = 0; i < lanes; ++i) {
          if (c + i + 1 < channels && (channels - c - i) * plan.taps - tap >= lanes) {
            store_narrowed(first + i * plan.taps, v[i]);
          } else if (c + i < channels) {
            store_narrowed(first + i * plan.taps, v[i], count);
          }
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
