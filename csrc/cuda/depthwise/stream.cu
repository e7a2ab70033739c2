#include "cuda/depthwise/stream.cuh"

#include "cuda/depthwise/launch.h"

namespace convext {
namespace cuda {
namespace depthwise_kernels {
namespace {

constexpr int columns_per_thread = 4;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Offsets inside a plane have 32 bits, those of rows beyond the border included.
bool fits(int64_t rows, int64_t row_stride, int64_t columns, int64_t column_stride) {
  constexpr int64_t largest = int64_t{1} << 30;
  const auto small = [&](int64_t stride) { return stride >= 0 && stride <= largest; };
  return small(row_stride) && small(column_stride) && (rows + 16) * row_stride <= largest &&
         (columns + 16) * column_stride <= largest;
}

Stream plan(const ConvProblem& p) {
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
  plan.columns_before = static_cast<int>(plan.gradient ? p.kernel.width - 1 - p.padding.left : p.padding.left);
  plan.source_batch = from.batch;
  plan.source_channel = from.channel;
  plan.source_row = static_cast<int>(from.row);
  plan.source_column = static_cast<int>(from.column);
  plan.result_batch = to.batch;
  plan.result_channel = to.channel;
  plan.result_row = static_cast<int>(to.row);
  plan.result_column = static_cast<int>(to.column);
  plan.weight_channel = p.weight_strides.out_channel;
  plan.weight_row = p.weight_strides.row;
  plan.weight_column = p.weight_strides.column;
  plan.by_channels = divisor_of(plan.channels);
  return plan;
}

// Bands of rows: as few as keep the device busy, for each reads some rows of its neighbours once more. No result
// depends on them.
void cut_rows(int columns_of_thread, int64_t threads_of_column, int kernel, const CudaDevice& device,
              Stream* plan) {
  const int64_t threads_wanted = int64_t{2048} * device.multiprocessors;
  const int64_t least_rows = kernel < 5 ? 8 : 14;
  plan->groups = static_cast<int>(ceil_div(plan->result_columns, columns_of_thread));
  int64_t bands = ceil_div(threads_wanted, threads_of_column * plan->groups);
  if (bands > ceil_div(plan->result_rows, least_rows)) bands = ceil_div(plan->result_rows, least_rows);
  plan->band_rows = static_cast<int>(ceil_div(plan->result_rows, bands));
  plan->bands = static_cast<int>(ceil_div(plan->result_rows, plan->band_rows));
  plan->by_groups = divisor_of(plan->groups);
  plan->by_bands = divisor_of(plan->bands);
}

template <class T>
struct Tensors {
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
};

// Cuts the channels into blocks of up to 32 vectors, all about equal.
template <class T, int V, int K, int S>
const char* launch_channels(const ConvProblem& p, Stream plan, const Tensors<T>& at, const CudaDevice& device,
                            void* stream) {
  constexpr int W = columns_per_thread;
  const int vectors = plan.channels / V;
  const int blocks = static_cast<int>(ceil_div(vectors, 32));
  plan.channel_lanes = static_cast<int>(ceil_div(vectors, blocks));
  plan.item_lanes = stream_threads / plan.channel_lanes;
  cut_rows(W, p.batch * vectors, K, device, &plan);
  plan.items = p.batch * plan.bands * plan.groups;
  const Grid grid{grid_size(ceil_div(plan.items, plan.item_lanes), device), blocks};
  return launch(stream_channels<T, V, W, K, S>, grid, stream_threads, 0, stream, plan, at.source, at.weight,
                at.bias, at.result);
}

template <class T, int W, int K, int S, Columns form>
const char* launch_planes(const ConvProblem& p, Stream plan, const Tensors<T>& at, const CudaDevice& device,
                          void* stream) {
  cut_rows(W, p.batch * plan.channels, K, device, &plan);
  plan.items = p.batch * plan.channels * plan.bands * plan.groups;
  const Grid grid{grid_size(ceil_div(plan.items, stream_threads), device)};
  return launch(stream_planes<T, W, K, S, form>, grid, stream_threads, 0, stream, plan, at.source, at.weight,
                at.bias, at.result);
}

// Whether vectors of `lanes` elements are aligned at every step of these strides.
bool is_aligned(const void* data, int64_t element_bytes, int lanes, std::initializer_list<int64_t> strides) {
  bool aligned = reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(element_bytes * lanes) == 0;
  for (const int64_t stride : strides) aligned = aligned && stride % lanes == 0;
  return aligned;
}

template <class T, int K, int S>
const char* launch_kernel(const ConvProblem& p, const Tensors<T>& at, const CudaDevice& device, void* stream) {
  constexpr int W = columns_per_thread;
  const Stream plan = depthwise_kernels::plan(p);
  const auto aligned = [&](int lanes) {
    return is_aligned(at.source, sizeof(T), lanes,
                      {p.batch == 1 ? 0 : plan.source_batch, plan.source_row}) &&
           is_aligned(at.result, sizeof(T), lanes, {p.batch == 1 ? 0 : plan.result_batch, plan.result_row});
  };
  if (plan.channels > 1 && plan.source_channel == 1 && plan.result_channel == 1) {
    // Numbers of 16 bits in pairs: half as many loads and twice the bytes on their way. The weights of larger
    // kernels leave no registers for it.
    if constexpr (sizeof(T) == 2 && K == 3) {
      if (plan.channels % 2 == 0 && aligned(2) && plan.source_column % 2 == 0 && plan.result_column % 2 == 0)
        return launch_channels<T, 2, K, S>(p, plan, at, device, stream);
    }
    return launch_channels<T, 1, K, S>(p, plan, at, device, stream);
  }
  const bool vectors = plan.source_column == 1 && plan.result_column == 1 && plan.columns_before == K / 2 &&
                       plan.result_columns % W == 0 && plan.source_columns == S * plan.result_columns &&
                       aligned(4) && (plan.channels == 1 || plan.source_channel % 4 == 0) &&
                       (plan.channels == 1 || plan.result_channel % 4 == 0);
  if (vectors) return launch_planes<T, W, K, S, Columns::vectors>(p, plan, at, device, stream);
  return launch_planes<T, 1, K, S, Columns::strided>(p, plan, at, device, stream);
}

template <class T, int K>
const char* launch_stride(const ConvProblem& p, const Tensors<T>& at, const CudaDevice& device, void* stream) {
  return p.stride.height == 1 ? launch_kernel<T, K, 1>(p, at, device, stream)
                              : launch_kernel<T, K, 2>(p, at, device, stream);
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, const CudaDevice& device, void* stream) {
  const bool gradient = p.pass == Pass::grad_input;
  const Tensors<T> at{static_cast<const T*>(gradient ? data.output : data.input),
                      static_cast<const T*>(data.weight),
                      p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr,
                      static_cast<T*>(gradient ? data.input : data.output)};
  if (p.kernel.height == 3) return launch_stride<T, 3>(p, at, device, stream);
  if (p.kernel.height == 5) return launch_stride<T, 5>(p, at, device, stream);
  return launch_stride<T, 7>(p, at, device, stream);
}

}  // namespace

bool can_stream(const ConvProblem& p) {
  const bool size = p.kernel.height == p.kernel.width &&
                    (p.kernel.height == 3 || p.kernel.height == 5 || p.kernel.height == 7);
  const bool steps = p.stride.height == p.stride.width && p.dilation.height == 1 && p.dilation.width == 1 &&
                     (p.stride.height == 1 || (p.stride.height == 2 && p.pass == Pass::forward));
  const bool offsets =
      fits(p.input.height, p.input_strides.row, p.input.width, p.input_strides.column) &&
      fits(p.output.height, p.output_strides.row, p.output.width, p.output_strides.column);
  return p.dtype != DType::float64 && p.pass != Pass::grad_weight && size && steps && offsets;
}

const char* launch_stream(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                          void* stream) {
  switch (problem.dtype) {
    case DType::bfloat16:
      return launch_as<BFloat16>(problem, data, device, stream);
    case DType::float16:
      return launch_as<Float16>(problem, data, device, stream);
    default:
      return launch_as<float>(problem, data, device, stream);
  }
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
