// The instructions with which the four warps of a warpgroup multiply together on Hopper, straight from shared
// memory (PTX ISA, "Asynchronous warpgroup level matrix instructions"). Threads 128 k to 128 k + 127 of a
// block are a warpgroup, and execute them together.
//
// Operands are slices of rows of 128 bytes along the depth, which begin at a multiple of 1024 bytes. Of row
// r, the piece of 16 bytes number k lies in place k ^ (r % 8), so that the same pieces of eight rows lie in
// different banks ("128-byte swizzle").
//
// Of the sums, 64 rows x `columns`, thread t of the warpgroup has in number 4 n + 2 i + k that of row
// 16 (t / 32) + t % 32 / 4 + 8 i and column 8 n + t % 4 * 2 + k.
#pragma once

#include "cuda/element.cuh"
#include "cuda/ptx.cuh"

namespace convext {
namespace cuda {

constexpr int swizzled_line_bytes = 128;

// Where piece `piece` of row `row` lies in a slice, in bytes.
__device__ inline int swizzled_offset(int row, int piece) {
  return row * swizzled_line_bytes + ((piece ^ (row % 8)) * 16);
}

// Or the depth lies outside: a line is 64 numbers of a row axis at one depth, its pieces are swizzled by the
// depth in the same way, and 64 lines below each other are followed by those of the next 64 rows.
//
// A slice for the instruction, by its address in shared memory: the address, the distance of blocks of 64
// rows (only looked at if the depth lies outside), the distance of groups of eight lines (all in units of 16
// bytes), and which swizzle it is.
__host__ __device__ constexpr uint64_t slice_descriptor_bits(uint32_t address, int block_bytes) {
  return uint64_t{(address & 0x3ffffu) >> 4} | static_cast<uint64_t>(block_bytes / 16) << 16 |
         uint64_t{8 * swizzled_line_bytes / 16} << 32 | uint64_t{1} << 62;
}
static_assert(slice_descriptor_bits(0x10400, 16) == 0x4000004000011040u, "as the manual's tables have it");

}  // namespace cuda
}  // namespace convext

#if defined(CUDA_ON_CPU)
#include "warpgroup_ptx_on_cpu.h"
#else

namespace convext {
namespace cuda {

using SliceDescriptor = uint64_t;

__device__ inline SliceDescriptor slice_descriptor(const void* slice) {
  return slice_descriptor_bits(shared_address(slice), 16);
}

__device__ inline SliceDescriptor outer_slice_descriptor(const void* slice, int block_bytes) {
  return slice_descriptor_bits(shared_address(slice), block_bytes);
}

// The same slice from so many bytes of its lines, or of lines, on.
__device__ inline SliceDescriptor deeper(SliceDescriptor slice, int bytes) {
  return slice + static_cast<uint64_t>(bytes >> 4);
}

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What this thread has written to shared memory, copies included, is seen by the instructions that follow a
// barrier.
__device__ inline void publish_to_warpgroups() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before the first multiplication, and after the sums have been touched otherwise.
__device__ inline void begin_multiplications() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// What has been started since the last commit is one batch.
__device__ inline void commit_multiplications() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until no more than the last `pending` batches run: then, what they read may be overwritten.
template <int pending>
__device__ inline void wait_for_multiplications() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// sum += left * right over 32 bytes of depth (a depth of 16 where it lies outside); float32 as TF32. 64 rows,
// and twice as many columns as there are numbers; CONVEXT_MULTIPLY is the instruction of that width.
#define CONVEXT_MULTIPLY_ADD_TOGETHER(numbers)                                              \
  template <class T, bool outside = false>                                                  \
  __device__ inline void multiply_add_together(float (&sum)[numbers], SliceDescriptor left, \
                                               SliceDescriptor right) {                     \
    if constexpr (std::is_same_v<T, float>) {                                               \
      static_assert(!outside, "of 16-bit numbers only");                                    \
      CONVEXT_MULTIPLY("k8", "tf32", "");                                                   \
    } else if constexpr (std::is_same_v<T, BFloat16> && outside) {                          \
      CONVEXT_MULTIPLY("k16", "bf16", ", 1, 1");                                            \
    } else if constexpr (std::is_same_v<T, BFloat16>) {                                     \
      CONVEXT_MULTIPLY("k16", "bf16", ", 0, 0");                                            \
    } else if constexpr (outside) {                                                         \
      CONVEXT_MULTIPLY("k16", "f16", ", 1, 1");                                             \
    } else {                                                                                \
      CONVEXT_MULTIPLY("k16", "f16", ", 0, 0");                                             \
    }                                                                                       \
  }

#define CONVEXT_MULTIPLY(shape, type, flags)                                                               \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64" shape ".f32." type "." type                           \
               " "                                                                                         \
               "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"                    \
               " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "        \
               "%32, %33, 1, 1, 1" flags ";"                                                               \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]), "+f"(sum[4]), "+f"(sum[5]),       \
                 "+f"(sum[6]), "+f"(sum[7]), "+f"(sum[8]), "+f"(sum[9]), "+f"(sum[10]), "+f"(sum[11]),     \
                 "+f"(sum[12]), "+f"(sum[13]), "+f"(sum[14]), "+f"(sum[15]), "+f"(sum[16]), "+f"(sum[17]), \
                 "+f"(sum[18]), "+f"(sum[19]), "+f"(sum[20]), "+f"(sum[21]), "+f"(sum[22]), "+f"(sum[23]), \
                 "+f"(sum[24]), "+f"(sum[25]), "+f"(sum[26]), "+f"(sum[27]), "+f"(sum[28]), "+f"(sum[29]), \
                 "+f"(sum[30]), "+f"(sum[31])                                                              \
               : "l"(left), "l"(right))

CONVEXT_MULTIPLY_ADD_TOGETHER(32)
#undef CONVEXT_MULTIPLY

#define CONVEXT_MULTIPLY(shape, type, flags)                                                               \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128" shape ".f32." type "." type                          \
               " "                                                                                         \
               "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"                    \
               " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"          \
               " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"          \
               " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "        \
               "%64, %65, 1, 1, 1" flags ";"                                                               \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]), "+f"(sum[4]), "+f"(sum[5]),       \
                 "+f"(sum[6]), "+f"(sum[7]), "+f"(sum[8]), "+f"(sum[9]), "+f"(sum[10]), "+f"(sum[11]),     \
                 "+f"(sum[12]), "+f"(sum[13]), "+f"(sum[14]), "+f"(sum[15]), "+f"(sum[16]), "+f"(sum[17]), \
                 "+f"(sum[18]), "+f"(sum[19]), "+f"(sum[20]), "+f"(sum[21]), "+f"(sum[22]), "+f"(sum[23]), \
                 "+f"(sum[24]), "+f"(sum[25]), "+f"(sum[26]), "+f"(sum[27]), "+f"(sum[28]), "+f"(sum[29]), \
                 "+f"(sum[30]), "+f"(sum[31]), "+f"(sum[32]), "+f"(sum[33]), "+f"(sum[34]), "+f"(sum[35]), \
                 "+f"(sum[36]), "+f"(sum[37]), "+f"(sum[38]), "+f"(sum[39]), "+f"(sum[40]), "+f"(sum[41]), \
                 "+f"(sum[42]), "+f"(sum[43]), "+f"(sum[44]), "+f"(sum[45]), "+f"(sum[46]), "+f"(sum[47]), \
                 "+f"(sum[48]), "+f"(sum[49]), "+f"(sum[50]), "+f"(sum[51]), "+f"(sum[52]), "+f"(sum[53]), \
                 "+f"(sum[54]), "+f"(sum[55]), "+f"(sum[56]), "+f"(sum[57]), "+f"(sum[58]), "+f"(sum[59]), \
                 "+f"(sum[60]), "+f"(sum[61]), "+f"(sum[62]), "+f"(sum[63])                                \
               : "l"(left), "l"(right))

CONVEXT_MULTIPLY_ADD_TOGETHER(64)
#undef CONVEXT_MULTIPLY

#define CONVEXT_MULTIPLY(shape, type, flags)                                                               \
  asm volatile(                                                                                            \
      "wgmma.mma_async.sync.aligned.m64n256" shape ".f32." type "." type                                   \
      " "                                                                                                  \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"                             \
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"                   \
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"                   \
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63,"                   \
      " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79,"                   \
      " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95,"                   \
      " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111,"       \
      " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, " \
      "%128, %129, 1, 1, 1" flags ";"                                                                      \
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]), "+f"(sum[4]), "+f"(sum[5]), "+f"(sum[6]),  \
        "+f"(sum[7]), "+f"(sum[8]), "+f"(sum[9]), "+f"(sum[10]), "+f"(sum[11]), "+f"(sum[12]),             \
        "+f"(sum[13]), "+f"(sum[14]), "+f"(sum[15]), "+f"(sum[16]), "+f"(sum[17]), "+f"(sum[18]),          \
        "+f"(sum[19]), "+f"(sum[20]), "+f"(sum[21]), "+f"(sum[22]), "+f"(sum[23]), "+f"(sum[24]),          \
        "+f"(sum[25]), "+f"(sum[26]), "+f"(sum[27]), "+f"(sum[28]), "+f"(sum[29]), "+f"(sum[30]),          \
        "+f"(sum[31]), "+f"(sum[32]), "+f"(sum[33]), "+f"(sum[34]), "+f"(sum[35]), "+f"(sum[36]),          \
        "+f"(sum[37]), "+f"(sum[38]), "+f"(sum[39]), "+f"(sum[40]), "+f"(sum[41]), "+f"(sum[42]),          \
        "+f"(sum[43]), "+f"(sum[44]), "+f"(sum[45]), "+f"(sum[46]), "+f"(sum[47]), "+f"(sum[48]),          \
        "+f"(sum[49]), "+f"(sum[50]), "+f"(sum[51]), "+f"(sum[52]), "+f"(sum[53]), "+f"(sum[54]),          \
        "+f"(sum[55]), "+f"(sum[56]), "+f"(sum[57]), "+f"(sum[58]), "+f"(sum[59]), "+f"(sum[60]),          \
        "+f"(sum[61]), "+f"(sum[62]), "+f"(sum[63]), "+f"(sum[64]), "+f"(sum[65]), "+f"(sum[66]),          \
        "+f"(sum[67]), "+f"(sum[68]), "+f"(sum[69]), "+f"(sum[70]), "+f"(sum[71]), "+f"(sum[72]),          \
        "+f"(sum[73]), "+f"(sum[74]), "+f"(sum[75]), "+f"(sum[76]), "+f"(sum[77]), "+f"(sum[78]),          \
        "+f"(sum[79]), "+f"(sum[80]), "+f"(sum[81]), "+f"(sum[82]), "+f"(sum[83]), "+f"(sum[84]),          \
        "+f"(sum[85]), "+f"(sum[86]), "+f"(sum[87]), "+f"(sum[88]), "+f"(sum[89]), "+f"(sum[90]),          \
        "+f"(sum[91]), "+f"(sum[92]), "+f"(sum[93]), "+f"(sum[94]), "+f"(sum[95]), "+f"(sum[96]),          \
        "+f"(sum[97]), "+f"(sum[98]), "+f"(sum[99]), "+f"(sum[100]), "+f"(sum[101]), "+f"(sum[102]),       \
        "+f"(sum[103]), "+f"(sum[104]), "+f"(sum[105]), "+f"(sum[106]), "+f"(sum[107]), "+f"(sum[108]),    \
        "+f"(sum[109]), "+f"(sum[110]), "+f"(sum[111]), "+f"(sum[112]), "+f"(sum[113]), "+f"(sum[114]),    \
        "+f"(sum[115]), "+f"(sum[116]), "+f"(sum[117]), "+f"(sum[118]), "+f"(sum[119]), "+f"(sum[120]),    \
        "+f"(sum[121]), "+f"(sum[122]), "+f"(sum[123]), "+f"(sum[124]), "+f"(sum[125]), "+f"(sum[126]),    \
        "+f"(sum[127])                                                                                     \
      : "l"(left), "l"(right))

CONVEXT_MULTIPLY_ADD_TOGETHER(128)
#undef CONVEXT_MULTIPLY
#undef CONVEXT_MULTIPLY_ADD_TOGETHER

#else

// No other device runs kernels that need these, but their code must compile.
__device__ inline void publish_to_warpgroups() {
  __trap();
}
__device__ inline void begin_multiplications() {
  __trap();
}
__device__ inline void commit_multiplications() {
  __trap();
}
template <int>
__device__ inline void wait_for_multiplications() {
  __trap();
}
template <class T, bool outside = false, int numbers>
__device__ inline void multiply_add_together(float (&)[numbers], SliceDescriptor, SliceDescriptor) {
  __trap();
}

#endif

}  // namespace cuda
}  // namespace convext

#endif
