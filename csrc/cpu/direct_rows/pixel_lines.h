// For channels_last: lines of pixels, each a block of channels side by side, so that vectors run along the
// channels. A block is one cache line of the tensor's type.
#pragma once

#include "cpu/direct_rows/lines.h"
#include "cpu/implicit_gemm/micro_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
constexpr int64_t channel_block = 64 / static_cast<int64_t>(sizeof(T));

// target[c] = source[c], c in [0, channels), the rest of the block zero.
template <class T>
CONVEXT_INLINE void copy_block(Compute<T>* target, const T* source, int64_t channels) {
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  if (channels == channel_block<T>) {
    CONVEXT_UNROLL
    for (int64_t c = 0; c < channel_block<T>; c += lanes) store(target + c, load_widened(source + c));
    return;
  }
  for (int64_t c = 0; c < channel_block<T>; c += lanes) {
    const int64_t valid = larger(0, smaller(lanes, channels - c));
    store(target + c, load_widened(source + c, valid));
  }
}

// Pixels first, first + 1, ... (count of them) of a row of the source.
template <class T>
void fill_pixels(Compute<T>* target, int64_t count, const T* row, int64_t column_stride,
                 const SourceAxis& axis, int64_t first, int64_t channels) {
  using Real = Compute<T>;
  constexpr int64_t block = channel_block<T>;
  const auto fill_padding = [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t column = axis.resolve(first + k);
      if (column < 0) {
        fill_zeros<Real>(target + k * block, 0, block);
      } else {
        copy_block<T>(target + k * block, row + column * column_stride, channels);
      }
    }
  };
  const int64_t begin = larger(0, smaller(count, -first));
  const int64_t end = larger(begin, smaller(count, axis.size - first));
  fill_padding(0, begin);
  for (int64_t k = begin; k < end; ++k)
    copy_block<T>(target + k * block, row + (first + k) * column_stride, channels);
  fill_padding(end, count);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
