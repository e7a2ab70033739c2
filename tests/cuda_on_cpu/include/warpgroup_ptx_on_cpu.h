// The instructions of csrc/cuda/tensor_cores/warpgroup_ptx.cuh in C++, for fibers. Each thread computes its
// own sums, from what shared memory holds when they are waited for: who overwrites it sooner is found out.
#pragma once

#include <cstdint>
#include <cstring>

#include "ptx_on_cpu.h"

namespace convext {
namespace cuda {

struct SliceDescriptor {
  const unsigned char* slice;
  int block_bytes;  // of 64 rows, if the depth lies outside
  int bytes;        // of depth, or of lines, before the first
};

inline SliceDescriptor slice_descriptor(const void* slice) {
  return {static_cast<const unsigned char*>(slice), 0, 0};
}
inline SliceDescriptor outer_slice_descriptor(const void* slice, int block_bytes) {
  return {static_cast<const unsigned char*>(slice), block_bytes, 0};
}
inline SliceDescriptor deeper(SliceDescriptor slice, int bytes) {
  return {slice.slice, slice.block_bytes, slice.bytes + bytes};
}

inline void publish_to_warpgroups() {}
inline void begin_multiplications() {}
inline void commit_multiplications() {
  cuda_on_cpu::commit_multiplications();
}
template <int pending>
void wait_for_multiplications() {
  for (const auto& multiplication : cuda_on_cpu::take_multiplications(pending)) multiplication();
}

// Number k along the depth of a row.
template <class T>
float number_of(SliceDescriptor from, int row, int k) {
  T number;
  if (from.block_bytes == 0) {
    const int byte = from.bytes + static_cast<int>(sizeof(T)) * k;
    std::memcpy(&number, from.slice + swizzled_offset(row, byte / 16) + byte % 16, sizeof(number));
  } else {
    const int line = from.bytes / swizzled_line_bytes + k;
    const int piece = row % 64 / 8;
    std::memcpy(&number,
                from.slice + row / 64 * from.block_bytes + swizzled_offset(line, piece) + row % 8 * 2,
                sizeof(number));
  }
  if constexpr (std::is_same_v<T, float>) {
    return tf32_of(__float_as_uint(number));
  } else {
    return widen(number);
  }
}

template <class T, bool outside = false, int numbers>
void multiply_add_together(float (&sum)[numbers], SliceDescriptor left, SliceDescriptor right) {
  constexpr int depth = 32 / static_cast<int>(sizeof(T));
  const int thread = static_cast<int>(threadIdx.x) % 128;
  cuda_on_cpu::start_multiplication([&sum, left, right, thread] {
    for (int i = 0; i < 2; ++i) {
      float row[depth];
      for (int k = 0; k < depth; ++k)
        row[k] = number_of<T>(left, thread / 32 * 16 + thread % 32 / 4 + 8 * i, k);
      for (int n = 0; n < numbers / 4; ++n) {
        for (int column = 0; column < 2; ++column) {
          float& to = sum[4 * n + 2 * i + column];
          for (int k = 0; k < depth; ++k)
            to += row[k] * number_of<T>(right, 8 * n + thread % 4 * 2 + column, k);
        }
      }
    }
  });
}

}  // namespace cuda
}  // namespace convext
