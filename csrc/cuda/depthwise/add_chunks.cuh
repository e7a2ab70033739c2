// The sums of chunks, added. There are many chunks and few elements, so a block has 64 threads for each of
// four elements, which lie in one sector of memory.
#pragma once

#include "cuda/row_reduction.cuh"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

constexpr int chunk_threads = 256;
constexpr int elements_of_block = 4;

template <class T>
__global__ void add_chunks_of_elements(int64_t chunks, int64_t elements, const Total<T>* chunk_sums,
                                       T* result, Destination to) {
  constexpr int lanes = chunk_threads / elements_of_block;
  struct Shared {
    Total<T> sum[chunk_threads];
  };
  CONVEXT_SHARED(Shared, shared);
  const int thread = static_cast<int>(threadIdx.x);
  const int element_lane = thread % elements_of_block;
  for (int64_t first = int64_t{blockIdx.x} * elements_of_block; first < elements;
       first += int64_t{gridDim.x} * elements_of_block) {
    const int64_t element = first + element_lane;
    Total<T> sum{};
    if (element < elements) {
#pragma unroll 4
      for (int64_t chunk = thread / elements_of_block; chunk < chunks; chunk += lanes)
        sum += chunk_sums[chunk * elements + element];
    }
    __syncthreads();  // the sums of the previous elements have been read
    shared.sum[thread] = sum;
    for (int step = chunk_threads / 2; step >= elements_of_block; step /= 2) {
      __syncthreads();
      if (thread < step) shared.sum[thread] += shared.sum[thread + step];
    }
    if (thread < elements_of_block && element < elements)
      result[offset_of(element, to)] = narrow<T>(shared.sum[thread]);
  }
}

template <class T>
const char* launch_add_chunks_of_elements(int64_t chunks, int64_t elements, const void* chunk_sums,
                                          void* result, const Destination& to, const CudaDevice& device,
                                          void* stream) {
  const Grid grid{grid_size((elements + elements_of_block - 1) / elements_of_block, device)};
  return launch(add_chunks_of_elements<T>, grid, chunk_threads, 0, stream, chunks, elements,
                static_cast<const Total<T>*>(chunk_sums), static_cast<T*>(result), to);
}

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
