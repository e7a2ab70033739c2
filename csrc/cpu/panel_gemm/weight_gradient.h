// The gradient of a 1x1 kernel's weight on channels_last images: for each group
//
//     gradient[o][c] = sum over the pixels of all images of grad_output[pixel][o] * input[pixel][c]
//
// One side's channels lie in the lanes, a panel of up to three vectors of them being packed by the first tile
// that reads it (micro_kernel.h); the other side's are broadcast, and copied in groups as high as a tile.
//
// The pixels are cut into blocks and the blocks into chunks, each added up into a partial result of its own,
// so that there is work for several threads. Both cuts follow from the shape alone, and the chunks are added
// in order.
#pragma once

#include "cpu/dispatch.h"
#include "cpu/panel_gemm/micro_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PointwiseGradientPlan {
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t most_rows = 128 * 1024 / sizeof(T);  // of a block, in the L2 cache beside a panel
  static constexpr int64_t most_pixels_of_block = 256;

  // One side of the product.
  struct Side {
    bool is_input;
    int64_t channels;  // of a group
    int64_t pixel_stride;
    int64_t weight_stride;  // from one channel's weights to the next
  };

  int64_t groups;
  int64_t pixels;
  Side vector_side;  // whose channels lie in the lanes
  Side row_side;
  int64_t weight_group;
  int64_t panels;
  int64_t tiles;        // that the rows are cut into
  int64_t parts;        // that the tiles are cut into
  int64_t panel_parts;  // that the panels are cut into
  int64_t chain;
  int64_t block;  // pixels of one
  int64_t blocks;
  int64_t blocks_of_chunk;
  int64_t chunks;
  bool is_direct;  // tiles are stored to the result itself
  int64_t partial_row;

  int64_t partials_offset;
  int64_t workers_offset;
  int64_t rows_offset;  // in a worker's part
  int64_t panel_offset;
  int64_t worker_bytes;

  PointwiseGradientPlan(const ConvProblem& p, int workers)
      : groups(p.groups),
        pixels(p.batch * p.input.height * p.input.width),
        vector_side{true, in_channels_per_group(p), p.input_strides.column, p.weight_strides.in_channel},
        row_side{false, out_channels_per_group(p), p.output_strides.column, p.weight_strides.out_channel},
        weight_group(out_channels_per_group(p) * p.weight_strides.out_channel) {
    // Few vectors of channels would be loaded more often than multiplied. Rows are copied for every vector;
    // to transpose the result costs less than that if it is the sum of many pixels.
    constexpr int64_t many_pixels = 3000;
    if (vector_side.channels < row_side.channels &&
        (vector_side.channels < most_vectors_of_tile * lanes || pixels >= many_pixels)) {
      const Side other = vector_side;
      vector_side = row_side;
      row_side = other;
    }
    panels = ceil_div(vectors(), most_vectors_of_tile);
    tiles = ceil_div(row_side.channels, most_rows_of_tile);

    const int64_t most_chain = sum_shape(pixels, Pass::grad_weight).chain;
    blocks = ceil_div(pixels, most_pixels_of_block);
    block = ceil_div(pixels, blocks);
    blocks = ceil_div(pixels, block);
    chain = ceil_div(block, ceil_div(block, most_chain));
    choose_chunks();
    choose_parts(workers);
    is_direct = chunks == 1 && vector_side.weight_stride == 1 && vector_side.channels % lanes == 0;
    partial_row = round_up(vector_side.channels, lanes);

    Carver shared;
    partials_offset =
        shared.take(is_direct ? 0 : chunks * groups * row_side.channels * partial_row, sizeof(T));
    workers_offset = shared.bytes;
    Carver own;
    rows_offset = own.take(block * ceil_div(tiles, parts) * most_rows_of_tile, sizeof(T));
    panel_offset = own.take(block * most_vectors_of_tile * lanes, sizeof(T));
    worker_bytes = own.bytes;
  }

  int64_t vectors() const { return ceil_div(vector_side.channels, lanes); }
  int64_t first_vector(int64_t panel) const { return panel * vectors() / panels; }
  int64_t first_row(int64_t tile) const { return tile * row_side.channels / tiles; }
  int64_t first_tile(int64_t part) const { return part * tiles / parts; }
  int64_t first_panel(int64_t part) const { return part * panels / panel_parts; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

 private:
  // Enough for several threads, few enough that the partial results stay small and that a chunk is much more
  // work than adding it up.
  void choose_chunks() {
    constexpr int64_t wanted_items = 16;
    constexpr int64_t least_pixels = 768;
    constexpr int64_t most_numbers = int64_t{1} << 20;
    const int64_t numbers = groups * row_side.channels * vector_side.channels;
    chunks = 1;
    while (chunks * groups < wanted_items && 2 * chunks * least_pixels <= pixels &&
           2 * chunks * numbers <= most_numbers) {
      chunks *= 2;
    }
    blocks_of_chunk = ceil_div(blocks, chunks);
    chunks = ceil_div(blocks, blocks_of_chunk);
  }

  // Sums do not depend on each other, so this may follow the number of workers. Each part of the rows packs
  // the panels again, which only its first tile does; each part of the panels copies the rows again.
  void choose_parts(int workers) {
    constexpr int64_t fewest_tiles = 4;
    const int64_t wanted = ceil_div(int64_t{4} * workers, chunks * groups);
    parts = larger(ceil_div(row_side.channels * block, most_rows), wanted);
    parts = larger(1, smaller(parts, tiles / fewest_tiles));
    panel_parts = smaller(panels, ceil_div(wanted, parts));
  }
};

template <class T>
class PointwiseGradient {
 public:
  PointwiseGradient(const PointwiseGradientPlan<T>& cut, const ConvData& data, void* workspace)
      : plan(cut),
        vectors(static_cast<const T*>(cut.vector_side.is_input ? data.input : data.output)),
        rows(static_cast<const T*>(cut.row_side.is_input ? data.input : data.output)),
        gradient(static_cast<T*>(data.weight)),
        scratch(static_cast<char*>(workspace)),
        partials(reinterpret_cast<T*>(scratch + plan.partials_offset)) {}

  void run(const Executor& executor) {
    const int64_t items = plan.groups * plan.chunks * plan.parts * plan.panel_parts;
    for_each_tile(executor, items, [&](int64_t index, int worker) {
      Item item;
      item.panel_part = index % plan.panel_parts;
      index /= plan.panel_parts;
      item.part = index % plan.parts;
      index /= plan.parts;
      item.chunk = index % plan.chunks;
      item.group = index / plan.chunks;
      add_up(item, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
    if (plan.is_direct) return;
    for_each_tile(executor, plan.groups * plan.tiles, [&](int64_t index, int) {
      const int64_t tile = index % plan.tiles;
      for (int64_t row = plan.first_row(tile); row < plan.first_row(tile + 1); ++row)
        store_row(index / plan.tiles, row);
    });
  }

 private:
  using Plan = PointwiseGradientPlan<T>;
  static constexpr int64_t most_waiting_bytes = 128 * 1024;  // in the L2 cache
  static constexpr int64_t lanes = Vector<T>::lanes;

  struct Item {
    int64_t chunk;
    int64_t group;
    int64_t part;
    int64_t panel_part;
  };

  const Plan& plan;
  const T* vectors;
  const T* rows;
  T* gradient;
  char* scratch;
  T* partials;

  const T* vector_at(int64_t group, int64_t pixel, int64_t panel) const {
    return vectors + pixel * plan.vector_side.pixel_stride + group * plan.vector_side.channels +
           plan.first_vector(panel) * lanes;
  }

  int64_t vectors_of(int64_t panel) const { return plan.first_vector(panel + 1) - plan.first_vector(panel); }

  const T* rows_at(const Item& item, int64_t pixel) const {
    return rows + pixel * plan.row_side.pixel_stride + item.group * plan.row_side.channels +
           plan.first_row(plan.first_tile(item.part));
  }

  int64_t rows_of(const Item& item) const {
    return plan.first_row(plan.first_tile(item.part + 1)) - plan.first_row(plan.first_tile(item.part));
  }

  int64_t pixels_at(int64_t pixel) const { return larger(0, smaller(plan.block, plan.pixels - pixel)); }

  // What a block reads of some panels, or of the rows.
  Ahead panels_ahead(const Item& item, int64_t pixel, int64_t first_panel, int64_t last_panel) const {
    constexpr int64_t size = sizeof(T);
    const int64_t vectors = plan.first_vector(last_panel) - plan.first_vector(first_panel);
    return {reinterpret_cast<const char*>(vector_at(item.group, pixel, first_panel)),
            plan.vector_side.pixel_stride * size, pixels_at(pixel), vectors * lanes * size};
  }
  Ahead rows_ahead(const Item& item, int64_t pixel) const {
    constexpr int64_t size = sizeof(T);
    return {reinterpret_cast<const char*>(rows_at(item, pixel)), plan.row_side.pixel_stride * size,
            pixels_at(pixel), rows_of(item) * size};
  }

  T* partial_at(int64_t chunk, int64_t group, int64_t row) const {
    return partials + ((chunk * plan.groups + group) * plan.row_side.channels + row) * plan.partial_row;
  }

  void add_up(const Item& item, char* own) const {
    T* const packed_rows = reinterpret_cast<T*>(own + plan.rows_offset);
    T* const panel = reinterpret_cast<T*>(own + plan.panel_offset);
    const int64_t first_tile = plan.first_tile(item.part);
    const int64_t tiles = plan.first_tile(item.part + 1) - first_tile;
    const int64_t first_row = plan.first_row(first_tile);
    const int64_t first_panel = plan.first_panel(item.panel_part);
    const int64_t last_panel = plan.first_panel(item.panel_part + 1);
    const int64_t first_block = item.chunk * plan.blocks_of_chunk;
    const int64_t last_pixel = smaller(plan.pixels, (first_block + plan.blocks_of_chunk) * plan.block);
    for (int64_t pixel = first_block * plan.block; pixel < last_pixel; pixel += plan.block) {
      const int64_t pixels = pixels_at(pixel);
      pack_rows(item, pixel, pixels, packed_rows);
      const int64_t next_pixel = smaller(last_pixel, pixel + plan.block);
      const Ahead next_rows = rows_ahead(item, next_pixel);
      const Ahead next_panels = panels_ahead(item, next_pixel, first_panel, last_panel);
      // Memory that is read from one end to the other comes fastest, but has to wait somewhere.
      const bool by_blocks = next_panels.rows * next_panels.bytes <= most_waiting_bytes;
      for (int64_t index = first_panel; index < last_panel; ++index) {
        const Ahead next_panel = by_blocks ? next_panels.slice(index - first_panel, last_panel - first_panel)
                                 : index + 1 < last_panel
                                     ? panels_ahead(item, pixel, index + 1, index + 2)
                                     : panels_ahead(item, next_pixel, first_panel, first_panel + 1);
        const int64_t width = vectors_of(index);
        const int64_t column = plan.first_vector(index) * lanes;
        const bool is_whole = column + width * lanes <= plan.vector_side.channels;
        PanelTile<T> tile;
        tile.a_row = 1;
        tile.b = vector_at(item.group, pixel, index);
        tile.b_term = plan.vector_side.pixel_stride;
        tile.panel = panel;
        tile.terms = pixels;
        tile.chain = plan.chain;
        tile.accumulate = pixel > first_block * plan.block;
        if (!is_whole)
          pack_part(tile.b, tile.b_term, pixels, width, plan.vector_side.channels - column, panel);
        for (int64_t t = 0; t < tiles; ++t) {
          const int64_t row = plan.first_row(first_tile + t);
          const int64_t height = plan.first_row(first_tile + t + 1) - row;
          tile.a = packed_rows + (row - first_row) * pixels;
          tile.a_term = height;
          if (plan.is_direct) {
            tile.c_row = plan.row_side.weight_stride;
            tile.c = gradient + item.group * plan.weight_group + row * tile.c_row + column;
          } else {
            tile.c_row = plan.partial_row;
            tile.c = partial_at(item.chunk, item.group, row) + column;
          }
          tile.next_b = next_panel.slice(t, tiles);
          tile.next_a =
              next_rows.slice((index - first_panel) * tiles + t, (last_panel - first_panel) * tiles);
          const bool packs = is_whole && t == 0;
          (packs ? micro_kernel_of<T, true> : micro_kernel_of<T, false>)(height, width)(tile);
        }
      }
    }
  }

  // packed[tile][pixel][row of the tile], some pixels of all tiles at a time: neighbouring tiles share lines.
  void pack_rows(const Item& item, int64_t pixel, int64_t pixels, T* packed) const {
    constexpr int64_t together = 8;
    const T* from = rows_at(item, pixel);
    const int64_t first_tile = plan.first_tile(item.part);
    const int64_t last_tile = plan.first_tile(item.part + 1);
    const int64_t first_row = plan.first_row(first_tile);
    for (int64_t first = 0; first < pixels;
         first += together, from += together * plan.row_side.pixel_stride) {
      const int64_t count = smaller(together, pixels - first);
      for (int64_t tile = first_tile; tile < last_tile; ++tile) {
        const int64_t row = plan.first_row(tile) - first_row;
        const int64_t height = plan.first_row(tile + 1) - first_row - row;
        T* const to = packed + row * pixels + first * height;
        for (int64_t k = 0; k < count; ++k)
          copy_tile_row(from + row + k * plan.row_side.pixel_stride, height, to + k * height);
      }
    }
  }

  // The last panel of channels that do not fill its vectors.
  static void pack_part(const T* from, int64_t stride, int64_t pixels, int64_t width, int64_t channels,
                        T* panel) {
    for (int64_t k = 0; k < pixels; ++k, from += stride) {
      for (int64_t v = 0; v < width; ++v, panel += lanes) {
        store(panel, load(from + v * lanes, smaller(lanes, channels - v * lanes)));
      }
    }
  }

  // Adds up the chunks.
  void store_row(int64_t group, int64_t row) const {
    const int64_t step = partial_at(1, 0, 0) - partial_at(0, 0, 0);
    const T* const first = partial_at(0, group, row);
    T* const to = gradient + group * plan.weight_group + row * plan.row_side.weight_stride;
    for (int64_t c = 0; c < plan.vector_side.channels; c += lanes) {
      const int64_t count = smaller(lanes, plan.vector_side.channels - c);
      Vector<T> sum = load(first + c);
      for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) sum = add(sum, load(first + chunk * step + c));
      if (plan.vector_side.weight_stride == 1) {
        store(to + c, sum, count);
        continue;
      }
      T numbers[lanes];
      store(numbers, sum);
      for (int64_t i = 0; i < count; ++i) to[(c + i) * plan.vector_side.weight_stride] = numbers[i];
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
