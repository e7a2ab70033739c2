// How the gradient of the weight is cut, and the workspace that it needs. See weight_gradient.h.
#pragma once

#include <type_traits>

#include "cpu/implicit_gemm/band.h"
#include "cpu/implicit_gemm/padding_taps.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The pixels of the batch, cut into blocks: whole small images, whole rows of one image, or pieces of a row.
struct PixelBlocks {
  struct Block {
    int64_t image;
    int64_t images;
    int64_t row;
    int64_t rows;
    int64_t column;
    int64_t columns;

    int64_t pixels() const { return images * rows * columns; }
  };

  int64_t batch;
  int64_t height;
  int64_t width;
  int64_t images;   // of a block
  int64_t rows;     // of a block
  int64_t columns;  // of a block
  int64_t across;   // blocks from one end of a row to the other
  int64_t of_image;
  int64_t count;

  // Blocks of about equal size, of `most` pixels at most; pieces of a row begin at multiples of `step`.
  PixelBlocks(int64_t all_images, int64_t image_height, int64_t image_width, int64_t most, int64_t step)
      : batch(all_images), height(image_height), width(image_width) {
    const auto evenly = [](int64_t all, int64_t at_most) {
      return larger(1, ceil_div(all, larger(1, ceil_div(all, larger(1, at_most)))));
    };
    columns = evenly(width, most);
    if (columns < width) columns = smaller(round_up(columns, step), most / step * step);
    rows = columns < width ? 1 : evenly(height, most / columns);
    images = rows < height || columns < width ? 1 : evenly(batch, most / (rows * columns));
    across = larger(1, ceil_div(width, columns));
    of_image = larger(1, across * ceil_div(height, rows));
    count = height * width == 0 ? 0 : ceil_div(batch, images) * of_image;
  }

  int64_t most_pixels() const { return images * rows * columns; }
  Block at(int64_t block) const {
    const int64_t image = block / of_image * images;
    const int64_t row = block % of_image / across * rows;
    const int64_t column = block % across * columns;
    return {image,  smaller(images, batch - image),  row, smaller(rows, height - row),
            column, smaller(columns, width - column)};
  }
};

// How the lanes' operand is made of the input.
enum class PanelSource {
  pixels,    // a 1x1 kernel: channels_last pixels as they lie
  planes,    // a 1x1 kernel: contiguous planes, transposed
  patches,   // channels_last: patches are written out
  lines,     // contiguous: terms (c, i, j) or (i, j, c), transposed from the shifted lines of a band
  channels,  // channels in the lanes, copied once for all taps
};

template <class T>
struct WeightGradientPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  // What an item keeps in the L2 cache, at most: its panels, and what it packs of the gradient of the output.
  static constexpr int64_t most_lines = 40 * 1024 / sizeof(Real);
#if defined(__AVX512F__)
  static constexpr int64_t most_panels = 448 * 1024 / sizeof(Real);
  static constexpr int64_t most_outputs = 256 * 1024 / sizeof(Real);
#else
  static constexpr int64_t most_panels = 192 * 1024 / sizeof(Real);
  static constexpr int64_t most_outputs = 128 * 1024 / sizeof(Real);
#endif

  bool is_swapped;
  ConvProblem problem;  // with input and output in each other's place if they are swapped
  Axis rows;
  Axis columns;
  int64_t input_channels;  // of one group
  int64_t taps;
  int64_t terms;
  int64_t channels;              // output channels of one group
  bool channels_are_neighbours;  // channels_last input
  PanelSource source;
  bool all_lines;     // of the few channels' bands, filled once for all panels
  bool by_channels;   // a panel holds channels, and each tap reads it shifted; else it holds terms
  bool taps_fastest;  // terms are (c, i, j), else (i, j, c)
  int64_t tile_height;
  int64_t tile_vectors;
  int64_t tile_width;
  PixelBlocks blocks;
  bool skips_padding;      // each tap is multiplied only with the pixels that read the source by it
  bool has_row_tables;     // a table of those for each row of taps; else rows of a block are left out
  bool has_column_tables;  // a table for each column of taps
  int64_t chain;           // at most
  bool is_direct;          // tiles are stored to the result itself
  bool outputs_in_place;
  bool outputs_by_rows;  // [channel][pixel], else packed in groups of channels, [pixel][channel of the group]
  int64_t outputs_group;

  int64_t panels;          // of all channels or terms
  int64_t panel_taps;      // that read a panel: all taps if by_channels, else 1
  int64_t panel_places;    // of one image
  int64_t panel_stride;    // from place to place
  int64_t panel_step;      // from panel to panel
  int64_t panels_of_item;  // at most
  int64_t outputs_of_item;
  // That are multiplied with a panel while it is in the L1 cache, and whose part of the result lies in few
  // pages.
  int64_t rows_at_a_time;
  int64_t chunks;
  int64_t blocks_of_chunk;

  int64_t partial_stride;
  int64_t outputs_stride;
  int64_t partials_offset;
  int64_t terms_offset;
  int64_t workers_offset;
  int64_t lines_offset;  // in a worker's part
  int64_t panels_offset;
  int64_t outputs_offset;
  int64_t worker_bytes;

  explicit WeightGradientPlan(const ConvProblem& original)
      : is_swapped(lies_better_swapped(original)),
        problem(is_swapped ? swapped(original) : original),
        rows(AxisClasses(problem_rows(problem), true).at(0)),
        columns(AxisClasses(problem_columns(problem), true).at(0)),
        input_channels(in_channels_per_group(problem)),
        taps(problem.kernel.height * problem.kernel.width),
        terms(input_channels * taps),
        channels(out_channels_per_group(problem)),
        blocks(0, 0, 0, 1, 1) {
    const ConvProblem& p = problem;
    const bool is_flat = flatten_both(p);
    const int64_t pixels = p.batch * rows.count * columns.count;
    choose_source(p, is_flat, pixels);
    choose_tile(by_channels ? input_channels : terms);
    // Of planes that begin with a line of the cache, blocks do, too: a vector then lies in one line.
    const bool is_aligned = source == PanelSource::planes && p.input_strides.channel % lanes == 0;
    blocks = PixelBlocks(p.batch, rows.count, columns.count, most_pixels_of_block(tile_vectors),
                         is_aligned ? lanes : 1);
    const int64_t block = blocks.most_pixels();
    chain = ceil_div(block, ceil_div(block, sum_shape(pixels, Pass::grad_weight).chain));

    choose_tables();

    const Band band(rows, columns, 0, blocks.rows, 0, blocks.columns);
    all_lines = input_channels * band.channel_stride <= most_lines;
    panel_places = source == PanelSource::channels ? band.numbers()
                   : source == PanelSource::lines  ? band.places()
                                                   : blocks.rows * blocks.columns;
    panels = ceil_div(by_channels ? input_channels : terms, tile_width);
    panel_taps = by_channels ? taps : 1;
    panels_of_item = most_panels / (blocks.images * panel_places * tile_width);
    panels_of_item = larger(1, smaller(panels, panels_of_item));
    // Patches are written side by side and in runs, of which the last one may end up to a vector late.
    const bool side_by_side = source == PanelSource::patches;
    panel_stride = side_by_side ? spread_stride<Real>(panels_of_item * tile_width) : tile_width;
    panel_step = side_by_side ? tile_width : blocks.images * panel_places * tile_width;

    outputs_by_rows = p.output_strides.column == 1 || p.output_strides.channel != 1;
    outputs_in_place = std::is_same_v<T, Real> && reads_outputs_in_place(p);
    outputs_group = choose_group();
    rows_at_a_time = larger(1, 72 / outputs_group) * outputs_group;
    outputs_of_item = larger(outputs_group, most_outputs / block / outputs_group * outputs_group);
    outputs_of_item = smaller(channels, outputs_of_item);

    choose_chunks(p.groups, pixels);
    is_direct = std::is_same_v<T, Real> && chunks == 1 && lies_as_terms(p.weight_strides, p.kernel);

    partial_stride = round_up(terms, lanes);
    // Vectors may be written past the last channel of a group.
    outputs_stride = outputs_by_rows ? spread_stride<Real>(block) : block * outputs_group + lanes;
    Carver shared;
    partials_offset =
        shared.take(is_direct ? 0 : chunks * p.groups * channels * partial_stride + lanes, sizeof(Real));
    terms_offset = shared.take(2 * tables() * block + most_tile_vectors, sizeof(int32_t));
    workers_offset = shared.bytes;
    Carver own;
    const int64_t packed = outputs_by_rows ? outputs_of_item : ceil_div(outputs_of_item, outputs_group);
    // Vectors may be read and written past the last place.
    lines_offset =
        own.take(needs_lines() ? channels_of_lines() * band.channel_stride + lanes : 0, sizeof(Real));
    panels_offset = own.take(side_by_side ? block * panel_stride : panels_of_item * panel_step, sizeof(Real));
    outputs_offset = own.take(outputs_in_place ? 0 : packed * outputs_stride, sizeof(Real));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  // Of pixels: all of a block, then those of each tap.
  int64_t tables() const { return 1 + (skips_padding ? row_tables() * column_tables() : 0); }
  int64_t row_tables() const { return has_row_tables ? rows.taps : 1; }
  int64_t column_tables() const { return has_column_tables ? columns.taps : 1; }

  // Are the weights a matrix of rows [output channel] with the terms side by side, in the order of ours?
  bool lies_as_terms(const WeightStrides& strides, const Size2& kernel) const {
    const int64_t tap_step = taps_fastest ? 1 : input_channels;
    const auto fits = [](int64_t size, int64_t stride, int64_t wanted) {
      return size == 1 || stride == wanted;
    };
    return fits(input_channels, strides.in_channel, taps_fastest ? taps : 1) &&
           fits(kernel.width, strides.column, tap_step) &&
           fits(kernel.height, strides.row, tap_step * kernel.width);
  }

 private:
  double real_pixels = 1;  // the share of pairs of pixel and tap that do not read padding

  // The gradient of a 1x1 kernel is the same product with input and output in each other's place, transposed.
  // Of channels_last tensors, which are packed by copying either way, the lanes get the one with more
  // channels, if the other one would leave tiles of one or two vectors, which load more than they multiply.
  static bool lies_better_swapped(const ConvProblem& p) {
    const auto has_channels_last = [](const ImageStrides& strides) {
      return strides.channel == 1 && strides.column != 1;
    };
    const Padding& padding = p.padding;
    return p.groups == 1 && p.kernel.height * p.kernel.width == 1 && p.stride.height == 1 &&
           p.stride.width == 1 && padding.top == 0 && padding.bottom == 0 && padding.left == 0 &&
           padding.right == 0 && has_channels_last(p.input_strides) && has_channels_last(p.output_strides) &&
           p.in_channels <= 2 * lanes && 2 * p.in_channels <= p.out_channels;
  }

  static ConvProblem swapped(const ConvProblem& p) {
    ConvProblem other = p;
    other.in_channels = p.out_channels;
    other.out_channels = p.in_channels;
    other.input_strides = p.output_strides;
    other.output_strides = p.input_strides;
    other.weight_strides.in_channel = p.weight_strides.out_channel;
    other.weight_strides.out_channel = p.weight_strides.in_channel;
    return other;
  }

  // A 1x1 kernel that reads the images as they lie sees each as one long row.
  bool flatten_both(const ConvProblem& p) {
    Patches<T> inputs{nullptr, p.input_strides, p.batch, 1, rows, columns};
    if (p.output_strides.row != columns.count * p.output_strides.column || !flatten(inputs)) return false;
    rows = inputs.rows;
    columns = inputs.columns;
    return true;
  }

  // A panel stays in the L1 cache while it is multiplied with all rows: 3/4 of it, and 5/8 of the smaller one
  // of older CPUs.
  static int64_t most_pixels_of_block(int64_t vectors) { return smaller(320, 600 / vectors); }

  bool needs_lines() const {
    return source == PanelSource::lines || (source == PanelSource::channels && !channels_are_neighbours);
  }
  int64_t channels_of_lines() const {
    if (all_lines) return input_channels;
    if (by_channels || !taps_fastest) return smaller(input_channels, by_channels ? lanes : tile_width);
    return smaller(input_channels, (tile_width - 1 + taps - 1) / taps + 1);
  }

  void choose_tables() {
    constexpr double worth_skipping = 0.97;
    constexpr int64_t most_tables = 256;
    skips_padding = by_channels && real_pixels < worth_skipping;
    has_row_tables = blocks.images > 1;
    has_column_tables = blocks.across == 1;
    skips_padding = skips_padding && row_tables() * column_tables() <= most_tables;
  }

  void choose_source(const ConvProblem& p, bool is_flat, int64_t pixels) {
    const ImageStrides& strides = p.input_strides;
    channels_are_neighbours = strides.channel == 1 && (strides.column != 1 || p.input.width == 1);
    const auto is_step = [](int64_t size, int64_t stride, int64_t wanted) {
      return size == 1 || stride == wanted;
    };
    taps_fastest = taps > 1 && !channels_are_neighbours &&
                   is_step(input_channels, p.weight_strides.in_channel, taps) &&
                   is_step(p.kernel.width, p.weight_strides.column, 1);
    by_channels = false;
    if (is_flat && (channels_are_neighbours || strides.column == 1)) {
      source = channels_are_neighbours ? PanelSource::pixels : PanelSource::planes;
      return;
    }
    // In quarters of a cycle of one pixel: two products a cycle; a vector of a transposition takes as many
    // cycles as it has a third of lanes, one that is copied about three.
    const int64_t term_vectors = ceil_div(terms, lanes);
    const int64_t channel_vectors = ceil_div(input_channels, lanes);
    const int64_t transposed = 2 * lanes;
    const int64_t interleaved = 45 * lanes;
    int64_t by_terms = 2 * channels * term_vectors;
    real_pixels = taps == 1 || rows.mode != PaddingMode::zeros ? 1 : real_share(rows) * real_share(columns);
    int64_t shifted =
        static_cast<int64_t>(real_pixels * static_cast<double>(2 * channels * taps * channel_vectors));
    if (channels_are_neighbours) {
      by_terms += 12 * taps * channel_vectors;
      shifted += 16 * channel_vectors;
    } else {
      by_terms += transposed * term_vectors;
      shifted += 2 * transposed * channel_vectors;
      if (taps_fastest)
        shifted += interleaved * channels * channel_vectors * ceil_div(taps, lanes) / larger(1, pixels);
    }
    if (taps > 1 && shifted < by_terms) {
      source = PanelSource::channels;
      by_channels = true;
      taps_fastest = false;
    } else {
      source = channels_are_neighbours ? PanelSource::patches : PanelSource::lines;
    }
  }

  void choose_tile(int64_t tile_lanes) {
    const int64_t vectors = larger(1, ceil_div(tile_lanes, lanes));
    const auto cost_of = [](int64_t wide, int64_t high) {
      return wide * high == 0 ? 0 : 4 * larger(8, wide * high) + wide + high;
    };
    int64_t least = 0;
    for (int64_t wide = 1; wide <= most_tile_vectors; ++wide) {
      for (int64_t high = 1; high <= tile_rows(wide); ++high) {
        const int64_t across = vectors / wide;
        const int64_t rest = vectors % wide;
        const int64_t down = channels / high;
        const int64_t below = channels % high;
        const int64_t cost = across * (down * cost_of(wide, high) + cost_of(wide, below)) +
                             down * cost_of(rest, high) + cost_of(rest, below);
        if (least != 0 && cost >= least) continue;
        least = cost;
        tile_height = high;
        tile_vectors = wide;
        tile_width = wide * lanes;
      }
    }
  }

  // Tiles whose rows fill vectors, if they are few.
  int64_t choose_group() const {
    for (int64_t group = tile_height; group <= 64; group += tile_height) {
      if (group % lanes == 0) return group;
    }
    return larger(1, lanes / tile_height) * tile_height;
  }

  // Few rows of a tile should fall into the same sets of the cache.
  bool reads_outputs_in_place(const ConvProblem& p) const {
    const ImageStrides& strides = p.output_strides;
    if (strides.column > 1 && columns.count > 1) return false;
    const int64_t bytes = strides.channel * static_cast<int64_t>(sizeof(T));
    if (bytes != 0 && bytes % 2048 == 0 && blocks.most_pixels() > 16) return false;
    const int64_t reach =
        (blocks.images - 1) * strides.batch + (blocks.rows - 1) * strides.row + blocks.columns;
    return reach < INT32_MAX;
  }

  // Enough items for several threads, of results that are small; few enough that the partial results stay
  // small, and that a chunk is much more work than adding it up.
  void choose_chunks(int64_t groups, int64_t pixels) {
    constexpr int64_t wanted_items = 16;
    constexpr int64_t least_pixels = 768;
    constexpr int64_t most_numbers = int64_t{1} << 20;
    const int64_t items = larger(1, groups * panels * ceil_div(channels, rows_at_a_time));
    const int64_t numbers = larger(1, groups * terms * channels);
    chunks = 1;
    while (chunks * items < wanted_items && 2 * chunks * least_pixels <= pixels &&
           2 * chunks <= blocks.count && 2 * chunks * numbers <= most_numbers) {
      chunks *= 2;
    }
    blocks_of_chunk = larger(1, ceil_div(blocks.count, chunks));
    chunks = larger(1, ceil_div(blocks.count, blocks_of_chunk));
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
