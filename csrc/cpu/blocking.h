// What every kernel needs to cut its work into blocks and its workspace into pieces.
#pragma once

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t round_up(int64_t a, int64_t multiple) {
  return ceil_div(a, multiple) * multiple;
}

// Numbers from one row of a block to the next: room for a whole vector to be stored at the last column, and
// an odd number of cache lines, so that a column of tiles does not fall into a few sets of the cache.
template <class T>
inline int64_t spread_stride(int64_t columns) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  return (ceil_div(columns + Vector<T>::lanes, line) | 1) * line;
}

// Consecutive pieces of one workspace, each on a cache line of its own.
struct Carver {
  int64_t bytes = 0;

  int64_t take(int64_t count, int64_t size) {
    const int64_t offset = bytes;
    bytes += round_up(count * size, 64);
    return offset;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
