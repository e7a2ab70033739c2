// Where a position of the padded input is read from. Resolved index by index, so that no padded copy of a
// tensor is ever needed.
#pragma once

#include <cstdint>

#include "core/problem.h"

#if defined(__CUDACC__)
#define CONVEXT_HOST_AND_DEVICE __host__ __device__
#else
#define CONVEXT_HOST_AND_DEVICE
#endif

namespace convext {

// Maps `position` (0 is the first real row or column, negative and >= size lie in the padding) to the index
// it is read from, or -1 where the padding is zero. The padding of `reflect` is at most size - 1 on a side
// and that of `circular` at most size; `validate` has checked that.
[[maybe_unused]] CONVEXT_HOST_AND_DEVICE static inline int64_t padded_source(int64_t position, int64_t size,
                                                                             PaddingMode mode) {
  if (position >= 0 && position < size) return position;
  switch (mode) {
    case PaddingMode::zeros:
      return -1;
    case PaddingMode::reflect:
      return position < 0 ? -position : 2 * (size - 1) - position;
    case PaddingMode::replicate:
      return position < 0 ? 0 : size - 1;
    case PaddingMode::circular:
      return position < 0 ? position + size : position - size;
  }
  return -1;
}

}  // namespace convext
