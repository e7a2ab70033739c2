// The problem by the roles that its tensors play here, and how it is cut. Forward and the gradient of the
// input are the same correlation of a source with the weights; for the gradient the taps are flipped and
// channels change roles.
#pragma once

#include "core/padding.h"
#include "cpu/simd.h"
#include "cpu/winograd/kernel_blocks.h"
#include "cpu/winograd/tap_sizes.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// One axis: result position q and tap t read source position q + t * step + offset. A kernel with a dilation
// is one without on every step-th position, and that for each phase, the first of these positions.
struct Side {
  int64_t results;
  int64_t sources;
  int64_t offset;
  PaddingMode mode;
  int64_t step = 1;

  // The positions phase + q * step, counted by q.
  Side of_phase(int64_t phase) const {
    return {ceil_div(larger(0, results - phase), step), sources, offset + phase, mode, step};
  }

  // With the taps counted from this one on.
  Side from_tap(int64_t tap) const { return {results, sources, offset + tap * step, mode, step}; }

  // Of a phase: where position q + t is read from; -1: a zero. Positions that only outputs past the last one
  // would read are zeros, too.
  int64_t source(int64_t position) const {
    return position < results + 2 ? padded_source(position * step + offset, sources, mode) : -1;
  }
};

struct Correlation {
  bool is_forward;
  int64_t batch;
  int64_t groups;
  int64_t source_channels;  // of one group
  int64_t result_channels;
  ImageStrides source_strides;
  ImageStrides result_strides;
  Size2 kernel;
  Side rows;
  Side columns;

  // Of the weights, in elements.
  int64_t weight_group_stride;
  int64_t weight_source_stride;
  int64_t weight_result_stride;
  int64_t weight_row_stride;
  int64_t weight_column_stride;

  int64_t result_numbers() const { return batch * groups * result_channels * rows.results * columns.results; }

  explicit Correlation(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        batch(p.batch),
        groups(p.groups),
        source_channels(is_forward ? in_channels_per_group(p) : out_channels_per_group(p)),
        result_channels(is_forward ? out_channels_per_group(p) : in_channels_per_group(p)),
        source_strides(is_forward ? p.input_strides : p.output_strides),
        result_strides(is_forward ? p.output_strides : p.input_strides),
        kernel(p.kernel),
        weight_group_stride(out_channels_per_group(p) * p.weight_strides.out_channel),
        weight_source_stride(is_forward ? p.weight_strides.in_channel : p.weight_strides.out_channel),
        weight_result_stride(is_forward ? p.weight_strides.out_channel : p.weight_strides.in_channel),
        weight_row_stride(p.weight_strides.row),
        weight_column_stride(p.weight_strides.column) {
    if (is_forward) {
      rows = {p.output.height, p.input.height, -p.padding.top, p.padding_mode, p.dilation.height};
      columns = {p.output.width, p.input.width, -p.padding.left, p.padding_mode, p.dilation.width};
    } else {
      rows = {p.input.height, p.output.height, p.padding.top - (kernel.height - 1) * p.dilation.height,
              PaddingMode::zeros, p.dilation.height};
      columns = {p.input.width, p.output.width, p.padding.left - (kernel.width - 1) * p.dilation.width,
                 PaddingMode::zeros, p.dilation.width};
    }
  }
};

// Tiles that lie side by side in one phase of an image.
struct Segment {
  int64_t image;
  int64_t row_phase;
  int64_t column_phase;
  int64_t tile_row;
  int64_t tile_column;  // of the first
  int64_t tiles;
  int64_t begin;  // counted from the first tile of the block
};

// Tiles of a few result pixels, counted along the rows of a phase, one phase and one image after the
// other. All phases have as many as the first.
struct TileGrid {
  static constexpr int64_t columns_of_segment = 64;

  int64_t row_phases;
  int64_t column_phases;
  int64_t tile_rows;
  int64_t tile_columns;
  int64_t tiles_of_segment;  // at most
  int64_t tiles;             // of all images

  // Of `height` x `width` pixels.
  TileGrid(int64_t batch, const Side& rows, const Side& columns, int64_t height, int64_t width)
      : row_phases(smaller(rows.step, larger(1, rows.results))),
        column_phases(smaller(columns.step, larger(1, columns.results))),
        tile_rows(ceil_div(rows.of_phase(0).results, height)),
        tile_columns(ceil_div(columns.of_phase(0).results, width)),
        tiles_of_segment(columns_of_segment / width),
        tiles(batch * row_phases * column_phases * tile_rows * tile_columns) {}

  // Calls visit(segment) for the tiles [first, first + count).
  template <class Visit>
  CONVEXT_INLINE void for_each_segment(int64_t first, int64_t count, const Visit& visit) const {
    Segment segment;
    segment.tile_column = first % tile_columns;
    first /= tile_columns;
    segment.tile_row = first % tile_rows;
    first /= tile_rows;
    segment.begin = 0;
    while (segment.begin < count) {
      segment.column_phase = first % column_phases;
      segment.row_phase = first / column_phases % row_phases;
      segment.image = first / column_phases / row_phases;
      segment.tiles =
          smaller(smaller(tile_columns - segment.tile_column, tiles_of_segment), count - segment.begin);
      visit(segment);
      segment.begin += segment.tiles;
      segment.tile_column += segment.tiles;
      if (segment.tile_column == tile_columns) {
        segment.tile_column = 0;
        if (++segment.tile_row == tile_rows) {
          segment.tile_row = 0;
          ++first;
        }
      }
    }
  }
};

// Numbers of a line of pixels: see lines.h.
template <class Real>
constexpr int64_t line_numbers =
    (TileGrid::columns_of_segment + 2 + Vector<Real>::lanes) * Vector<Real>::lanes;

// Source channels whose taps weights.h reads at a time, all that are in the rows of a block of the kernel.
template <class Tile>
int64_t sources_at_a_time(const Size2& kernel) {
  constexpr int64_t most_taps = 768;
  return larger(1, smaller(16, most_taps / (Tile::Rows::taps * kernel.width)));
}

// Sizes that decide which data is in which cache, and the workspace. None of them changes a result.
//
// There are two orders. With many tiles, all weights are transformed first, and a work item transforms a
// block of tiles and multiplies it with all of them. With few tiles, all of those are transformed first, and
// a work item transforms the weights of some result channels, a few source channels at a time:
// the transformed weights, 16/9 times as many as the weights themselves, are never in memory as a whole.
//
// In both, blocks of the kernel are the outer loop of a sum, and source channels the inner one.
template <class Tile, class Real>
struct Plan : TileGrid {
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t products = Tile::products;
  static constexpr int64_t few_tiles = 192;
  static constexpr int64_t most_shared_bytes = int64_t{8}
                                               << 20;  // of the tiles of several blocks of the kernel
  static constexpr int64_t channels_of_pass = products > 16 ? 32 : products > 4 ? 64 : 128;
  static constexpr int64_t most_panels_of_pass =
      channels_of_pass > panel<Real> ? channels_of_pass / panel<Real> : 1;
  static constexpr int64_t tiles_of_transform = 16;  // of a work item that only transforms tiles

  KernelBlocks<Tile> blocks;
  int64_t panels;            // of result channels, of one group
  bool tiles_first;          // the second of the two orders
  int64_t tiles_of_block;    // at most
  int64_t panels_of_pass;    // whose sums are in the cache at a time
  int64_t inputs_step;       // numbers from one line of source channels to the next
  int64_t inputs_plane;      // from one of the products to the next
  int64_t sums_plane;        // the same of sums[panel][product][tile][channel of panel]
  int64_t weights_of_block;  // of the kernel, of one panel
  int64_t weights_of_panel;

  int64_t flags_offset;
  int64_t inputs_offset;   // shared if tiles_first, else in a worker's part
  int64_t weights_offset;  // the other way round
  int64_t ranges_offset;   // of taps, unless tiles_first
  int64_t workers_offset;
  int64_t sums_offset;  // in a worker's part
  int64_t lines_offset;
  int64_t spread_offset;
  int64_t taps_offset;
  int64_t sizes_offset;
  int64_t worker_bytes;

  explicit Plan(const Correlation& c)
      : TileGrid(c.batch, c.rows, c.columns, Tile::Rows::outputs, Tile::Columns::outputs),
        blocks(c.kernel),
        panels(ceil_div(c.result_channels, panel<Real>)),
        panels_of_pass(smaller(panels, most_panels_of_pass)) {
    const int64_t input_lines = ceil_div(c.source_channels, line_channels<Real>);
    const int64_t bytes_of_tile = products * input_lines * 64;
    tiles_first =
        tiles <= few_tiles && tiles < c.result_channels &&
        (blocks.size() == 1 || c.groups * blocks.size() * bytes_of_tile * tiles <= most_shared_bytes);
    const int64_t wanted = cache_bytes / bytes_of_tile / block_rows * block_rows;
    tiles_of_block = tiles_first ? tiles : smaller(tiles, larger(48, smaller(wanted, few_tiles)));
    inputs_step = odd_lines<Real>(tiles_of_block * line_channels<Real>);
    inputs_plane = odd_lines<Real>(input_lines * inputs_step);
    sums_plane = odd_lines<Real>(tiles_of_block * panel<Real>);
    weights_of_block = products * panel<Real> * (tiles_first ? packed_terms : c.source_channels);
    weights_of_panel = weights_of_block * (tiles_first ? 1 : blocks.size());

    Carver shared;
    flags_offset = shared.take(c.batch, sizeof(Real));
    if (tiles_first) {
      inputs_offset = shared.take(blocks.size() * c.groups * products * inputs_plane, sizeof(Real));
    } else {
      weights_offset = shared.take(c.groups * panels * weights_of_panel, sizeof(Real));
      ranges_offset = shared.take(c.groups * panels * blocks.rows.size(), sizeof(TapRange<Tile, Real>));
    }
    workers_offset = shared.bytes;
    Carver own;
    if (tiles_first) {
      weights_offset = own.take(panels_of_pass * weights_of_panel, sizeof(Real));
    } else {
      inputs_offset = own.take(products * inputs_plane, sizeof(Real));
    }
    sums_offset = own.take(panels_of_pass * products * sums_plane, sizeof(Real));
    lines_offset = own.take(Tile::Rows::inputs * line_numbers<Real>, sizeof(Real));
    spread_offset = own.take(2 * larger(tiles_of_block, tiles_of_transform) * lanes, sizeof(Real));
    taps_offset =
        own.take(sources_at_a_time<Tile>(c.kernel) * Tile::Rows::taps * c.kernel.width * lanes, sizeof(Real));
    sizes_offset = own.take(blocks.columns.size(), sizeof(TapSizes<Tile, Real>));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int64_t workers) const { return workers_offset + workers * worker_bytes; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
