// Forward and the gradient of the input of depthwise problems (one input and one output channel a group) with
// enough channels to fill vectors: each worker copies a block of channels of a band of pixels into scratch,
// padding resolved, widened and with the channels side by side, and correlates it with a block of the
// weights, transposed to [tap][channel].
#pragma once

#include <atomic>

#include "cpu/direct_rows/pixel_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class PixelCorrelation {
 public:
  using Real = Compute<T>;
  static constexpr int64_t block = channel_block<T>;

  PixelCorrelation(const PixelCorrelationPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                   void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        all_source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        all_result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        result_rows(plan.is_forward ? p.output.height : p.input.height),
        all_source_rows{plan.is_forward ? p.input.height : p.output.height,
                        plan.is_forward ? p.padding.top : 0, plan.is_forward ? p.padding.bottom : 0,
                        plan.is_forward ? p.padding_mode : PaddingMode::zeros},
        source_columns{plan.is_forward ? p.input.width : p.output.width, plan.is_forward ? p.padding.left : 0,
                       plan.is_forward ? p.padding.right : 0, all_source_rows.mode},
        row_residues(plan.rows),
        column_residues(plan.columns),
        shared_packed(static_cast<Real*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset),
        streams(is_result_streamed<T>(p) && plan.writes_in_place &&
                are_pixels_whole_lines(result, all_result_strides)) {}

  // False if a weight is not finite and the gradient of the input is wanted, which is then to be computed in
  // another way: the zeros that stand for outputs that do not exist would turn into NaN.
  bool run(const Executor& executor) {
    if (!plan.packs_in_tile) {
      constexpr int64_t worth_sharing = 1 << 15;
      const bool share = plan.channels * plan.kernel_area > worth_sharing;
      for_each_tile(share ? executor : Executor{}, plan.blocks, [&](int64_t index, int worker) {
        pack(shared_packed + index * plan.packed_size(), index,
             reinterpret_cast<Real*>(scratch + worker * plan.worker_bytes));
      });
    }
    std::atomic<bool> is_right{true};
    const int64_t tiles = plan.row_classes * plan.bands * plan.column_tiles;
    // What lies side by side in memory is the innermost index: blocks of channels or pieces of planes.
    const bool blocks_innermost = has_channels_innermost(all_source_strides);
    for_each_tile(executor, p.batch * tiles * plan.parts, [&](int64_t index, int worker) {
      const int64_t n = index / (tiles * plan.parts);
      const int64_t rest = index % (tiles * plan.parts);
      const bool done = blocks_innermost ? tile(n, rest % plan.parts, rest / plan.parts, worker)
                                         : tile(n, rest / tiles, rest % tiles, worker);
      if (!done) is_right.store(false, std::memory_order_relaxed);
      if (streams) finish_streams();
    });
    return is_right.load(std::memory_order_relaxed);
  }

 private:
  // What is the same for all results of a tile, or of those with one residue.
  struct Tile {
    PixelRows<Real> rows;  // what does not depend on the pixel
    const Real* lines;
    int64_t line_stride;
    int64_t pixel_stride;
    int64_t block_stride;  // from block to block of the channels
    bool by_rows;          // row by row, else from top to bottom by blocks of pixels
    int64_t first_line;    // of the first result row
    int64_t row_lines;     // from row to row
    int64_t first_pixel;   // of the first result pixel, in a line
    int64_t step_pixels;   // from pixel to pixel
    int64_t tap_pixels;    // from tap to tap
    bool shares_lines;     // a row's tap reads what the next row's tap before it reads
    Extent inside_columns;
    int64_t height;
    int64_t width;
    int64_t channels;
  };

  int64_t block_channels(int64_t index) const { return smaller(block, plan.channels - index * block); }

  // [tap][channel], taps in the order in which the micro-kernel reads them: runs of taps down in forward, and
  // for the gradient of the input by pairs of residues, reversed. Then the bias and the check. `raw` is
  // scratch for as many taps.
  void pack(Real* to, int64_t index, Real* raw) const {
    constexpr int64_t lanes = Vector<Real>::lanes;
    const int64_t channels = block_channels(index);
    const WeightStrides& strides = p.weight_strides;
    const T* from = weight + index * block * strides.out_channel;
    if (strides.column == 1 && strides.row == plan.columns.kernel) {
      transpose_in<T>(raw, 0, from, strides.out_channel, channels, plan.kernel_area, plan.kernel_area);
    } else {
      for (int64_t i = 0; i < plan.rows.kernel; ++i) {
        for (int64_t j = 0; j < plan.columns.kernel; ++j) {
          Real* tap = raw + (i * plan.columns.kernel + j) * block;
          for (int64_t c = 0; c < round_up(channels, lanes); ++c) {
            tap[c] = widen(
                from[smaller(c, channels - 1) * strides.out_channel + i * strides.row + j * strides.column]);
          }
        }
      }
    }
    Real* bias_of_block = to + plan.kernel_area * block;
    for (int64_t c = 0; c < channels; c += lanes) {
      Real* place = to + c;
      Vector<Real> check = zero<Real>();  // 0 * w is NaN if w is infinite or NaN
      const auto pack_tap = [&](int64_t i, int64_t j) {
        const Vector<Real> tap = load(raw + (i * plan.columns.kernel + j) * block + c);
        check = fmadd(tap, zero<Real>(), check);
        store(place, tap);
        place += block;
      };
      if (plan.is_forward) {
        for (int64_t u = 0; u < plan.rows.runs(); ++u)
          for (int64_t m = 0; m < plan.rows.run_taps(u); ++m)
            for (int64_t j = 0; j < plan.columns.kernel; ++j) pack_tap(u + m * plan.rows.period, j);
      } else {
        for (int64_t a = 0; a < plan.rows.stride; ++a) {
          for (int64_t b = 0; b < plan.columns.stride; ++b) {
            const Residue& row = row_residues.residues[a];
            const Residue& column = column_residues.residues[b];
            for (int64_t m = 0; m < row.taps; ++m)
              for (int64_t k = 0; k < column.taps; ++k)
                pack_tap(row.last_tap - m * plan.rows.period, column.last_tap - k * plan.columns.period);
          }
        }
      }
      store(bias_of_block + c, bias == nullptr
                                   ? zero<Real>()
                                   : load_widened(bias + index * block + c, smaller(lanes, channels - c)));
      store(bias_of_block + block + c, check);
    }
  }

  bool is_finite(const Real* packed, int64_t channels) const {
    const Real* check = packed + (plan.kernel_area + 1) * block;
    Real total = 0;
    for (int64_t c = 0; c < channels; ++c) total += check[c];
    return total == 0;
  }

  // False if a weight is not finite and the gradient is wanted.
  bool tile(int64_t n, int64_t part, int64_t tile_index, int worker) const {
    char* own = scratch + worker * plan.worker_bytes;
    const int64_t first_block = part * plan.part_blocks;
    const int64_t last_block = smaller(plan.blocks, first_block + plan.part_blocks);
    const Real* packed = shared_packed + first_block * plan.packed_size();
    if (plan.packs_in_tile) packed = reinterpret_cast<Real*>(own + plan.packed_offset);
    bool finite = true;
    for (int64_t index = first_block; index < last_block; ++index) {
      const int64_t place = (index - first_block) * plan.packed_size();
      if (plan.packs_in_tile)
        pack(reinterpret_cast<Real*>(own + plan.packed_offset) + place, index, reinterpret_cast<Real*>(own));
      finite = finite && is_finite(packed + place, block_channels(index));
    }
    if (!plan.is_forward && !finite) return false;
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const int64_t row = tile_index / plan.column_tiles % plan.bands * plan.band;
    const RowClass rows_here = row_class(tile_index / plan.column_tiles / plan.bands);
    const int64_t column = tile_index % plan.column_tiles * plan.tile_columns;
    const int64_t height = smaller(plan.band, rows_here.results - row);
    const int64_t width =
        smaller(plan.tile_columns, (plan.is_forward ? columns.output : columns.input) - column);
    if (height <= 0 || width <= 0) return true;

    const int64_t first_channel = first_block * block;
    const int64_t channels = smaller(last_block * block, plan.channels) - first_channel;
    const int64_t first_row = first_position(rows, row, rows_here.before);
    const int64_t lines = plan.extent(rows, height, 1);
    // Whole planes of contiguous images lie one after the other, through the samples. Of few tiles, which the
    // caches may hold anyway, another worker often draws the next one.
    constexpr int64_t many_tiles = 128;
    const bool next_follows = plan.bands * plan.column_tiles == 1 && p.batch * plan.parts >= many_tiles;
    const int64_t ahead = next_follows ? block : 0;
    const bool skips_zeros = all_source_rows.mode == PaddingMode::zeros && finite;
    const SourceAxis source_rows{rows_here.sources, all_source_rows.before, all_source_rows.after,
                                 all_source_rows.mode};
    ImageStrides source_strides = all_source_strides;
    ImageStrides result_strides = all_result_strides;
    source_strides.row *= plan.row_classes;
    result_strides.row *= plan.row_classes;
    const T* image = source + n * source_strides.batch + first_channel * source_strides.channel +
                     rows_here.first_source * all_source_strides.row;
    T* target = result + n * result_strides.batch + first_channel * result_strides.channel +
                rows_here.first_result * all_result_strides.row + row * result_strides.row +
                column * result_strides.column;
    Real* place = reinterpret_cast<Real*>(own + plan.result_offset);
    int64_t place_row = width * block;
    int64_t place_column = block;
    if constexpr (std::is_same_v<T, Real>) {
      if (plan.writes_in_place) {
        place = target;
        place_row = result_strides.row;
        place_column = result_strides.column;
      }
    }
    // Columns [begin, end) of the tile, by way of scratch or, if they read nothing but pixels inside the
    // source, in place.
    const auto compute = [&](int64_t begin, int64_t end, bool in_place) {
      if (begin >= end) return;
      Tile t;
      const int64_t first_column = first_column_position(column + begin);
      const int64_t line_pixels = plan.extent(columns, end - begin, pixels_of_kernel);
      Real* own_lines = reinterpret_cast<Real*>(own);
      t.lines = own_lines;
      t.line_stride = line_pixels * block;
      t.pixel_stride = block;
      t.block_stride = lines * t.line_stride;
      if constexpr (std::is_same_v<T, Real>) {
        if (in_place) {
          t.lines = image + first_row * source_strides.row + first_column * source_strides.column;
          t.line_stride = source_strides.row;
          t.pixel_stride = source_strides.column;
          t.block_stride = block;
        }
      }
      if (!in_place) {
        // Line by line, so that the blocks of a pixel are read one soon after the other.
        const int64_t together = plan.part_blocks == 1 ? lines : 1;
        for (int64_t k = 0; k < lines; k += together) {
          for (int64_t c = 0; c < channels; c += block) {
            PixelImage<T>{source_strides, smaller(block, channels - c), ahead * source_strides.channel}.read(
                image + c * source_strides.channel,
                own_lines + c / block * t.block_stride + k * t.line_stride, line_pixels, source_rows,
                source_columns, first_row + k, together, first_column, skips_zeros);
          }
        }
      }
      t.rows.inside_rows = skips_zeros ? Extent{-first_row, source_rows.size - first_row} : Extent{0, lines};
      t.inside_columns =
          skips_zeros ? Extent{-first_column, source_columns.size - first_column} : Extent{0, line_pixels};
      t.by_rows = in_place || columns.kernel <= 5;
      t.channels = channels;
      t.rows.weights = packed;
      t.rows.bias = packed + plan.kernel_area * block;
      Real* to = place + begin * place_column;
      if (plan.is_forward) {
        forward_tile(t, to, place_row, place_column, height, end - begin);
      } else {
        gradient_tile(t, to, place_row, place_column, row, height, column + begin, end - begin);
      }
    };
    const bool may_read_in_place = plan.reads_in_place && skips_zeros && channels % Vector<Real>::lanes == 0;
    const Extent inside = may_read_in_place ? columns_inside(column, width) : Extent{0, 0};
    if (inside.end == inside.begin) {
      compute(0, width, false);
    } else {
      compute(0, inside.begin, false);
      compute(inside.begin, inside.end, true);
      compute(inside.end, width, false);
    }
    if (!plan.writes_in_place)
      PixelImage<T>{result_strides, channels, ahead * result_strides.channel}.write(target, place, height,
                                                                                    width);
    return true;
  }

  // Results first_result, first_result + row_classes, ... of the image and the source rows that they read.
  struct RowClass {
    int64_t first_result;
    int64_t results;
    int64_t first_source;
    int64_t sources;
    int64_t before;  // rows of padding that the first result reads
  };

  RowClass row_class(int64_t index) const {
    const int64_t classes = plan.row_classes;
    const int64_t before = plan.rows.before;
    if (classes == 1) return {0, result_rows, 0, all_source_rows.size, before};
    // Rows of padding that belong to the class: of -before + index, ... those below zero, or minus those
    // above.
    const int64_t of_class =
        before >= index ? ceil_div(before - index, classes) : -((index - before) / classes);
    const int64_t first_source = index - before + of_class * classes;
    return {index, larger(0, ceil_div(result_rows - index, classes)), first_source,
            larger(0, ceil_div(all_source_rows.size - first_source, classes)), of_class};
  }

  // The first source position that results from `first` on read.
  int64_t first_position(const RowsAxis& axis, int64_t first, int64_t before) const {
    return plan.is_forward ? first * axis.stride - before
                           : (first + before) / axis.stride - (axis.kernel - 1) * axis.dilation / axis.stride;
  }
  int64_t first_column_position(int64_t first) const {
    return first_position(plan.columns, first, plan.columns.before);
  }

  // Which of the columns column ... column + width - 1 read no padding, in whole blocks of the micro-kernel.
  Extent columns_inside(int64_t column, int64_t width) const {
    const int64_t unit = pixels_of_kernel * (plan.is_forward ? 1 : plan.columns.stride);
    Extent inside{0, width};
    while (inside.begin < width && first_column_position(column + inside.begin) < 0) inside.begin += unit;
    if (inside.begin >= width) return {0, 0};
    const auto fits = [&] {
      return first_column_position(column + inside.begin) +
                 plan.extent(plan.columns, inside.end - inside.begin, pixels_of_kernel) <=
             source_columns.size;
    };
    if (!fits()) {
      inside.end = inside.begin + (width - inside.begin) / unit * unit;
      while (inside.end > inside.begin && !fits()) inside.end -= unit;
    }
    return inside;
  }

  void forward_tile(Tile& t, Real* target, int64_t target_row, int64_t target_column, int64_t height,
                    int64_t width) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    t.first_line = 0;
    t.row_lines = rows.stride;
    t.first_pixel = 0;
    t.step_pixels = columns.stride;
    t.tap_pixels = columns.dilation;
    t.shares_lines = rows.spread == 1;
    t.height = height;
    t.width = width;
    t.rows.runs = rows.runs();
    t.rows.long_taps = rows.run_taps(0);
    t.rows.long_runs = rows.kernel - (t.rows.long_taps - 1) * rows.period;
    t.rows.columns = columns.kernel;
    t.rows.run_rows = rows.dilation;
    t.rows.tap_rows = rows.period * rows.dilation;
    correlate(t, target, target_row, target_column);
  }

  void gradient_tile(Tile& t, Real* target, int64_t target_row, int64_t target_column, int64_t first_row,
                     int64_t height, int64_t first_column, int64_t width) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const int64_t top = first_row + rows.before;
    const int64_t left = first_column + columns.before;
    const Real* weights = t.rows.weights;
    t.row_lines = 1;
    t.step_pixels = 1;
    t.tap_pixels = columns.spread;
    t.shares_lines = rows.spread == 1;
    t.rows.runs = t.rows.long_runs = 1;
    t.rows.run_rows = 0;
    t.rows.tap_rows = rows.spread;
    for (int64_t a = 0; a < rows.stride; ++a) {
      const PaddedPositions down(top, top + height, a, rows.stride);
      const Residue& row = row_residues.residues[a];
      t.rows.long_taps = row.taps;
      // A few rows at a time, whose pixels of all residues lie side by side in memory.
      const int64_t rows_at_once = columns.stride == 1 ? larger(1, down.end - down.begin) : rows_of_kernel;
      for (int64_t y = down.begin; y < down.end; y += rows_at_once) {
        t.first_line = y - row.delay - first_position(rows, first_row, rows.before);
        t.height = smaller(rows_at_once, down.end - y);
        for (int64_t b = 0; b < columns.stride; ++b) {
          const PaddedPositions across(left, left + width, b, columns.stride);
          const Residue& column = column_residues.residues[b];
          t.first_pixel = across.begin - column.delay - first_column_position(first_column);
          t.width = across.end - across.begin;
          t.rows.columns = column.taps;
          t.rows.weights =
              weights + block * (row.taps_before * columns.kernel + row.taps * column.taps_before);
          correlate(t,
                    target + (y * rows.stride + a - top) * target_row +
                        (across.begin * columns.stride + b - left) * target_column,
                    rows.stride * target_row, columns.stride * target_column);
        }
      }
    }
  }

  void correlate(Tile& t, Real* target, int64_t target_row, int64_t target_column) const {
    constexpr int64_t lanes = Vector<Real>::lanes;
    PixelRows<Real> rows = t.rows;
    rows.block = block;
    rows.tap_stride = rows.tap_rows * t.line_stride;
    rows.run_stride = rows.run_rows * t.line_stride;
    rows.tap_step = t.tap_pixels * t.pixel_stride;
    rows.is_dense = t.tap_pixels == 1;
    rows.pixel_step = t.step_pixels * t.pixel_stride;
    rows.target_stride = target_row;
    rows.target_step = target_column;
    rows.streams = streams;
    const PixelKernel<Real> single = pixel_kernel_of<Real, 1>(rows);
    const PixelKernel<Real> together = t.shares_lines ? pixel_kernel_of<Real, rows_of_kernel>(rows) : single;
    const int64_t rows_together = t.shares_lines ? rows_of_kernel : 1;
    const auto set_column = [&](int64_t x) {
      rows.pixels = smaller(pixels_of_kernel, t.width - x);
      rows.inside_taps = t.inside_columns.inside(t.first_pixel + x * t.step_pixels, t.tap_pixels,
                                                 rows.columns, (pixels_of_kernel - 1) * t.step_pixels);
    };
    const auto compute = [&](int64_t x, int64_t y) {
      rows.row = t.first_line + y * t.row_lines;
      for (int64_t c = 0; c < t.channels; c += lanes) {
        rows.channels = plan.writes_in_place ? t.channels - c : lanes;
        const int64_t index = c / block;
        const int64_t in_block = c % block;
        rows.lines = t.lines + rows.row * t.line_stride +
                     (t.first_pixel + x * t.step_pixels) * t.pixel_stride + index * t.block_stride + in_block;
        rows.weights = t.rows.weights + index * plan.packed_size() + in_block;
        rows.bias = t.rows.bias + index * plan.packed_size() + in_block;
        rows.target = target + y * target_row + x * target_column + c;
        (y + rows_together <= t.height ? together : single)(rows);
      }
    };
    const auto rows_from = [&](int64_t y) { return y + rows_together <= t.height ? rows_together : 1; };
    if (t.by_rows) {
      for (int64_t y = 0; y < t.height; y += rows_from(y)) {
        for (int64_t x = 0; x < t.width; x += pixels_of_kernel) {
          set_column(x);
          compute(x, y);
        }
      }
    } else {
      for (int64_t x = 0; x < t.width; x += pixels_of_kernel) {
        set_column(x);
        for (int64_t y = 0; y < t.height; y += rows_from(y)) compute(x, y);
      }
    }
  }

  const PixelCorrelationPlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  ImageStrides all_source_strides;  // of all rows, not of one class
  ImageStrides all_result_strides;
  int64_t result_rows;
  SourceAxis all_source_rows;
  SourceAxis source_columns;
  ResidueTable row_residues;
  ResidueTable column_residues;
  Real* shared_packed;
  char* scratch;
  bool streams;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
