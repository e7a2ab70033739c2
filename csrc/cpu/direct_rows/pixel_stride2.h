// The gradient of the input of depthwise 3 x 3 correlations with stride 2 where channels lie innermost in
// memory, as in phase_kernel.h. Vectors run along the channels; all is read and written in place, in the
// order of memory.
#pragma once

#include <atomic>

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/pixel_lines.h"
#include "cpu/dispatch.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PixelStride2Plan {
  static constexpr int64_t block = channel_block<T>;

  RowsAxis rows;
  RowsAxis columns;
  int64_t blocks;
  int64_t steps;        // pairs of rows of the result
  int64_t part_blocks;  // blocks of channels in one tile
  int64_t parts;

  int64_t packed_offset;  // the weights come behind a block of zeros
  int64_t worker_bytes = 0;
  int64_t bytes;

  static bool fits(const ConvProblem& p) {
    const auto fits_axis = [](const RowsAxis& axis) {
      return axis.kernel == 3 && axis.dilation == 1 && axis.stride == 2 && axis.before <= 2 &&
             axis.after <= 2;
    };
    return p.pass == Pass::grad_input && in_channels_per_group(p) == 1 && out_channels_per_group(p) == 1 &&
           fits_axis(vertical_axis(p)) && fits_axis(horizontal_axis(p)) &&
           p.padding_mode == PaddingMode::zeros && has_channels_innermost(p.input_strides) &&
           has_channels_innermost(p.output_strides);
  }

  explicit PixelStride2Plan(const ConvProblem& p)
      : rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        blocks(ceil_div(p.in_channels, block)),
        steps((rows.before + rows.input + 1) / 2 - rows.before / 2) {
    constexpr int64_t enough_tiles = 32;
    parts = smaller(blocks, ceil_div(enough_tiles, steps));
    part_blocks = ceil_div(blocks, parts);
    parts = ceil_div(blocks, part_blocks);
    Carver shared;
    shared.take(block, sizeof(T));
    packed_offset = shared.take(blocks * 9 * block, sizeof(Compute<T>));
    bytes = shared.bytes;
  }

  int64_t workspace_bytes(int) const { return bytes; }
};

template <class T>
class PixelStride2 {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t block = channel_block<T>;

  PixelStride2(const PixelStride2Plan<T>& cut, const ConvProblem& problem, const ConvData& data,
               void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(data.output)),
        result(static_cast<T*>(data.input)),
        weight(static_cast<const T*>(data.weight)),
        zeros(static_cast<T*>(workspace)),
        packed(reinterpret_cast<Real*>(static_cast<char*>(workspace) + plan.packed_offset)),
        streams(is_result_streamed<T>(p) && are_pixels_whole_lines(result, p.input_strides)) {}

  // False, with nothing written, if a weight is not finite: the zeros that stand for outputs that do not
  // exist would turn into NaN.
  bool run(const Executor& executor) {
    for (int64_t c = 0; c < block; ++c) zeros[c] = T{};
    constexpr int64_t worth_sharing = 1 << 15;
    std::atomic<bool> all_finite{true};
    for_each_tile(p.in_channels * 9 > worth_sharing ? executor : Executor{}, plan.blocks,
                  [&](int64_t index, int) {
                    if (!pack(index)) all_finite.store(false, std::memory_order_relaxed);
                  });
    if (!all_finite.load(std::memory_order_relaxed)) return false;
    for_each_tile(executor, p.batch * plan.steps * plan.parts, [&](int64_t index, int) {
      const int64_t n = index / plan.parts / plan.steps;
      const int64_t step = index / plan.parts % plan.steps;
      const int64_t first_block = index % plan.parts * plan.part_blocks;
      gradient_tile(n, step, first_block);
      if (streams) finish_streams();
    });
    return true;
  }

 private:
  static constexpr int64_t together = 8;  // results or pairs, for which the weights stay in registers

  // Two rows of the result, a vector of their channels.
  struct Rows {
    const T* upper;  // lines of the source, or a block of zeros, from pixel to pixel of which it is no step
    const T* lower;
    int64_t upper_step;
    int64_t lower_step;
    T* even_row;  // or nullptr where that row is none of the result's
    T* odd_row;
    const Real* weights;  // [tap][block]
    int64_t channels;     // at most a vector
  };

  // [block of channels][tap][channel]. False if one is not finite.
  bool pack(int64_t index) const {
    const int64_t channels = smaller(block, p.in_channels - index * block);
    const WeightStrides& strides = p.weight_strides;
    const T* from = weight + index * block * strides.out_channel;
    Real* to = packed + index * 9 * block;
    if (strides.column == 1 && strides.row == 3) {
      transpose_in<T>(to, 0, from, strides.out_channel, channels, 9, 9);
    } else {
      for (int64_t tap = 0; tap < 9; ++tap) {
        for (int64_t c = 0; c < round_up(channels, lanes); ++c)
          to[tap * block + c] = widen(from[smaller(c, channels - 1) * strides.out_channel +
                                           tap / 3 * strides.row + tap % 3 * strides.column]);
      }
    }
    Real not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    for (int64_t tap = 0; tap < 9; ++tap)
      for (int64_t c = 0; c < channels; ++c) not_finite += to[tap * block + c] * 0;
    return not_finite == 0;
  }

  void gradient_tile(int64_t n, int64_t pair, int64_t first_block) const {
    const int64_t line = plan.rows.before / 2 + pair;
    const int64_t row = line * 2 - plan.rows.before;
    const bool has_upper = line > 0 && line <= p.output.height;
    const bool has_lower = line < p.output.height;
    const T* lower = source + n * p.output_strides.batch + line * p.output_strides.row;
    const T* upper = lower - p.output_strides.row;
    T* even_row = result + n * p.input_strides.batch + row * p.input_strides.row;
    T* odd_row = even_row + p.input_strides.row;
    const int64_t last = smaller(p.in_channels, (first_block + plan.part_blocks) * block);
    const int64_t pairs = ceil_div(p.input.width, 2);
    Rows rows;
    rows.upper_step = has_upper ? p.output_strides.column : 0;
    rows.lower_step = has_lower ? p.output_strides.column : 0;
    for (int64_t begin = 0; begin < pairs; begin += together) {
      const int64_t end = smaller(pairs, begin + together);
      for (int64_t c = first_block * block; c < last; c += lanes) {
        rows.upper = has_upper ? upper + c : zeros;
        rows.lower = has_lower ? lower + c : zeros;
        rows.even_row = row >= 0 ? even_row + c : nullptr;
        rows.odd_row = row + 1 < p.input.height ? odd_row + c : nullptr;
        rows.weights = packed + c / block * 9 * block + c % block;
        rows.channels = smaller(lanes, last - c);
        if (plan.columns.before % 2 != 0) {
          correlate<true>(rows, begin, end);
        } else {
          correlate<false>(rows, begin, end);
        }
      }
    }
  }

  // Pairs [begin, end) of columns. `is_odd`: the first column of a pair is an odd position, else an even one.
  template <bool is_odd>
  void correlate(const Rows& rows, int64_t begin, int64_t end) const {
    Vector<Real> weights[9];
    CONVEXT_UNROLL
    for (int tap = 0; tap < 9; ++tap) weights[tap] = load(rows.weights + tap * block);
    const Vector<Real> none = zero<Real>();
    const bool whole = rows.channels == lanes;
    const int64_t source_columns = p.output.width;
    const auto read = [&](const T* line, int64_t step, int64_t column) {
      if (column < 0 || column >= source_columns) return none;
      return whole ? load_widened(line + column * step) : load_widened(line + column * step, rows.channels);
    };
    const int64_t to_left = (plan.columns.before + 1) / 2 - 1;
    const int64_t step = p.input_strides.column;
    Vector<Real> left = read(rows.upper, rows.upper_step, to_left + begin);
    Vector<Real> next_left = read(rows.lower, rows.lower_step, to_left + begin);
    for (int64_t pair = begin; pair < end; ++pair) {
      const Vector<Real> right = read(rows.upper, rows.upper_step, to_left + pair + 1);
      const Vector<Real> next_right = read(rows.lower, rows.lower_step, to_left + pair + 1);
      const bool has_second = 2 * pair + 1 < p.input.width;
      const auto write = [&](T* row, Vector<Real> even, Vector<Real> odd) {
        T* to = row + 2 * pair * step;
        const Vector<Real> first = is_odd ? odd : even;
        const Vector<Real> second = is_odd ? even : odd;
        if (whole) {
          store_result(to, first, streams);
          if (has_second) store_result(to + step, second, streams);
        } else {
          store_narrowed(to, first, rows.channels);
          if (has_second) store_narrowed(to + step, second, rows.channels);
        }
      };
      if (rows.even_row != nullptr) {
        const Vector<Real> even =
            fmadd(weights[0], next_right,
                  fmadd(weights[2], next_left, fmadd(weights[6], right, fmadd(weights[8], left, none))));
        const Vector<Real> odd = fmadd(weights[1], is_odd ? next_left : next_right,
                                       fmadd(weights[7], is_odd ? left : right, none));
        write(rows.even_row, even, odd);
      }
      if (rows.odd_row != nullptr) {
        const Vector<Real> even = fmadd(weights[3], next_right, fmadd(weights[5], next_left, none));
        const Vector<Real> odd = fmadd(weights[4], is_odd ? next_left : next_right, none);
        write(rows.odd_row, even, odd);
      }
      left = right;
      next_left = next_right;
    }
  }

  const PixelStride2Plan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  T* zeros;
  Real* packed;
  bool streams;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
