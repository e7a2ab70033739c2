// Large results are written past the caches: an ordinary store first reads the line that it writes to, which
// takes as much of the memory's time as the writing, and lines that are read again soon would be driven out.
//
// A line of the cache must be written in one go, or else the memory is asked twice. With AVX-512 a vector is
// a line; of shorter vectors, those that follow each other in a row are.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/problem.h"
#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// From here on a result would not be found in the caches by whoever reads it next, or only by driving out
// everything else.
constexpr int64_t least_streamed_bytes = int64_t{8} << 20;

constexpr int64_t line_bytes = 64;
constexpr bool vector_is_line = sizeof(Vector<float>) == line_bytes;

template <class T>
bool is_worth_streaming(int64_t numbers) {
  return can_stream && std::is_same_v<T, Compute<T>> &&
         numbers * static_cast<int64_t>(sizeof(T)) >= least_streamed_bytes;
}

// The same of a problem's result, for kernels that write one vector at a time.
template <class T>
bool is_result_streamed(const ConvProblem& p) {
  const bool is_forward = p.pass == Pass::forward;
  const int64_t pixels = is_forward ? p.output.height * p.output.width : p.input.height * p.input.width;
  return vector_is_line &&
         is_worth_streaming<T>(p.batch * pixels * (is_forward ? p.out_channels : p.in_channels));
}

template <class T>
CONVEXT_INLINE bool begins_line(const T* target) {
  return reinterpret_cast<uintptr_t>(target) % line_bytes == 0;
}

template <class T>
CONVEXT_INLINE bool are_whole_lines(int64_t numbers) {
  return numbers * static_cast<int64_t>(sizeof(T)) % line_bytes == 0;
}

// Whether every line's worth of channels of a channels_last tensor is a line of the cache.
template <class T>
bool are_pixels_whole_lines(const T* tensor, const ImageStrides& strides) {
  return begins_line(tensor) && are_whole_lines<T>(strides.column) && are_whole_lines<T>(strides.row) &&
         are_whole_lines<T>(strides.batch);
}

// A whole vector of results, past the caches or not.
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
