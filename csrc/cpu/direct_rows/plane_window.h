// Correlations with square kernels of 3, 5 or 7 taps (window.h) of planes whose rows lie side by side in
// memory: depthwise, and forward of one channel to many; stride 2 for 3 x 3 and 5 x 5 only. Vectors run along
// the rows. A plane is computed in strips, one vector wide, from top to bottom, and read in place: what lies
// beside it is masked out of the loads, what lies above and below is left out (plane_strip.h). With a
// dilation, each strip is every so many-th row.
#pragma once

#include <atomic>

#include "cpu/direct_rows/plane_strip.h"
#include "cpu/direct_rows/small_plane_stride2.h"
#include "cpu/direct_rows/small_plane_window.h"
#include "cpu/direct_rows/window.h"
#include "cpu/scratch.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PlaneWindowPlan : Window {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;

  bool is_small;
  int64_t planes;
  int64_t tile_planes;  // small planes are dealt out several at a time
  int64_t band;         // rows of the result in a tile
  int64_t bands;
  int64_t ahead;  // from what is read to the next band or plane, which is fetched meanwhile; 0: nothing is
  int64_t worker_bytes = 0;

  static constexpr bool is_narrow = !std::is_same_v<T, Compute<T>>;
  static constexpr bool can_read = can_mask_loads && (can_mask_narrow_loads || !is_narrow);

  static bool fits(const ConvProblem& p) {
    // Of many results for one source channel each reads its lanes anew, which takes too long with a step.
    const bool has_few_reads =
        out_channels_per_group(p) == 1 || (p.pass == Pass::forward && vertical_axis(p).stride == 1);
    return can_read && Window::fits_dilated(p) && has_few_reads && fits_kernel(p) &&
           p.input_strides.column == 1 && p.output_strides.column == 1;
  }

  // Whether vectors along the rows are full enough to be faster than transposing to vectors of channels. The
  // limits are where the two were equally fast.
  static bool fits_kernel(const ConvProblem& p) {
    if (fits_small(p)) return true;
    const int64_t width = (p.pass == Pass::forward ? p.output : p.input).width;
    const bool is_filled = width >= 8 && width * 8 >= round_up(width, lanes) * 5;
    if (!is_filled) return false;
    const bool has_registers = sizeof(Vector<float>) == 64;  // 32 of them
    const bool has_single_step = vertical_axis(p).stride == 1;
    switch (p.kernel.height) {
      case 3:
        return true;
      case 5:
        return has_registers || width >= lanes * 5 / 2;
      case 7:
        return has_single_step && has_registers;
      default:
        return false;
    }
  }

  static bool fits_small(const ConvProblem& p) {
    return !is_narrow && (SmallPlaneWindow<Compute<T>>::fits(p) || SmallPlaneStride2<Compute<T>>::fits(p));
  }

  explicit PlaneWindowPlan(const ConvProblem& p)
      : Window(p), is_small(fits_small(p)), planes(p.batch * (is_forward ? p.out_channels : p.in_channels)) {
    constexpr int64_t worth_dealing = 4096;  // results
    constexpr int64_t enough_tiles = 32;
    const int64_t plane_results = larger(1, result.height * result.width);
    tile_planes = larger(1, worth_dealing / plane_results);
    // The L1 cache keeps the lines of a band from one strip to the next, but all lines that are a multiple of
    // 4 KiB apart fall into the same eight places. A band reads the lines of some rows more than it has.
    constexpr int64_t band_bytes = 16 * 1024;
    const int64_t source_row =
        (is_forward ? p.input_strides : p.output_strides).row * static_cast<int64_t>(sizeof(T));
    const int64_t enough_rows = taps == 3 && source_row % 4096 == 0 ? 6 : 6 * taps * dilation.height;
    bands = larger(smaller(ceil_div(plane_results, worth_dealing), ceil_div(enough_tiles, planes)),
                   source.height * source_row / band_bytes);
    bands = smaller(bands, ceil_div(result.height, enough_rows));
    band = ceil_div(result.height, larger(1, bands));
    bands = ceil_div(result.height, larger(1, band));
    constexpr int64_t worth_fetching = 512 * 1024;  // bytes
    const ImageStrides& strides = is_forward ? p.input_strides : p.output_strides;
    const bool is_once = p.in_channels == p.out_channels;  // that a plane is read
    const int64_t source_bytes = planes * source.height * source_row;
    ahead = 0;
    if (is_once && source_bytes >= worth_fetching)
      ahead = bands == 1 ? strides.channel : band * step * strides.row;
  }

  int64_t workspace_bytes(int) const { return 0; }
};

template <class T>
class PlaneWindowCorrelation {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PlaneWindowCorrelation(const PlaneWindowPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                         void*)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        weights_follow(!PlaneWindowPlan<T>::is_narrow && p.weight_strides.column == 1 &&
                       p.weight_strides.row == plan.taps &&
                       p.weight_strides.out_channel == plan.taps * plan.taps),
        small(plan, plan.is_small && plan.step == 1, plan.ahead),
        small_stride2(plan, p, plan.is_small && plan.step == 2),
        streams(is_result_streamed<T>(p) && begins_line(result) && are_whole_lines<T>(result_strides.row) &&
                are_whole_lines<T>(result_strides.channel) && are_whole_lines<T>(result_strides.batch)) {
    for (int64_t lane = 0; lane < lanes; ++lane) backwards[lane] = static_cast<int32_t>(lanes - 1 - lane);
  }

  // False if a weight is not finite, and all is to be computed in another way: the zeros of the padding would
  // turn into NaN.
  bool run(const Executor& executor) {
    if constexpr (!PlaneWindowPlan<T>::is_narrow) {
      if (weights_follow && !all_finite(weight, p.out_channels * plan.taps * plan.taps)) return false;
    }
    std::atomic<bool> are_finite{true};
    const int64_t plane_tiles = ceil_div(plan.planes, plan.tile_planes);
    for_each_tile(executor, plane_tiles * plan.bands, [&](int64_t index, int) {
      const int64_t first = index / plan.bands * plan.tile_planes;
      const int64_t last = smaller(plan.planes, first + plan.tile_planes);
      const int64_t row = index % plan.bands * plan.band;
      const bool finite = plan.taps == 3   ? tile<3>(first, last, row)
                          : plan.taps == 5 ? tile<5>(first, last, row)
                                           : tile<7>(first, last, row);
      if (!finite) are_finite.store(false, std::memory_order_relaxed);
      if (streams) finish_streams();
    });
    return are_finite.load(std::memory_order_relaxed);
  }

 private:
  // In the order in which the source is read. False if one is not finite and that is not known yet.
  bool pack(Real* to, int64_t channel) const {
    const T* from = weight + channel * p.weight_strides.out_channel;
    const int64_t area = plan.taps * plan.taps;
    if constexpr (!PlaneWindowPlan<T>::is_narrow) {
      if (weights_follow) {
        const LaneOrder<Real> order = lane_order<Real>(backwards);
        for (int64_t tap = 0; tap < area; tap += lanes) {
          const LaneMask<Real> mask = lanes_between<Real>(larger(0, lanes - (area - tap)), lanes);
          store(to + tap, permute(load(from + area - tap - lanes, mask), order));
        }
        return true;
      }
    }
    Real not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    for (int64_t i = 0, tap = 0; i < plan.taps; ++i) {
      for (int64_t j = 0; j < plan.taps; ++j, ++tap) {
        const Real number = widen(from[i * p.weight_strides.row + j * p.weight_strides.column]);
        to[plan.is_forward ? tap : area - 1 - tap] = number;
        not_finite += number * 0;
      }
    }
    return not_finite == 0;
  }

  // Where they lie, if they can be read there, or packed.
  template <int taps>
  bool find_weights(Strip<T>& strip, Real* packed, int64_t channel) const {
    if constexpr (!PlaneWindowPlan<T>::is_narrow) {
      if (weights_follow && plan.is_forward) {
        strip.weights = weight + channel * taps * taps;
        return true;
      }
    }
    return pack(packed, channel);
  }

  template <int taps>
  bool tile(int64_t first_plane, int64_t last_plane, int64_t row) const {
    Strip<T> strip;
    strip.tap_step = plan.dilation.width;
    strip.streams = streams;
    Real weights[taps * taps + lanes];  // whole vectors are written
    strip.weights = weights;
    const int64_t channels = plan.is_forward ? p.out_channels : p.in_channels;
    const int64_t channels_of_group = channels / p.groups;
    const bool is_dilated = plan.dilation.height != 1 || plan.dilation.width != 1;
    int64_t n = first_plane / channels;
    int64_t channel = first_plane - n * channels;
    for (int64_t plane = first_plane; plane < last_plane; ++plane, ++channel) {
      if (channel == channels) {
        channel = 0;
        ++n;
      }
      if (!find_weights<taps>(strip, weights, channel)) return false;
      strip.bias = bias == nullptr ? Real{} : widen(bias[channel]);
      const T* from =
          source + n * source_strides.batch +
          (channels_of_group == 1 ? channel : channel / channels_of_group) * source_strides.channel;
      T* to = result + n * result_strides.batch + channel * result_strides.channel + row * result_strides.row;
      if constexpr (!PlaneWindowPlan<T>::is_narrow && can_permute_pairs && taps <= 5) {
        if (plan.is_small && plan.step == 1) {
          small.template run<taps>(from, strip.weights, strip.bias, to);
          continue;
        }
      }
      if constexpr (!PlaneWindowPlan<T>::is_narrow && lanes >= 16 && taps == 3) {
        if (plan.is_small && plan.step == 2) {
          small_stride2.run(from, strip.weights, strip.bias, to);
          continue;
        }
      }
      const bool keeps_masks = plane != first_plane && plan.result.width <= lanes;
      if (is_dilated) {
        strips<taps, 1, true>(strip, from, to, row, keeps_masks);
      } else if (taps < 7 && plan.step == 2) {
        strips < taps, taps<7 ? 2 : 1, false>(strip, from, to, row, keeps_masks);
      } else {
        strips<taps, 1, false>(strip, from, to, row, keeps_masks);
      }
    }
    return true;
  }

  // The rows of a band from `row` on. `keeps_masks`: they are those of the plane before.
  template <int taps, int step, bool is_dilated>
  CONVEXT_INLINE void strips(Strip<T>& strip, const T* plane, T* target, int64_t row,
                             bool keeps_masks) const {
    constexpr int64_t line_numbers = line_bytes / static_cast<int64_t>(sizeof(T));
    const int64_t band = smaller(plan.band, plan.result.height - row);
    const int64_t dilation = is_dilated ? plan.dilation.height : 1;
    const int64_t reach = (taps - 1) * (is_dilated ? plan.dilation.width : 1);
    strip.source_row = dilation * source_strides.row;
    strip.target_row = dilation * result_strides.row;
    for (int64_t x = 0; x < plan.result.width; x += lanes) {
      const int64_t column = x * step - plan.before_columns;
      strip.count = smaller(lanes, plan.result.width - x);
      strip.ahead = x * step % line_numbers == 0 ? plan.ahead : 0;
      const bool is_inside =
          column >= 0 && column + lanes * step + reach <= plan.source.width && strip.count == lanes;
      if (!is_inside && !keeps_masks) set_masks<taps, step>(strip, column);
      for (int64_t phase = 0; phase < smaller(dilation, band); ++phase) {
        const int64_t line = row * step + phase - plan.before_rows;  // of the first tap
        const int64_t first = floor_modulo(line, dilation);
        strip.first_line = (line - first) / dilation;
        strip.source = plane + first * source_strides.row + column;
        strip.source_height = ceil_div(larger(0, plan.source.height - first), dilation);
        strip.target = target + phase * result_strides.row + x;
        strip.rows = ceil_div(band - phase, dilation);
        is_inside ? run_strip<taps, step, false, is_dilated>(strip)
                  : run_strip<taps, step, true, is_dilated>(strip);
      }
    }
  }

  static int64_t floor_modulo(int64_t a, int64_t b) { return a >= 0 ? a % b : b - 1 - (-1 - a) % b; }

  template <int taps, int step>
  void set_masks(Strip<T>& strip, int64_t column) const {
    for (int64_t j = 0; j < taps; ++j) {
      for (int64_t k = 0; k < step; ++k) {
        const int64_t first = column + j * plan.dilation.width + k * lanes;
        strip.masks[j][k] = lanes_between<Real>(smaller(lanes, larger(0, -first)),
                                                smaller(lanes, larger(0, plan.source.width - first)));
      }
    }
  }

  template <int taps, int step, bool is_masked, bool is_dilated>
  static void run_strip(const Strip<T>& strip) {
    const StripKernel<T, taps, step, is_masked, is_dilated> kernel{strip};
    if constexpr (taps == 3) {
      kernel.run_3x3();
    } else if constexpr (step == 2) {
      kernel.run_rolling_stride2();
    } else {
      kernel.run_rolling();
    }
  }

  const PlaneWindowPlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  ImageStrides source_strides;
  ImageStrides result_strides;
  int32_t backwards[lanes];
  bool weights_follow;  // each other in memory without gaps
  SmallPlaneWindow<Real> small;
  SmallPlaneStride2<Real> small_stride2;
  bool streams;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
