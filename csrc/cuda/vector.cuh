// A few neighbouring elements, loaded and stored at once.
#pragma once

#include <cuda_runtime.h>

#include "cuda/element.cuh"

namespace convext {
namespace cuda {

template <class T, int count>
struct alignas(sizeof(T) * count) Vector {
  T lane[count];
};

// `from` must be aligned to the whole vector.
template <class T, int count>
__device__ inline Vector<T, count> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, count>*>(from);
}

template <class T, int count>
__device__ inline void store_vector(T* to, const Vector<T, count>& vector) {
  *reinterpret_cast<Vector<T, count>*>(to) = vector;
}

}  // namespace cuda
}  // namespace convext
