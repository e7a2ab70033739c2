#include "cuda/depthwise/correlation.cuh"
#include "cuda/depthwise/launch.h"

namespace convext {
namespace cuda {
namespace depthwise_kernels {
namespace {

// Neighbouring channels of a thread: 16 bytes of them, but no more than there are registers for.
template <class T>
constexpr int vector_lanes = sizeof(T) == 8 ? 2 : 4;

constexpr int64_t weight_bytes_of_block = 48 * 1024;

Correlation plan(const ConvProblem& p) {
  Correlation plan{};
  plan.gradient = p.pass == Pass::grad_input;
  plan.channels = static_cast<int>(p.in_channels);
  plan.rows = axis_of(plan.gradient, p.input.height, p.output.height, p.kernel.height, p.stride.height,
                      p.dilation.height, p.padding.top);
  plan.columns = axis_of(plan.gradient, p.input.width, p.output.width, p.kernel.width, p.stride.width,
                         p.dilation.width, p.padding.left);
  const int rows_of_residue = (plan.rows.result - 1) / plan.rows.result_step + 1;
  plan.tile_residues = plan.rows.result_step < plan.rows.result ? plan.rows.result_step : plan.rows.result;
  plan.tiles = plan.tile_residues * ((rows_of_residue - 1) / rows_per_thread + 1);
  plan.by_width = divisor_of(plan.columns.result);
  plan.by_tiles = divisor_of(plan.tiles);
  plan.by_residues = divisor_of(plan.tile_residues);
  plan.by_channels = divisor_of(plan.channels);
  plan.source = plan.gradient ? p.output_strides : p.input_strides;
  plan.result = plan.gradient ? p.input_strides : p.output_strides;
  plan.weight_channel = p.weight_strides.out_channel;
  plan.weight_row = p.weight_strides.row;
  plan.weight_column = p.weight_strides.column;
  plan.items = p.batch * plan.tiles * plan.columns.result;
  return plan;
}

// Whether every vector of an image is aligned.
bool is_aligned(const void* data, int64_t element_bytes, int lanes, int64_t batch, int64_t height,
                int64_t width, const ImageStrides& s) {
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element_bytes * lanes) == 0 &&
         (batch == 1 || s.batch % lanes == 0) && (height == 1 || s.row % lanes == 0) &&
         (width == 1 || s.column % lanes == 0);
}

// Cuts the channels into blocks of up to 32 vectors whose weights fit into shared memory. False if so few do
// that threads had better lie along the columns.
bool cut_channels(int lanes, int64_t weight_bytes, Correlation* plan) {
  const int vectors = plan->channels / lanes;
  const int64_t taps = int64_t{plan->rows.kernel} * plan->columns.kernel;
  int64_t most = weight_bytes_of_block / (taps * weight_bytes * lanes);
  if (most > 32) most = 32;
  if (most * lanes < 8 && most < vectors) return false;
  const int blocks = static_cast<int>((vectors + most - 1) / most);
  if (blocks > 65535) return false;
  plan->channel_lanes = (vectors + blocks - 1) / blocks;
  plan->item_lanes = correlation_threads / plan->channel_lanes;
  return true;
}

template <class T, int K, int Phases>
const char* launch_planes(Correlation plan, const T* source, const T* weight, const T* bias, T* result,
                          const CudaDevice& device, void* stream) {
  plan.items *= plan.channels;
  const Grid grid{grid_size((plan.items + correlation_threads - 1) / correlation_threads, device)};
  return launch(correlate_planes<T, K, Phases>, grid, correlation_threads, 0, stream, plan, source, weight,
                bias, result);
}

template <class T, int lanes, int K, int Phases>
const char* launch_channels(const Correlation& plan, const T* source, const T* weight, const T* bias,
                            T* result, const CudaDevice& device, void* stream) {
  const int channels = plan.channel_lanes * lanes;
  const int64_t weight_bytes = int64_t{plan.rows.kernel} * plan.columns.kernel * channels *
                               static_cast<int64_t>(sizeof(Accumulator<T>));
  const Grid grid{grid_size((plan.items + plan.item_lanes - 1) / plan.item_lanes, device),
                  (plan.channels + channels - 1) / channels};
  return launch(correlate_channels<T, lanes, K, Phases>, grid, correlation_threads, weight_bytes, stream,
                plan, source, weight, bias, result);
}

enum class Threads { along_columns, along_channels, along_vectors };

template <class T, int K, int Phases>
const char* launch_along(Threads threads, const Correlation& plan, const T* source, const T* weight,
                         const T* bias, T* result, const CudaDevice& device, void* stream) {
  if constexpr (K == 0) {
    if (threads == Threads::along_channels)
      return launch_channels<T, 1, K, Phases>(plan, source, weight, bias, result, device, stream);
  } else {
    if (threads == Threads::along_vectors)
      return launch_channels<T, vector_lanes<T>, K, Phases>(plan, source, weight, bias, result, device,
                                                            stream);
  }
  return launch_planes<T, K, Phases>(plan, source, weight, bias, result, device, stream);
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, const CudaDevice& device, void* stream) {
  Correlation plan = depthwise_kernels::plan(p);
  const auto* source = static_cast<const T*>(plan.gradient ? data.output : data.input);
  auto* result = static_cast<T*>(plan.gradient ? data.input : data.output);
  const auto* weight = static_cast<const T*>(data.weight);
  const T* bias = p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr;

  constexpr int lanes = vector_lanes<T>;
  constexpr auto weight_bytes = static_cast<int64_t>(sizeof(Accumulator<T>));
  const bool channels_adjacent = plan.channels > 1 && plan.source.channel == 1 && plan.result.channel == 1;
  Threads threads = Threads::along_columns;
  // With two phases only in float64, since the other types' problems of stride 2 are streams (stream_plan.h),
  // but for a few, which do not repay the time that compiling these takes.
  constexpr bool has_phases = std::is_same_v<T, double>;
  const bool unrolled =
      (p.kernel.height == 3 || p.kernel.height == 5 || p.kernel.height == 7) &&
      (p.stride.height == 1 || (has_phases && p.stride.height == 2 && p.dilation.height % 2 == 1));
  if (channels_adjacent) {
    const bool vectors =
        unrolled && plan.channels % lanes == 0 &&
        is_aligned(source, sizeof(T), lanes, p.batch, plan.rows.source, plan.columns.source, plan.source) &&
        is_aligned(result, sizeof(T), lanes, p.batch, plan.rows.result, plan.columns.result, plan.result);
    if (vectors && cut_channels(lanes, weight_bytes, &plan)) {
      threads = Threads::along_vectors;
    } else if (cut_channels(1, weight_bytes, &plan)) {
      threads = Threads::along_channels;
    }
  }
  const auto start = [&](auto rows, auto phases) {
    return launch_along<T, decltype(rows)::value, decltype(phases)::value>(threads, plan, source, weight,
                                                                           bias, result, device, stream);
  };
  const auto with_phases = [&](auto rows) {
    if constexpr (has_phases) {
      if (p.stride.height == 2) return start(rows, std::integral_constant<int, 2>{});
    }
    return start(rows, std::integral_constant<int, 1>{});
  };
  if (unrolled && threads != Threads::along_channels) {
    if (p.kernel.height == 3) return with_phases(std::integral_constant<int, 3>{});
    if (p.kernel.height == 5) return with_phases(std::integral_constant<int, 5>{});
    return with_phases(std::integral_constant<int, 7>{});
  }
  return start(std::integral_constant<int, 0>{}, std::integral_constant<int, 1>{});
}

}  // namespace

const char* launch_correlation(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                               void* stream) {
  return with_floating_type(problem.dtype, [&](auto element) {
    return launch_as<decltype(element)>(problem, data, device, stream);
  });
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
