// How kernels are started, and where they find the memory that a block shares. Sources use nothing but this
// and the runtime's own declarations, so that the tests can compile them as plain C++ against declarations of
// their own (tests/cuda_on_cpu).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kernel.h"

// CONVEXT_SHARED(type, name) declares an object that the threads of a block share, of a type without
// constructor; CONVEXT_DYNAMIC_SHARED(name) declares a pointer to the bytes that the launch asked for,
// 16-byte aligned.
#if !defined(CONVEXT_SHARED)
#define CONVEXT_SHARED(type, name) __shared__ type name
#define CONVEXT_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace convext {
namespace cuda {

struct Grid {
  int64_t x = 1;  // below 2^31
  int64_t y = 1;  // below 2^16
};

// Blocks for `blocks` equal pieces of work: no more than keep the device busy, so kernels walk over the
// pieces in steps of the grid. However many there are, they fit.
inline int64_t grid_size(int64_t blocks, const CudaDevice& device) {
  const int64_t most = int64_t{64} * device.multiprocessors;
  return blocks < 1 ? 1 : blocks < most ? blocks : most;
}

// Queues kernel(arguments...); returns nullptr, or what the runtime says went wrong.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), Grid grid, int threads, int64_t shared_bytes, void* stream,
                   const Arguments&... arguments) {
  constexpr int64_t without_asking = 48 * 1024;
  cudaError_t error = cudaSuccess;
  if (shared_bytes > without_asking) {
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  }
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), 1);
    config.blockDim = dim3(static_cast<unsigned>(threads), 1, 1);
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    error = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  }
  if (error == cudaSuccess) return nullptr;
  static_cast<void>(cudaGetLastError());  // it is reported here and must not surface again elsewhere
  return cudaGetErrorString(error);
}

}  // namespace cuda
}  // namespace convext
