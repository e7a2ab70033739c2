// Whether the numbers of a gradient of the weight are even enough in size for Winograd's convolution.
//
// Its rounding errors are relative to all pairs of an output's gradient and an input of a tile, 64 of them
// for 3 x 3 taps, while the error bound counts the four that a tap multiplies. Over many tiles each tap has
// its share of the pairs, unless a few pixels make up a channel, or large inputs and large gradients lie in
// different places. The first is measured for every channel: the sum of its absolute values, in units of the
// largest one, is the number of pixels that count, and so many of two channels meet by chance. The second has
// its cause in the places, such as rows of zeros or a mask, and is measured on the first channels, for each
// block of the kernel.
//
// All numbers are read once more for it, before the first product: what falls back should not pay for
// products in vain.
#pragma once

#include <limits>

#include "cpu/kernel_list.h"
#include "cpu/winograd/lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// The channels of one of the two tensors, and where its tiles begin.
template <class Real>
struct GradientOperand {
  int64_t channels;  // of one group
  Size2 image;
  ImageStrides strides;
  Side rows;
  Side columns;

  int64_t vectors() const { return ceil_div(channels, Vector<Real>::lanes); }

  static GradientOperand output_of(const ConvProblem& p) {
    return {out_channels_per_group(p),
            p.output,
            p.output_strides,
            {p.output.height, p.output.height, 0, PaddingMode::zeros, p.dilation.height},
            {p.output.width, p.output.width, 0, PaddingMode::zeros, p.dilation.width}};
  }
  static GradientOperand input_of(const ConvProblem& p) {
    return {in_channels_per_group(p),
            p.input,
            p.input_strides,
            {p.output.height, p.input.height, -p.padding.top, p.padding_mode, p.dilation.height},
            {p.output.width, p.input.width, -p.padding.left, p.padding_mode, p.dilation.width}};
  }
};

template <class Tile, class T>
class Evenness {
 public:
  using Real = Compute<T>;

  Evenness(const ConvProblem& given, const ConvData& data, void* workspace, int workers)
      : problem(given),
        operands{{GradientOperand<Real>::output_of(given), static_cast<const T*>(data.output)},
                 {GradientOperand<Real>::input_of(given), static_cast<const T*>(data.input)}},
        blocks(given.kernel),
        grid(1, operands[0].shape.rows, operands[0].shape.columns, Rows::outputs, Columns::outputs),
        layout(given, workers),
        scratch(static_cast<char*>(workspace)) {}

  static int64_t workspace_bytes(const ConvProblem& problem, int workers) {
    return Layout(problem, workers).bytes;
  }

  bool are_even(const Executor& executor) const {
    const int64_t shares = problem.groups * blocks.size();
    const int64_t kinds = shares + ceil_div(layout.channels, block_channels);
    for_each_tile(executor, problem.batch * kinds, [&](int64_t index, int worker) {
      const int64_t image = index / kinds;
      const int64_t kind = index % kinds;
      if (kind < shares) return measure_shares(image, kind, worker);
      const int64_t first = (kind - shares) * block_channels;
      measure_channels(image, first, smaller(layout.channels, first + block_channels));
    });
    for (int64_t share = 0; share < shares; ++share) {
      if (!taps_have_their_share(share)) return false;
    }
    for (int64_t group = 0; group < problem.groups; ++group) {
      if (!pixels_meet(group)) return false;
    }
    return true;
  }

 private:
  using Rows = typename Tile::Rows;
  using Columns = typename Tile::Columns;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t numbers_of_share = (Tile::taps + 1) * lanes;
  static constexpr int64_t block_channels = 64;
  static constexpr int64_t vectors_at_a_time = 4;
  // Fewest pixels of two channels that should meet.
  static constexpr int64_t fewest_meetings = 2;
  // A tap has one of so many of a tile's pairs: less than this part of it would drown in rounding errors.
  static constexpr int64_t usual_part = Tile::products;
  static constexpr int64_t least_of_usual = 16;

  // The workspace.
  struct Layout {
    int64_t channels;  // of both tensors, the output's first
    int64_t shares_offset;
    int64_t lines_offset;
    int64_t lines_of_worker;
    int64_t bytes;

    Layout(const ConvProblem& p, int workers)
        : channels(p.in_channels + p.out_channels),
          lines_of_worker(round_up((Rows::outputs + Rows::inputs) * line_numbers<Real>, 16)) {
      Carver carver;
      carver.take(p.batch * channels * 2, sizeof(Real));
      shares_offset = carver.take(p.batch * p.groups * KernelBlocks<Tile>(p.kernel).size() * numbers_of_share,
                                  sizeof(Real));
      lines_offset = carver.take(workers * lines_of_worker, sizeof(Real));
      bytes = carver.bytes;
    }
  };

  struct Operand {
    GradientOperand<Real> shape;
    const T* numbers;
  };

  const ConvProblem& problem;
  Operand operands[2];
  KernelBlocks<Tile> blocks;
  TileGrid grid;  // of one image
  Layout layout;
  char* scratch;

  // The sum of a channel's absolute values, and the largest.
  Real* sizes_at(int64_t image, int64_t channel) const {
    return reinterpret_cast<Real*>(scratch) + (image * layout.channels + channel) * 2;
  }

  // For each tap and lane the sum of the absolute values of the products, and then that of all pairs.
  // `share`: the group and the block of the kernel.
  Real* shares_at(int64_t image, int64_t share) const {
    return reinterpret_cast<Real*>(scratch + layout.shares_offset) +
           (image * problem.groups * blocks.size() + share) * numbers_of_share;
  }

  void measure_channels(int64_t image, int64_t first, int64_t last) const {
    for (int64_t channel = first; channel < last;) {
      const bool is_input = channel >= problem.out_channels;
      const Operand& operand = operands[is_input];
      const ImageStrides& strides = operand.shape.strides;
      const int64_t channel_of_tensor = is_input ? channel - problem.out_channels : channel;
      const int64_t left = (is_input ? last : smaller(last, problem.out_channels)) - channel;
      const T* const from = operand.numbers + image * strides.batch + channel_of_tensor * strides.channel;
      Real* const to = sizes_at(image, channel);
      if (strides.channel == 1 && left >= vectors_at_a_time * lanes) {
        measure_pixels<vectors_at_a_time>(operand.shape, from, to);
        channel += vectors_at_a_time * lanes;
      } else if (strides.channel == 1 && left >= lanes) {
        measure_pixels<1>(operand.shape, from, to);
        channel += lanes;
      } else {
        measure_plane(operand.shape, from, to);
        channel += 1;
      }
    }
  }

  // Neighbouring channels.
  template <int vectors>
  static void measure_pixels(const GradientOperand<Real>& shape, const T* from, Real* to) {
    Vector<Real> total[vectors];
    Vector<Real> largest[vectors];
    CONVEXT_UNROLL
    for (int v = 0; v < vectors; ++v) total[v] = largest[v] = zero<Real>();
    for (int64_t y = 0; y < shape.image.height; ++y) {
      const T* pixel = from + y * shape.strides.row;
      for (int64_t x = 0; x < shape.image.width; ++x, pixel += shape.strides.column) {
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) {
          const Vector<Real> size = absolute(load_widened(pixel + v * lanes));
          total[v] = add(total[v], size);
          largest[v] = maximum(largest[v], size);
        }
      }
    }
    for (int v = 0; v < vectors; ++v) {
      Real totals[lanes];
      Real most[lanes];
      store(totals, total[v]);
      store(most, largest[v]);
      for (int64_t lane = 0; lane < lanes; ++lane, to += 2) {
        to[0] = totals[lane];
        to[1] = most[lane];
      }
    }
  }

  // One channel.
  static void measure_plane(const GradientOperand<Real>& shape, const T* from, Real* to) {
    Vector<Real> totals = zero<Real>();
    Vector<Real> most = zero<Real>();
    Real total = 0;
    Real largest = 0;
    const bool is_one_row = shape.strides.row == shape.image.width * shape.strides.column;
    const int64_t rows = is_one_row ? 1 : shape.image.height;
    const int64_t columns = is_one_row ? shape.image.height * shape.image.width : shape.image.width;
    for (int64_t y = 0; y < rows; ++y) {
      const T* const row = from + y * shape.strides.row;
      int64_t x = 0;
      if (shape.strides.column == 1) {
        for (; x < columns; x += lanes) {
          const int64_t count = smaller(lanes, columns - x);
          const Vector<Real> size =
              absolute(count == lanes ? load_widened(row + x) : load_widened(row + x, count));
          totals = add(totals, size);
          most = maximum(most, size);
        }
      }
      for (; x < columns; ++x) {
        const Real value = widen(row[x * shape.strides.column]);
        const Real size = value < 0 ? -value : value;
        total += size;
        largest = size > largest ? size : largest;
      }
    }
    Real numbers[lanes];
    store(numbers, most);
    for (int64_t lane = 0; lane < lanes; ++lane) largest = numbers[lane] > largest ? numbers[lane] : largest;
    to[0] = total + sum(totals);
    to[1] = largest;
  }

  // Of pairs of an output and an input channel, one in each lane.
  void measure_shares(int64_t image, int64_t share, int worker) const {
    const int64_t group = share / blocks.size();
    const KernelBlock kernel = blocks.at(share % blocks.size());
    Real* const lines =
        reinterpret_cast<Real*>(scratch + layout.lines_offset) + worker * layout.lines_of_worker;
    const auto first_channel = [&](const Operand& operand) {
      const ImageStrides& strides = operand.shape.strides;
      return operand.numbers + image * strides.batch + group * operand.shape.channels * strides.channel;
    };
    const GradientOperand<Real>& output = operands[0].shape;
    const GradientOperand<Real>& input = operands[1].shape;
    TileLines<OutputsOf<Rows>, OutputsOf<Columns>, T> outputs(first_channel(operands[0]), output.strides,
                                                              output.rows, output.columns, lines);
    TileLines<Rows, Columns, T> inputs(
        first_channel(operands[1]), input.strides, input.rows.from_tap(kernel.rows.first),
        input.columns.from_tap(kernel.columns.first), lines + Rows::outputs * line_numbers<Real>);
    Vector<Real> of_tap[Tile::taps];
    for (Vector<Real>& share : of_tap) share = zero<Real>();
    Vector<Real> all = zero<Real>();
    grid.for_each_segment(0, grid.tiles, [&](const Segment& segment) {
      outputs.read(segment, smaller(lanes, output.channels));
      inputs.read(segment, smaller(lanes, input.channels));
      for (int64_t tile = 0; tile < segment.tiles; ++tile) {
        Vector<Real> y[Rows::outputs][Columns::outputs];
        Vector<Real> d[Rows::inputs][Columns::inputs];
        const Vector<Real> all_outputs = read_sizes(outputs.rows, tile, y);
        const Vector<Real> all_inputs = read_sizes(inputs.rows, tile, d);
        all = fmadd(all_outputs, all_inputs, all);
        CONVEXT_UNROLL
        for (int tap = 0; tap < Tile::taps; ++tap) {
          CONVEXT_UNROLL
          for (int row = 0; row < Rows::outputs; ++row) {
            CONVEXT_UNROLL
            for (int column = 0; column < Columns::outputs; ++column) {
              const Vector<Real> met = d[tap / Columns::taps + row][tap % Columns::taps + column];
              of_tap[tap] = fmadd(y[row][column], met, of_tap[tap]);
            }
          }
        }
      }
    });
    Real* const to = shares_at(image, share);
    for (int tap = 0; tap < Tile::taps; ++tap) store(to + tap * lanes, of_tap[tap]);
    store(to + Tile::taps * lanes, all);
  }

  // Returns the sum.
  template <int height, int width>
  CONVEXT_INLINE static Vector<Real> read_sizes(const Real* const (&rows)[height], int64_t tile,
                                                Vector<Real> (&sizes)[height][width]) {
    Vector<Real> all = zero<Real>();
    CONVEXT_UNROLL
    for (int row = 0; row < height; ++row) {
      CONVEXT_UNROLL
      for (int column = 0; column < width; ++column) {
        sizes[row][column] = absolute(load(rows[row] + (tile * Columns::outputs + column) * lanes));
        all = add(all, sizes[row][column]);
      }
    }
    return all;
  }

  bool taps_have_their_share(int64_t share) const {
    const KernelBlock kernel = blocks.at(share % blocks.size());
    Real sums[Tile::taps + 1][lanes];
    for (int k = 0; k <= Tile::taps; ++k) {
      Vector<Real> total = zero<Real>();
      for (int64_t image = 0; image < problem.batch; ++image)
        total = add(total, load(shares_at(image, share) + k * lanes));
      store(sums[k], total);
    }
    for (int64_t lane = 0; lane < lanes; ++lane) {
      for (int tap = 0; tap < Tile::taps; ++tap) {
        if (!kernel.owns(tap / Columns::taps, tap % Columns::taps)) continue;
        if (!(usual_part * least_of_usual * sums[tap][lane] >= sums[Tile::taps][lane])) return false;
      }
    }
    return true;
  }

  bool pixels_meet(int64_t group) const {
    const int64_t out = operands[0].shape.channels;
    const int64_t in = operands[1].shape.channels;
    const Real of_output = fewest_pixels(group * out, out);
    const Real of_input = fewest_pixels(problem.out_channels + group * in, in);
    const auto pixels = static_cast<Real>(problem.batch * problem.output.height * problem.output.width);
    return of_output * of_input >= fewest_meetings * pixels;
  }

  // That count, of the channel where they are fewest; channels of zeros have no errors.
  Real fewest_pixels(int64_t first, int64_t channels) const {
    Real fewest = std::numeric_limits<Real>::infinity();
    for (int64_t channel = first; channel < first + channels; ++channel) {
      Real total = 0;
      Real largest = 0;
      for (int64_t image = 0; image < problem.batch; ++image) {
        const Real* const sizes = sizes_at(image, channel);
        total += sizes[0];
        largest = sizes[1] > largest ? sizes[1] : largest;
      }
      // Not a number where one of the channel's is not.
      const Real pixels = total / largest;
      if (total != 0 && !(pixels >= fewest)) fewest = pixels;
    }
    return fewest;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
