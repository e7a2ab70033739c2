// The instructions of tensor cores, which C++ has no names for. All 32 threads of a warp execute them
// together.
//
// A fragment is what one thread holds of a matrix. With g = lane / 4 and t = lane % 4, each register has two
// neighbouring 16-bit numbers (PTX ISA, "Matrix fragments for mma.m16n8k16"):
//
//     left  (16 rows x 16 deep):   register i holds row g + 8 (i % 2), depths 2t and 2t + 1, + 8 (i / 2)
//     right (16 deep x 8 columns): register i holds column g, depths 2t and 2t + 1, + 8 i
//     sum   (16 rows x 8 columns): number i is of row g + 8 (i / 2), column 2t + i % 2
//
// or one of 32 bits ("for mma.m16n8k8"), the depth being 8: depth t + 4 (i / 2) of the left, t + 4 i of the
// right. In bytes, the two are the same.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element.cuh"

#if defined(CUDA_ON_CPU)  // tests/cuda_on_cpu
#include "ptx_on_cpu.h"
#else

namespace convext {
namespace cuda {

// The upper half of either, that of the first below.
__device__ inline uint32_t high_halves(uint32_t first, uint32_t second) {
  return __byte_perm(first, second, 0x7632);
}

// Where something lies in shared memory, in bytes.
__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lane l gives the address of row l % 8 of matrix
// l / 8, 16 bytes that are aligned to as many, and gets numbers 2t and 2t + 1 of row g of each.
__device__ inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// The same, each matrix transposed: a thread gets number g of rows 2t and 2t + 1.
__device__ inline void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// 16 bytes from global to shared memory, zeros if `exists` is not true; done when wait_for_copies says so,
// and then seen by this thread.
__device__ inline void copy_async(void* to, const void* from, bool exists) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = exists ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(address), "l"(__cvta_generic_to_global(from)), "r"(bytes)
               : "memory");
}

// What has been started since the last commit is one batch of copies.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until no more than the last `pending` batches are still on their way.
template <int pending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// sum += left * right of float64, m8n8k4: with g = lane / 4 and t = lane % 4, a thread holds row g and depth
// t of the left, column g and depth t of the right, and of the sum row g, columns 2t and 2t + 1.
__device__ inline void multiply_add(double (&sum)[2], double left, double right) {
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(sum[0]), "+d"(sum[1])
      : "d"(left), "d"(right));
}

// Two bfloat16, the first in the lower half.
__device__ inline uint32_t two_bfloat16(float first, float second) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
}

// sum += left * right, in float32.
template <class T>
__device__ inline void multiply_add(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  if constexpr (std::is_same_v<T, float>) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
  } else {
    static_assert(std::is_same_v<T, Float16>, "of the types in use, tensor cores take these in this form");
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
  }
}

#else

// An older device: no kernel that needs these is ever started there, but its code must compile.
__device__ inline void load_matrices(uint32_t (&)[4], const void*) {
  __trap();
}
__device__ inline void load_matrices_transposed(uint32_t (&)[4], const void*) {
  __trap();
}
__device__ inline void copy_async(void*, const void*, bool) {
  __trap();
}
__device__ inline void multiply_add(double (&)[2], double, double) {
  __trap();
}
__device__ inline uint32_t two_bfloat16(float, float) {
  __trap();
  return 0;
}
__device__ inline void commit_copies() {
  __trap();
}
template <int>
__device__ inline void wait_for_copies() {
  __trap();
}
template <class T>
__device__ inline void multiply_add(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2]) {
  __trap();
}

#endif

}  // namespace cuda
}  // namespace convext

#endif
