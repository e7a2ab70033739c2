#include "cuda/depthwise/gradient_stream.cuh"
#include "cuda/depthwise/launch.h"
#include "cuda/depthwise/stream_plan.h"

namespace convext {
namespace cuda {
namespace depthwise_kernels {
namespace {

template <class T, int K>
const char* launch_kernel(const ConvProblem& p, const ConvData& data, const CudaDevice& device,
                          void* stream) {
  constexpr int parity = K / 2 % 2;
  const auto* grad_output = static_cast<const T*>(data.output);
  const auto* weight = static_cast<const T*>(data.weight);
  auto* result = static_cast<T*>(data.input);
  Stream plan = stream_plan(p);
  plan.rows_padding = static_cast<int>(p.padding.top);
  plan.columns_padding = static_cast<int>(p.padding.left);
  plan.rows_before = open_rows<K, 2> - 1 - parity - (plan.rows_padding - parity) / 2;
  plan.columns_before = open_rows<K, 2> - 1 - parity - (plan.columns_padding - parity) / 2;
  plan.planes = !(plan.channels > 1 && plan.source_channel == 1 && plan.result_channel == 1);
  const int blocks = plan.planes ? 1 : static_cast<int>(ceil_div(plan.channels, 32));
  plan.channel_lanes = plan.planes ? 1 : static_cast<int>(ceil_div(plan.channels, blocks));
  plan.item_lanes = stream_threads / plan.channel_lanes;
  const int rows = plan.result_rows;
  plan.result_rows = (rows + 1) / 2;  // bands are of pairs
  cut_rows(2 * gradient_columns, p.batch * plan.channels, open_rows<K, 2>, gradient_stream_blocks<K>, device,
           &plan);
  plan.result_rows = rows;
  plan.items = p.batch * (plan.planes ? plan.channels : 1) * plan.bands * plan.groups;
  const bool vectors = plan.planes && plan.result_column == 1 &&
                       plan.result_columns % (2 * gradient_columns) == 0 &&
                       is_aligned(result, sizeof(T), 2 * gradient_columns,
                                  {p.batch == 1 ? 0 : plan.result_batch,
                                   plan.channels == 1 ? 0 : plan.result_channel, plan.result_row});
  const Grid grid{blocks, second_axis(ceil_div(plan.items, plan.item_lanes), device)};
  const auto kernel =
      vectors ? gradient_stream<T, K, Columns::vectors> : gradient_stream<T, K, Columns::strided>;
  return launch(kernel, grid, stream_threads, 0, stream, plan, grad_output, weight, result);
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, const CudaDevice& device, void* stream) {
  if (p.kernel.height == 3) return launch_kernel<T, 3>(p, data, device, stream);
  if (p.kernel.height == 5) return launch_kernel<T, 5>(p, data, device, stream);
  return launch_kernel<T, 7>(p, data, device, stream);
}

}  // namespace

const char* launch_gradient_stream(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                                   void* stream) {
  return with_short_floating_type(problem.dtype, [&](auto element) {
    return launch_as<decltype(element)>(problem, data, device, stream);
  });
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
