#include "torch/passes.h"

#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/planner.h"
#include "cpu/bias_gradient.h"
#include "torch/check.h"
#include "torch/threads.h"

namespace convext {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {

// `error` is empty or the sentence to raise.
void require(const std::string& error) {
  if (!error.empty()) throw std::runtime_error(error);
}

DType dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DType::float32;
    case ScalarType::Double:
      return DType::float64;
    case ScalarType::BFloat16:
      return DType::bfloat16;
    case ScalarType::Half:
      return DType::float16;
    case ScalarType::Byte:
      return DType::uint8;
    case ScalarType::Char:
      return DType::int8;
    case ScalarType::Short:
      return DType::int16;
    case ScalarType::Int:
      return DType::int32;
    case ScalarType::Long:
      return DType::int64;
    default:
      break;
  }
  std::ostringstream message;
  message << name << " must be of a floating-point or integer dtype, but it is "
          << torch::headeronly::toString(tensor.scalar_type())
          << " (convext.conv2d also takes complex64 and complex128)";
  throw std::runtime_error(message.str());
}

int32_t torch_dtype(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return aoti_torch_dtype_float32();
    case DType::float64:
      return aoti_torch_dtype_float64();
    case DType::bfloat16:
      return aoti_torch_dtype_bfloat16();
    case DType::float16:
      return aoti_torch_dtype_float16();
    case DType::uint8:
      return aoti_torch_dtype_uint8();
    case DType::int8:
      return aoti_torch_dtype_int8();
    case DType::int16:
      return aoti_torch_dtype_int16();
    case DType::int32:
      return aoti_torch_dtype_int32();
    case DType::int64:
      return aoti_torch_dtype_int64();
  }
  return aoti_torch_dtype_float32();
}

}  // namespace

TensorView view_of(const Tensor& tensor, const char* name, bool may_lack_batch) {
  TensorView view;
  view.dtype = dtype_of(tensor, name);
  const int64_t rank = tensor.dim();
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  if (rank != 4 && !(rank == 3 && may_lack_batch)) {
    std::ostringstream message;
    message << name
            << (may_lack_batch
                    ? " must be 4-D (batch, channels, height, width) or 3-D (channels, height, width)"
                    : " must be 4-D (out_channels, in_channels / groups, height, width)")
            << ", but it has shape [";
    for (int64_t axis = 0; axis < rank; ++axis) message << (axis == 0 ? "" : ", ") << sizes[axis];
    message << "]";
    throw std::runtime_error(message.str());
  }
  const int64_t missing = 4 - rank;
  if (missing == 1) {
    view.sizes[0] = 1;
    view.strides[0] = sizes[0] * strides[0];
  }
  for (int64_t axis = 0; axis < rank; ++axis) {
    view.sizes[axis + missing] = sizes[axis];
    view.strides[axis + missing] = strides[axis];
  }
  return view;
}

namespace {

Tensor allocate(const TensorView& view, bool lacks_batch) {
  const int first = lacks_batch ? 1 : 0;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4 - first, view.sizes + first, view.strides + first,
                                                  torch_dtype(view.dtype), aoti_torch_device_type_cpu(), 0,
                                                  &handle));
  return Tensor(handle);
}

bool is_empty(const TensorView& view) {
  for (int64_t size : view.sizes) {
    if (size == 0) return true;
  }
  return false;
}

void run(const ConvProblem& problem, const ConvData& data) {
  std::string error;
  const Kernel* kernel = plan(problem, &error);
  check(kernel != nullptr, error);
  const Executor executor = torch_executor(useful_workers(problem, torch_threads()));
  const int64_t bytes = kernel->workspace_bytes(problem, executor.workers);
  // Small scratch lives on the stack: an allocation would cost more than a small problem.
  constexpr int64_t stack_bytes = 8192;
  if (bytes <= stack_bytes) {
    alignas(64) char scratch[stack_bytes];
    kernel->run(problem, data, scratch, executor);
    return;
  }
  const int64_t stride = 1;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(1, &bytes, &stride, aoti_torch_dtype_uint8(),
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  const Tensor workspace(handle);
  kernel->run(problem, data, workspace.mutable_data_ptr(), executor);
}

void* pointer(const Tensor& tensor) {
  return const_cast<void*>(tensor.const_data_ptr());
}

}  // namespace

Tensor corr2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const Geometry& geometry, std::optional<ScalarType> out_dtype) {
  const TensorView input_view = view_of(input, "input", true);
  const TensorView weight_view = view_of(weight, "weight", false);
  DType bias_dtype = input_view.dtype;
  if (bias.has_value()) {
    bias_dtype = dtype_of(*bias, "bias");
    check(bias->dim() == 1, "bias must be 1-D (out_channels), but it is ", bias->dim(), "-D");
  }
  DType result_dtype = input_view.dtype;
  if (out_dtype.has_value() && *out_dtype != input.scalar_type()) {
    check(*out_dtype == ScalarType::Int, "out_dtype must be the dtype of the input, ",
          dtype_name(input_view.dtype), ", or int32 for an 8-bit input, but it is ",
          torch::headeronly::toString(*out_dtype));
    result_dtype = DType::int32;
  }
  ConvProblem problem;
  require(request_forward(input_view, weight_view, bias.has_value() ? &bias_dtype : nullptr,
                          bias.has_value() ? bias->size(0) : 0, result_dtype, geometry, &problem));
  problem.precision = float32_precision();
  TensorView result;
  require(lay_out_result(&problem, is_channels_last(input_view) || is_channels_last(weight_view), &result));
  Tensor output = allocate(result, input.dim() == 3);
  if (is_empty(result)) return output;

  ConvData data;
  data.input = pointer(input);
  data.weight = pointer(weight);
  data.output = output.mutable_data_ptr();
  // Kernels take a contiguous bias; anything else is rare and small enough to copy.
  std::vector<char> contiguous_bias;
  if (bias.has_value()) {
    data.bias = bias->const_data_ptr();
    if (bias->stride(0) != 1 && bias->size(0) > 1) {
      const int64_t bytes = element_size(bias_dtype);
      contiguous_bias.resize(static_cast<size_t>(bias->size(0) * bytes));
      for (int64_t channel = 0; channel < bias->size(0); ++channel) {
        std::memcpy(contiguous_bias.data() + channel * bytes,
                    static_cast<const char*>(data.bias) + channel * bias->stride(0) * bytes,
                    static_cast<size_t>(bytes));
      }
      data.bias = contiguous_bias.data();
    }
  }
  run(problem, data);
  return output;
}

Tensor corr2d_grad_input(const Tensor& grad_output, const Tensor& weight, Size2 input_size,
                         const Geometry& geometry, bool channels_last) {
  ConvProblem problem;
  require(request_grad_input(view_of(grad_output, "grad_output", true), view_of(weight, "weight", false),
                             input_size, geometry, &problem));
  problem.precision = float32_precision();
  TensorView result;
  require(lay_out_result(&problem, channels_last, &result));
  Tensor grad_input = allocate(result, grad_output.dim() == 3);
  if (is_empty(result)) return grad_input;
  ConvData data;
  data.input = grad_input.mutable_data_ptr();
  data.weight = pointer(weight);
  data.output = pointer(grad_output);
  run(problem, data);
  return grad_input;
}

Tensor corr2d_grad_weight(const Tensor& grad_output, const Tensor& input, Size2 kernel_size,
                          const Geometry& geometry, bool channels_last) {
  check(grad_output.dim() == input.dim(), "grad_output and input must have the same rank, but they are ",
        grad_output.dim(), "-D and ", input.dim(), "-D");
  ConvProblem problem;
  require(request_grad_weight(view_of(grad_output, "grad_output", true), view_of(input, "input", true),
                              kernel_size, geometry, &problem));
  problem.precision = float32_precision();
  TensorView result;
  require(lay_out_result(&problem, channels_last, &result));
  Tensor grad_weight = allocate(result, false);
  if (is_empty(result)) return grad_weight;
  ConvData data;
  data.input = pointer(input);
  data.weight = grad_weight.mutable_data_ptr();
  data.output = pointer(grad_output);
  run(problem, data);
  return grad_weight;
}

Tensor corr2d_grad_bias(const Tensor& grad_output) {
  const TensorView view = view_of(grad_output, "grad_output", true);
  AtenTensorHandle handle = nullptr;
  const int64_t stride = 1;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(1, &view.sizes[1], &stride, torch_dtype(view.dtype),
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  const Tensor grad_bias(handle);
  bias_gradient(view.dtype, {view.sizes[0], view.sizes[1], {view.sizes[2], view.sizes[3]}},
                {view.strides[0], view.strides[1], view.strides[2], view.strides[3]},
                grad_output.const_data_ptr(), grad_bias.mutable_data_ptr(),
                torch_executor(grad_output.numel() < 100000 ? 1 : torch_threads()));
  return grad_bias;
}

}  // namespace convext
