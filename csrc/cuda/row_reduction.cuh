// Sums over many rows, one for each of some elements: gradients of weights and of the bias.
//
// A block has a rectangle of lanes. Neighbouring lanes first belong to different elements, then to different
// columns of a row, then to different rows. Each lane adds up its columns of its rows, a tree adds the lanes
// of an element, and where one block per element would leave the device idle, the rows are cut into chunks,
// whose sums a second kernel adds. All of this follows from the shape alone, so that the order of the
// additions does.
#pragma once

#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/memory_order.cuh"

namespace convext {
namespace cuda {

constexpr int reduction_threads = 256;

struct RowReduction {
  int64_t elements = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  int element_lanes = 1;
  int column_lanes = 1;
  int row_lanes = 1;
  int64_t chunks = 1;
  int64_t rows_per_chunk = 1;
};

inline int lanes_for(int64_t wanted, int most) {
  int lanes = 1;
  while (lanes < most && lanes < wanted) lanes *= 2;
  return lanes;
}

// `elements_adjacent`: neighbouring elements read neighbouring addresses, so lanes go to them first.
inline RowReduction plan_row_reduction(int64_t elements, int64_t rows, int64_t columns,
                                       bool elements_adjacent) {
  constexpr int64_t terms_per_lane = 16;  // fewer do not repay the tree
  constexpr int64_t blocks_wanted = 512;
  RowReduction plan;
  plan.elements = elements;
  plan.rows = rows;
  plan.columns = columns;
  const int element_lanes = elements_adjacent ? lanes_for(elements, 32) : 1;
  const int summing_lanes = lanes_for(rows * columns / terms_per_lane, reduction_threads / element_lanes);
  plan.element_lanes = reduction_threads / summing_lanes;
  plan.column_lanes = lanes_for(columns, summing_lanes);
  plan.row_lanes = summing_lanes / plan.column_lanes;
  const int64_t element_blocks = (elements + plan.element_lanes - 1) / plan.element_lanes;
  const int64_t least_rows =
      plan.row_lanes * (int64_t{terms_per_lane} * plan.column_lanes / (columns + 1) + 1);
  int64_t chunks = element_blocks == 0 ? 1 : blocks_wanted / element_blocks;
  if (chunks > rows / least_rows) chunks = rows / least_rows;
  if (chunks < 1) chunks = 1;
  plan.rows_per_chunk = rows == 0 ? 1 : (rows + chunks - 1) / chunks;
  plan.chunks = rows == 0 ? 1 : (rows + plan.rows_per_chunk - 1) / plan.rows_per_chunk;
  return plan;
}

inline int64_t reduction_workspace_bytes(const RowReduction& plan, int64_t total_size) {
  return plan.chunks == 1 ? 0 : plan.chunks * plan.elements * total_size;
}

inline int64_t reduction_blocks(const RowReduction& plan) {
  return (plan.elements + plan.element_lanes - 1) / plan.element_lanes;
}

// Where the elements are stored.
struct Destination {
  MemoryOrder order;
  WeightStrides strides;
};

__device__ inline int64_t offset_of(int64_t element, const Destination& to) {
  const Position at = position_of(element, to.order);
  return at.a * to.strides.out_channel + at.b * to.strides.in_channel + at.row * to.strides.row +
         at.column * to.strides.column;
}

// Calls add(sum, element, row, first_column, column_step) for the rows of each lane.
template <class T, class Add>
__device__ void reduce_rows(const RowReduction& plan, T* result, const Destination& to, Total<T>* chunk_sums,
                            const Add& add) {
  struct Lanes {
    Total<T> sum[reduction_threads];
  };
  CONVEXT_SHARED(Lanes, shared);
  const int lane = static_cast<int>(threadIdx.x);
  const int element_lane = lane % plan.element_lanes;
  const int column_lane = lane / plan.element_lanes % plan.column_lanes;
  const int row_lane = lane / plan.element_lanes / plan.column_lanes;
  const int64_t chunk = blockIdx.y;
  const int64_t first_row = chunk * plan.rows_per_chunk;
  const int64_t last_row =
      first_row + plan.rows_per_chunk < plan.rows ? first_row + plan.rows_per_chunk : plan.rows;
  for (int64_t first = int64_t{blockIdx.x} * plan.element_lanes; first < plan.elements;
       first += int64_t{gridDim.x} * plan.element_lanes) {
    const int64_t element = first + element_lane;
    Sum<T> sum;
    if (element < plan.elements) {
      for (int64_t row = first_row + row_lane; row < last_row; row += plan.row_lanes)
        add(sum, element, row, column_lane, plan.column_lanes);
    }
    __syncthreads();  // the sums of the previous elements have been read
    shared.sum[lane] = sum.result();
    for (int step = reduction_threads / 2; step >= plan.element_lanes; step /= 2) {
      __syncthreads();
      if (lane < step) shared.sum[lane] += shared.sum[lane + step];
    }
    if (lane < plan.element_lanes && element < plan.elements) {
      if (plan.chunks > 1) {
        chunk_sums[chunk * plan.elements + element] = shared.sum[lane];
      } else {
        result[offset_of(element, to)] = narrow<T>(shared.sum[lane]);
      }
    }
  }
}

template <class T, class ChunkSum>
__global__ void add_chunks(int64_t chunks, int64_t elements, const ChunkSum* chunk_sums, T* result,
                           Destination to) {
  for (int64_t element = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; element < elements;
       element += int64_t{gridDim.x} * blockDim.x) {
    Total<T> sum{};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += chunk_sums[chunk * elements + element];
    result[offset_of(element, to)] = narrow<T>(sum);
  }
}

template <class T, class ChunkSum = Total<T>>
const char* launch_add_chunks(int64_t chunks, int64_t elements, const void* chunk_sums, void* result,
                              const Destination& to, const CudaDevice& device, void* stream) {
  constexpr int threads = 128;
  return launch(add_chunks<T, ChunkSum>, Grid{grid_size((elements + threads - 1) / threads, device)}, threads,
                0, stream, chunks, elements, static_cast<const ChunkSum*>(chunk_sums),
                static_cast<T*>(result), to);
}

}  // namespace cuda
}  // namespace convext
