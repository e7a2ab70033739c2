// Many source channels to few result channels (channel_sum.h) where the channels of a pixel, and the pixels
// of a row, lie side by side in memory: what a row of taps meets is one run of numbers. Vectors run along it,
// full whatever the number of channels is; each of some neighbouring results has a vector of sums, whose
// lanes are added up at the end. Results on the left and right edge have neighbours above and below, of which
// the same part of the run lies in the padding.
#pragma once

#include "cpu/direct_rows/channel_sum.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PixelSumPlan : ChannelSum {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  static constexpr int64_t longest_chain = 32;

  int64_t run;      // numbers that a row of taps meets
  int64_t vectors;  // of them
  bool has_parts;   // each row of taps is added up in a chain of its own

  static bool fits(const ConvProblem& p) {
    if constexpr (!std::is_same_v<T, Compute<T>>) return false;
    if (!ChannelSum::fits(p) || p.groups != 1) return false;
    const bool is_forward = p.pass == Pass::forward;
    const int64_t sources = is_forward ? p.in_channels : p.out_channels;
    const int64_t results = is_forward ? p.out_channels : p.in_channels;
    const ImageStrides& strides = is_forward ? p.input_strides : p.output_strides;
    // Shorter runs fill vectors badly, and of several results the sources are read for each.
    const bool is_long = results == 1 ? sources >= 6 && sources * p.kernel.width >= 24 : sources >= 16;
    return is_long && sources * p.kernel.width <= 1024 && results <= 4 && strides.channel == 1 &&
           strides.column == sources;
  }

  explicit PixelSumPlan(const ConvProblem& p)
      : ChannelSum(p, 1),
        run(taps * source_channels),
        vectors(ceil_div(run, lanes)),
        has_parts(vectors * taps > longest_chain) {}

  int64_t packed_size() const { return taps * vectors * lanes; }
  int64_t workspace_bytes(int) const {
    return result_channels * packed_size() * static_cast<int64_t>(sizeof(T));
  }
};

// Some results that are equally far apart.
template <class Real>
struct PixelSumBlock {
  const Real* source;  // the run of the first row of taps of the first result, be it inside or not
  int64_t source_row;
  int64_t source_step;  // from result to result
  const Real* weights;  // of the first row of taps
  int64_t weight_row;
  int64_t first_tap;  // rows of taps that are inside
  int64_t last_tap;
  int64_t begin;  // numbers of a run that are inside
  int64_t end;
  bool has_parts;
  Real bias;
  Real* target;
  int64_t target_step;
};

// Of pairs, half as far apart each time, until the first vector has a number for each.
template <int half, class Real, int count>
CONVEXT_INLINE void interleave_sums(Vector<Real> (&v)[count]) {
  CONVEXT_UNROLL
  for (int i = 0; i < half; ++i)
    v[i] = add(interleave_low(v[i], v[i + half]), interleave_high(v[i], v[i + half]));
  if constexpr (half > 1) interleave_sums<half / 2>(v);
}

// The sum of each vector's lanes, in the order of sum().
template <class Real, int count>
CONVEXT_INLINE void write_sums(Real* results, const Vector<Real> (&sums)[count]) {
  constexpr int lanes = Vector<Real>::lanes;
  constexpr int together = count >= lanes ? lanes : count * 2 >= lanes ? count : lanes / 2;
  CONVEXT_UNROLL
  for (int first = 0; first < count; first += together) {
    Vector<Real> v[together];
    CONVEXT_UNROLL
    for (int i = 0; i < together; ++i) v[i] = first + i < count ? sums[first + i] : zero<Real>();
    interleave_sums<together / 2>(v);
    if constexpr (together < lanes) {
      const Vector<Real> twice = add(interleave_low(v[0], v[0]), interleave_high(v[0], v[0]));
      v[0] = even_lanes(twice, twice);
    }
    store(results + first, v[0], smaller(together, count));
  }
}

template <class Real, int count>
void add_pixels(const PixelSumBlock<Real>& block) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sums[count];
  Vector<Real> parts[count];
  CONVEXT_UNROLL
  for (int q = 0; q < count; ++q) sums[q] = parts[q] = zero<Real>();
  for (int64_t i = block.first_tap; i < block.last_tap; ++i) {
    const Real* from = block.source + i * block.source_row;
    const Real* weights = block.weights + i * block.weight_row;
    for (int64_t k = block.begin / lanes * lanes; k < block.end; k += lanes) {
      const Vector<Real> weight = in_register(load(weights + k));
      if (k >= block.begin && k + lanes <= block.end) {
        CONVEXT_UNROLL
        for (int q = 0; q < count; ++q)
          sums[q] = fmadd(load(from + q * block.source_step + k), weight, sums[q]);
      } else {
        const LaneMask<Real> mask =
            lanes_between<Real>(larger(0, block.begin - k), smaller(lanes, block.end - k));
        CONVEXT_UNROLL
        for (int q = 0; q < count; ++q)
          sums[q] = fmadd(load(from + q * block.source_step + k, mask), weight, sums[q]);
      }
    }
    if (block.has_parts) {
      CONVEXT_UNROLL
      for (int q = 0; q < count; ++q) {
        parts[q] = add(parts[q], sums[q]);
        sums[q] = zero<Real>();
      }
    }
  }
  if (block.has_parts) {
    CONVEXT_UNROLL
    for (int q = 0; q < count; ++q) sums[q] = parts[q];
  }
  if constexpr (count == 1) {
    block.target[0] = sum(sums[0]) + block.bias;
  } else {
    Real results[count];
    write_sums<Real, count>(results, sums);
    for (int q = 0; q < count; ++q) block.target[q * block.target_step] = results[q] + block.bias;
  }
}

template <class T>
class PixelSum {
 public:
  using Real = T;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PixelSum(const PixelSumPlan<T>& cut, const ConvProblem& problem, const ConvData& data, void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        packed(static_cast<T*>(workspace)),
        // Results before `first` have taps on the left or above of the source, those from `last` on behind
        // it.
        first_row(smaller(plan.result.height, larger(0, plan.before_rows))),
        last_row(larger(first_row,
                        smaller(plan.result.height, plan.source.height + plan.before_rows - plan.taps + 1))),
        first_column(smaller(plan.result.width, larger(0, plan.before_columns))),
        last_column(larger(first_column, smaller(plan.result.width,
                                                 plan.source.width + plan.before_columns - plan.taps + 1))) {}

  // False if a weight is not finite, and all is to be computed in another way: what lies beside the source is
  // left out, where its zeros would turn into NaN.
  bool run(const Executor& executor) const {
    for (int64_t channel = 0; channel < plan.result_channels; ++channel) {
      if (!pack(channel)) return false;
    }
    for_each_tile(executor, p.batch * plan.result_channels * plan.bands, [&](int64_t index, int) {
      const int64_t plane = index / plan.bands;
      tile(plane / plan.result_channels, plane % plan.result_channels, index % plan.bands * plan.band);
    });
    return true;
  }

 private:
  // [row of taps][tap, channel]. False if one is not finite.
  bool pack(int64_t channel) const {
    const auto from = plan.weights_of(p, weight, 0, channel);
    T* to = packed + channel * plan.packed_size();
    T not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    for (int64_t i = 0; i < plan.taps; ++i) {
      for (int64_t j = 0; j < plan.taps; ++j) {
        const T* tap = from.first + i * from.row + j * from.column;
        for (int64_t c = 0; c < plan.source_channels; ++c, tap += from.channel) {
          *to++ = *tap;
          not_finite += *tap * 0;
        }
      }
      for (int64_t k = plan.run; k < plan.vectors * lanes; ++k) *to++ = 0;
    }
    return not_finite == 0;
  }

  void tile(int64_t n, int64_t channel, int64_t begin) const {
    PixelSumBlock<Real> block;
    block.source_row = plan.source_strides.row;
    block.weights = packed + channel * plan.packed_size();
    block.weight_row = plan.vectors * lanes;
    block.has_parts = plan.has_parts;
    block.bias = bias == nullptr ? Real{} : bias[channel];
    const T* from = source + n * plan.source_strides.batch;
    T* to = result + n * plan.result_strides.batch + channel * plan.result_strides.channel;
    const int64_t end = smaller(plan.result.height, begin + plan.band);
    // `count` results from (y, x) on, below each other or side by side.
    const auto compute = [&](int64_t y, int64_t x, int64_t count, bool is_down) {
      block.first_tap = larger(0, plan.before_rows - y);
      block.last_tap = smaller(plan.taps, plan.source.height + plan.before_rows - y);
      block.begin = larger(0, plan.before_columns - x) * plan.source_channels;
      block.end = smaller(plan.taps, plan.source.width + plan.before_columns - x) * plan.source_channels;
      block.source_step = is_down ? block.source_row : plan.source_channels;
      block.target_step = is_down ? plan.result_strides.row : plan.result_strides.column;
      block.source =
          from + (y - plan.before_rows) * block.source_row + (x - plan.before_columns) * plan.source_channels;
      block.target = to + y * plan.result_strides.row + x * plan.result_strides.column;
      const auto add = [&](int64_t together, auto add_block) {
        for (; count >= together; count -= together) {
          add_block(block);
          block.source += together * block.source_step;
          block.target += together * block.target_step;
        }
      };
      add(8, add_pixels<Real, 8>);
      add(4, add_pixels<Real, 4>);
      add(1, add_pixels<Real, 1>);
    };
    for (int64_t y = begin; y < end; ++y) compute(y, first_column, last_column - first_column, false);
    const int64_t first = smaller(end, larger(begin, first_row));
    const int64_t last = larger(first, smaller(end, last_row));
    const auto compute_edge = [&](int64_t x) {
      for (int64_t y = begin; y < first; ++y) compute(y, x, 1, true);
      compute(first, x, last - first, true);
      for (int64_t y = last; y < end; ++y) compute(y, x, 1, true);
    };
    for (int64_t x = 0; x < first_column; ++x) compute_edge(x);
    for (int64_t x = last_column; x < plan.result.width; ++x) compute_edge(x);
  }

  const PixelSumPlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  T* packed;
  int64_t first_row;
  int64_t last_row;
  int64_t first_column;
  int64_t last_column;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
