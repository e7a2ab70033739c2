// Many source channels to few result channels (channel_sum.h) of planes whose rows lie side by side in
// memory, such as the gradient of a grey image. Vectors run along the rows. Planes are read in place: the
// results of some rows of one vector of columns stay in registers through all the channels, and what lies
// beside a plane is masked out of the loads.
#pragma once

#include "cpu/direct_rows/channel_sum.h"
#include "cpu/direct_rows/row_kernel.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__)
constexpr int plane_sum_rows = 8;
#else
constexpr int plane_sum_rows = 4;  // twice as many sums, the weights and masks of a column: 16 registers
#endif

constexpr int64_t plane_sum_columns = 128;  // at a time

template <class T>
struct PlaneSumPlan : ChannelSum {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;

  static bool fits(const ConvProblem& p) {
    if constexpr (!std::is_same_v<T, Compute<T>>) return false;
    if (!ChannelSum::fits(p) || p.input_strides.column != 1 || p.output_strides.column != 1) return false;
    const bool is_forward = p.pass == Pass::forward;
    const int64_t sources = is_forward ? in_channels_per_group(p) : out_channels_per_group(p);
    const int64_t results = is_forward ? out_channels_per_group(p) : in_channels_per_group(p);
    const int64_t width = (is_forward ? p.output : p.input).width;
    const int64_t most_results = plane_sum_rows == 8 && width <= 64 ? 3 : 2;  // each reads the sources again
    return sources >= 4 && results <= most_results && (p.kernel.height == 3 || p.kernel.height == 5) &&
           width >= 8 && width * 8 >= round_up(width, lanes) * 5;
  }

  explicit PlaneSumPlan(const ConvProblem& p) : ChannelSum(p, plane_sum_rows) {}

  int64_t workspace_bytes(int) const { return 0; }
};

// Rows of results of one vector of columns.
template <class Real>
struct PlaneSumBlock {
  const Real* source;  // what the first tap of the first result meets, be it inside or not
  int64_t source_row;
  int64_t source_channel;
  uint32_t inside;   // bit k: line k of those that the block meets is inside the source and of use
  int64_t ahead;     // from what is read to what is fetched meanwhile; 0: nothing is
  int64_t channels;  // a part of them, which begins with the first and ends with the last one, or not
  bool is_first_part;
  bool is_last_part;
  int64_t chain;  // channels that are added up in one chain
  Real* totals;   // between two parts
  ChannelSum::Weights<Real> weights;
  Real bias;
  Real* target;
  int64_t target_row;
  int64_t rows;
  int64_t count;            // results of a row
  LaneMask<Real> masks[5];  // for each tap across
};

template <class Real, int taps, int rows>
void add_planes(const PlaneSumBlock<Real>& block) {
  Vector<Real> totals[rows];
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q)
    totals[q] = block.is_first_part ? zero<Real>() : load(block.totals + q * plane_sum_columns);
  const Real* source = block.source;
  const Real* weights = block.weights.first;
  for (int64_t first = 0; first < block.channels; first += block.chain) {
    Vector<Real> sums[rows];
    CONVEXT_UNROLL
    for (int q = 0; q < rows; ++q) sums[q] = zero<Real>();
    const int64_t last = smaller(block.channels, first + block.chain);
    for (int64_t channel = first; channel < last; ++channel) {
      CONVEXT_UNROLL
      for (int j = 0; j < taps; ++j) {
        Vector<Real> weight[taps];
        CONVEXT_UNROLL
        for (int i = 0; i < taps; ++i)
          weight[i] = in_register(broadcast(weights[i * block.weights.row + j * block.weights.column]));
        const Real* line = source + j;
        CONVEXT_UNROLL
        for (int k = 0; k < rows + taps - 1; ++k, line += block.source_row) {
          if (__builtin_expect((block.inside >> k & 1) == 0, 0)) continue;
          if (j == 0 && block.ahead != 0) __builtin_prefetch(line + block.ahead, 0, 3);
          const Vector<Real> values = in_register(load(line, block.masks[j]));
          CONVEXT_UNROLL
          for (int i = 0; i < taps; ++i) {
            const int q = k - i;
            if (q >= 0 && q < rows) sums[q] = fmadd(weight[i], values, sums[q]);
          }
        }
      }
      source += block.source_channel;
      weights += block.weights.channel;
    }
    CONVEXT_UNROLL
    for (int q = 0; q < rows; ++q) totals[q] = add(totals[q], sums[q]);
  }
  if (!block.is_last_part) {
    CONVEXT_UNROLL
    for (int q = 0; q < rows; ++q) store(block.totals + q * plane_sum_columns, totals[q]);
    return;
  }
  CONVEXT_UNROLL
  for (int q = 0; q < rows; ++q) {
    if (q < block.rows)
      store(block.target + q * block.target_row, add(totals[q], broadcast(block.bias)), block.count);
  }
}

template <class T>
class PlaneSum {
 public:
  using Real = T;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PlaneSum(const PlaneSumPlan<T>& cut, const ConvProblem& problem, const ConvData& data, void*)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr) {}

  // False if a weight is not finite, and all is to be computed in another way: the zeros of the padding would
  // turn into NaN.
  bool run(const Executor& executor) const {
    if (!plan.are_finite(p, weight)) return false;
    const int64_t planes = p.groups * plan.result_channels;
    for_each_tile(executor, p.batch * planes * plan.bands, [&](int64_t index, int) {
      const int64_t plane = index / plan.bands;
      const int64_t row = index % plan.bands * plan.band;
      if (plan.taps == 3) {
        tile<3>(plane / planes, plane % planes, row);
      } else {
        tile<5>(plane / planes, plane % planes, row);
      }
    });
    return true;
  }

 private:
  template <int taps>
  void tile(int64_t n, int64_t channel, int64_t first_row) const {
    const int64_t group = channel / plan.result_channels;
    constexpr int64_t line_numbers = line_bytes / static_cast<int64_t>(sizeof(Real));
    PlaneSumBlock<Real> block;
    block.source_row = plan.source_strides.row;
    block.source_channel = plan.source_strides.channel;
    block.channels = plan.source_channels;
    block.chain = larger(1, most_chain_terms(plan.source_channels, taps * taps) / (taps * taps));
    block.weights = plan.weights_of(p, weight, group, channel % plan.result_channels);
    const Real* weights = block.weights.first;
    const bool is_wide = plan.result.width > 3 * line_numbers;
    const int64_t part = is_wide ? round_up(4, block.chain) : plan.source_channels;
    Real totals[plane_sum_rows * plane_sum_columns];
    block.bias = bias == nullptr ? Real{} : bias[channel];
    block.target_row = plan.result_strides.row;
    const T* from =
        source + n * plan.source_strides.batch + group * plan.source_channels * plan.source_strides.channel;
    T* to = result + n * plan.result_strides.batch + channel * plan.result_strides.channel;
    const int64_t last_row = smaller(plan.result.height, first_row + plan.band);
    for (int64_t row = first_row; row < last_row;) {
      const int64_t rows = last_row - row <= 4 ? 4 : plane_sum_rows;
      const int64_t line = row - plan.before_rows;
      block.rows = smaller(rows, last_row - row);
      block.inside = 0;
      for (int64_t k = larger(0, -line); k < smaller(block.rows + taps - 1, plan.source.height - line); ++k)
        block.inside |= uint32_t{1} << k;
      for (int64_t column = 0; column < plan.result.width; column += plane_sum_columns) {
        for (int64_t c = 0; c < plan.source_channels; c += part) {
          block.channels = smaller(part, plan.source_channels - c);
          block.is_first_part = c == 0;
          block.is_last_part = c + part >= plan.source_channels;
          block.weights.first = weights + c * block.weights.channel;
          const int64_t end = smaller(plan.result.width, column + plane_sum_columns);
          for (int64_t x = column; x < end; x += lanes) {
            const int64_t left = x - plan.before_columns;
            block.source = from + c * block.source_channel + line * block.source_row + left;
            block.ahead = x % line_numbers != 0 ? 0 : is_wide ? 2 * line_numbers : 2 * block.source_channel;
            block.totals = totals + (x - column);
            block.target = to + row * block.target_row + x;
            block.count = smaller(lanes, end - x);
            for (int64_t j = 0; j < taps; ++j) {
              block.masks[j] = lanes_between<Real>(smaller(lanes, larger(0, -(left + j))),
                                                   smaller(lanes, larger(0, plan.source.width - (left + j))));
            }
            if (rows == 4) {
              add_planes<Real, taps, 4>(block);
            } else {
              add_planes<Real, taps, plane_sum_rows>(block);
            }
          }
        }
      }
      row += rows;
    }
  }

  const PlaneSumPlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
