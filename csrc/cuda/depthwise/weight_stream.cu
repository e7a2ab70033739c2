#include "cuda/depthwise/add_chunks.cuh"
#include "cuda/depthwise/launch.h"
#include "cuda/depthwise/stream_plan.h"
#include "cuda/depthwise/weight_stream.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {
namespace {

// Rows of a band: times the columns of a thread, at most chain_terms. Fewer where there would be too few
// threads to cover the way to memory.
constexpr int64_t most_rows = 32, least_rows = 8;
constexpr int64_t threads_wanted = 65536;
// Blocks of the first kernel, twice as many for tiles of 3 x 3, whose chunks have few sums: more of them
// balance the load, but are more to add.
constexpr int64_t most_blocks = 1024;
static_assert(most_rows * columns_per_thread <= chain_terms, "a band is one chain");

// A large stride leaves too few registers for more.
template <int K, int S>
constexpr int weight_columns = K == 7 && S == 2 ? 2 : columns_per_thread;

// The side of a tile of taps.
int tile_of(const ConvProblem& p) {
  const int64_t side = p.kernel.height > p.kernel.width ? p.kernel.height : p.kernel.width;
  return side <= 3 ? 3 : side <= 5 ? 5 : 7;
}

int columns_of(const ConvProblem& p) {
  return tile_of(p) == 7 && p.stride.height == 2 ? weight_columns<7, 2> : columns_per_thread;
}

struct Plan {
  Stream stream;
  Rounds rounds;
  bool along_channels;
  int64_t tiles;
};

// All of it follows from shapes and strides: the order of the additions does not depend on where tensors lie.
Plan plan(const ConvProblem& p) {
  Plan plan{};
  Stream& s = plan.stream = stream_plan(p);
  plan.along_channels = s.channels > 1 && s.source_channel == 1 && s.result_channel == 1;
  s.channel_lanes = plan.along_channels ? lanes_for(s.channels, 32) : 1;
  s.item_lanes = stream_threads / s.channel_lanes;
  s.groups = static_cast<int>(ceil_div(s.result_columns, columns_of(p)));
  int64_t rows = most_rows;
  while (rows > least_rows &&
         p.batch * s.channels * s.groups * ceil_div(s.result_rows, rows) < threads_wanted)
    rows /= 2;
  s.band_rows = static_cast<int>(ceil_div(s.result_rows, ceil_div(s.result_rows, rows)));
  s.bands = static_cast<int>(ceil_div(s.result_rows, s.band_rows));
  s.by_groups = divisor_of(s.groups);
  s.by_bands = divisor_of(s.bands);
  s.items = p.batch * s.bands * s.groups;
  plan.rounds.channel_blocks = static_cast<int>(ceil_div(s.channels, s.channel_lanes));
  plan.rounds.count = ceil_div(s.items, s.item_lanes);
  plan.rounds.kernel_rows = static_cast<int>(p.kernel.height);
  plan.rounds.kernel_columns = static_cast<int>(p.kernel.width);
  plan.rounds.tiles_across = static_cast<int>(ceil_div(p.kernel.width, tile_of(p)));
  plan.tiles = plan.rounds.tiles_across * ceil_div(p.kernel.height, tile_of(p));
  int64_t chunks = (tile_of(p) == 3 ? 2 : 1) * most_blocks / (plan.rounds.channel_blocks * plan.tiles);
  if (chunks < 1) chunks = 1;
  if (chunks > plan.rounds.count) chunks = plan.rounds.count;
  plan.rounds.per_chunk = ceil_div(plan.rounds.count, chunks);
  plan.rounds.chunks = static_cast<int>(ceil_div(plan.rounds.count, plan.rounds.per_chunk));
  return plan;
}

template <class T, int K, int S>
const char* launch_kernel(const ConvProblem& p, const ConvData& data, void* workspace,
                          const CudaDevice& device, void* stream) {
  constexpr int W = weight_columns<K, S>;
  const Plan plan = depthwise_kernels::plan(p);
  const auto* input = static_cast<const T*>(data.input);
  const auto* grad_output = static_cast<const T*>(data.output);
  auto* result = static_cast<T*>(data.weight);
  auto* chunk_sums = static_cast<Total<T>*>(workspace);
  const Destination to{{{p.kernel.width, p.kernel.height, 1, p.out_channels}, {3, 2, 1, 0}},
                       p.weight_strides};
  const Grid grid{int64_t{plan.rounds.channel_blocks} * plan.rounds.chunks, plan.tiles};
  const bool vectors = !plan.along_channels && plan.tiles == 1 &&
                       can_load_vectors<K, S, W>(p, plan.stream, input, grad_output, sizeof(T));
  const auto kernel =
      vectors ? weight_stream<T, W, K, S, Columns::vectors> : weight_stream<T, W, K, S, Columns::strided>;
  const char* error = launch(kernel, grid, stream_threads, 0, stream, plan.stream, plan.rounds, to, input,
                             grad_output, result, chunk_sums);
  if (error != nullptr || plan.rounds.chunks == 1) return error;
  return launch_add_chunks_of_elements<T>(plan.rounds.chunks, element_count(to.order), workspace, data.weight,
                                          to, device, stream);
}

template <class T, int K>
const char* launch_stride(const ConvProblem& p, const ConvData& data, void* workspace,
                          const CudaDevice& device, void* stream) {
  return p.stride.height == 1 ? launch_kernel<T, K, 1>(p, data, workspace, device, stream)
                              : launch_kernel<T, K, 2>(p, data, workspace, device, stream);
}

template <class T>
const char* launch_as(const ConvProblem& p, const ConvData& data, void* workspace, const CudaDevice& device,
                      void* stream) {
  if (tile_of(p) == 3) return launch_stride<T, 3>(p, data, workspace, device, stream);
  if (tile_of(p) == 5) return launch_stride<T, 5>(p, data, workspace, device, stream);
  return launch_stride<T, 7>(p, data, workspace, device, stream);
}

}  // namespace

int64_t weight_stream_workspace_bytes(const ConvProblem& p) {
  const Plan plan = depthwise_kernels::plan(p);
  if (plan.rounds.chunks == 1) return 0;
  return plan.rounds.chunks * p.out_channels * p.kernel.height * p.kernel.width *
         static_cast<int64_t>(sizeof(double));
}

const char* launch_weight_stream(const ConvProblem& problem, const ConvData& data, void* workspace,
                                 const CudaDevice& device, void* stream) {
  return with_short_floating_type(problem.dtype, [&](auto element) {
    return launch_as<decltype(element)>(problem, data, workspace, device, stream);
  });
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
