#include "cuda/depthwise/launch.h"
#include "cuda/depthwise/stream.cuh"
#include "cuda/depthwise/stream_plan.h"

namespace convext {
namespace cuda {
namespace depthwise_kernels {
namespace {

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
  constexpr int W = K == 7 && S == 2 ? 2 : columns_per_thread;  // more would not fit into registers
  const int vectors = plan.channels / V;
  const int blocks = static_cast<int>(ceil_div(vectors, 32));
  plan.channel_lanes = static_cast<int>(ceil_div(vectors, blocks));
  plan.item_lanes = stream_threads / plan.channel_lanes;
  cut_rows(W, p.batch * vectors, K, stream_blocks<T, V, W, K, S>, device, &plan);
  plan.items = p.batch * plan.bands * plan.groups;
  const Grid grid{blocks, second_axis(ceil_div(plan.items, plan.item_lanes), device)};
  return launch(stream_channels<T, V, W, K, S>, grid, stream_threads, 0, stream, plan, at.source, at.weight,
                at.bias, at.result);
}

template <class T, int W, int K, int S, Columns form>
const char* launch_planes(const ConvProblem& p, Stream plan, const Tensors<T>& at, const CudaDevice& device,
                          void* stream) {
  cut_rows(W, p.batch * plan.channels, K, stream_blocks<T, 1, W, K, S>, device, &plan);
  plan.items = p.batch * plan.channels * plan.bands * plan.groups;
  const Grid grid{grid_size(ceil_div(plan.items, stream_threads), device)};
  return launch(stream_planes<T, W, K, S, form>, grid, stream_threads, 0, stream, plan, at.source, at.weight,
                at.bias, at.result);
}

template <class T, int K, int S>
const char* launch_kernel(const ConvProblem& p, const Tensors<T>& at, const CudaDevice& device,
                          void* stream) {
  constexpr int W = columns_per_thread;
  const Stream plan = stream_plan(p);
  if (plan.channels > 1 && plan.source_channel == 1 && plan.result_channel == 1) {
    // Numbers of 16 bits in pairs: half as many loads and twice the bytes on their way. The weights of larger
    // kernels leave no registers for it.
    if constexpr (sizeof(T) == 2 && K == 3) {
      if (can_load_pairs(p, plan, at.source, at.result))
        return launch_channels<T, 2, K, S>(p, plan, at, device, stream);
    }
    return launch_channels<T, 1, K, S>(p, plan, at, device, stream);
  }
  if (can_load_vectors<K, S, W>(p, plan, at.source, at.result, sizeof(T)))
    return launch_planes<T, W, K, S, Columns::vectors>(p, plan, at, device, stream);
  return launch_planes<T, 1, K, S, Columns::strided>(p, plan, at, device, stream);
}

template <class T, int K>
const char* launch_stride(const ConvProblem& p, const Tensors<T>& at, const CudaDevice& device,
                          void* stream) {
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

bool takes_stream(const ConvProblem& problem) {
  return can_stream(problem);
}

const char* launch_stream(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                          void* stream) {
  if (problem.pass == Pass::grad_input && problem.stride.height == 2)
    return launch_gradient_stream(problem, data, device, stream);
  return with_short_floating_type(problem.dtype, [&](auto element) {
    return launch_as<decltype(element)>(problem, data, device, stream);
  });
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
