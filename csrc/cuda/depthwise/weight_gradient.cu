#include "cuda/depthwise/add_chunks.cuh"
#include "cuda/depthwise/launch.h"
#include "cuda/depthwise/weight_gradient.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {
namespace {

// The side of a tile of taps. In float64, tiles of 7 x 7 would need more registers than there are.
int tile_of(const ConvProblem& p) {
  const int64_t side = p.kernel.height > p.kernel.width ? p.kernel.height : p.kernel.width;
  return side <= 3 ? 3 : side <= 5 || p.dtype == DType::float64 ? 5 : 7;
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

int64_t tap_tiles(const ConvProblem& p) {
  return ceil_div(p.kernel.height, tile_of(p)) * ceil_div(p.kernel.width, tile_of(p));
}

WeightGradient plan(const ConvProblem& p) {
  constexpr int64_t rows_of_band = 32;
  constexpr int64_t blocks_wanted = 512;
  constexpr int64_t most_blocks = 2048;
  WeightGradient plan{};
  plan.channels = static_cast<int>(p.in_channels);
  plan.rows = {static_cast<int>(p.output.height),   static_cast<int>(p.input.height),
               static_cast<int>(p.kernel.height),   static_cast<int>(p.stride.height),
               static_cast<int>(p.dilation.height), static_cast<int>(p.padding.top)};
  plan.columns = {static_cast<int>(p.output.width),   static_cast<int>(p.input.width),
                  static_cast<int>(p.kernel.width),   static_cast<int>(p.stride.width),
                  static_cast<int>(p.dilation.width), static_cast<int>(p.padding.left)};
  // With stride 1 the source rows of a pixel come back in the pixel that is a dilation further down.
  plan.row_step = p.stride.height == 1 ? plan.rows.dilation : 1;
  plan.residues = static_cast<int>(clamp(plan.row_step, 1, p.output.height));
  const int64_t rows = ceil_div(p.output.height, plan.row_step);
  plan.pixels_per_item = static_cast<int>(ceil_div(rows, ceil_div(rows, rows_of_band)));
  plan.bands = static_cast<int>(ceil_div(rows, plan.pixels_per_item));
  plan.items = p.batch * plan.residues * plan.bands * p.output.width;
  plan.by_width = divisor_of(p.output.width);
  plan.by_bands = divisor_of(plan.bands);
  plan.by_residues = divisor_of(plan.residues);
  plan.tiles_across = static_cast<int>(ceil_div(p.kernel.width, tile_of(p)));
  plan.channel_lanes = 1;
  if (p.input_strides.channel == 1 && p.output_strides.channel == 1) {
    while (plan.channel_lanes < most_channel_lanes && plan.channel_lanes < plan.channels)
      plan.channel_lanes *= 2;
  }
  const int64_t channel_blocks = ceil_div(plan.channels, plan.channel_lanes);
  const int64_t item_lanes = gradient_threads / plan.channel_lanes;
  const int64_t rounds_at_most = ceil_div(plan.items, item_lanes) * channel_blocks;
  plan.items_per_lane =
      static_cast<int>(clamp(rounds_at_most / blocks_wanted, 1, chain_terms / plan.pixels_per_item));
  plan.rounds = ceil_div(plan.items, item_lanes * plan.items_per_lane);
  const int64_t chunks = clamp(most_blocks / channel_blocks, 1, plan.rounds);
  plan.rounds_per_chunk = ceil_div(plan.rounds, chunks);
  plan.chunks = static_cast<int>(ceil_div(plan.rounds, plan.rounds_per_chunk));
  plan.input = p.input_strides;
  plan.output = p.output_strides;
  return plan;
}

template <class T, int K, int Step>
const char* launch_step(const ConvProblem& p, const ConvData& data, void* workspace, const CudaDevice& device,
                        void* stream) {
  const WeightGradient plan = depthwise_kernels::plan(p);
  const Destination to{{{p.kernel.width, p.kernel.height, 1, p.out_channels}, {3, 2, 1, 0}},
                       p.weight_strides};
  const Grid grid{ceil_div(plan.channels, plan.channel_lanes) * plan.chunks, tap_tiles(p)};
  const char* error = launch(weight_gradient<T, K, Step>, grid, gradient_threads, 0, stream, plan, to,
                             static_cast<const T*>(data.input), static_cast<const T*>(data.output),
                             static_cast<T*>(data.weight), static_cast<Total<T>*>(workspace));
  if (error != nullptr || plan.chunks == 1) return error;
  return launch_add_chunks_of_elements<T>(plan.chunks, element_count(to.order), workspace, data.weight, to,
                                          device, stream);
}

template <class T, int K>
const char* launch_tile(const ConvProblem& p, const ConvData& data, void* workspace, const CudaDevice& device,
                        void* stream) {
  if (p.stride.height == 1) return launch_step<T, K, 1>(p, data, workspace, device, stream);
  if constexpr (std::is_same_v<T, double>) {  // of the other types such problems are streams
    if (p.stride.height == 2 && p.dilation.height == 1)
      return launch_step<T, K, 2>(p, data, workspace, device, stream);
  }
  return launch_step<T, K, K>(p, data, workspace, device, stream);
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, void* workspace, const CudaDevice& device,
                      void* stream) {
  if (tile_of(p) == 3) return launch_tile<T, 3>(p, data, workspace, device, stream);
  if constexpr (!std::is_same_v<T, double>) {
    if (tile_of(p) == 7) return launch_tile<T, 7>(p, data, workspace, device, stream);
  }
  return launch_tile<T, 5>(p, data, workspace, device, stream);
}

}  // namespace

int64_t weight_gradient_workspace_bytes(const ConvProblem& p) {
  const WeightGradient plan = depthwise_kernels::plan(p);
  if (plan.chunks == 1) return 0;
  return plan.chunks * p.out_channels * p.kernel.height * p.kernel.width *
         static_cast<int64_t>(sizeof(double));
}

const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream) {
  return with_floating_type(problem.dtype, [&](auto element) {
    return launch_as<decltype(element)>(problem, data, workspace, device, stream);
  });
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
