// How kernels are started, and where they find the memory that a block shares. Sources use nothing but this
// and the runtime's own declarations, so that the tests can compile them as plain C++ against declarations of
// their own (tests/cuda_on_cpu).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

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

// Lets a kernel have so many bytes of shared memory that a launch asks for, on the current device. The
// runtime takes as long for that as for a launch, so it is only told what it has not been told yet.
inline cudaError_t allow_shared_bytes(const void* kernel, int64_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, int64_t> allowed;
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  int64_t& known = allowed[{kernel, device}];
  if (bytes <= known) return cudaSuccess;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status == cudaSuccess) known = bytes;
  return status;
}

// Queues kernel(arguments...); returns nullptr, or what the runtime says went wrong.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), Grid grid, int threads, int64_t shared_bytes, void* stream,
                   const Arguments&... arguments) {
  constexpr int64_t without_asking = 48 * 1024;
  cudaError_t error = cudaSuccess;
  if (shared_bytes > without_asking)
    error = allow_shared_bytes(reinterpret_cast<const void*>(kernel), shared_bytes);
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
