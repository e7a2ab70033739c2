// How pixel_correlation.h cuts a problem, and the workspace that it needs.
#pragma once

#include <type_traits>

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/pixel_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PixelCorrelationPlan {
  using Real = Compute<T>;
  static constexpr int64_t block = channel_block<T>;

  bool is_forward;
  bool reads_in_place;  // where there is no padding, else by way of scratch
  bool writes_in_place;
  bool packs_in_tile;  // the weights, where no two tiles share them
  RowsAxis rows;       // of one class
  RowsAxis columns;
  int64_t row_classes = 1;  // rows that are so many apart form a class, which shares no lines with the others
  int64_t channels;
  int64_t blocks;
  int64_t part_blocks;  // blocks of channels in one tile
  int64_t parts;
  int64_t kernel_area;

  int64_t band;
  int64_t bands;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t line_pixels;

  int64_t workers_offset;  // the packed weights come first
  int64_t result_offset;   // in a worker's part, behind the lines
  int64_t packed_offset;
  int64_t worker_bytes;

  explicit PixelCorrelationPlan(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        reads_in_place(std::is_same_v<T, Real> &&
                       has_channels_innermost(is_forward ? p.input_strides : p.output_strides)),
        writes_in_place(std::is_same_v<T, Real> &&
                        has_channels_innermost(is_forward ? p.output_strides : p.input_strides)),
        rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        channels(p.in_channels),
        blocks(ceil_div(channels, block)),
        kernel_area(p.kernel.height * p.kernel.width) {
    const bool are_side_by_side = reads_in_place && writes_in_place;
    if (are_side_by_side && is_forward && rows.stride == 1 && rows.mode == PaddingMode::zeros) {
      row_classes = rows.dilation;
      rows = RowsAxis(ceil_div(rows.input, row_classes), ceil_div(rows.output, row_classes), rows.kernel, 1,
                      1, rows.before, rows.after, rows.mode);
    }
    const int64_t result_rows = is_forward ? rows.output : rows.input;
    const int64_t result_columns = is_forward ? columns.output : columns.input;
    constexpr int64_t widest = 64;
    column_tiles = ceil_div(result_columns, widest);
    tile_columns = ceil_div(result_columns, column_tiles);
    if (column_tiles > 1) tile_columns = round_up(tile_columns, pixels_of_kernel);
    column_tiles = ceil_div(result_columns, tile_columns);
    line_pixels = extent(columns, tile_columns, pixels_of_kernel);
    constexpr int64_t scratch_bytes = 96 * 1024;
    const int64_t pixel_bytes =
        (is_forward ? p.input_strides : p.output_strides).column * static_cast<int64_t>(sizeof(T));
    // Lines of pixels that are read once by a row and need not stay in the L1 cache if the L2 cache, of 1024
    // sets of 8, keeps them for the next rows.
    const int64_t row_lines = extent(rows, rows_of_kernel, 1);
    const bool are_cached =
        row_lines * extent(columns, 1, pixels_of_kernel) <= cached_lines(pixel_bytes, 4096) ||
        (columns.kernel <= 3 && columns.dilation == 1 &&
         row_lines * line_pixels <= cached_lines(pixel_bytes, 65536));
    constexpr int64_t enough_columns = 3 * pixels_of_kernel;  // for some not to see the padding
    reads_in_place = reads_in_place && are_cached;
    const bool is_low = reads_in_place && are_side_by_side && tile_columns >= enough_columns;
    const int64_t highest = is_low ? smaller(64, 4 * rows.kernel) : 64;
    band = smaller(result_rows, highest);
    while (band > 2 && lines_bytes() + result_bytes() > scratch_bytes) --band;
    bands = ceil_div(result_rows, band);
    band = smaller(result_rows, round_up(ceil_div(result_rows, bands), rows_of_kernel));
    bands = ceil_div(result_rows, band);
    // Several blocks of channels in one tile where they lie side by side, because memory is read and written
    // fastest in its own order; but weights should stay in the L1 cache and copied lines in the L2 cache.
    part_blocks = 1;
    if (are_side_by_side) {
      constexpr int64_t line_bytes = block * static_cast<int64_t>(sizeof(Real));
      constexpr int64_t weights_bytes = 10 * 1024;
#if defined(__AVX512F__)
      constexpr int64_t lines_of_part = 384 * 1024;
#else
      constexpr int64_t lines_of_part = 192 * 1024;
#endif
      constexpr int64_t enough_tiles = 24;
      const int64_t copied_bytes = smaller(extent(rows, band, 1), is_forward ? rows.input : rows.output) *
                                   smaller(line_pixels, is_forward ? columns.input : columns.output) *
                                   line_bytes;
      int64_t most = smaller(16, weights_bytes / (kernel_area * line_bytes));
      most = smaller(most, lines_of_part / larger(1, reads_in_place ? lines_bytes() : copied_bytes));
      const int64_t tiles = p.batch * row_classes * bands * column_tiles;
      parts = larger(ceil_div(blocks, larger(1, most)), smaller(blocks, ceil_div(enough_tiles, tiles)));
      part_blocks = ceil_div(blocks, parts);
    }
    parts = ceil_div(blocks, part_blocks);
    packs_in_tile = p.batch * row_classes * bands * column_tiles == 1;

    Carver shared;
    shared.take(packs_in_tile ? 0 : blocks * packed_size(), sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    own.take(larger(part_blocks * lines_bytes(), kernel_area * block * static_cast<int64_t>(sizeof(Real))),
             1);
    result_offset = own.take(result_bytes(), 1);
    packed_offset = own.take(packs_in_tile ? part_blocks * packed_size() : 0, sizeof(Real));
    worker_bytes = own.bytes;
  }

  // Source positions along an axis that `count` results read, when they are computed `together` at a time.
  int64_t extent(const RowsAxis& axis, int64_t count, int64_t together) const {
    const int64_t reach = (axis.kernel - 1) * axis.dilation;
    if (is_forward) return (round_up(count, together) - 1) * axis.stride + reach + 1;
    // Results of one residue lie on all these positions, or on all but the first, and are rounded up from
    // there.
    const int64_t positions = ceil_div(count - 1, axis.stride) + 1;
    const int64_t all = round_up(positions, together);
    const int64_t all_but_first = axis.stride == 1 ? 0 : 1 + round_up(positions - 1, together);
    return larger(all, all_but_first) + reach / axis.stride;
  }
  // How many cache lines of pixels that are so many bytes apart fit into a cache of ways of so many bytes.
  static int64_t cached_lines(int64_t pixel_bytes, int64_t way_bytes) {
    constexpr int64_t ways = 8;
    int64_t bytes = 64;
    while (bytes < way_bytes && pixel_bytes % (2 * bytes) == 0) bytes *= 2;
    return way_bytes / bytes * ways;
  }
  int64_t lines_bytes() const {
    return extent(rows, band, 1) * line_pixels * block * static_cast<int64_t>(sizeof(Real));
  }
  int64_t result_bytes() const {
    return writes_in_place ? 0 : band * tile_columns * block * static_cast<int64_t>(sizeof(Real));
  }
  // The taps, the bias, and a vector that is not zero if a weight is infinite or NaN.
  int64_t packed_size() const { return (kernel_area + 2) * block; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
