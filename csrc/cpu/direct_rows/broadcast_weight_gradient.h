// The gradient of the weight where few input channels meet many output channels: vectors run along the output
// channels and each number of the input is broadcast, so neither patches are written out nor sums of lanes
// added up. Bands of input lines are copied with padding resolved; the output's gradient is read in place if
// it is channels_last, else transposed.
//
// The pixels are cut into units, each of them one chain of additions. Units are dealt into chunks, which
// workers share; the sums of a chunk's units are added in order, and then those of the chunks, in double: all
// of it follows from the shape.
#pragma once

#include <type_traits>

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/broadcast_tap_kernel.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct BroadcastWeightGradientPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t block = channel_block<T>;

  RowsAxis rows;
  RowsAxis columns;
  bool is_interleaved;  // input channels lie side by side, as further numbers of a pixel
  int64_t planes;       // else they are planes
  int64_t numbers;      // of a pixel of a plane
  int64_t row_taps;     // numbers that one row of taps reads
  int64_t channels;     // padded to whole vectors
  int64_t vectors;
  bool reads_in_place;    // the gradient of the output
  int64_t across_blocks;  // of the taps of a row

  int64_t band;
  int64_t bands;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t units;
  int64_t chunks;
  int64_t line_numbers;
  int64_t line_stride;
  int64_t plane_stride;

  int64_t workers_offset;   // the chunks' sums come first
  int64_t gradient_offset;  // in a worker's part, behind the lines
  int64_t worker_bytes;

  static bool fits(const ConvProblem& p) {
    if constexpr (!std::is_same_v<T, float>) return false;
    const ImageStrides& strides = p.output_strides;
    return p.pass == Pass::grad_weight && p.groups == 1 && has_few_channels(p) &&
           (has_channels_innermost(strides) || strides.column == 1) &&
           (p.dilation.width == 1 || p.kernel.width == 1) && p.kernel.height * p.kernel.width > 0;
  }

  // So few that making patches of them costs a good part of what the products do. The limits are where the
  // matrix product was as fast.
  static bool has_few_channels(const ConvProblem& p) {
    constexpr int64_t few_inputs = 4;
    constexpr int64_t least_outputs = 4;
    if (p.in_channels <= few_inputs) return p.out_channels >= least_outputs;
    constexpr int64_t most_inputs = 32;
    constexpr int64_t least_taps = 9;
    constexpr int64_t least_pixels = 2048;
    const int64_t most_pairs = lanes >= 16 ? 1536 : has_channels_innermost(p.input_strides) ? 1024 : 128;
    const int64_t taps = p.kernel.height * p.kernel.width;
    const bool has_full_vectors = 4 * p.out_channels >= 3 * round_up(p.out_channels, lanes);
    // winograd's tiles save more than half of the products.
    const int64_t smallest = smaller(p.kernel.height, p.kernel.width);
    const bool has_tiles = p.stride.height * p.stride.width == 1 &&
                           smaller(p.in_channels, p.out_channels) >= 32 &&
                           (smallest == 3 || (smallest > 3 && larger(p.kernel.height, p.kernel.width) > 7));
    return lanes >= 8 && p.in_channels <= most_inputs && p.in_channels * p.out_channels <= most_pairs &&
           has_full_vectors && taps >= least_taps && !has_tiles &&
           p.batch * p.output.height * p.output.width >= least_pixels;
  }

  explicit BroadcastWeightGradientPlan(const ConvProblem& p)
      : rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        is_interleaved(p.in_channels > 1 && p.input_strides.channel == 1 &&
                       p.input_strides.column == p.in_channels && p.padding_mode == PaddingMode::zeros),
        planes(is_interleaved ? 1 : p.in_channels),
        numbers(is_interleaved ? p.in_channels : 1),
        row_taps(columns.kernel * numbers),
        channels(round_up(p.out_channels, block)),
        vectors(ceil_div(p.out_channels, lanes)) {
    const int64_t together = smaller(2, vectors);
    across_blocks = ceil_div(row_taps, broadcast_taps(together));
    // Pixels that several blocks of taps read should not evict each other from the L1 cache.
    constexpr int64_t most_step = 512 / static_cast<int64_t>(sizeof(Real));
    const bool is_read_once =
        across_blocks == 1 && planes == 1 && rows.kernel <= broadcast_rows(row_taps, together);
    reads_in_place = has_channels_innermost(p.output_strides) && p.out_channels % lanes == 0 &&
                     (is_read_once || p.output_strides.column <= most_step);

    // Square pieces read the fewest lines; long ones of contiguous planes come faster from memory.
    constexpr int64_t high = 8;
    const int64_t chain = chain_pixels(p.batch * rows.output * columns.output);
    const int64_t widest = reads_in_place || rows.kernel > high ? smaller(chain, 64) : chain;
    column_tiles = ceil_div(columns.output, widest);
    tile_columns = larger(1, ceil_div(columns.output, column_tiles));
    band = larger(1, smaller(rows.output, chain / tile_columns));
    bands = ceil_div(rows.output, band);
    band = ceil_div(rows.output, bands);  // bands of about equal height
    bands = ceil_div(rows.output, band);
    units = p.batch * bands * column_tiles;

    // Enough chunks to share, of several units each: to clear and add up a chunk's sums costs as much as
    // those of two units.
    constexpr int64_t worth_sharing = 16;
    constexpr int64_t units_of_chunk = 4;
    constexpr int64_t most_sums = 1 << 20;
    chunks = smaller(worth_sharing, larger(smaller(units, 2), units / units_of_chunk));
    chunks = larger(1, smaller(chunks, most_sums / sums()));

    line_numbers = ((tile_columns - 1) * columns.stride + columns.kernel) * numbers;
    line_stride = spread_stride<Real>(line_numbers);
    plane_stride = lines_of(band) * line_stride;
    Carver shared;
    shared.take(chunks * sums(), sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    own.take(planes * plane_stride + lanes, sizeof(Real));
    gradient_offset = own.take(reads_in_place ? 0 : channels * band * tile_columns, sizeof(Real));
    worker_bytes = own.bytes;
  }

  // A chain's length: F.conv2d splits sums of few terms into several.
  static int64_t chain_pixels(int64_t pixels) {
    if (pixels <= 192) return 24;
    return pixels <= 512 ? 40 : pixels <= 1024 ? 56 : pixels <= 4096 ? 128 : 256;
  }
  int64_t lines_of(int64_t height) const {
    return (height - 1) * rows.stride + (rows.kernel - 1) * rows.dilation + 1;
  }
  int64_t sums() const { return planes * rows.kernel * row_taps * channels; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class BroadcastWeightGradient {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t block = channel_block<T>;

  BroadcastWeightGradient(const BroadcastWeightGradientPlan<T>& cut, const ConvProblem& problem,
                          const ConvData& data, void* workspace)
      : plan(cut),
        p(problem),
        input(static_cast<const T*>(data.input)),
        grad_output(static_cast<const T*>(data.output)),
        grad_weight(static_cast<T*>(data.weight)),
        sums(static_cast<Real*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset) {}

  void run(const Executor& executor) const {
    for_each_tile(executor, plan.chunks, [&](int64_t chunk, int worker) {
      Real* totals = sums + chunk * plan.sums();
      fill_zeros(totals, 0, plan.sums());
      for (int64_t unit = plan.units * chunk / plan.chunks; unit < plan.units * (chunk + 1) / plan.chunks;
           ++unit)
        add_unit(unit, totals, scratch + worker * plan.worker_bytes);
    });
    constexpr int64_t worth_sharing = 1 << 15;
    const bool share = plan.chunks * plan.sums() > worth_sharing;
    for_each_tile(share ? executor : Executor{}, plan.planes * plan.rows.kernel,
                  [&](int64_t index, int) { add_chunks(index); });
  }

 private:
  void add_unit(int64_t unit, Real* totals, char* own) const {
    const int64_t first_column = unit % plan.column_tiles * plan.tile_columns;
    const int64_t first_row = unit / plan.column_tiles % plan.bands * plan.band;
    const int64_t n = unit / plan.column_tiles / plan.bands;
    const int64_t height = smaller(plan.band, plan.rows.output - first_row);
    const int64_t width = smaller(plan.tile_columns, plan.columns.output - first_column);
    Real* lines = reinterpret_cast<Real*>(own);
    fill_lines(lines, input + n * p.input_strides.batch, first_row, height, first_column);

    BroadcastTaps<Real> taps;
    taps.tap_line = plan.rows.dilation * plan.line_stride;
    taps.row_line = plan.rows.stride * plan.line_stride;
    taps.number_step = plan.columns.stride * plan.numbers;
    taps.rows = height;
    taps.columns = width;
    taps.channels = plan.channels;
    taps.row_taps = plan.row_taps;
    const T* gradient = grad_output + n * p.output_strides.batch + first_row * p.output_strides.row +
                        first_column * p.output_strides.column;
    const Real* gradients = nullptr;
    int64_t block_stride = block;
    if constexpr (std::is_same_v<T, Real>) gradients = gradient;
    if (plan.reads_in_place) {
      taps.gradient_row = p.output_strides.row;
      taps.gradient_step = p.output_strides.column;
    } else {
      Real* panel = reinterpret_cast<Real*>(own + plan.gradient_offset);
      block_stride = height * width * block;
      for (int64_t c = 0; c < p.out_channels; c += block)
        read_gradient(panel + c / block * block_stride, gradient + c * p.output_strides.channel,
                      smaller(block, p.out_channels - c), height, width);
      gradients = panel;
      taps.gradient_row = width * block;
      taps.gradient_step = block;
    }
    taps.gradient_vector = lanes < block ? lanes : block_stride;
    for (int64_t v = 0; v < plan.vectors; v += 2) {
      const int64_t c = v * lanes;
      taps.gradients = gradients + c / block * block_stride + c % block;
      if (v + 1 < plan.vectors) {
        add_taps<2>(taps, lines, totals + c);
      } else {
        add_taps<1>(taps, lines, totals + c);
      }
    }
  }

  // All the taps, in blocks.
  template <int vectors>
  void add_taps(BroadcastTaps<Real>& taps, const Real* lines, Real* totals) const {
    const int64_t down = plan.rows.kernel;
    for (int64_t plane = 0; plane < plan.planes; ++plane, lines += plan.plane_stride) {
      for (int64_t a = 0; a < plan.across_blocks; ++a) {
        const int64_t k = plan.row_taps * a / plan.across_blocks;
        const int64_t across = plan.row_taps * (a + 1) / plan.across_blocks - k;
        const int64_t most = broadcast_rows(across, vectors);
        for (int64_t i = 0, together = 0; i < down; i += together) {
          together = i + most <= down ? most : 1;
          taps.lines = lines + i * taps.tap_line + k;
          Real* to = totals + ((plane * down + i) * plan.row_taps + k) * plan.channels;
          broadcast_tap_kernel_of<Real, vectors>(together, across)(taps, to);
        }
      }
    }
  }

  // One block of channels, side by side.
  void read_gradient(Real* panel, const T* gradient, int64_t channels, int64_t height, int64_t width) const {
    const ImageStrides& strides = p.output_strides;
    if (!has_channels_innermost(strides)) {
      const bool are_joined = strides.row == width;
      const int64_t count = are_joined ? height * width : width;
      for (int64_t y = 0; y < (are_joined ? 1 : height); ++y)
        transpose_in<T>(panel + y * width * block, 0, gradient + y * strides.row, strides.channel, channels,
                        count, count);
      return;
    }
    for (int64_t y = 0; y < height; ++y) {
      const T* from = gradient + y * strides.row;
      for (int64_t x = 0; x < width; ++x, panel += block, from += strides.column)
        copy_block<T>(panel, from, channels);
    }
  }

  void fill_lines(Real* lines, const T* image, int64_t first_row, int64_t height,
                  int64_t first_column) const {
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const SourceAxis source_rows{rows.input, rows.before, rows.after, rows.mode};
    const SourceAxis source_columns =
        plan.is_interleaved ? SourceAxis{columns.input * plan.numbers, 0, 0, PaddingMode::zeros}
                            : SourceAxis{columns.input, columns.before, columns.after, columns.mode};
    const int64_t column_stride = plan.is_interleaved ? 1 : p.input_strides.column;
    const LineSpan span(source_columns, plan.line_numbers,
                        (first_column * columns.stride - columns.before) * plan.numbers, 1);
    const int64_t top = first_row * rows.stride - rows.before;
    const int64_t count = plan.lines_of(height);
    for (int64_t plane = 0; plane < plan.planes; ++plane, image += p.input_strides.channel) {
      Real* line = lines + plane * plan.plane_stride;
      for (int64_t k = 0; k < count; ++k, line += plan.line_stride) {
        const int64_t row = source_rows.resolve(top + k);
        if (row < 0) {
          fill_zeros(line, 0, plan.line_numbers);
        } else {
          fill_line<T>(line, image + row * p.input_strides.row, column_stride, source_columns, span);
        }
      }
    }
  }

  // Of one row of taps.
  void add_chunks(int64_t index) const {
    const WeightStrides& strides = p.weight_strides;
    const int64_t plane = index / plan.rows.kernel;
    const int64_t i = index % plan.rows.kernel;
    for (int64_t k = 0; k < plan.row_taps; ++k) {
      const Real* from = sums + (index * plan.row_taps + k) * plan.channels;
      T* to = grad_weight + (plan.is_interleaved ? k % plan.numbers : plane) * strides.in_channel +
              i * strides.row + k / plan.numbers * strides.column;
      for (int64_t o = 0; o < p.out_channels; o += lanes) {
        double totals[lanes] = {};
        for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
          const Real* of_chunk = from + chunk * plan.sums() + o;
          for (int64_t lane = 0; lane < lanes; ++lane) totals[lane] += static_cast<double>(of_chunk[lane]);
        }
        for (int64_t lane = 0; lane < smaller(lanes, p.out_channels - o); ++lane)
          to[(o + lane) * strides.out_channel] = narrow<T>(static_cast<Real>(totals[lane]));
      }
    }
  }

  const BroadcastWeightGradientPlan<T>& plan;
  const ConvProblem& p;
  const T* input;
  const T* grad_output;
  T* grad_weight;
  Real* sums;
  char* scratch;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
