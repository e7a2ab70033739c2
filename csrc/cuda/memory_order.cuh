// The elements of a strided 4-D tensor in the order in which they lie in memory, so that neighbouring threads
// write neighbouring addresses whatever the layout.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "core/problem.h"

namespace convext {
namespace cuda {

struct MemoryOrder {
  int64_t size[4];  // from the innermost axis to the outermost
  int axis[4];      // which axis of the tensor each of these is
};

// An element's position along the tensor's own axes: (n, c, row, column) or (o, c, row, column).
struct Position {
  int64_t a, b, row, column;
};

inline MemoryOrder memory_order(const int64_t (&sizes)[4], const int64_t (&strides)[4]) {
  MemoryOrder order{};
  for (int k = 0; k < 4; ++k) order.axis[k] = 3 - k;
  for (int k = 1; k < 4; ++k) {
    for (int m = k; m > 0; --m) {
      // An axis of one element is never stepped along, whatever its stride.
      const int inner = order.axis[m - 1];
      const int outer = order.axis[m];
      if (sizes[inner] != 1 && (sizes[outer] == 1 || strides[outer] >= strides[inner])) break;
      std::swap(order.axis[m - 1], order.axis[m]);
    }
  }
  for (int k = 0; k < 4; ++k) order.size[k] = sizes[order.axis[k]];
  return order;
}

inline MemoryOrder memory_order(int64_t batch, int64_t channels, Size2 size, const ImageStrides& s) {
  return memory_order({batch, channels, size.height, size.width}, {s.batch, s.channel, s.row, s.column});
}

inline MemoryOrder memory_order(int64_t out_channels, int64_t in_channels, Size2 size,
                                const WeightStrides& s) {
  return memory_order({out_channels, in_channels, size.height, size.width},
                      {s.out_channel, s.in_channel, s.row, s.column});
}

inline int64_t element_count(const MemoryOrder& order) {
  return order.size[0] * order.size[1] * order.size[2] * order.size[3];
}

// Division of numbers that are almost always below 2^32, where it takes a third of the time.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
  const uint64_t both = static_cast<uint64_t>(a) | static_cast<uint64_t>(b);
  if ((both >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

__device__ inline Position position_of(int64_t element, const MemoryOrder& order) {
  Position position{};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t rest = k < 3 ? quotient(element, order.size[k]) : 0;
    const int64_t along = element - rest * order.size[k];
    // Not position[order.axis[k]] = along: an array indexed at run time would not stay in registers.
    if (order.axis[k] == 0) position.a = along;
    if (order.axis[k] == 1) position.b = along;
    if (order.axis[k] == 2) position.row = along;
    if (order.axis[k] == 3) position.column = along;
    element = rest;
  }
  return position;
}

}  // namespace cuda
}  // namespace convext
