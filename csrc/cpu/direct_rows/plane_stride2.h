// The gradient of the input of depthwise 3 x 3 and 5 x 5 correlations with stride 2 of planes whose rows lie
// side by side in memory. A vector of the source along a row, and the one or two next to it, give two vectors
// of results for each of two rows: those of even and those of odd columns, as in phase_kernel.h, interleaved
// on the way into memory. Planes are read in place, in strips from top to bottom; what lies beside is masked
// out of the loads.
#pragma once

#include <atomic>

#include "cpu/direct_rows/axis.h"
#include "cpu/dispatch.h"
#include "cpu/scratch.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PlaneStride2Plan {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;

  RowsAxis rows;
  RowsAxis columns;
  int64_t taps;  // down and across
  int64_t planes;
  int64_t steps;  // pairs of rows of the result
  int64_t band;   // of them in a tile
  int64_t bands;
  int64_t tile_planes;  // small planes are dealt out several at a time
  int64_t ahead;        // from what is read to the next band or plane, which is fetched meanwhile
  int64_t worker_bytes = 0;

  static bool fits(const ConvProblem& p) {
    const auto fits_axis = [](const RowsAxis& axis) {
      return (axis.kernel == 3 || axis.kernel == 5) && axis.dilation == 1 && axis.stride == 2 &&
             axis.before < axis.kernel && axis.after < axis.kernel;
    };
    return can_mask_loads && std::is_same_v<T, Compute<T>> && p.pass == Pass::grad_input &&
           in_channels_per_group(p) == 1 && out_channels_per_group(p) == 1 && fits_axis(vertical_axis(p)) &&
           fits_axis(horizontal_axis(p)) && p.kernel.height == p.kernel.width &&
           p.padding_mode == PaddingMode::zeros && p.input_strides.column == 1 &&
           p.output_strides.column == 1 && p.input.width * 8 >= lanes * 5;
  }

  explicit PlaneStride2Plan(const ConvProblem& p)
      : rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        taps(p.kernel.height),
        planes(p.batch * p.in_channels),
        steps((rows.before + rows.input + 1) / 2 - rows.before / 2) {
    constexpr int64_t worth_dealing = 4096;  // results
    constexpr int64_t enough_tiles = 32;
    constexpr int64_t band_bytes = 16 * 1024;
    const int64_t plane_results = p.input.height * p.input.width;
    const int64_t row_bytes = p.output_strides.row * static_cast<int64_t>(sizeof(T));
    tile_planes = larger(1, worth_dealing / plane_results);
    bands = larger(smaller(ceil_div(plane_results, worth_dealing), ceil_div(enough_tiles, planes)),
                   steps * row_bytes / band_bytes);
    band = ceil_div(steps, larger(1, smaller(bands, ceil_div(steps, 4))));
    bands = ceil_div(steps, band);
    ahead = bands == 1 ? p.output_strides.channel : band * p.output_strides.row;
  }

  int64_t workspace_bytes(int) const { return 0; }
};

template <class Real>
struct PhaseStrip {
  const Real* source;  // row 0, the leftmost that the first pair of columns needs, be it inside or not
  int64_t source_row;
  int64_t source_height;
  int64_t ahead;
  int64_t target_ahead;  // the same of the result
  const Real* weights;
  Real* target;  // row 0, the first column
  int64_t target_row;
  int64_t target_height;
  int64_t first_line;  // the lowest line that the first pair of rows needs
  int64_t first_row;   // the first of those rows; it may be row -1
  int64_t steps;
  int64_t count;  // columns, at most two vectors
  bool streams;
  LaneMask<Real> masks[3];  // of the vectors of a line
};

// `is_odd`: the first column of a pair is an odd position of the padded row, else an even one.
template <class Real, int taps, bool is_odd, bool is_masked>
struct PhaseStripKernel {
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int half = taps / 2;

  const PhaseStrip<Real>& strip;

  CONVEXT_INLINE void read(Vector<Real> (&values)[half + 1], int64_t line) const {
    if (line < 0 || line >= strip.source_height) {
      CONVEXT_UNROLL
      for (int k = 0; k <= half; ++k) values[k] = zero<Real>();
      return;
    }
    const Real* from = strip.source + line * strip.source_row;
    __builtin_prefetch(from + strip.ahead, 0, 2);
    CONVEXT_UNROLL
    for (int k = 0; k <= half; ++k)
      values[k] = in_register(is_masked ? load(from + k, strip.masks[k]) : load(from + k));
  }

  CONVEXT_INLINE void write(int64_t row, Vector<Real> even, Vector<Real> odd) const {
    if (row < 0 || row >= strip.target_height) return;
    Real* to = strip.target + row * strip.target_row;
    // Of shorter vectors it takes several to fill a line of the cache, which is read before.
    if (!vector_is_line) __builtin_prefetch(to + strip.target_ahead, 1, 2);
    const Vector<Real> first = is_odd ? odd : even;
    const Vector<Real> second = is_odd ? even : odd;
    const Vector<Real> low = interleave_low(first, second);
    if (!is_masked || strip.count >= lanes) {
      store_result(to, low, strip.streams);
    } else {
      store(to, low, strip.count);
    }
    if (is_masked && strip.count <= lanes) return;
    const Vector<Real> high = interleave_high(first, second);
    if (!is_masked || strip.count == 2 * lanes) {
      store_result(to + lanes, high, strip.streams);
    } else {
      store(to + lanes, high, strip.count - lanes);
    }
  }

  // Of the row that the taps `row`, row + 2, ... down reach, the columns that those `column`, column + 2, ...
  // across reach. The last tap meets the first line and its leftmost vector.
  template <int row, int column>
  CONVEXT_INLINE Vector<Real> phase(const Vector<Real> (&weights)[9],
                                    const Vector<Real> (&lines)[half + 1][half + 1]) const {
    constexpr int shift = column == 1 && is_odd ? 1 : 0;  // the pair begins with the odd column before
    Vector<Real> sum = zero<Real>();
    CONVEXT_UNROLL
    for (int i = half - row; i >= 0; --i) {
      CONVEXT_UNROLL
      for (int j = half - column; j >= 0; --j) {
        const int tap = (2 * i + row) * taps + 2 * j + column;
        const Vector<Real> weight = taps == 3 ? weights[tap] : broadcast(strip.weights[tap]);
        sum = fmadd(weight, lines[half - i][half - j - shift], sum);
      }
    }
    return sum;
  }

  void run() const {
    Vector<Real> weights[9];  // more of them would not stay in registers
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) weights[k] = broadcast(strip.weights[k]);
    Vector<Real> lines[half + 1][half + 1];
    CONVEXT_UNROLL
    for (int k = 0; k < half; ++k) read(lines[k], strip.first_line - half + k);
    for (int64_t step = 0; step < strip.steps; ++step) {
      read(lines[half], strip.first_line + step);
      write(strip.first_row + 2 * step, phase<0, 0>(weights, lines), phase<0, 1>(weights, lines));
      write(strip.first_row + 2 * step + 1, phase<1, 0>(weights, lines), phase<1, 1>(weights, lines));
      CONVEXT_UNROLL
      for (int k = 0; k < half; ++k) {
        CONVEXT_UNROLL
        for (int v = 0; v <= half; ++v) lines[k][v] = lines[k + 1][v];
      }
    }
  }
};

template <class T>
class PlaneStride2 {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PlaneStride2(const PlaneStride2Plan<T>& cut, const ConvProblem& problem, const ConvData& data, void*)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(data.output)),
        result(static_cast<T*>(data.input)),
        weight(static_cast<const T*>(data.weight)),
        weights_follow(p.weight_strides.column == 1 && p.weight_strides.row == plan.taps &&
                       p.weight_strides.out_channel == plan.taps * plan.taps),
        streams(is_result_streamed<T>(p) && begins_line(result) && are_whole_lines<T>(p.input_strides.row) &&
                are_whole_lines<T>(p.input_strides.channel) && are_whole_lines<T>(p.input_strides.batch)) {}

  // False if a weight is not finite, and all is to be computed in another way: the zeros that stand for
  // outputs that do not exist would turn into NaN.
  bool run(const Executor& executor) const {
    if (weights_follow && !all_finite(weight, p.out_channels * plan.taps * plan.taps)) return false;
    std::atomic<bool> are_finite{true};
    const int64_t plane_tiles = ceil_div(plan.planes, plan.tile_planes);
    for_each_tile(executor, plane_tiles * plan.bands, [&](int64_t index, int) {
      const int64_t first = index / plan.bands * plan.tile_planes;
      const int64_t last = smaller(plan.planes, first + plan.tile_planes);
      const int64_t step = index % plan.bands * plan.band;
      if (!(plan.taps == 3 ? tile<3>(first, last, step) : tile<5>(first, last, step)))
        are_finite.store(false, std::memory_order_relaxed);
      if (streams) finish_streams();
    });
    return are_finite.load(std::memory_order_relaxed);
  }

 private:
  // False if one is not finite.
  template <int taps>
  bool pack(Real* to, int64_t channel) const {
    const T* from = weight + channel * p.weight_strides.out_channel;
    Real not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    for (int64_t i = 0; i < taps; ++i) {
      Real row = 0;
      for (int64_t j = 0; j < taps; ++j) {
        to[i * taps + j] = from[i * p.weight_strides.row + j * p.weight_strides.column];
        row += to[i * taps + j] * 0;
      }
      not_finite += row;
    }
    return not_finite == 0;
  }

  template <int taps>
  bool tile(int64_t first_plane, int64_t last_plane, int64_t first_step) const {
    PhaseStrip<Real> strip;
    strip.source_row = p.output_strides.row;
    strip.source_height = p.output.height;
    strip.ahead = plan.ahead;
    strip.target_ahead = plan.bands == 1 ? p.input_strides.channel : plan.band * 2 * p.input_strides.row;
    strip.target_row = p.input_strides.row;
    strip.target_height = p.input.height;
    strip.first_line = plan.rows.before / 2 + first_step;
    strip.first_row = strip.first_line * 2 - plan.rows.before;
    strip.steps = smaller(plan.band, plan.steps - first_step);
    strip.streams = streams;
    Real weights[taps * taps];
    strip.weights = weights;
    const int64_t to_left = (plan.columns.before + 1) / 2 - taps / 2;
    const auto inside = [&](int64_t first) {
      return lanes_between<Real>(smaller(lanes, larger(0, -first)),
                                 smaller(lanes, larger(0, p.output.width - first)));
    };
    for (int64_t k = 0; k <= taps / 2; ++k) strip.masks[k] = inside(to_left + k);
    const bool has_edges = p.input.width > 2 * lanes;  // other ones than those of the first strip
    int64_t n = first_plane / p.in_channels;
    int64_t channel = first_plane - n * p.in_channels;
    for (int64_t plane = first_plane; plane < last_plane; ++plane, ++channel) {
      if (channel == p.in_channels) {
        channel = 0;
        ++n;
      }
      if (weights_follow) {
        strip.weights = weight + channel * taps * taps;
      } else if (!pack<taps>(weights, channel)) {
        return false;
      }
      const T* from = source + n * p.output_strides.batch + channel * p.output_strides.channel;
      T* to = result + n * p.input_strides.batch + channel * p.input_strides.channel;
      for (int64_t x = 0; x < p.input.width; x += 2 * lanes) {
        const int64_t column = x / 2 + to_left;
        strip.source = from + column;
        strip.target = to + x;
        strip.count = smaller(2 * lanes, p.input.width - x);
        if (column >= 0 && column + lanes + taps / 2 <= p.output.width && strip.count == 2 * lanes) {
          run_strip<taps, false>(strip);
        } else {
          if (has_edges) {
            for (int64_t k = 0; k <= taps / 2; ++k) strip.masks[k] = inside(column + k);
          }
          run_strip<taps, true>(strip);
        }
      }
    }
    return true;
  }

  template <int taps, bool is_masked>
  void run_strip(const PhaseStrip<Real>& strip) const {
    if (plan.columns.before % 2 != 0) {
      PhaseStripKernel<Real, taps, true, is_masked>{strip}.run();
    } else {
      PhaseStripKernel<Real, taps, false, is_masked>{strip}.run();
    }
  }

  const PlaneStride2Plan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  bool weights_follow;  // each other in memory without gaps
  bool streams;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
