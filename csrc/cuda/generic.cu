// The kernel that runs everything: any strides, dtype, padding mode and geometry. It stands last in the list.
//
// forward and grad_input have one thread for each element of the result, neighbours in memory side by side,
// and walk over the taps outside and the channels inside, so that what a tap costs is paid once for all
// channels. grad_input visits the taps that hit, and nothing else; no two threads write the same element.
// grad_weight is a RowReduction over the rows of the output.
#include "core/padding.h"
#include "cuda/element.cuh"
#include "cuda/kernel_list.h"
#include "cuda/launch.cuh"
#include "cuda/memory_order.cuh"
#include "cuda/row_reduction.cuh"

namespace convext {
namespace cuda {
namespace {

constexpr int threads_per_block = 128;

// One axis of the problem, and how taps and output positions that read the same input position follow each
// other: tap_step taps further is output_step positions back.
struct Axis {
  int64_t input, output, kernel, stride, dilation, before, after;
  int64_t tap_step, output_step;
  PaddingMode mode;
};

Axis axis_of(int64_t input, int64_t output, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
             int64_t after, PaddingMode mode) {
  int64_t divisor = stride;
  for (int64_t rest = dilation; rest != 0;) {
    const int64_t next = divisor % rest;
    divisor = rest;
    rest = next;
  }
  return {input, output, kernel, stride, dilation, before, after, stride / divisor, dilation / divisor, mode};
}

Axis row_axis(const ConvProblem& p) {
  return axis_of(p.input.height, p.output.height, p.kernel.height, p.stride.height, p.dilation.height,
                 p.padding.top, p.padding.bottom, p.padding_mode);
}

Axis column_axis(const ConvProblem& p) {
  return axis_of(p.input.width, p.output.width, p.kernel.width, p.stride.width, p.dilation.width,
                 p.padding.left, p.padding.right, p.padding_mode);
}

__device__ inline int64_t source_of(int64_t output, int64_t tap, const Axis& axis) {
  return padded_source(output * axis.stride + tap * axis.dilation - axis.before, axis.input, axis.mode);
}

// What the kernels read of the problem.
struct Operands {
  Axis rows, columns;
  int64_t batch, in_channels_per_group, out_channels_per_group;
  ImageStrides input, output;
  WeightStrides weight;
};

Operands operands_of(const ConvProblem& p) {
  return {
      row_axis(p),     column_axis(p),   p.batch,         in_channels_per_group(p), out_channels_per_group(p),
      p.input_strides, p.output_strides, p.weight_strides};
}

template <class In, class Out>
__global__ void __launch_bounds__(threads_per_block)
    forward(Operands p, MemoryOrder order, int64_t elements, const In* input, const In* weight,
            const In* bias, Out* output) {
  for (int64_t element = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; element < elements;
       element += int64_t{gridDim.x} * blockDim.x) {
    const Position at = position_of(element, order);
    const int64_t group = quotient(at.b, p.out_channels_per_group);
    const In* sample = input + at.a * p.input.batch + group * p.in_channels_per_group * p.input.channel;
    const In* filter = weight + at.b * p.weight.out_channel;
    Sum<In> sum;
    for (int64_t i = 0; i < p.rows.kernel; ++i) {
      const int64_t row = source_of(at.row, i, p.rows);
      for (int64_t j = 0; j < p.columns.kernel; ++j) {
        const int64_t column = source_of(at.column, j, p.columns);
        const In* tap = filter + i * p.weight.row + j * p.weight.column;
        // A zero of the padding is a number like any other: times an infinite weight it is NaN.
        const bool is_padding = row < 0 || column < 0;
        const In* source = is_padding ? nullptr : sample + row * p.input.row + column * p.input.column;
#pragma unroll 4
        for (int64_t c = 0; c < p.in_channels_per_group; ++c) {
          const Accumulator<In> value = is_padding ? Accumulator<In>{} : widen(source[c * p.input.channel]);
          sum.add_product(value, widen(tap[c * p.weight.in_channel]));
        }
      }
    }
    if (bias != nullptr) sum.add(widen(bias[at.b]));
    output[at.a * p.output.batch + at.b * p.output.channel + at.row * p.output.row +
           at.column * p.output.column] = narrow<Out>(sum.result());
  }
}

// Calls visit(tap, output) for the taps and output positions that read `position` of the padded axis.
template <class Visit>
__device__ inline void for_each_tap(int64_t position, const Axis& axis, const Visit& visit) {
  const int64_t scaled = position + axis.before;
  int64_t tap = 0;
  while (tap < axis.tap_step && (scaled - tap * axis.dilation) % axis.stride != 0) ++tap;
  if (tap == axis.tap_step) return;
  int64_t output = (scaled - tap * axis.dilation) / axis.stride;
  if (output >= axis.output) {
    const int64_t skipped = (output - axis.output) / axis.output_step + 1;
    tap += skipped * axis.tap_step;
    output -= skipped * axis.output_step;
  }
  for (; output >= 0 && tap < axis.kernel; tap += axis.tap_step, output -= axis.output_step)
    visit(tap, output);
}

// The same for every position of the padded axis that is read from input index `at`: itself and what padding
// is filled from it.
template <class Visit>
__device__ inline void for_each_reader(int64_t at, const Axis& axis, const Visit& visit) {
  for_each_tap(at, axis, visit);
  if (axis.mode == PaddingMode::zeros) return;
  int64_t first[2] = {0, 0};  // before the input and behind it
  int64_t count[2] = {0, 0};
  if (axis.mode == PaddingMode::replicate) {
    first[0] = -axis.before;
    first[1] = axis.input;
    count[0] = at == 0 ? axis.before : 0;
    count[1] = at == axis.input - 1 ? axis.after : 0;
  } else {
    const bool reflect = axis.mode == PaddingMode::reflect;
    first[0] = reflect ? -at : at - axis.input;
    first[1] = reflect ? 2 * (axis.input - 1) - at : at + axis.input;
    count[0] = first[0] < 0 && first[0] >= -axis.before ? 1 : 0;
    count[1] = first[1] >= axis.input && first[1] < axis.input + axis.after ? 1 : 0;
  }
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    for (int64_t k = 0; k < count[side]; ++k) for_each_tap(first[side] + k, axis, visit);
  }
}

template <class T>
__global__ void __launch_bounds__(threads_per_block, 4)
    grad_input(Operands p, MemoryOrder order, int64_t elements, const T* grad_output, const T* weight,
               T* result) {
  for (int64_t element = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; element < elements;
       element += int64_t{gridDim.x} * blockDim.x) {
    const Position at = position_of(element, order);
    const int64_t group = quotient(at.b, p.in_channels_per_group);
    const int64_t first = group * p.out_channels_per_group;
    const T* sample = grad_output + at.a * p.output.batch + first * p.output.channel;
    const T* filter = weight + first * p.weight.out_channel +
                      (at.b - group * p.in_channels_per_group) * p.weight.in_channel;
    Sum<T> sum;
    for_each_reader(at.row, p.rows, [&](int64_t i, int64_t y) {
      for_each_reader(at.column, p.columns, [&](int64_t j, int64_t x) {
        const T* tap = filter + i * p.weight.row + j * p.weight.column;
        const T* source = sample + y * p.output.row + x * p.output.column;
#pragma unroll 4
        for (int64_t o = 0; o < p.out_channels_per_group; ++o)
          sum.add_product(widen(source[o * p.output.channel]), widen(tap[o * p.weight.out_channel]));
      });
    });
    result[at.a * p.input.batch + at.b * p.input.channel + at.row * p.input.row +
           at.column * p.input.column] = narrow<T>(sum.result());
  }
}

template <class T>
__global__ void __launch_bounds__(reduction_threads, 4)
    grad_weight(Operands p, RowReduction plan, Destination to, const T* input, const T* grad_output,
                T* result, Total<T>* chunk_sums) {
  reduce_rows(
      plan, result, to, chunk_sums,
      [&](Sum<T>& sum, int64_t element, int64_t output_row, int64_t first_column, int64_t step) {
        const Position at = position_of(element, to.order);
        const int64_t n = quotient(output_row, p.rows.output);
        const int64_t y = output_row - n * p.rows.output;
        const int64_t row = source_of(y, at.row, p.rows);
        const int64_t channel = quotient(at.a, p.out_channels_per_group) * p.in_channels_per_group + at.b;
        const T* source = input + n * p.input.batch + channel * p.input.channel + row * p.input.row;
        const T* grad = grad_output + n * p.output.batch + at.a * p.output.channel + y * p.output.row;
        for (int64_t x = first_column; x < p.columns.output; x += step) {
          const int64_t column = source_of(x, at.column, p.columns);
          const bool is_padding = row < 0 || column < 0;
          const Accumulator<T> value = is_padding ? Accumulator<T>{} : widen(source[column * p.input.column]);
          sum.add_product(value, widen(grad[x * p.output.column]));
        }
      });
}

MemoryOrder weight_order(const ConvProblem& p) {
  return memory_order(p.out_channels, in_channels_per_group(p), p.kernel, p.weight_strides);
}

RowReduction plan_grad_weight(const ConvProblem& p) {
  const MemoryOrder order = weight_order(p);
  const bool input_channels_adjacent =
      order.axis[0] == 1 && in_channels_per_group(p) > 1 && p.input_strides.channel == 1;
  const bool out_channels_adjacent = order.axis[0] == 0 && p.output_strides.channel == 1;
  return plan_row_reduction(element_count(order), p.batch * p.output.height, p.output.width,
                            input_channels_adjacent || out_channels_adjacent);
}

template <class T>
const char* launch_forward(const ConvProblem& p, const ConvData& data, const CudaDevice& device,
                           void* stream) {
  const MemoryOrder order = memory_order(p.batch, p.out_channels, p.output, p.output_strides);
  const int64_t elements = element_count(order);
  const Grid grid{grid_size((elements + threads_per_block - 1) / threads_per_block, device)};
  const T* bias = p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr;
  const auto run = [&](auto out) {
    using Out = decltype(out);
    return launch(forward<T, Out>, grid, threads_per_block, 0, stream, operands_of(p), order, elements,
                  static_cast<const T*>(data.input), static_cast<const T*>(data.weight), bias,
                  static_cast<Out*>(data.output));
  };
  if constexpr (std::is_integral_v<T> && sizeof(T) == 1) {
    if (p.out_dtype == DType::int32) return run(int32_t{});
  }
  return run(T{});
}

template <class T>
const char* launch_grad_input(const ConvProblem& p, const ConvData& data, const CudaDevice& device,
                              void* stream) {
  const MemoryOrder order = memory_order(p.batch, p.in_channels, p.input, p.input_strides);
  const int64_t elements = element_count(order);
  const Grid grid{grid_size((elements + threads_per_block - 1) / threads_per_block, device)};
  return launch(grad_input<T>, grid, threads_per_block, 0, stream, operands_of(p), order, elements,
                static_cast<const T*>(data.output), static_cast<const T*>(data.weight),
                static_cast<T*>(data.input));
}

template <class T>
const char* launch_grad_weight(const ConvProblem& p, const ConvData& data, void* workspace,
                               const CudaDevice& device, void* stream) {
  const RowReduction plan = plan_grad_weight(p);
  const Destination to{weight_order(p), p.weight_strides};
  const Grid grid{grid_size(reduction_blocks(plan), device), plan.chunks};
  const char* error = launch(grad_weight<T>, grid, reduction_threads, 0, stream, operands_of(p), plan, to,
                             static_cast<const T*>(data.input), static_cast<const T*>(data.output),
                             static_cast<T*>(data.weight), static_cast<Total<T>*>(workspace));
  if (error != nullptr || plan.chunks == 1) return error;
  return launch_add_chunks<T>(plan.chunks, plan.elements, workspace, data.weight, to, device, stream);
}

int64_t result_elements(const ConvProblem& p) {
  switch (p.pass) {
    case Pass::forward:
      return p.batch * p.out_channels * p.output.height * p.output.width;
    case Pass::grad_input:
      return p.batch * p.in_channels * p.input.height * p.input.width;
    case Pass::grad_weight:
      return p.out_channels * in_channels_per_group(p) * p.kernel.height * p.kernel.width;
  }
  return 0;
}

int64_t workspace_bytes(const ConvProblem& problem, const CudaDevice&) {
  if (problem.pass != Pass::grad_weight) return 0;
  const int64_t total_size = is_floating(problem.dtype) || problem.dtype == DType::int64 ? 8 : 4;
  return reduction_workspace_bytes(plan_grad_weight(problem), total_size);
}

const char* run(const ConvProblem& problem, const ConvData& data, void* workspace, const CudaDevice& device,
                void* stream) {
  if (result_elements(problem) == 0) return nullptr;
  return with_type(problem.dtype, [&](auto element) {
    using T = decltype(element);
    switch (problem.pass) {
      case Pass::forward:
        return launch_forward<T>(problem, data, device, stream);
      case Pass::grad_input:
        return launch_grad_input<T>(problem, data, device, stream);
      default:
        return launch_grad_weight<T>(problem, data, workspace, device, stream);
    }
  });
}

}  // namespace

extern const CudaKernel generic{
    "generic",
    "one thread per result, for every problem",
    [](const ConvProblem&, const CudaDevice&) -> Reason { return nullptr; },
    workspace_bytes,
    run,
};

}  // namespace cuda
}  // namespace convext
