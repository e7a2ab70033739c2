// The innermost loops of pointwise.h, for `sources` channels: a run of pixels whose channels are planes, or
// lie side by side. A pixel's sum runs over the source channels in order, in one chain.
#pragma once

#include <type_traits>

#include "cpu/direct_rows/lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int most_pointwise_sources = 4;  // see with_few_channels

template <class Real, int count>
CONVEXT_INLINE void add_to_totals(const Vector<Real> (&sums)[count], double* totals) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  CONVEXT_UNROLL
  for (int c = 0; c < count; ++c) {
    Real values[lanes];
    store(values, sums[c]);
    for (int64_t lane = 0; lane < lanes; ++lane)
      totals[c * lanes + lane] += static_cast<double>(values[lane]);
  }
}

template <class T>
struct PointwisePlanes {
  const T* source;
  int64_t source_channel;
  T* result;
  int64_t result_channel;
  int64_t results;
  const Compute<T>* weights;  // [result][source], then the bias
};

template <class T, int sources>
void pointwise_planes(const PointwisePlanes<T>& planes, int64_t pixels) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  const Real* const bias = planes.weights + planes.results * sources;
  for (int64_t k = 0; k < pixels; k += lanes) {
    const int64_t rest = pixels - k;
    Vector<Real> values[sources];
    CONVEXT_UNROLL
    for (int c = 0; c < sources; ++c) {
      const T* from = planes.source + c * planes.source_channel + k;
      values[c] = rest >= lanes ? load_widened(from) : load_widened(from, rest);
    }
    const Real* weight = planes.weights;
    for (int64_t r = 0; r < planes.results; ++r, weight += sources) {
      Vector<Real> sum = mul(broadcast(weight[0]), values[0]);
      CONVEXT_UNROLL
      for (int c = 1; c < sources; ++c) sum = fmadd(broadcast(weight[c]), values[c], sum);
      sum = add(sum, broadcast(bias[r]));
      T* to = planes.result + r * planes.result_channel + k;
      if (rest >= lanes) {
        store_narrowed(to, sum);
      } else {
        store_narrowed(to, sum, rest);
      }
    }
  }
}

// totals[(r * sources + c) * lanes + l] += the sum over the pixels l, l + lanes, ...
template <class T, int sources>
void pointwise_planes_gradient(const T* source, int64_t source_channel, const T* gradient,
                               int64_t gradient_channel, int64_t results, int64_t pixels, double* totals) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  for (int64_t r = 0; r < results; ++r, gradient += gradient_channel, totals += sources * lanes) {
    Vector<Real> sums[sources];
    CONVEXT_UNROLL
    for (int c = 0; c < sources; ++c) sums[c] = zero<Real>();
    int64_t k = 0;
    for (; k + lanes <= pixels; k += lanes) {
      const Vector<Real> factors = load_widened(gradient + k);
      CONVEXT_UNROLL
      for (int c = 0; c < sources; ++c)
        sums[c] = fmadd(load_widened(source + c * source_channel + k), factors, sums[c]);
    }
    if (k < pixels) {
      const Vector<Real> factors = load_widened(gradient + k, pixels - k);
      CONVEXT_UNROLL
      for (int c = 0; c < sources; ++c)
        sums[c] = fmadd(load_widened(source + c * source_channel + k, pixels - k), factors, sums[c]);
    }
    add_to_totals<Real, sources>(sums, totals);
  }
}

// Lane l stands for result channel l % results of pixel l / results, as many whole pixels as fit. The lanes
// behind them are written, too, and then written over.
template <class Real>
struct PointwiseLanes {
  static constexpr int64_t lanes = Vector<Real>::lanes;
  int32_t orders[most_pointwise_sources * lanes];  // where source channel c of the lane's pixel is
  Real weights[most_pointwise_sources * lanes];
  Real bias[lanes];
  int64_t pixels;  // of a vector
  int64_t sources;
  int64_t results;
};

template <class T, int sources>
void pointwise_lanes(const PointwiseLanes<Compute<T>>& all, const T* source, T* result, int64_t pixels) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  LaneOrder<Real> orders[sources];
  Vector<Real> weights[sources];
  CONVEXT_UNROLL
  for (int c = 0; c < sources; ++c) {
    orders[c] = lane_order<Real>(all.orders + c * lanes);
    weights[c] = load(all.weights + c * lanes);
  }
  const Vector<Real> bias = load(all.bias);
  const auto correlate = [&](Vector<Real> values) {
    Vector<Real> sum = mul(permute(values, orders[0]), weights[0]);
    CONVEXT_UNROLL
    for (int c = 1; c < sources; ++c) sum = fmadd(permute(values, orders[c]), weights[c], sum);
    return add(sum, bias);
  };
  const int64_t source_step = all.pixels * sources;
  const int64_t result_step = all.pixels * all.results;
  int64_t source_rest = pixels * sources;
  int64_t result_rest = pixels * all.results;
  for (; source_rest >= lanes && result_rest >= lanes;
       source_rest -= source_step, result_rest -= result_step) {
    store_narrowed(result, correlate(load_widened(source)));
    source += source_step;
    result += result_step;
  }
  for (; result_rest > 0; source_rest -= source_step, result_rest -= result_step) {
    const Vector<Real> sum = correlate(load_widened(source, smaller(lanes, source_rest)));
    store_narrowed(result, sum, smaller(lanes, result_rest));
    source += source_step;
    result += result_step;
  }
}

// totals[c * lanes + l] += the sum over the pixels of source channel c times the gradient of lane l.
template <class T, int sources>
void pointwise_lanes_gradient(const PointwiseLanes<Compute<T>>& all, const T* source, const T* gradient,
                              int64_t pixels, double* totals) {
  using Real = Compute<T>;
  constexpr int64_t lanes = Vector<Real>::lanes;
  LaneOrder<Real> orders[sources];
  Vector<Real> sums[sources];
  CONVEXT_UNROLL
  for (int c = 0; c < sources; ++c) {
    orders[c] = lane_order<Real>(all.orders + c * lanes);
    sums[c] = zero<Real>();
  }
  const int64_t source_step = all.pixels * sources;
  const int64_t gradient_step = all.pixels * all.results;
  int64_t source_rest = pixels * sources;
  int64_t gradient_rest = pixels * all.results;
  for (; gradient_rest > 0; source_rest -= source_step, gradient_rest -= gradient_step) {
    const bool is_whole = source_rest >= lanes && gradient_rest >= lanes;
    const auto values = is_whole ? load_widened(source) : load_widened(source, smaller(lanes, source_rest));
    const auto factors =
        is_whole ? load_widened(gradient) : load_widened(gradient, smaller(lanes, gradient_rest));
    CONVEXT_UNROLL
    for (int c = 0; c < sources; ++c) sums[c] = fmadd(permute(values, orders[c]), factors, sums[c]);
    source += source_step;
    gradient += gradient_step;
  }
  add_to_totals<Real, sources>(sums, totals);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
