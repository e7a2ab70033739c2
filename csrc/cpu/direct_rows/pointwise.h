// 1x1 kernels of a few channels that step over nothing: no pixel is read twice, so nothing is copied. Vectors
// run along the planes of contiguous images. Where channels lie side by side, as in channels_last, a vector
// holds whole pixels; the operand of a source channel is a permutation of it.
//
// The gradient of the weight adds up chains of pixels in double, lane by lane; chains are dealt into chunks,
// whose sums are added in order.
#pragma once

#include "cpu/direct_rows/pointwise_kernel.h"
#include "cpu/direct_rows/pointwise_runs.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PointwisePlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t most_results = 16;
  static constexpr int64_t tile_pixels = 4096;

  bool is_weight;
  bool is_forward;
  bool is_interleaved;
  int64_t sources;
  int64_t results;
  PointwiseRuns runs;  // a piece is a tile or a chain
  int64_t chunks;

  int64_t sums_offset;
  int64_t bytes;
  int64_t worker_bytes = 0;

  static bool lies_interleaved(const ImageStrides& strides, int64_t channels) {
    return strides.column == channels && (channels == 1 || strides.channel == 1);
  }

  static bool fits(const ConvProblem& p) {
    const int64_t source = p.pass == Pass::grad_input ? p.out_channels : p.in_channels;
    const int64_t result = p.pass == Pass::grad_input ? p.in_channels : p.out_channels;
    if (!PointwiseRuns::fits(p) || source > most_pointwise_sources) return false;
    if (smaller(source, result) > 0 && larger(source, result) <= lanes &&
        lies_interleaved(p.input_strides, p.in_channels) &&
        lies_interleaved(p.output_strides, p.out_channels))
      return true;
    return result <= most_results && p.input_strides.column == 1 && p.output_strides.column == 1;
  }

  explicit PointwisePlan(const ConvProblem& p)
      : is_weight(p.pass == Pass::grad_weight),
        is_forward(p.pass != Pass::grad_input),
        is_interleaved(larger(p.in_channels, p.out_channels) > 1 &&
                       lies_interleaved(p.input_strides, p.in_channels) &&
                       lies_interleaved(p.output_strides, p.out_channels)),
        sources(is_forward ? p.in_channels : p.out_channels),
        results(is_forward ? p.out_channels : p.in_channels),
        runs(p, is_weight ? PointwiseRuns::chain_vectors(p) *
                                (is_interleaved ? lanes / larger(sources, results) : lanes)
                          : tile_pixels) {
    constexpr int64_t worth_sharing = 32;
    chunks = smaller(runs.count(), worth_sharing);

    Carver shared;
    shared.take(1, sizeof(PointwiseLanes<Real>));
    // The planes' weights and bias are behind it, or the chunks' sums.
    sums_offset = is_weight ? shared.take(chunks * sums(), sizeof(double))
                            : shared.take((sources + 1) * results, sizeof(Real));
    bytes = shared.bytes;
  }

  int64_t sums() const { return sources * (is_interleaved ? 1 : results) * lanes; }
  int64_t workspace_bytes(int) const { return bytes; }
};

template <class T>
class Pointwise {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  Pointwise(const PointwisePlan<T>& cut, const ConvProblem& problem, const ConvData& data, void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        tables(*static_cast<PointwiseLanes<Real>*>(workspace)),
        shared(static_cast<char*>(workspace) + plan.sums_offset) {}

  void correlate(T* result, const T* weight, const T* bias, const Executor& executor) const {
    const int64_t result_step = plan.is_forward ? p.weight_strides.out_channel : p.weight_strides.in_channel;
    const int64_t source_step = plan.is_forward ? p.weight_strides.in_channel : p.weight_strides.out_channel;
    const auto weight_of = [&](int64_t r, int64_t c) {
      return widen(weight[r * result_step + c * source_step]);
    };
    const auto bias_of = [&](int64_t r) { return bias == nullptr ? Real{} : widen(bias[r]); };
    Real* weights = reinterpret_cast<Real*>(shared);
    if (plan.is_interleaved) {
      set_orders();
      for (int64_t l = 0; l < lanes; ++l) {
        for (int64_t c = 0; c < plan.sources; ++c)
          tables.weights[c * lanes + l] = weight_of(l % plan.results, c);
        tables.bias[l] = bias_of(l % plan.results);
      }
    } else {
      for (int64_t r = 0; r < plan.results; ++r) {
        for (int64_t c = 0; c < plan.sources; ++c) weights[r * plan.sources + c] = weight_of(r, c);
        weights[plan.results * plan.sources + r] = bias_of(r);
      }
    }
    for_each_tile(executor, plan.runs.count(), [&](int64_t index, int) {
      const PointwiseRuns::Run run = plan.runs.run_of(index);
      const T* from = source + run.offset(source_strides);
      T* to = result + run.offset(result_strides);
      with_few_channels(plan.sources, [&](auto sources) {
        if (plan.is_interleaved) {
          pointwise_lanes<T, sources()>(tables, from, to, run.pixels);
        } else {
          const PointwisePlanes<T> planes{
              from, source_strides.channel, to, result_strides.channel, plan.results, weights};
          pointwise_planes<T, sources()>(planes, run.pixels);
        }
      });
    });
  }

  void add_gradients(const T* grad_output, T* grad_weight, const Executor& executor) const {
    if (plan.is_interleaved) set_orders();
    double* sums = reinterpret_cast<double*>(shared);
    const int64_t chains = plan.runs.count();
    for_each_tile(executor, plan.chunks, [&](int64_t chunk, int) {
      double* totals = sums + chunk * plan.sums();
      for (int64_t k = 0; k < plan.sums(); ++k) totals[k] = 0;
      for (int64_t index = chains * chunk / plan.chunks; index < chains * (chunk + 1) / plan.chunks;
           ++index) {
        const PointwiseRuns::Run run = plan.runs.run_of(index);
        const T* from = source + run.offset(source_strides);
        const T* gradient = grad_output + run.offset(result_strides);
        with_few_channels(plan.sources, [&](auto sources) {
          if (plan.is_interleaved) {
            pointwise_lanes_gradient<T, sources()>(tables, from, gradient, run.pixels, totals);
          } else {
            pointwise_planes_gradient<T, sources()>(from, source_strides.channel, gradient,
                                                    result_strides.channel, plan.results, run.pixels, totals);
          }
        });
      }
    });
    for (int64_t o = 0; o < plan.results; ++o) {
      for (int64_t c = 0; c < plan.sources; ++c) {
        double total = 0;
        for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
          const double* of_chunk = sums + chunk * plan.sums() + c * lanes;
          if (plan.is_interleaved) {
            for (int64_t pixel = 0; pixel < tables.pixels; ++pixel)
              total += of_chunk[pixel * plan.results + o];
          } else {
            for (int64_t l = 0; l < lanes; ++l) total += of_chunk[o * plan.sources * lanes + l];
          }
        }
        grad_weight[o * p.weight_strides.out_channel + c * p.weight_strides.in_channel] =
            narrow<T>(static_cast<Real>(total));
      }
    }
  }

 private:
  void set_orders() const {
    tables.sources = plan.sources;
    tables.results = plan.results;
    tables.pixels = lanes / larger(plan.sources, plan.results);
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t pixel = smaller(l / plan.results, tables.pixels - 1);
      for (int64_t c = 0; c < plan.sources; ++c)
        tables.orders[c * lanes + l] = static_cast<int32_t>(pixel * plan.sources + c);
    }
  }

  const PointwisePlan<T>& plan;
  const ConvProblem& p;
  const T* source;
  ImageStrides source_strides;
  ImageStrides result_strides;
  PointwiseLanes<Real>& tables;
  char* shared;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
