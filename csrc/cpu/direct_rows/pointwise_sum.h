// 1x1 kernels of many source channels to few results, of planes, such as the last layer of a segmentation:
// the time of reading the source once. Some thousand pixels at a time, four planes side by side are added to
// sums that stay in the L1 cache, and the next four are fetched meanwhile: planes that are read a few vectors
// at a time are followed by no prefetcher.
//
// The gradient of the weight of many channels on one side and few on the other adds up chains of pixels in
// vectors, and chains in double; chains are dealt into chunks, whose sums are added in order.
#pragma once

#include "cpu/direct_rows/pointwise_kernel.h"
#include "cpu/direct_rows/pointwise_runs.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

constexpr int most_pointwise_sums = 4;  // few channels are up to as many: see with_few_channels
constexpr int pointwise_planes_together = 4;

// Runs of as many pixels each that are added up in one chain.
template <class Real>
struct PointwiseChain {
  static constexpr int64_t most_runs = 16;

  int64_t many_channel;
  int64_t few_channel;
  int64_t pixels = 0;
  int64_t runs;
  const Real* many[most_runs];
  const Real* few[most_runs];
};

template <class T>
struct PointwiseSumPlan {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  // F.conv2d has one chain.
  static constexpr int64_t chain_channels = 64;
  static constexpr int64_t block_channels = 64;  // of a gradient's tile

  bool is_weight;
  bool is_forward;
  bool has_many_inputs;
  int64_t many;
  int64_t few;
  PointwiseRuns pixels;
  int64_t chain_runs;  // of a gradient: pieces are chains, or several short runs together are
  int64_t chains;
  int64_t chunks;
  int64_t blocks;
  int64_t worker_bytes = 0;

  static bool fits(const ConvProblem& p) {
    const bool is_sum = p.pass == Pass::forward      ? p.out_channels <= most_pointwise_sums
                        : p.pass == Pass::grad_input ? p.in_channels <= most_pointwise_sums
                                                     : true;
    return std::is_same_v<T, Compute<T>> && PointwiseRuns::fits(p) && is_sum &&
           smaller(p.in_channels, p.out_channels) <= most_pointwise_sums &&
           larger(p.in_channels, p.out_channels) > most_pointwise_sources && p.input_strides.column == 1 &&
           p.output_strides.column == 1;
  }

  explicit PointwiseSumPlan(const ConvProblem& p)
      : is_weight(p.pass == Pass::grad_weight),
        is_forward(p.pass == Pass::forward),
        has_many_inputs(p.in_channels > p.out_channels),
        many(larger(p.in_channels, p.out_channels)),
        few(smaller(p.in_channels, p.out_channels)),
        pixels(p, is_weight ? PointwiseRuns::chain_vectors(p) * lanes : tile_pixels(few)) {
    constexpr int64_t worth_sharing = 32;
    const int64_t run_vectors = larger(1, ceil_div(pixels.length, lanes));
    chain_runs =
        smaller(PointwiseChain<T>::most_runs, larger(1, PointwiseRuns::chain_vectors(p) / run_vectors));
    chains = ceil_div(pixels.count(), chain_runs);
    chunks = smaller(chains, worth_sharing);
    blocks = ceil_div(many, block_channels);
  }

  static constexpr int64_t tile_pixels(int64_t results) {
    constexpr int64_t cached_sums = 16 * 1024 / static_cast<int64_t>(sizeof(T));
    return cached_sums / results / lanes * lanes;
  }

  int64_t workspace_bytes(int) const {
    return is_weight ? chunks * many * few * static_cast<int64_t>(sizeof(double)) : 0;
  }
};

// What some source channels add to the sums of a run of pixels.
template <class Real>
struct PointwiseTerms {
  const Real* source;
  int64_t source_channel;
  const Real* weight;
  int64_t weight_result;
  int64_t weight_channel;
  Real* sums;
  int64_t sums_result;
  int64_t pixels;
  bool is_first;  // nothing has been added yet
};

template <class Real, int results, int channels>
void add_pointwise(const PointwiseTerms<Real>& terms) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> weights[results][channels];
  CONVEXT_UNROLL
  for (int r = 0; r < results; ++r) {
    CONVEXT_UNROLL
    for (int c = 0; c < channels; ++c)
      weights[r][c] = broadcast(terms.weight[r * terms.weight_result + c * terms.weight_channel]);
  }
  for (int64_t k = 0; k < terms.pixels; k += lanes) {
    const int64_t rest = terms.pixels - k;
    Vector<Real> values[channels];
    CONVEXT_UNROLL
    for (int c = 0; c < channels; ++c) {
      const Real* from = terms.source + c * terms.source_channel + k;
      __builtin_prefetch(from + pointwise_planes_together * terms.source_channel, 0, 2);
      values[c] = rest >= lanes ? load(from) : load(from, rest);
    }
    CONVEXT_UNROLL
    for (int r = 0; r < results; ++r) {
      Real* to = terms.sums + r * terms.sums_result + k;
      Vector<Real> sum = terms.is_first ? zero<Real>() : load(to);
      CONVEXT_UNROLL
      for (int c = 0; c < channels; ++c) sum = fmadd(weights[r][c], values[c], sum);
      store(to, sum);
    }
  }
}

// totals[c][f] += the sum over the pixels of channel first + c of the many and channel f of the few.
template <class Real, int few_channels, int channels>
void add_pointwise_gradient(const PointwiseChain<Real>& chain, int64_t first, double* totals) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  Vector<Real> sums[channels][few_channels];
  CONVEXT_UNROLL
  for (int c = 0; c < channels; ++c) {
    CONVEXT_UNROLL
    for (int f = 0; f < few_channels; ++f) sums[c][f] = zero<Real>();
  }
  for (int64_t run = 0; run < chain.runs; ++run) {
    const Real* many = chain.many[run] + first * chain.many_channel;
    const auto add_vector = [&](auto load_at) {
      Vector<Real> factors[few_channels];
      CONVEXT_UNROLL
      for (int f = 0; f < few_channels; ++f) factors[f] = load_at(chain.few[run] + f * chain.few_channel);
      CONVEXT_UNROLL
      for (int c = 0; c < channels; ++c) {
        const Vector<Real> values = load_at(many + c * chain.many_channel);
        CONVEXT_UNROLL
        for (int f = 0; f < few_channels; ++f) sums[c][f] = fmadd(values, factors[f], sums[c][f]);
      }
    };
    int64_t k = 0;
    for (; k + lanes <= chain.pixels; k += lanes) {
      CONVEXT_UNROLL
      for (int c = 0; c < channels; ++c)
        __builtin_prefetch(many + (c + pointwise_planes_together) * chain.many_channel + k, 0, 2);
      add_vector([&](const Real* from) { return load(from + k); });
    }
    if (k < chain.pixels) add_vector([&](const Real* from) { return load(from + k, chain.pixels - k); });
  }
  for (int c = 0; c < channels; ++c) {
    for (int f = 0; f < few_channels; ++f)
      totals[c * few_channels + f] += static_cast<double>(sum(sums[c][f]));
  }
}

template <class T>
class PointwiseSum {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PointwiseSum(const PointwiseSumPlan<T>& cut, const ConvProblem& problem, const ConvData& tensors,
               void* workspace)
      : plan(cut), p(problem), data(tensors), chunk_sums(static_cast<double*>(workspace)) {}

  void run(const Executor& executor) const {
    with_few_channels(plan.few, [&](auto few) {
      if (plan.is_weight) {
        add_gradients<few()>(executor);
      } else {
        correlate<few()>(executor);
      }
    });
  }

 private:
  template <int results>
  void correlate(const Executor& executor) const {
    const Real* source = static_cast<const Real*>(plan.is_forward ? data.input : data.output);
    Real* result = static_cast<Real*>(plan.is_forward ? data.output : data.input);
    const Real* bias = p.epilogue.bias ? static_cast<const Real*>(data.bias) : nullptr;
    const ImageStrides& source_strides = plan.is_forward ? p.input_strides : p.output_strides;
    const ImageStrides& result_strides = plan.is_forward ? p.output_strides : p.input_strides;
    const int64_t of_out = p.weight_strides.out_channel;
    const int64_t of_in = p.weight_strides.in_channel;
    for_each_tile(executor, plan.pixels.count(), [&](int64_t index, int) {
      const auto run = plan.pixels.run_of(index);
      constexpr int64_t step = PointwiseSumPlan<T>::tile_pixels(results);
      Real sums[results * step];
      Real totals[results * step];
      PointwiseTerms<Real> terms;
      terms.source = source + run.offset(source_strides);
      terms.source_channel = source_strides.channel;
      terms.weight = static_cast<const Real*>(data.weight);
      terms.weight_result = plan.is_forward ? of_out : of_in;
      terms.weight_channel = plan.is_forward ? of_in : of_out;
      terms.sums = sums;
      terms.sums_result = step;
      terms.pixels = run.pixels;
      constexpr int64_t chain = PointwiseSumPlan<T>::chain_channels;
      for (int64_t first = 0; first < plan.many; first += chain) {
        const int64_t last = smaller(plan.many, first + chain);
        for (int64_t c = first; c < last;) {
          const bool are_several = c + pointwise_planes_together <= last;
          const int64_t channels = are_several ? pointwise_planes_together : 1;
          terms.is_first = c == first;
          if (are_several) {
            add_pointwise<Real, results, pointwise_planes_together>(terms);
          } else {
            add_pointwise<Real, results, 1>(terms);
          }
          c += channels;
          terms.source += channels * terms.source_channel;
          terms.weight += channels * terms.weight_channel;
        }
        if (last == plan.many) break;
        for (int64_t r = 0; r < results; ++r) {
          for (int64_t k = r * step; k < r * step + run.pixels; k += lanes)
            store(totals + k, first == 0 ? load(sums + k) : add(load(totals + k), load(sums + k)));
        }
      }
      Real* to = result + run.offset(result_strides);
      for (int64_t r = 0; r < results; ++r, to += result_strides.channel) {
        const Vector<Real> addend = broadcast(bias == nullptr ? Real{} : bias[r]);
        for (int64_t k = 0; k < run.pixels; k += lanes) {
          Vector<Real> sum = load(sums + r * step + k);
          if (plan.many > chain) sum = add(load(totals + r * step + k), sum);
          sum = add(sum, addend);
          if (run.pixels - k >= lanes) {
            store(to + k, sum);
          } else {
            store(to + k, sum, run.pixels - k);
          }
        }
      }
    });
  }

  template <int few>
  void add_gradients(const Executor& executor) const {
    const bool is_input = plan.has_many_inputs;
    const Real* source = static_cast<const Real*>(is_input ? data.input : data.output);
    const Real* other = static_cast<const Real*>(is_input ? data.output : data.input);
    const ImageStrides& source_strides = is_input ? p.input_strides : p.output_strides;
    const ImageStrides& other_strides = is_input ? p.output_strides : p.input_strides;
    for_each_tile(executor, plan.chunks * plan.blocks, [&](int64_t index, int) {
      const int64_t chunk = index / plan.blocks;
      const int64_t first = index % plan.blocks * PointwiseSumPlan<T>::block_channels;
      const int64_t last = smaller(plan.many, first + PointwiseSumPlan<T>::block_channels);
      double* totals = chunk_sums + chunk * plan.many * few;
      for (int64_t k = first * few; k < last * few; ++k) totals[k] = 0;
      PointwiseChain<Real> chain;
      chain.many_channel = source_strides.channel;
      chain.few_channel = other_strides.channel;
      for (int64_t k = plan.chains * chunk / plan.chunks; k < plan.chains * (chunk + 1) / plan.chunks; ++k) {
        chain.runs = smaller(plan.chain_runs, plan.pixels.count() - k * plan.chain_runs);
        for (int64_t r = 0; r < chain.runs; ++r) {
          const PointwiseRuns::Run run = plan.pixels.run_of(k * plan.chain_runs + r);
          chain.pixels = run.pixels;
          chain.many[r] = source + run.offset(source_strides);
          chain.few[r] = other + run.offset(other_strides);
        }
        constexpr bool has_registers = sizeof(Vector<Real>) == 64;  // 32 of them
        constexpr int together = few <= 2 || has_registers ? pointwise_planes_together : 2;
        int64_t c = first;
        for (; c + together <= last; c += together)
          add_pointwise_gradient<Real, few, together>(chain, c, totals + c * few);
        for (; c < last; ++c) add_pointwise_gradient<Real, few, 1>(chain, c, totals + c * few);
      }
    });
    const WeightStrides& strides = p.weight_strides;
    for (int64_t c = 0; c < plan.many; ++c) {
      for (int64_t f = 0; f < few; ++f) {
        double total = 0;
        for (int64_t chunk = 0; chunk < plan.chunks; ++chunk)
          total += chunk_sums[(chunk * plan.many + c) * few + f];
        const int64_t o = is_input ? f : c;
        const int64_t i = is_input ? c : f;
        static_cast<Real*>(data.weight)[o * strides.out_channel + i * strides.in_channel] =
            static_cast<Real>(total);
      }
    }
  }

  const PointwiseSumPlan<T>& plan;
  const ConvProblem& p;
  const ConvData& data;
  double* chunk_sums;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
