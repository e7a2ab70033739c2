// Correlations of contiguous images with pixels in the lanes: a product of matrices, channels of the result x
// terms (c, i, j), times terms x pixels.
//
// An item is a strip of up to three vectors of result pixels, times some channels of the result. Strips run
// on from image to image, so that small images leave no vector half empty. The patches of the strip are
// packed into a panel, some source channels at a time, which stays in the L1 or L2 cache for all tiles. Of a
// 1x1 kernel the first tile packs (micro_kernel.h), if the strip lies in one image, and the others fetch the
// next strip meanwhile. Contiguous weights of the forward pass are read where they lie.
#pragma once

#include "cpu/implicit_gemm/clear.h"
#include "cpu/panel_gemm/strip.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class PanelCorrelation {
 public:
  PanelCorrelation(const PanelPlan<T>& cut, const ConvProblem& given, const ConvData& data, void* workspace)
      : plan(cut),
        problem(given),
        c(cut.c),
        source(static_cast<const T*>(c.is_forward ? data.input : data.output)),
        weight(static_cast<const T*>(data.weight)),
        bias(problem.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        result(static_cast<T*>(c.is_forward ? data.output : data.input)),
        scratch(static_cast<char*>(workspace)),
        streams(plan.writes_in_place && plan.block_channels == c.source_channels &&
                is_result_streamed<T>(problem) && begins_line(result) &&
                are_whole_lines<T>(c.result_strides.channel) && are_whole_lines<T>(c.result_strides.batch)) {}

  void run(const Executor& executor) {
    if (plan.packs_weights) pack_weights(executor);
    const int64_t cleared = rows_to_clear(c);
    const int64_t items = c.groups * plan.parts * plan.strips;
    for_each_tile(executor, cleared + items, [&](int64_t index, int worker) {
      if (index < cleared) {
        if (!plan.fills_gaps || !reaches(c.rows, index % c.rows.p.input)) clear_gaps(c, result, index);
        return;
      }
      index -= cleared;
      run_item(item_of(index), item_of(smaller(items - 1, next_tile(index))),
               scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
  }

 private:
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t size = sizeof(T);

  struct Item {
    int64_t group;
    int64_t part;
    int64_t strip;
  };

  const PanelPlan<T>& plan;
  const ConvProblem& problem;
  const Correlation& c;
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  char* scratch;
  bool streams;

  Item item_of(int64_t index) const {
    Item item;
    item.strip = index % plan.strips;
    index /= plan.strips;
    item.part = index % plan.parts;
    item.group = index / plan.parts;
    return item;
  }

  // packed[tile][term][row of the tile]
  T* packed_weights(int64_t group, int64_t tile) const {
    return reinterpret_cast<T*>(scratch + plan.weights_offset) +
           (group * c.result_channels + plan.first_row(tile)) * plan.terms;
  }

  void pack_weights(const Executor& executor) const {
    constexpr int64_t together = 8;  // source channels, for all tiles: neighbouring tiles share lines
    const int64_t pieces = ceil_div(c.source_channels, together);
    for_each_tile(executor, c.groups * pieces, [&](int64_t index, int) {
      const int64_t first = index % pieces * together;
      const int64_t last = smaller(c.source_channels, first + together);
      for (int64_t tile = 0; tile < plan.tiles; ++tile) pack_weights_of(index / pieces, tile, first, last);
    });
  }

  void pack_weights_of(int64_t group, int64_t tile, int64_t first, int64_t last) const {
    const int64_t rows = plan.first_row(tile + 1) - plan.first_row(tile);
    const T* of_channel = weight + group * c.weight_group_stride +
                          plan.first_row(tile) * c.weight_result_stride + first * c.weight_source_stride;
    T* to = packed_weights(group, tile) + first * plan.grid.taps() * rows;
    for (int64_t channel = first; channel < last; ++channel, of_channel += c.weight_source_stride) {
      for (int64_t i = 0; i < plan.grid.rows.taps; ++i) {
        for (int64_t j = 0; j < plan.grid.columns.taps; ++j, to += rows) {
          const T* const from = of_channel + i * c.weight_strides.row + j * c.weight_strides.column;
          if (c.weight_result_stride == 1) {
            copy_tile_row(from, rows, to);
          } else {
            for (int64_t r = 0; r < rows; ++r) to[r] = from[r * c.weight_result_stride];
          }
        }
      }
    }
  }

  // In the first image.
  const T* first_channel(int64_t group) const {
    return source + group * c.source_channels * c.source_strides.channel;
  }

  void run_item(const Item& item, const Item& next, char* own) const {
    Strip<T> strip(plan, item.strip, own + plan.runs_offset);
    T* const panel = reinterpret_cast<T*>(own + plan.panel_offset);
    T* const results = reinterpret_cast<T*>(own + plan.results_offset);
    const int64_t first_tile = plan.first_tile(item.part);
    const int64_t last_tile = plan.first_tile(item.part + 1);
    const int64_t first_row = plan.first_row(first_tile);
    const bool packs_in_tile = plan.grid.reads_itself() && strip.is_whole();
    const bool writes_in_place = plan.writes_in_place && strip.is_whole();
    const int64_t channel_stride = c.result_strides.channel;
    T* const planes = result + (item.group * c.result_channels + first_row) * channel_stride;
    if (!packs_in_tile) strip.find_runs();

    PanelTile<T> tile;
    tile.b_term = c.source_strides.channel;
    tile.panel = panel;
    tile.c_row = writes_in_place ? channel_stride : strip.vectors * lanes;
    tile.streams = writes_in_place && streams;
    T* const first_result =
        writes_in_place ? planes + strip.image() * c.result_strides.batch + strip.first_of_image() : results;
    for (int64_t channel = 0; channel < c.source_channels; channel += plan.block_channels) {
      const int64_t channels = smaller(plan.block_channels, c.source_channels - channel);
      const int64_t first_term = channel * plan.grid.taps();
      const T* const planes_here = first_channel(item.group) + channel * c.source_strides.channel;
      if (!packs_in_tile) strip.pack(planes_here, channels, panel);
      tile.b = planes_here + strip.image() * c.source_strides.batch + strip.first_of_image();
      tile.terms = channels * plan.grid.taps();
      tile.chain = ceil_div(tile.terms, ceil_div(tile.terms, plan.chain));
      tile.accumulate = channel > 0;
      const bool is_last = channel + channels == c.source_channels;
      const Ahead ahead = is_last ? source_of(next, 0) : source_of(item, channel + channels);
      for (int64_t index = first_tile; index < last_tile; ++index) {
        const int64_t row = plan.first_row(index);
        const int64_t rows = plan.first_row(index + 1) - row;
        point_to_weights(tile, item.group, index, first_term);
        tile.start = bias == nullptr || channel > 0 ? nullptr : bias + item.group * c.result_channels + row;
        tile.c = first_result + (row - first_row) * tile.c_row;
        const bool packs = packs_in_tile && index == first_tile;
        const int64_t done = index - first_tile - (packs_in_tile ? 1 : 0);
        tile.next_b = packs ? Ahead{} : ahead.slice(done, last_tile - first_tile - (packs_in_tile ? 1 : 0));
        (packs ? micro_kernel_of<T, true> : micro_kernel_of<T, false>)(rows, strip.vectors)(tile);
        if (!is_last || writes_in_place) continue;
        if (plan.weaves_windows) {
          if (plan.weaves_tiles) weave(strip, item, row, row + rows, tile.c);
          continue;
        }
        for (int64_t r = 0; r < rows; ++r) {
          const T* const from = tile.c + r * tile.c_row;
          T* const plane = planes + (row - first_row + r) * channel_stride;
          plan.fills_gaps ? strip.store_pairs(from, plane, c.result_strides, c.columns.p.input)
                          : strip.store(from, plane, c.result_strides);
        }
      }
    }
    if (plan.weaves_windows && !plan.weaves_tiles)
      weave(strip, item, first_row, plan.first_row(last_tile), results);
    if (streams) finish_streams();
  }

  // The results [first_row, last_row) of a window, whole rows of it.
  void weave(const Strip<T>& strip, const Item& item, int64_t first_row, int64_t last_row,
             const T* results) const {
    const ImageStrides& strides = problem.input_strides;
    const int64_t width = problem.kernel.width;
    const int64_t area = problem.kernel.height * width;
    const int64_t stride = strip.vectors * lanes;
    for (int64_t row = first_row; row < last_row; row += width) {
      const int64_t channel = item.group * (c.result_channels / area) + row / area;
      strip.store_woven(results + (row - first_row) * stride, stride, problem.output, problem.kernel,
                        row % area / width, result + channel * strides.channel, strides);
    }
  }

  void point_to_weights(PanelTile<T>& tile, int64_t group, int64_t index, int64_t first_term) const {
    if (!plan.packs_weights) {
      tile.a_row = c.weight_result_stride;
      tile.a_term = c.is_forward ? 1 : c.weight_source_stride;
      tile.a = weight + group * c.weight_group_stride + plan.first_row(index) * tile.a_row +
               first_term * tile.a_term;
      return;
    }
    tile.a_row = 1;
    tile.a_term = plan.first_row(index + 1) - plan.first_row(index);
    tile.a = packed_weights(group, index) + first_term * tile.a_term;
  }

  // What an item reads of a block of source channels, from the one given on.
  Ahead source_of(const Item& item, int64_t channel) const {
    const ResultGrid& grid = plan.grid;
    const int64_t begin_of_strip = plan.first_vector(item.strip) * lanes;
    const int64_t image = begin_of_strip / grid.pixels();
    const int64_t first = begin_of_strip - image * grid.pixels();
    // Of a strip in two images, what it reads of the first.
    const int64_t last =
        smaller(grid.pixels(), plan.first_vector(item.strip + 1) * lanes - image * grid.pixels()) - 1;
    // From the first tap of the first pixel to the last tap of the last one, in rows as they lie.
    const auto position = [&](int64_t pixel, bool is_end) {
      const auto along = [&](const Axis& axis, int64_t q) {
        const int64_t reach = (axis.taps - 1) * axis.step;
        const int64_t at = q * axis.stride + axis.offset + (is_end ? larger(0, reach) : smaller(0, reach));
        return smaller(larger(0, at), axis.source_size - 1);
      };
      return along(grid.rows, pixel / grid.columns.count) * c.source_strides.row +
             along(grid.columns, pixel % grid.columns.count);
    };
    const int64_t begin = position(first, false);
    const int64_t bytes = (position(last, true) + 1 - begin) * size;
    const int64_t channels = smaller(plan.block_channels, c.source_channels - channel);
    const T* const from = first_channel(item.group) + image * c.source_strides.batch +
                          channel * c.source_strides.channel + begin;
    return {reinterpret_cast<const char*>(from), c.source_strides.channel * size, channels, larger(0, bytes)};
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
