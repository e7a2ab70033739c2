// The plain kernel: the definition, term by term. It runs every problem, it is what the other kernels are
// compared with, and it stands last in the list.
//
// Each element of the result is one sum, computed by one thread in the order written here, so results depend
// neither on the number of threads nor on the batch. Floating-point sums are kept in double (and rounded once
// at the end); integer sums wrap around as torch's do.
#include <cstdint>
#include <type_traits>

#include "core/padding.h"
#include "cpu/element.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace {

// Unsigned 64-bit arithmetic wraps, and wraps to the same low bits as any narrower integer would.
template <class T>
using Accumulator = std::conditional_t<std::is_integral_v<T>, uint64_t, double>;

template <class T>
Accumulator<T> widen(T value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<uint64_t>(static_cast<int64_t>(value));
  } else {
    return to_double(value);
  }
}

// The 16-bit types are rounded by way of float.
template <class T>
T narrow(Accumulator<T> value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return to_bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, Float16>) {
    return to_float16(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

template <class T>
const T* as(const void* pointer) {
  return static_cast<const T*>(pointer);
}

// output[n, o, y, x]
template <class In, class Out>
void output_element(const ConvProblem& p, const ConvData& data, int64_t n, int64_t o, int64_t y, int64_t x) {
  const int64_t channels = in_channels_per_group(p);
  const int64_t first_channel = o / out_channels_per_group(p) * channels;
  Accumulator<In> sum{};
  for (int64_t c = 0; c < channels; ++c) {
    const In* input =
        as<In>(data.input) + n * p.input_strides.batch + (first_channel + c) * p.input_strides.channel;
    const In* weight =
        as<In>(data.weight) + o * p.weight_strides.out_channel + c * p.weight_strides.in_channel;
    for (int64_t i = 0; i < p.kernel.height; ++i) {
      const int64_t row = padded_source(y * p.stride.height + i * p.dilation.height - p.padding.top,
                                        p.input.height, p.padding_mode);
      for (int64_t j = 0; j < p.kernel.width; ++j) {
        const int64_t column = padded_source(x * p.stride.width + j * p.dilation.width - p.padding.left,
                                             p.input.width, p.padding_mode);
        // A zero of the padding is a number like any other: times an infinite weight it is NaN.
        const bool is_padding = row < 0 || column < 0;
        const Accumulator<In> value =
            is_padding ? Accumulator<In>{}
                       : widen(input[row * p.input_strides.row + column * p.input_strides.column]);
        sum += value * widen(weight[i * p.weight_strides.row + j * p.weight_strides.column]);
      }
    }
  }
  if (p.epilogue.bias) sum += widen(as<In>(data.bias)[o]);
  static_cast<Out*>(data.output)[n * p.output_strides.batch + o * p.output_strides.channel +
                                 y * p.output_strides.row + x * p.output_strides.column] = narrow<Out>(sum);
}

// Calls visit(tap, position) for each kernel tap and each output position along one axis that read input
// index `at`: exactly the terms of the gradient there. Padding that is filled from `at` counts as `at`
// itself.
template <class Visit>
void for_each_reader(int64_t at, int64_t size, int64_t before, int64_t after, int64_t kernel, int64_t stride,
                     int64_t dilation, int64_t output, PaddingMode mode, const Visit& visit) {
  const auto visit_padded = [&](int64_t position) {
    for (int64_t tap = 0; tap < kernel; ++tap) {
      const int64_t scaled = position + before - tap * dilation;
      if (scaled >= 0 && scaled % stride == 0 && scaled / stride < output) visit(tap, scaled / stride);
    }
  };
  visit_padded(at);
  if (mode == PaddingMode::zeros) return;
  for (int64_t position = -before; position < 0; ++position) {
    if (padded_source(position, size, mode) == at) visit_padded(position);
  }
  for (int64_t position = size; position < size + after; ++position) {
    if (padded_source(position, size, mode) == at) visit_padded(position);
  }
}

// grad_input[n, c, row, column]
template <class T>
void grad_input_element(const ConvProblem& p, const ConvData& data, int64_t n, int64_t c, int64_t row,
                        int64_t column) {
  const int64_t group = c / in_channels_per_group(p);
  const int64_t out_channels = out_channels_per_group(p);
  Accumulator<T> sum{};
  for (int64_t o = group * out_channels; o < (group + 1) * out_channels; ++o) {
    const T* grad_output = as<T>(data.output) + n * p.output_strides.batch + o * p.output_strides.channel;
    const T* weight = as<T>(data.weight) + o * p.weight_strides.out_channel +
                      c % in_channels_per_group(p) * p.weight_strides.in_channel;
    for_each_reader(
        row, p.input.height, p.padding.top, p.padding.bottom, p.kernel.height, p.stride.height,
        p.dilation.height, p.output.height, p.padding_mode, [&](int64_t i, int64_t y) {
          for_each_reader(
              column, p.input.width, p.padding.left, p.padding.right, p.kernel.width, p.stride.width,
              p.dilation.width, p.output.width, p.padding_mode, [&](int64_t j, int64_t x) {
                sum += widen(grad_output[y * p.output_strides.row + x * p.output_strides.column]) *
                       widen(weight[i * p.weight_strides.row + j * p.weight_strides.column]);
              });
        });
  }
  static_cast<T*>(data.input)[n * p.input_strides.batch + c * p.input_strides.channel +
                              row * p.input_strides.row + column * p.input_strides.column] = narrow<T>(sum);
}

// grad_weight[o, c, i, j]
template <class T>
void grad_weight_element(const ConvProblem& p, const ConvData& data, int64_t o, int64_t c, int64_t i,
                         int64_t j) {
  const int64_t channel = o / out_channels_per_group(p) * in_channels_per_group(p) + c;
  Accumulator<T> sum{};
  for (int64_t n = 0; n < p.batch; ++n) {
    const T* input = as<T>(data.input) + n * p.input_strides.batch + channel * p.input_strides.channel;
    const T* grad_output = as<T>(data.output) + n * p.output_strides.batch + o * p.output_strides.channel;
    for (int64_t y = 0; y < p.output.height; ++y) {
      const int64_t row = padded_source(y * p.stride.height + i * p.dilation.height - p.padding.top,
                                        p.input.height, p.padding_mode);
      for (int64_t x = 0; x < p.output.width; ++x) {
        const int64_t column = padded_source(x * p.stride.width + j * p.dilation.width - p.padding.left,
                                             p.input.width, p.padding_mode);
        const bool is_padding = row < 0 || column < 0;
        const Accumulator<T> value =
            is_padding ? Accumulator<T>{}
                       : widen(input[row * p.input_strides.row + column * p.input_strides.column]);
        sum += value * widen(grad_output[y * p.output_strides.row + x * p.output_strides.column]);
      }
    }
  }
  static_cast<T*>(data.weight)[o * p.weight_strides.out_channel + c * p.weight_strides.in_channel +
                               i * p.weight_strides.row + j * p.weight_strides.column] = narrow<T>(sum);
}

// Runs element(a, b, c, d) over the four axes of the result; a tile is one (a, b, c).
template <class Element>
void for_each_element(const Executor& executor, int64_t a_size, int64_t b_size, Size2 plane,
                      const Element& element) {
  for_each_tile(executor, a_size * b_size * plane.height, [&](int64_t tile, int) {
    const int64_t c = tile % plane.height;
    const int64_t b = tile / plane.height % b_size;
    const int64_t a = tile / plane.height / b_size;
    for (int64_t d = 0; d < plane.width; ++d) element(a, b, c, d);
  });
}

template <class T>
void run_as(const ConvProblem& p, const ConvData& data, const Executor& executor) {
  switch (p.pass) {
    case Pass::forward:
      for_each_element(executor, p.batch, p.out_channels, p.output,
                       [&](int64_t n, int64_t o, int64_t y, int64_t x) {
                         if constexpr (std::is_same_v<T, int8_t> || std::is_same_v<T, uint8_t>) {
                           if (p.out_dtype == DType::int32)
                             return output_element<T, int32_t>(p, data, n, o, y, x);
                         }
                         output_element<T, T>(p, data, n, o, y, x);
                       });
      break;
    case Pass::grad_input:
      for_each_element(executor, p.batch, p.in_channels, p.input,
                       [&](int64_t n, int64_t c, int64_t row, int64_t column) {
                         grad_input_element<T>(p, data, n, c, row, column);
                       });
      break;
    case Pass::grad_weight:
      for_each_element(
          executor, p.out_channels, in_channels_per_group(p), p.kernel,
          [&](int64_t o, int64_t c, int64_t i, int64_t j) { grad_weight_element<T>(p, data, o, c, i, j); });
      break;
  }
}

void run(const ConvProblem& problem, const ConvData& data, void*, const Executor& executor) {
  switch (problem.dtype) {
    case DType::float32:
      return run_as<float>(problem, data, executor);
    case DType::float64:
      return run_as<double>(problem, data, executor);
    case DType::bfloat16:
      return run_as<BFloat16>(problem, data, executor);
    case DType::float16:
      return run_as<Float16>(problem, data, executor);
    case DType::uint8:
      return run_as<uint8_t>(problem, data, executor);
    case DType::int8:
      return run_as<int8_t>(problem, data, executor);
    case DType::int16:
      return run_as<int16_t>(problem, data, executor);
    case DType::int32:
      return run_as<int32_t>(problem, data, executor);
    case DType::int64:
      return run_as<int64_t>(problem, data, executor);
  }
}

}  // namespace

// `validate` in the bridge lets out_dtype differ from dtype only for 8-bit integers widened to int32.
extern const Kernel reference_kernel{
    "reference",
    Isa::baseline,
    "the definition, term by term, for every problem",
    [](const ConvProblem&) -> Reason { return nullptr; },
    [](const ConvProblem&, int) -> int64_t { return 0; },
    run,
};

}  // namespace convext
