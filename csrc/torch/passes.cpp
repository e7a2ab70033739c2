#include "torch/passes.h"

#include <sstream>
#include <stdexcept>
#include <string>

#include "core/settings.h"
#include "torch/backend.h"
#include "torch/check.h"

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

Tensor allocate(const TensorView& view, bool lacks_batch, int32_t device) {
  const int first = lacks_batch ? 1 : 0;
  return backend::allocate(view.sizes + first, view.strides + first, 4 - first, torch_dtype(view.dtype),
                           device);
}

bool is_empty(const TensorView& view) {
  for (int64_t size : view.sizes) {
    if (size == 0) return true;
  }
  return false;
}

void* pointer(const Tensor& tensor) {
  return const_cast<void*>(tensor.const_data_ptr());
}

// Kernels take a contiguous bias; anything else is rare and small enough to copy.
Tensor contiguous(const Tensor& bias) {
  if (bias.stride(0) == 1 || bias.size(0) <= 1) return bias;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_clone(bias.get(), &handle));
  return Tensor(handle);
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
  const int32_t device = bias.has_value()
                             ? backend::common_device({{"input", input}, {"weight", weight}, {"bias", *bias}})
                             : backend::common_device({{"input", input}, {"weight", weight}});
  Tensor output = allocate(result, input.dim() == 3, device);
  if (is_empty(result)) return output;

  ConvData data;
  data.input = pointer(input);
  data.weight = pointer(weight);
  data.output = output.mutable_data_ptr();
  if (!bias.has_value()) {
    backend::run(problem, data, device);
    return output;
  }
  const Tensor vector = contiguous(*bias);
  data.bias = vector.const_data_ptr();
  backend::run(problem, data, device);
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
  const int32_t device = backend::common_device({{"grad_output", grad_output}, {"weight", weight}});
  Tensor grad_input = allocate(result, grad_output.dim() == 3, device);
  if (is_empty(result)) return grad_input;
  ConvData data;
  data.input = grad_input.mutable_data_ptr();
  data.weight = pointer(weight);
  data.output = pointer(grad_output);
  backend::run(problem, data, device);
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
  const int32_t device = backend::common_device({{"grad_output", grad_output}, {"input", input}});
  Tensor grad_weight = allocate(result, false, device);
  if (is_empty(result)) return grad_weight;
  ConvData data;
  data.input = pointer(input);
  data.weight = grad_weight.mutable_data_ptr();
  data.output = pointer(grad_output);
  backend::run(problem, data, device);
  return grad_weight;
}

Tensor corr2d_grad_bias(const Tensor& grad_output) {
  const TensorView view = view_of(grad_output, "grad_output", true);
  const int32_t device = backend::common_device({{"grad_output", grad_output}});
  const int64_t stride = 1;
  const Tensor grad_bias = backend::allocate(&view.sizes[1], &stride, 1, torch_dtype(view.dtype), device);
  backend::run_bias_gradient(view, grad_output.const_data_ptr(), grad_bias.mutable_data_ptr(), device);
  return grad_bias;
}

}  // namespace convext
