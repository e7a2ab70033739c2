// What the launches of the streaming kernels share. Host code.
#pragma once

#include <initializer_list>

#include "cuda/depthwise/row_stream.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

constexpr int columns_per_thread = 4;

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Offsets inside a plane have 32 bits, those of rows beyond the border included.
inline bool offsets_fit(int64_t rows, int64_t row_stride, int64_t columns, int64_t column_stride) {
  constexpr int64_t largest = int64_t{1} << 30;
  const auto small = [&](int64_t stride) { return stride >= 0 && stride <= largest; };
  return small(row_stride) && small(column_stride) && (rows + 16) * row_stride <= largest &&
         (columns + 16) * column_stride <= largest;
}

// Whether the streaming kernels take the problem. It follows from shapes and layouts alone, as the order of
// additions does.
inline bool can_stream(const ConvProblem& p) {
  const bool size =
      p.pass == Pass::grad_weight || (p.kernel.height == p.kernel.width &&
                                      (p.kernel.height == 3 || p.kernel.height == 5 || p.kernel.height == 7));
  const bool steps = p.stride.height == p.stride.width && p.dilation.height == 1 && p.dilation.width == 1 &&
                     (p.stride.height == 1 || p.stride.height == 2);
  // The gradient with stride 2 knows the taps of a row from its parity (gradient_stream.cuh).
  const int64_t parity = p.kernel.height / 2 % 2;
  const bool parities = p.pass != Pass::grad_input || p.stride.height == 1 ||
                        (p.padding.top % 2 == parity && p.padding.left % 2 == parity);
  const bool offsets =
      offsets_fit(p.input.height, p.input_strides.row, p.input.width, p.input_strides.column) &&
      offsets_fit(p.output.height, p.output_strides.row, p.output.width, p.output_strides.column) &&
      offsets_fit(p.kernel.height, p.weight_strides.row, p.kernel.width, p.weight_strides.column);
  return p.dtype != DType::float64 && size && steps && parities && offsets;
}

inline Stream stream_plan(const ConvProblem& p) {
  Stream plan{};
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
  plan.source_batch = from.batch;
  plan.source_channel = from.channel;
  plan.source_row = static_cast<int>(from.row);
  plan.source_column = static_cast<int>(from.column);
  plan.result_batch = to.batch;
  plan.result_channel = to.channel;
  plan.result_row = static_cast<int>(to.row);
  plan.result_column = static_cast<int>(to.column);
  plan.weight_channel = p.weight_strides.out_channel;
  plan.weight_row = static_cast<int>(p.weight_strides.row);
  plan.weight_column = static_cast<int>(p.weight_strides.column);
  plan.by_channels = divisor_of(plan.channels);
  return plan;
}

// As grid_size, for the second axis of a grid.
inline int64_t second_axis(int64_t blocks, const CudaDevice& device) {
  const int64_t size = grid_size(blocks, device);
  return size < 65535 ? size : 65535;
}

// Bands of rows, so that the device has work for whole waves of threads, as many as are resident at a time;
// each band costs some rows more, which it shares with its neighbours, and as much as about two rows to
// begin. No result depends on the bands.
inline void cut_rows(int columns_of_thread, int64_t threads_of_column, int kernel,
                     int blocks_of_multiprocessor, const CudaDevice& device, Stream* plan) {
  constexpr int64_t least_rows = 4;
  const int64_t resident = int64_t{stream_threads} * blocks_of_multiprocessor * device.multiprocessors;
  const int64_t rows = plan->result_rows;
  const int64_t rows_more = kernel >= least_kernel_to_skip ? 4 : kernel + 1;
  plan->groups = static_cast<int>(ceil_div(plan->result_columns, columns_of_thread));
  const int64_t threads = threads_of_column * plan->groups;
  int64_t best_bands = 1;
  int64_t best_time = 0;
  for (int64_t bands = 1; bands == 1 || (bands <= 64 && bands * least_rows <= rows); ++bands) {
    const int64_t time = ceil_div(threads * bands, resident) * (ceil_div(rows, bands) + rows_more);
    if (bands == 1 || time < best_time) {
      best_bands = bands;
      best_time = time;
    }
  }
  plan->band_rows = static_cast<int>(ceil_div(rows, best_bands));
  plan->bands = static_cast<int>(ceil_div(rows, plan->band_rows));
  plan->by_groups = divisor_of(plan->groups);
  plan->by_bands = divisor_of(plan->bands);
}

// Whether vectors of `lanes` elements are aligned at every step of these strides.
inline bool is_aligned(const void* data, int64_t element_bytes, int lanes,
                       std::initializer_list<int64_t> strides) {
  bool aligned = reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element_bytes * lanes) == 0;
  for (const int64_t stride : strides) aligned = aligned && stride % lanes == 0;
  return aligned;
}

// Whether 16-bit numbers of neighbouring channels can be loaded in pairs.
inline bool can_load_pairs(const ConvProblem& p, const Stream& plan, const void* source, const void* result) {
  return plan.channels % 2 == 0 &&
         is_aligned(source, 2, 2,
                    {p.batch == 1 ? 0 : plan.source_batch, plan.source_row, plan.source_column}) &&
         is_aligned(result, 2, 2,
                    {p.batch == 1 ? 0 : plan.result_batch, plan.result_row, plan.result_column});
}

// Whether VectorRow can read the source, and the results' columns are whole vectors.
template <int K, int S, int W>
bool can_load_vectors(const ConvProblem& p, const Stream& plan, const void* source, const void* result,
                      int64_t element_bytes) {
  const auto planes = [&](int64_t batch, int64_t channel, int row, const void* data) {
    return is_aligned(data, element_bytes, 4,
                      {p.batch == 1 ? 0 : batch, plan.channels == 1 ? 0 : channel, row});
  };
  return plan.source_column == 1 && plan.result_column == 1 && plan.columns_before == K / 2 &&
         plan.result_columns % W == 0 && plan.source_columns == S * plan.result_columns &&
         planes(plan.source_batch, plan.source_channel, plan.source_row, source) &&
         planes(plan.result_batch, plan.result_channel, plan.result_row, result);
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
