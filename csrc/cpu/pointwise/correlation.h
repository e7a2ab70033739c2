// A 1x1 kernel on contiguous images is a product of matrices as they lie: channels of the result x channels of
// the source, times channels of the source x pixels.
//
// An item is a strip of up to three vectors of pixels, times some channels of the result. Its first tile packs
// the strip (micro_kernel.h), which stays in the L1 or L2 cache for the others; meanwhile those fetch the next
// strip.
#pragma once

#include "cpu/pointwise/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class PointwiseCorrelation {
 public:
  PointwiseCorrelation(const PointwisePlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                       void* workspace)
      : plan(cut),
        batch(problem.batch),
        groups(problem.groups),
        source(static_cast<const T*>(cut.is_forward ? data.input : data.output)),
        weight(static_cast<const T*>(data.weight)),
        bias(problem.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        result(static_cast<T*>(cut.is_forward ? data.output : data.input)),
        scratch(static_cast<char*>(workspace)),
        streams(is_result_streamed<T>(problem) && begins_line(result) &&
                are_whole_lines<T>(plan.result_strides.channel) &&
                are_whole_lines<T>(plan.result_strides.batch)) {}

  void run(const Executor& executor) {
    if (plan.packs_weights) {
      const int64_t blocks = ceil_div(plan.terms, terms_of_block);
      for_each_tile(executor, groups * blocks,
                    [&](int64_t index, int) { pack_weights(index / blocks, index % blocks * terms_of_block); });
    }
    const int64_t items = groups * plan.parts * batch * plan.strips;
    for_each_tile(executor, items, [&](int64_t index, int worker) {
      run_item(item_of(index), item_of(smaller(items - 1, next_tile(index, items, executor.workers))),
               scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
  }

 private:
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t terms_of_block = 8;  // of weights that are packed at a time

  struct Item {
    int64_t group;
    int64_t part;
    int64_t image;
    int64_t strip;
  };

  const PointwisePlan<T>& plan;
  int64_t batch;
  int64_t groups;
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  char* scratch;
  bool streams;

  Item item_of(int64_t index) const {
    const int64_t strip = index % plan.strips;
    index /= plan.strips;
    const int64_t image = index % batch;
    index /= batch;
    return {index / plan.parts, index % plan.parts, image, strip};
  }

  T* packed_weights(int64_t group, int64_t tile) const {
    return reinterpret_cast<T*>(scratch + plan.weights_offset) +
           (group * plan.rows + plan.first_row(tile)) * plan.terms;
  }

  // packed[tile][term][row of the tile], some terms of all tiles: those of neighbouring tiles share lines.
  void pack_weights(int64_t group, int64_t first_term) const {
    const int64_t last_term = smaller(plan.terms, first_term + terms_of_block);
    for (int64_t tile = 0; tile < plan.tiles; ++tile) {
      const int64_t first = plan.first_row(tile);
      const int64_t rows = plan.first_row(tile + 1) - first;
      const T* from =
          weight + group * plan.weight_group + first * plan.weight_row + first_term * plan.weight_term;
      T* to = packed_weights(group, tile) + first_term * rows;
      for (int64_t k = first_term; k < last_term; ++k, from += plan.weight_term, to += rows) {
        if (plan.weight_row == 1) {
          copy_tile_row(from, rows, to);
        } else {
          for (int64_t r = 0; r < rows; ++r) to[r] = from[r * plan.weight_row];
        }
      }
    }
  }

  const T* first_source(const Item& item) const {
    return source + item.image * plan.source_strides.batch +
           item.group * plan.terms * plan.source_strides.channel + plan.first_vector(item.strip) * lanes;
  }

  void run_item(const Item& item, const Item& next, char* own) const {
    T* const panel = reinterpret_cast<T*>(own + plan.panel_offset);
    T* const results = reinterpret_cast<T*>(own + plan.results_offset);
    const int64_t first_tile = item.part * plan.tiles / plan.parts;
    const int64_t last_tile = (item.part + 1) * plan.tiles / plan.parts;
    const int64_t first_pixel = plan.first_vector(item.strip) * lanes;
    const int64_t vectors = plan.first_vector(item.strip + 1) - plan.first_vector(item.strip);
    const int64_t pixels = smaller(vectors * lanes, plan.pixels - first_pixel);
    const bool is_whole = pixels == vectors * lanes;
    if (!is_whole) pack_part(first_source(item), pixels, vectors, panel);

    Tile<T> tile;
    tile.a_row = plan.packs_weights ? 1 : plan.weight_row;
    tile.b = first_source(item);
    tile.b_term = plan.source_strides.channel;
    tile.panel = panel;
    tile.c_row = is_whole ? plan.result_strides.channel : vectors * lanes;
    tile.terms = plan.terms;
    tile.chain = plan.chain;
    tile.streams = is_whole && streams;
    T* const first_result = result + item.image * plan.result_strides.batch +
                            item.group * plan.rows * plan.result_strides.channel + first_pixel;
    const Ahead ahead = source_of(next);
    for (int64_t index = first_tile; index < last_tile; ++index) {
      const int64_t row = plan.first_row(index);
      const int64_t rows = plan.first_row(index + 1) - row;
      tile.a = plan.packs_weights ? packed_weights(item.group, index)
                                  : weight + item.group * plan.weight_group + row * plan.weight_row;
      tile.a_term = plan.packs_weights ? rows : plan.weight_term;
      tile.start = bias == nullptr ? nullptr : bias + item.group * plan.rows + row;
      T* const to = first_result + row * plan.result_strides.channel;
      tile.c = is_whole ? to : results;
      const int64_t packed = index - first_tile - 1;
      if (packed >= 0) tile.next_b = ahead.slice(packed, last_tile - first_tile - 1);
      const bool packs = is_whole && packed < 0;
      (packs ? micro_kernel_of<T, true> : micro_kernel_of<T, false>)(rows, vectors)(tile);
      if (!is_whole) {
        for (int64_t r = 0; r < rows; ++r) {
          copy_part(results + r * vectors * lanes, to + r * plan.result_strides.channel, pixels);
        }
      }
    }
    if (streams) finish_streams();
  }

  Ahead source_of(const Item& item) const {
    constexpr int64_t size = sizeof(T);
    const int64_t vectors = plan.first_vector(item.strip + 1) - plan.first_vector(item.strip);
    return {reinterpret_cast<const char*>(first_source(item)), plan.source_strides.channel * size, plan.terms,
            vectors * lanes * size};
  }

  // A strip that ends between two vectors.
  void pack_part(const T* from, int64_t pixels, int64_t vectors, T* panel) const {
    for (int64_t k = 0; k < plan.terms; ++k, from += plan.source_strides.channel) {
      for (int64_t v = 0; v < vectors; ++v, panel += lanes) {
        store(panel, load(from + v * lanes, smaller(lanes, pixels - v * lanes)));
      }
    }
  }

  static void copy_part(const T* from, T* to, int64_t pixels) {
    int64_t x = 0;
    for (; x + lanes <= pixels; x += lanes) store(to + x, load(from + x));
    if (x < pixels) store(to + x, load(from + x), pixels - x);
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
