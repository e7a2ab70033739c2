// What the kernels that multiply by warpgroups share: how they run through the slices of the depth.
#pragma once

#include "cuda/tensor_cores/slices.cuh"
#include "cuda/tensor_cores/warpgroup_ptx.cuh"

namespace convext {
namespace cuda {
namespace mma {

constexpr int warpgroup_threads = 128;
constexpr int warpgroup_rows = 64;
constexpr int swizzle_bytes = 1024;  // slices begin at multiples of this

// The first such place of shared memory, by the address that the instructions see.
__device__ inline unsigned char* first_slice(unsigned char* memory) {
  return memory + (swizzle_bytes - shared_address(memory) % swizzle_bytes) % swizzle_bytes;
}

// `load(stage, slice)` starts the copies of a slice to its stage, `multiply(stage)` starts the
// multiplications of what is there. While the tensor cores read a slice by themselves, the threads copy the
// next but one or, of three stages, the next.
template <int stage_count, class Load, class Multiply>
__device__ inline void run_warpgroups(int slices, const Load& load, const Multiply& multiply) {
  constexpr int ahead =
      stage_count - 2;  // a stage is filled when the slice before the last has been multiplied
#pragma unroll 1
  for (int k = 0; k < ahead; ++k) {
    if (k < slices) load(k % stage_count, k);
    commit_copies();
  }
#pragma unroll 1
  for (int k = 0; k < slices; ++k) {
    wait_for_copies<ahead - 1>();
    publish_to_warpgroups();
    __syncthreads();
    begin_multiplications();
    multiply(k % stage_count);
    commit_multiplications();
    if (k + ahead < slices) load((k + ahead) % stage_count, k + ahead);
    commit_copies();
    wait_for_multiplications<1>();
  }
  wait_for_multiplications<0>();
  wait_for_copies<0>();
  __syncthreads();  // by all
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
