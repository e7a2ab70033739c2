// Large results are written past the caches: an ordinary store first reads the line that it writes to, which
// takes as much of the memory's time as the writing, and lines that are read again soon would be driven out.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// From here on a result would not be found in the caches by whoever reads it next, or only by driving out
// everything else.
constexpr int64_t least_streamed_bytes = int64_t{8} << 20;

template <class T>
bool is_worth_streaming(int64_t numbers) {
  return std::is_same_v<T, Compute<T>> && numbers * static_cast<int64_t>(sizeof(T)) >= least_streamed_bytes;
}

template <class T>
CONVEXT_INLINE bool is_aligned(const T* target) {
  return reinterpret_cast<uintptr_t>(target) % sizeof(Vector<Compute<T>>) == 0;
}

// Whether that many numbers are a multiple of a vector.
template <class T>
bool are_whole_vectors(int64_t numbers) {
  return numbers % Vector<Compute<T>>::lanes == 0;
}

// A whole vector of results. Streams are for aligned targets only.
template <class T>
CONVEXT_INLINE void store_result(T* target, Vector<Compute<T>> value, bool streams) {
  if constexpr (std::is_same_v<T, Compute<T>>) {
    if (streams) return stream(target, value);
  }
  store_narrowed(target, value);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
