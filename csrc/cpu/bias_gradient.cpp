#include "cpu/bias_gradient.h"

#include <type_traits>

#include "cpu/element.h"

namespace convext {
namespace {

template <class T>
using Accumulator = std::conditional_t<std::is_integral_v<T>, uint64_t, double>;

// Channels summed by one tile. Neighbours share cache lines where channels lie next to each other in memory.
constexpr int64_t channel_block = 16;

template <class T>
Accumulator<T> widen(T value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<uint64_t>(static_cast<int64_t>(value));
  } else {
    return to_double(value);
  }
}

template <class T>
T narrow(Accumulator<T> sum) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return to_bfloat16(static_cast<float>(sum));
  } else if constexpr (std::is_same_v<T, Float16>) {
    return to_float16(static_cast<float>(sum));
  } else {
    return static_cast<T>(sum);
  }
}

// One row in eight interleaved sums, so that the additions need not wait for each other.
template <class T>
Accumulator<T> sum_row(const T* row, int64_t width, int64_t stride) {
  constexpr int64_t lanes = 8;
  Accumulator<T> sums[lanes] = {};
  int64_t x = 0;
  if (stride == 1) {
    for (; x + lanes <= width; x += lanes) {
      for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += widen(row[x + lane]);
    }
  }
  for (; x < width; ++x) sums[x % lanes] += widen(row[x * stride]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

template <class T>
void run_as(const ImageShape& shape, const ImageStrides& strides, const T* grad_output, T* grad_bias,
            const Executor& executor) {
  const bool channels_adjacent = strides.channel == 1 && shape.channels > 1;
  // Rows that follow each other without a gap are one long row.
  Size2 plane = shape.plane;
  if (strides.row == plane.width * strides.column) plane = {1, plane.height * plane.width};
  for_each_tile(executor, (shape.channels + channel_block - 1) / channel_block, [&](int64_t tile, int) {
    const int64_t first = tile * channel_block;
    const int64_t count = shape.channels - first < channel_block ? shape.channels - first : channel_block;
    Accumulator<T> sums[channel_block] = {};
    for (int64_t n = 0; n < shape.batch; ++n) {
      for (int64_t y = 0; y < plane.height; ++y) {
        const T* row = grad_output + n * strides.batch + first * strides.channel + y * strides.row;
        if (channels_adjacent) {
          for (int64_t x = 0; x < plane.width; ++x) {
            for (int64_t channel = 0; channel < count; ++channel) {
              sums[channel] += widen(row[x * strides.column + channel]);
            }
          }
        } else {
          for (int64_t channel = 0; channel < count; ++channel) {
            sums[channel] += sum_row(row + channel * strides.channel, plane.width, strides.column);
          }
        }
      }
    }
    for (int64_t channel = 0; channel < count; ++channel)
      grad_bias[first + channel] = narrow<T>(sums[channel]);
  });
}

}  // namespace

void bias_gradient(DType dtype, const ImageShape& shape, const ImageStrides& strides, const void* grad_output,
                   void* grad_bias, const Executor& executor) {
  const auto run = [&](auto element) {
    using T = decltype(element);
    run_as<T>(shape, strides, static_cast<const T*>(grad_output), static_cast<T*>(grad_bias), executor);
  };
  switch (dtype) {
    case DType::float32:
      return run(float{});
    case DType::float64:
      return run(double{});
    case DType::bfloat16:
      return run(BFloat16{});
    case DType::float16:
      return run(Float16{});
    case DType::uint8:
      return run(uint8_t{});
    case DType::int8:
      return run(int8_t{});
    case DType::int16:
      return run(int16_t{});
    case DType::int32:
      return run(int32_t{});
    case DType::int64:
      return run(int64_t{});
  }
}

}  // namespace convext
