// The problem by the roles that its tensors play here, and how it is cut. Forward and the gradient of the
// input are the same correlation of a source with 3 x 3 weights; for the gradient the taps are flipped and
// channels change roles.
#pragma once

#include "core/padding.h"
#include "cpu/blocking.h"
#include "cpu/simd.h"

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

  // Of a phase: where position q + t is read from; -1: a zero. Positions that only outputs past the last one
  // would read are zeros, too.
  int64_t source(int64_t position) const {
    return position < results + 2 ? padded_source(position * step + offset, sources, mode) : -1;
  }
};

// Three neighbouring taps of an axis. A kernel with more is cut into such blocks, whose results are added up;
// the last one ends with the kernel, and the taps that it shares with the one before are zeros in it.
struct TapBlock {
  int64_t first;
  int64_t shared;

  static int64_t count(int64_t taps) { return ceil_div(taps, 3); }
  static TapBlock at(int64_t index, int64_t taps) {
    const int64_t first = smaller(3 * index, taps - 3);
    return {first, 3 * index - first};
  }
};

struct KernelBlock {
  TapBlock rows;
  TapBlock columns;

  static int64_t count(const Size2& kernel) {
    return TapBlock::count(kernel.height) * TapBlock::count(kernel.width);
  }
  static KernelBlock at(int64_t index, const Size2& kernel) {
    const int64_t across = TapBlock::count(kernel.width);
    return {TapBlock::at(index / across, kernel.height), TapBlock::at(index % across, kernel.width)};
  }
  bool shares(int64_t row, int64_t column) const { return row < rows.shared || column < columns.shared; }
};

// One block of the kernel, whose taps are counted from here on.
struct Correlation {
  bool is_forward;
  int64_t batch;
  int64_t groups;
  int64_t source_channels;  // of one group
  int64_t result_channels;
  ImageStrides source_strides;
  ImageStrides result_strides;
  KernelBlock block;
  Side rows;
  Side columns;

  // Of the weights, in elements. Tap (0, 0) is `first_tap` away from the first element.
  int64_t weight_group_stride;
  int64_t weight_source_stride;
  int64_t weight_result_stride;
  int64_t first_tap;
  int64_t tap_row_stride;
  int64_t tap_column_stride;

  int64_t result_numbers() const { return batch * groups * result_channels * rows.results * columns.results; }

  Correlation(const ConvProblem& p, const KernelBlock& taps)
      : is_forward(p.pass == Pass::forward),
        batch(p.batch),
        groups(p.groups),
        source_channels(is_forward ? in_channels_per_group(p) : out_channels_per_group(p)),
        result_channels(is_forward ? out_channels_per_group(p) : in_channels_per_group(p)),
        source_strides(is_forward ? p.input_strides : p.output_strides),
        result_strides(is_forward ? p.output_strides : p.input_strides),
        block(taps),
        weight_group_stride(out_channels_per_group(p) * p.weight_strides.out_channel),
        weight_source_stride(is_forward ? p.weight_strides.in_channel : p.weight_strides.out_channel),
        weight_result_stride(is_forward ? p.weight_strides.out_channel : p.weight_strides.in_channel),
        tap_row_stride(is_forward ? p.weight_strides.row : -p.weight_strides.row),
        tap_column_stride(is_forward ? p.weight_strides.column : -p.weight_strides.column) {
    const Size2 last{p.kernel.height - 1, p.kernel.width - 1};
    first_tap = block.rows.first * tap_row_stride + block.columns.first * tap_column_stride;
    if (is_forward) {
      rows = {p.output.height, p.input.height, -p.padding.top, p.padding_mode, p.dilation.height};
      columns = {p.output.width, p.input.width, -p.padding.left, p.padding_mode, p.dilation.width};
    } else {
      first_tap -= last.height * tap_row_stride + last.width * tap_column_stride;
      rows = {p.input.height, p.output.height, p.padding.top - last.height * p.dilation.height,
              PaddingMode::zeros, p.dilation.height};
      columns = {p.input.width, p.output.width, p.padding.left - last.width * p.dilation.width,
                 PaddingMode::zeros, p.dilation.width};
    }
    rows.offset += block.rows.first * rows.step;
    columns.offset += block.columns.first * columns.step;
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

// Tiles of 2 x 2 or 4 x 4 result pixels, counted along the rows of a phase, one phase and one image after the
// other. All phases have as many as the first.
struct TileGrid {
  static constexpr int64_t columns_of_segment = 64;

  int64_t row_phases;
  int64_t column_phases;
  int64_t tile_rows;
  int64_t tile_columns;
  int64_t tiles_of_segment;  // at most
  int64_t tiles;             // of all images

  TileGrid(int64_t batch, const Side& rows, const Side& columns, int64_t side)
      : row_phases(smaller(rows.step, larger(1, rows.results))),
        column_phases(smaller(columns.step, larger(1, columns.results))),
        tile_rows(ceil_div(rows.of_phase(0).results, side)),
        tile_columns(ceil_div(columns.of_phase(0).results, side)),
        tiles_of_segment(columns_of_segment / side),
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

// The block of a product that stays in registers: tiles x result channels.
#if defined(__AVX512F__)
constexpr int64_t block_rows = 12;
constexpr int64_t cache_bytes = 400 << 10;  // of L2, for the transformed inputs of a block of tiles
#elif defined(__aarch64__)
constexpr int64_t block_rows = 8;
constexpr int64_t cache_bytes = 200 << 10;
#elif defined(__AVX2__)
constexpr int64_t block_rows = 6;
constexpr int64_t cache_bytes = 200 << 10;
#else
constexpr int64_t block_rows = 4;
constexpr int64_t cache_bytes = 200 << 10;
#endif
constexpr int64_t block_vectors = 2;

template <class Real>
constexpr int64_t panel = block_vectors * Vector<Real>::lanes;  // result channels of a block

// Numbers of a line of pixels: see lines.h.
template <class Real>
constexpr int64_t line_numbers =
    (TileGrid::columns_of_segment + 2 + Vector<Real>::lanes) * Vector<Real>::lanes;

// Source channels that a cache line holds: transformed inputs[product][line][tile][channel of line].
template <class Real>
constexpr int64_t line_channels = 64 / static_cast<int64_t>(sizeof(Real));

// Rounded up to an odd number of cache lines, so that the same place of all planes is not in the same few
// sets of the cache.
template <class Real>
constexpr int64_t odd_lines(int64_t numbers) {
  return (ceil_div(numbers, line_channels<Real>) | 1) * line_channels<Real>;
}

// Terms of a sum that are added up in one register before the next chain starts from zero. Rounding errors
// grow with the length of the chains: with 64, the rms error was 1.24 times that of F.conv2d at its best.
constexpr int64_t chain_terms = 32;
// Source channels whose weights are transformed at a time, where that is done on the fly. Whole chains.
constexpr int64_t packed_terms = 64;

// Sizes that decide which data is in which cache, and the workspace. None of them changes a result.
//
// There are two orders. With many tiles, all weights are transformed first, and a work item transforms a
// block of tiles and multiplies it with all of them. With few tiles, all of those are transformed first, and
// a work item transforms the weights of some result channels, a few source channels at a time:
// the transformed weights, 16/9 times as many as the weights themselves, are never in memory as a whole.
template <class Tile, class Real>
struct Plan : TileGrid {
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t products = Tile::inputs * Tile::inputs;
  static constexpr int64_t few_tiles = 192;
  static constexpr int64_t channels_of_pass = products > 16 ? 32 : 64;
  static constexpr int64_t most_panels_of_pass =
      channels_of_pass > panel<Real> ? channels_of_pass / panel<Real> : 1;
  static constexpr int64_t tiles_of_transform = 16;  // of a work item that only transforms tiles

  int64_t panels;          // of result channels, of one group
  bool tiles_first;        // the second of the two orders
  int64_t tiles_of_block;  // at most
  int64_t panels_of_pass;  // whose sums are in the cache at a time
  int64_t inputs_step;     // numbers from one line of source channels to the next
  int64_t inputs_plane;    // from one of the products to the next
  int64_t sums_plane;      // the same of sums[panel][product][tile][channel of panel]
  int64_t weights_of_panel;

  int64_t flags_offset;
  int64_t inputs_offset;   // shared if tiles_first, else in a worker's part
  int64_t weights_offset;  // the other way round
  int64_t workers_offset;
  int64_t sums_offset;  // in a worker's part
  int64_t lines_offset;
  int64_t spread_offset;
  int64_t worker_bytes;

  explicit Plan(const Correlation& c)
      : TileGrid(c.batch, c.rows, c.columns, Tile::outputs),
        panels(ceil_div(c.result_channels, panel<Real>)),
        tiles_first(tiles <= few_tiles && tiles < c.result_channels),
        panels_of_pass(smaller(panels, most_panels_of_pass)) {
    const int64_t input_lines = ceil_div(c.source_channels, line_channels<Real>);
    const int64_t wanted = cache_bytes / (products * input_lines * 64) / block_rows * block_rows;
    tiles_of_block = tiles_first ? tiles : smaller(tiles, larger(48, smaller(wanted, few_tiles)));
    inputs_step = odd_lines<Real>(tiles_of_block * line_channels<Real>);
    inputs_plane = odd_lines<Real>(input_lines * inputs_step);
    sums_plane = odd_lines<Real>(tiles_of_block * panel<Real>);
    weights_of_panel = products * panel<Real> * (tiles_first ? packed_terms : c.source_channels);

    int64_t bytes = 0;
    const auto take = [&bytes](int64_t numbers) {
      const int64_t offset = bytes;
      bytes += round_up(numbers * static_cast<int64_t>(sizeof(Real)), 64);
      return offset;
    };
    flags_offset = take(c.batch);
    if (tiles_first) {
      inputs_offset = take(c.groups * products * inputs_plane);
    } else {
      weights_offset = take(c.groups * panels * weights_of_panel);
    }
    workers_offset = bytes;
    bytes = 0;
    if (tiles_first) {
      weights_offset = take(panels_of_pass * weights_of_panel);
    } else {
      inputs_offset = take(products * inputs_plane);
    }
    sums_offset = take(panels_of_pass * products * sums_plane);
    lines_offset = take(Tile::inputs * line_numbers<Real>);
    spread_offset = take(2 * larger(tiles_of_block, tiles_of_transform) * lanes);
    worker_bytes = bytes;
  }

  int64_t workspace_bytes(int64_t workers) const { return workers_offset + workers * worker_bytes; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
