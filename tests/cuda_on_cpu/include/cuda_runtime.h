// Stands in for the CUDA runtime's header where kernels are compiled as plain C++: one fiber for each thread
// of a block, blocks one after the other. It declares what the kernels of this project use and no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration, cudaErrorInvalidValue };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

namespace cuda_on_cpu {

struct Thread {
  dim3 index, block_index, block_size, grid_size;
};

// The CUDA thread whose fiber runs.
const Thread& this_thread();

// Memory of the current block: a heap block of its own for each key, so that AddressSanitizer sees what runs
// past the end. Filled with 0xff, which is NaN, before a block starts.
void* shared_object(const void* key, size_t size);
void* dynamic_shared_memory();

void wait_for_block();
bool any_of_block(bool predicate);
void wait_for_warp(unsigned mask);

// A slot for each lane of this thread's warp; `lane` -1: this thread's own.
constexpr size_t slot_bytes = 32;
void* warp_slot(int lane);
int lane_index();

// A copy of 16 bytes to shared memory that a thread has started; from nullptr: zeros. Batches are taken, and
// then copied by whoever takes them, when the thread waits for them.
struct AsyncCopy {
  void* to;
  const void* from;
};
void start_copy(void* to, const void* from);
void commit_copies();
std::vector<AsyncCopy> take_copies(int pending_batches);

// The same for multiplications that go on by themselves.
using Multiplication = std::function<void()>;
void start_multiplication(Multiplication multiplication);
void commit_multiplications();
std::vector<Multiplication> take_multiplications(int pending_batches);

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& body);

// What a lane sees of another lane's value. Both waits are needed: nobody reads before all have written, and
// nobody writes the next value before all have read.
template <class T>
T exchange(unsigned mask, T value, int from_lane) {
  static_assert(sizeof(T) <= slot_bytes, "a slot holds it");
  std::memcpy(warp_slot(-1), &value, sizeof(T));
  wait_for_warp(mask);
  T result;
  std::memcpy(&result, warp_slot(from_lane >= 0 && from_lane < 32 ? from_lane : -1), sizeof(T));
  wait_for_warp(mask);
  return result;
}

}  // namespace cuda_on_cpu

// Not variables, which would have to be set whenever another fiber runs: they look the numbers up.
template <dim3 cuda_on_cpu::Thread::* triple, unsigned dim3::* member>
struct Coordinate {
  operator unsigned() const { return cuda_on_cpu::this_thread().*triple.*member; }
};
template <dim3 cuda_on_cpu::Thread::* triple>
struct Coordinates {
  Coordinate<triple, &dim3::x> x;
  Coordinate<triple, &dim3::y> y;
  Coordinate<triple, &dim3::z> z;
};
inline constexpr Coordinates<&cuda_on_cpu::Thread::index> threadIdx{};
inline constexpr Coordinates<&cuda_on_cpu::Thread::block_index> blockIdx{};
inline constexpr Coordinates<&cuda_on_cpu::Thread::block_size> blockDim{};
inline constexpr Coordinates<&cuda_on_cpu::Thread::grid_size> gridDim{};

#define CONVEXT_SHARED(type, name)  \
  static const char name##_key = 0; \
  type& name = *static_cast<type*>(::cuda_on_cpu::shared_object(&name##_key, sizeof(type)))
#define CONVEXT_DYNAMIC_SHARED(name) \
  unsigned char* name = static_cast<unsigned char*>(::cuda_on_cpu::dynamic_shared_memory())

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}

inline void __syncthreads() {
  cuda_on_cpu::wait_for_block();
}

inline int __syncthreads_or(int predicate) {
  return cuda_on_cpu::any_of_block(predicate != 0) ? 1 : 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  cuda_on_cpu::wait_for_warp(mask);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  return cuda_on_cpu::exchange(mask, value, cuda_on_cpu::lane_index() + static_cast<int>(delta));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  return cuda_on_cpu::exchange(mask, value, cuda_on_cpu::lane_index() ^ lane_mask);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return cuda_on_cpu::exchange(mask, value, lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) {
    const bool takes_part = (mask >> lane & 1u) != 0;
    const int vote = cuda_on_cpu::exchange(mask, predicate, takes_part ? lane : -1);
    if (takes_part && vote != 0) votes |= 1u << lane;
  }
  return votes;
}

inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0 ? 1 : 0;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  // Every thread gets the parameters as they were at the launch.
  const auto call = [&] { kernel(static_cast<Parameters>(arguments)...); };
  return cuda_on_cpu::run(*config, reinterpret_cast<const void*>(kernel), call);
}
