// How a correlation with pixels in the lanes is cut, and the workspace that it needs. See correlation.h.
#pragma once

#include "cpu/implicit_gemm/correlation.h"
#include "cpu/panel_gemm/micro_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Whether the gradient of the input of a kernel that steps by its own size is that of a 1x1 kernel, whose
// result channels (c, i, j) are those of each window: weights lie in this order, and windows side by side.
inline bool has_windows_side_by_side(const ConvProblem& p) {
  const Size2& kernel = p.kernel;
  const WeightStrides& strides = p.weight_strides;
  return p.pass == Pass::grad_input && kernel.height * kernel.width > 1 && p.stride.height == kernel.height &&
         p.stride.width == kernel.width && p.dilation.height == 1 && p.dilation.width == 1 &&
         p.padding.top + p.padding.bottom + p.padding.left + p.padding.right == 0 &&
         p.input.height == p.output.height * kernel.height &&
         p.input.width == p.output.width * kernel.width &&
         strides.in_channel == kernel.height * kernel.width && (kernel.width == 1 || strides.column == 1) &&
         (kernel.height == 1 || strides.row == kernel.width);
}

inline ConvProblem with_windows_as_channels(const ConvProblem& p) {
  if (!has_windows_side_by_side(p)) return p;
  ConvProblem windows = p;
  windows.in_channels *= p.kernel.height * p.kernel.width;
  windows.kernel = windows.stride = {1, 1};
  windows.input = p.output;
  windows.input_strides = p.output_strides;
  windows.weight_strides.in_channel = 1;
  return windows;
}

// The result positions that read something, and what they read.
struct ResultGrid {
  Axis rows;
  Axis columns;

  int64_t pixels() const { return rows.count * columns.count; }
  int64_t taps() const { return rows.taps * columns.taps; }

  // Each result reads its own position, so that strips of the source are read where they lie.
  bool reads_itself() const {
    return taps() == 1 && rows.count == 1 && columns.stride == 1 && columns.offset == 0 &&
           columns.count == columns.source_size && rows.offset == 0;
  }

  // All results, one row after the other.
  bool is_whole(const Correlation& c) const {
    return rows.spacing == 1 && columns.spacing == 1 && rows.first == 0 && columns.first == 0 &&
           rows.count == (c.is_forward ? c.rows.p.output : c.rows.p.input) &&
           columns.count == (c.is_forward ? c.columns.p.output : c.columns.p.input) &&
           (rows.count == 1 || c.result_strides.row == columns.count);
  }
};

// Neighbouring pixels of a strip that a tap reads from neighbouring places, or from the padding.
struct PixelRun {
  static constexpr int64_t padding = -1;
  static constexpr int64_t end_of_tap = -2;  // no run

  int64_t to;    // in a line of the panel
  int64_t from;  // in a plane, or one of the two above
  int64_t length;
};

template <class T>
struct PanelPlan {
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t most_width = most_vectors_of_tile * lanes;
  // Weights of an item, in the L2 cache beside a panel.
#if defined(__AVX512F__)
  static constexpr int64_t most_weights = 512 * 1024 / sizeof(T);
#else
  static constexpr int64_t most_weights = 256 * 1024 / sizeof(T);
#endif
  static constexpr int64_t most_block_terms = 512;
  static constexpr int64_t most_rows_of_part = 512;
  // A pixel is in one run, and padding before or behind it may be one.
  static constexpr int64_t most_runs_of_tap = most_width;

  Correlation c;
  ResultGrid grid;
  int64_t terms;
  int64_t chain;
  int64_t tiles;   // that the result channels are cut into
  int64_t parts;   // that the tiles are cut into
  int64_t strips;  // that the pixels of all images are cut into
  int64_t block_channels;
  bool packs_weights;
  bool writes_in_place;  // results lie like the strips
  bool weaves_windows;   // whose numbers are result channels here: see with_windows_as_channels
  bool weaves_tiles;     // each by itself
  bool fills_gaps;       // zeros between results that are two columns apart are written with them

  int64_t weights_offset;
  int64_t workers_offset;
  int64_t panel_offset;  // in a worker's part
  int64_t results_offset;
  int64_t runs_offset;
  int64_t worker_bytes;

  PanelPlan(const ConvProblem& p, int workers)
      : c(with_rows_joined(with_windows_as_channels(p))),
        grid{c.rows.at(0), c.columns.at(0)},
        terms(c.source_channels * grid.taps()),
        tiles(ceil_div(c.result_channels, most_rows_of_tile)),
        strips(ceil_div(vectors(), most_vectors_of_tile)) {
    const int64_t most_channels = larger(1, most_block_terms / grid.taps());
    block_channels = ceil_div(c.source_channels, ceil_div(c.source_channels, most_channels));
    chain = chain_of(terms);

    const int64_t area = c.rows.p.kernel * c.columns.p.kernel;
    const bool are_terms = c.weight_source_stride == area &&
                           (c.columns.p.kernel == 1 || c.weight_strides.column == 1) &&
                           (c.rows.p.kernel == 1 || c.weight_strides.row == c.columns.p.kernel);
    constexpr int64_t worth_packing = 4;  // strips that read them; in place, each line serves one term
    const bool are_rows = grid.taps() == 1 && c.weight_result_stride == 1;
    packs_weights = c.is_forward ? !are_terms : !are_rows || strips >= worth_packing;
    weaves_windows = has_windows_side_by_side(p);
    writes_in_place = !weaves_windows && grid.is_whole(c);
    const int64_t end_of_pairs = 2 * grid.columns.count;
    fills_gaps = grid.columns.spacing == 2 && grid.columns.first == 0 &&
                 (c.columns.p.input == end_of_pairs || c.columns.p.input == end_of_pairs - 1);

    // Each part of the result channels packs its strips again.
    const bool packs_for_nothing = grid.reads_itself();
    const int64_t wanted =
        ceil_div((packs_for_nothing ? 8 : 2) * int64_t{workers}, larger(1, c.groups * strips));
    constexpr int64_t fewest_tiles = 4;
    parts = packs_for_nothing ? ceil_div(c.result_channels * terms, most_weights) : 1;
    parts = larger(1, smaller(larger(parts, wanted), tiles / fewest_tiles));
    parts = larger(parts, ceil_div(c.result_channels, most_rows_of_part));
    // Else all rows of a part are woven at its end, and no row of a window may be in two.
    const int64_t height = c.result_channels / tiles;
    weaves_tiles = weaves_windows && c.result_channels % tiles == 0 && height % p.kernel.width == 0;
    if (weaves_windows && !weaves_tiles) parts = 1;

    Carver shared;
    weights_offset = shared.take(packs_weights ? c.groups * c.result_channels * terms : 0, sizeof(T));
    workers_offset = shared.bytes;
    Carver own;
    // A vector may be written past the last place.
    panel_offset = own.take(block_channels * grid.taps() * most_width + lanes, sizeof(T));
    results_offset = own.take(ceil_div(tiles, parts) * most_rows_of_tile * most_width, sizeof(T));
    runs_offset = own.take(grid.taps() * (most_runs_of_tap + 1), sizeof(PixelRun));
    worker_bytes = own.bytes;
  }

  int64_t pixels() const { return c.batch * grid.pixels(); }
  int64_t vectors() const { return ceil_div(pixels(), lanes); }
  int64_t first_vector(int64_t strip) const { return strip * vectors() / strips; }
  int64_t first_row(int64_t tile) const { return tile * c.result_channels / tiles; }
  int64_t first_tile(int64_t part) const { return part * tiles / parts; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

 private:
  // F.conv2d adds up one chain where there is one tap, and often eight otherwise.
  int64_t chain_of(int64_t all) const {
    int64_t most = grid.taps() > 1 ? sum_shape(all, Pass::forward).chain : all < 512 ? 64 : 128;
    while (most < 128 && most * most < all) most *= 2;
    return most;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
