#include "cuda/depthwise/large.cuh"
#include "cuda/depthwise/launch.h"

namespace convext {
namespace cuda {
namespace depthwise_kernels {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

Large plan(const ConvProblem& p) {
  constexpr int64_t bytes_wanted = 72 * 1024;  // three blocks of a multiprocessor
  constexpr int64_t most_across = 16;          // groups: tiles of 64 columns
  Large plan{};
  plan.gradient = p.pass == Pass::grad_input;
  plan.channels = static_cast<int>(p.in_channels);
  const Size2 source = plan.gradient ? p.output : p.input;
  const Size2 result = plan.gradient ? p.input : p.output;
  const ImageStrides& from = plan.gradient ? p.output_strides : p.input_strides;
  const ImageStrides& to = plan.gradient ? p.input_strides : p.output_strides;
  plan.source_rows = static_cast<int>(source.height);
  plan.source_columns = static_cast<int>(source.width);
  plan.result_rows = static_cast<int>(result.height);
  plan.result_columns = static_cast<int>(result.width);
  plan.rows_before = static_cast<int>(plan.gradient ? p.kernel.height - 1 - p.padding.top : p.padding.top);
  plan.columns_before =
      static_cast<int>(plan.gradient ? p.kernel.width - 1 - p.padding.left : p.padding.left);
  plan.kernel_rows = static_cast<int>(p.kernel.height);
  plan.kernel_columns = static_cast<int>(p.kernel.width);
  plan.rows_of_chain = chain_terms / plan.kernel_columns;
  plan.planes = p.batch * p.in_channels;

  // Threads in equal tiles; small planes several to a block.
  const int64_t across = ceil_div(plan.result_columns, large_side);
  const int64_t down = ceil_div(plan.result_rows, large_side);
  plan.tiles_across = static_cast<int>(ceil_div(across, most_across));
  plan.groups_across = static_cast<int>(ceil_div(across, plan.tiles_across));
  const int64_t most_down = large_threads / plan.groups_across;
  plan.tiles_down = static_cast<int>(ceil_div(down, most_down));
  plan.groups_down = static_cast<int>(ceil_div(down, plan.tiles_down));
  plan.weight_pitch = static_cast<int>(ceil_div(plan.kernel_columns, 4) * 4);
  plan.tile_rows = plan.groups_down * large_side + plan.kernel_rows - 1;
  // A row is read up to the fours of values that follow those of its last taps.
  plan.tile_pitch = plan.groups_across * large_side + plan.weight_pitch;
  const int64_t floats_of_plane =
      int64_t{plan.kernel_rows} * plan.weight_pitch + int64_t{plan.tile_rows} * plan.tile_pitch;
  int64_t planes = 1;
  if (plan.tiles_across * plan.tiles_down == 1) {
    const int64_t by_threads = large_threads / (plan.groups_across * plan.groups_down);
    const int64_t by_bytes = bytes_wanted / (floats_of_plane * static_cast<int64_t>(sizeof(float)));
    planes = by_threads < by_bytes ? by_threads : by_bytes;
    if (planes > plan.planes) planes = plan.planes;
    if (planes < 1) planes = 1;
  }
  plan.planes_of_block = static_cast<int>(planes);
  plan.units = ceil_div(plan.planes, planes) * plan.tiles_across * plan.tiles_down;
  plan.by_channels = divisor_of(plan.channels);
  plan.by_tile_rows = divisor_of(plan.tile_rows);
  plan.by_kernel_rows = divisor_of(plan.kernel_rows);
  plan.source_batch = from.batch;
  plan.source_channel = from.channel;
  plan.source_row = from.row;
  plan.source_column = from.column;
  plan.result_batch = to.batch;
  plan.result_channel = to.channel;
  plan.result_row = to.row;
  plan.result_column = to.column;
  plan.weight_channel = p.weight_strides.out_channel;
  plan.weight_row = p.weight_strides.row;
  plan.weight_column = p.weight_strides.column;
  return plan;
}

int64_t shared_bytes(const Large& plan) {
  return int64_t{plan.planes_of_block} *
         (int64_t{plan.kernel_rows} * plan.weight_pitch + int64_t{plan.tile_rows} * plan.tile_pitch) *
         static_cast<int64_t>(sizeof(float));
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, const CudaDevice& device, void* stream) {
  const Large plan = depthwise_kernels::plan(p);
  const auto* source = static_cast<const T*>(plan.gradient ? data.output : data.input);
  auto* result = static_cast<T*>(plan.gradient ? data.input : data.output);
  const T* bias = p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr;
  const int threads = plan.groups_across * plan.groups_down * plan.planes_of_block;
  return launch(correlate_large<T>, Grid{grid_size(plan.units, device)}, (threads + 31) / 32 * 32,
                shared_bytes(plan), stream, plan, source, static_cast<const T*>(data.weight), bias, result);
}

}  // namespace

bool takes_large(const ConvProblem& p) {
  constexpr int64_t most_bytes =
      96 * 1024;                      // every device from compute capability 8.0 on has as much for a block
  constexpr int64_t least_taps = 64;  // with fewer the loads of the tile would show
  const bool steps =
      p.stride.height == 1 && p.stride.width == 1 && p.dilation.height == 1 && p.dilation.width == 1;
  const bool size = p.kernel.width >= 4 && p.kernel.width <= 64 && p.kernel.height <= 64 &&
                    p.kernel.height * p.kernel.width >= least_taps;
  return p.pass != Pass::grad_weight && p.dtype != DType::float64 && steps && size &&
         shared_bytes(plan(p)) <= most_bytes;
}

const char* launch_large(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                         void* stream) {
  return with_short_floating_type(problem.dtype, [&](auto element) {
    return launch_as<decltype(element)>(problem, data, device, stream);
  });
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
