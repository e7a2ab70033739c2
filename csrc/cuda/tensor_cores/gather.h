// Where 16-bit elements can be loaded eight at a time.
#pragma once

#include <cstdint>

#include "core/problem.h"

namespace convext {
namespace cuda {
namespace mma {

inline bool is_vector_multiple(int64_t elements) {
  return elements % 8 == 0;
}

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Channels innermost, and every pixel's channels of every group in whole vectors.
inline bool is_made_of_vectors(const void* image, int64_t channels_of_group, const ImageStrides& strides) {
  return strides.channel == 1 && is_vector_multiple(channels_of_group) && is_vector_multiple(strides.batch) &&
         is_vector_multiple(strides.row) && is_vector_multiple(strides.column) && is_aligned(image);
}

// Input channels innermost, those of every tap in whole vectors.
inline bool is_made_of_vectors(const void* weight, int64_t in_channels_of_group, Size2 kernel,
                               const WeightStrides& strides) {
  return strides.in_channel == 1 && is_vector_multiple(in_channels_of_group) &&
         is_vector_multiple(strides.out_channel) && (kernel.height == 1 || is_vector_multiple(strides.row)) &&
         (kernel.width == 1 || is_vector_multiple(strides.column)) && is_aligned(weight);
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
