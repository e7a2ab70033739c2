// The operators that torch sees: each validates its arguments once, allocates its result and its scratch
// once, and hands a ConvProblem to the kernel that the planner picks. Only torch's stable ABI is used, so one
// build runs on every torch from 2.10 on.
//
// The operators know nothing of autograd: convext/autograd.py and convext/ops.py give them derivatives.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstring>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/planner.h"
#include "core/request.h"
#include "cpu/bias_gradient.h"
#include "torch/threads.h"

using convext::ConvData;
using convext::ConvProblem;
using convext::DType;
using convext::Geometry;
using convext::PaddingMode;
using convext::Size2;
using convext::TensorView;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using IntList = std::vector<int64_t>;

namespace {

// Like STD_TORCH_CHECK, which would put file and line before the sentence.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// `error` is empty or the sentence to raise.
void require(const std::string& error) {
  if (!error.empty()) throw std::runtime_error(error);
}

}  // namespace

// The schema's `str padding_mode`. torch's own conversion to std::string leaks the string in 2.10 to 2.13.
HIDDEN_NAMESPACE_BEGIN(torch, stable, detail)
template <>
struct ToImpl<PaddingMode> {
  static PaddingMode call(StableIValue value, uint64_t, bool) {
    const StringHandle handle = to<StringHandle>(value);
    const char* text = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &text));
    const std::string name = text;
    TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
    PaddingMode mode = PaddingMode::zeros;
    check(convext::parse_padding_mode(name.c_str(), &mode),
          "padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', but it is '", name, "'");
    return mode;
  }
};
HIDDEN_NAMESPACE_END(torch, stable, detail)

namespace {

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

// A 4-D image or weight; an image without a batch axis counts as a batch of one.
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

Size2 pair_of(const IntList& list, const char* name) {
  check(list.size() == 1 || list.size() == 2, name, " must be one or two integers, but it has ", list.size());
  return {list.front(), list.back()};
}

Geometry geometry_of(const IntList& stride, const IntList& padding, const IntList& dilation, int64_t groups,
                     PaddingMode mode) {
  Geometry geometry;
  geometry.stride = pair_of(stride, "stride");
  geometry.dilation = pair_of(dilation, "dilation");
  geometry.groups = groups;
  geometry.padding_mode = mode;
  if (padding.size() == 4) {
    geometry.padding = {padding[0], padding[1], padding[2], padding[3]};
  } else {
    check(padding.size() == 1 || padding.size() == 2,
          "padding must be one, two (height, width) or four (top, bottom, left, right) integers, but it has ",
          padding.size());
    geometry.padding = {padding.front(), padding.front(), padding.back(), padding.back()};
  }
  return geometry;
}

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
  const convext::Kernel* kernel = convext::plan(problem, &error);
  check(kernel != nullptr, error);
  const convext::Executor executor =
      convext::torch_executor(convext::useful_workers(problem, convext::torch_threads()));
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

Tensor corr2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const IntList& stride, const IntList& padding, const IntList& dilation, int64_t groups,
              PaddingMode padding_mode, std::optional<ScalarType> out_dtype) {
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
          convext::dtype_name(input_view.dtype), ", or int32 for an 8-bit input, but it is ",
          torch::headeronly::toString(*out_dtype));
    result_dtype = DType::int32;
  }
  ConvProblem problem;
  require(convext::request_forward(input_view, weight_view, bias.has_value() ? &bias_dtype : nullptr,
                                   bias.has_value() ? bias->size(0) : 0, result_dtype,
                                   geometry_of(stride, padding, dilation, groups, padding_mode), &problem));
  problem.precision = convext::float32_precision();
  TensorView result;
  require(convext::lay_out_result(
      &problem, convext::is_channels_last(input_view) || convext::is_channels_last(weight_view), &result));
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
      const int64_t bytes = convext::element_size(bias_dtype);
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

Tensor corr2d_grad_input(const Tensor& grad_output, const Tensor& weight, const IntList& input_size,
                         const IntList& stride, const IntList& padding, const IntList& dilation,
                         int64_t groups, PaddingMode padding_mode, bool channels_last) {
  ConvProblem problem;
  require(convext::request_grad_input(view_of(grad_output, "grad_output", true),
                                      view_of(weight, "weight", false), pair_of(input_size, "input_size"),
                                      geometry_of(stride, padding, dilation, groups, padding_mode),
                                      &problem));
  problem.precision = convext::float32_precision();
  TensorView result;
  require(convext::lay_out_result(&problem, channels_last, &result));
  Tensor grad_input = allocate(result, grad_output.dim() == 3);
  if (is_empty(result)) return grad_input;
  ConvData data;
  data.input = grad_input.mutable_data_ptr();
  data.weight = pointer(weight);
  data.output = pointer(grad_output);
  run(problem, data);
  return grad_input;
}

Tensor corr2d_grad_weight(const Tensor& grad_output, const Tensor& input, const IntList& kernel_size,
                          const IntList& stride, const IntList& padding, const IntList& dilation,
                          int64_t groups, PaddingMode padding_mode, bool channels_last) {
  check(grad_output.dim() == input.dim(), "grad_output and input must have the same rank, but they are ",
        grad_output.dim(), "-D and ", input.dim(), "-D");
  ConvProblem problem;
  require(convext::request_grad_weight(view_of(grad_output, "grad_output", true),
                                       view_of(input, "input", true), pair_of(kernel_size, "kernel_size"),
                                       geometry_of(stride, padding, dilation, groups, padding_mode),
                                       &problem));
  problem.precision = convext::float32_precision();
  TensorView result;
  require(convext::lay_out_result(&problem, channels_last, &result));
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
  convext::bias_gradient(
      view.dtype, {view.sizes[0], view.sizes[1], {view.sizes[2], view.sizes[3]}},
      {view.strides[0], view.strides[1], view.strides[2], view.strides[3]}, grad_output.const_data_ptr(),
      grad_bias.mutable_data_ptr(),
      convext::torch_executor(grad_output.numel() < 100000 ? 1 : convext::torch_threads()));
  return grad_bias;
}

}  // namespace

// Arguments that are left at their defaults cost nothing, while each list that is passed costs about 1 us of
// conversions; that is why every geometry argument has one.
STABLE_TORCH_LIBRARY(convext, library) {
  library.def(
      "corr2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, SymInt[] padding=[0], "
      "SymInt[2] dilation=1, SymInt groups=1, str padding_mode=\"zeros\", ScalarType? out_dtype=None) -> "
      "Tensor");
  library.def(
      "corr2d_grad_input(Tensor grad_output, Tensor weight, SymInt[2] input_size, SymInt[2] stride=1, "
      "SymInt[] padding=[0], SymInt[2] dilation=1, SymInt groups=1, str padding_mode=\"zeros\", "
      "bool channels_last=False) -> Tensor");
  library.def(
      "corr2d_grad_weight(Tensor grad_output, Tensor input, SymInt[2] kernel_size, SymInt[2] stride=1, "
      "SymInt[] padding=[0], SymInt[2] dilation=1, SymInt groups=1, str padding_mode=\"zeros\", "
      "bool channels_last=False) -> Tensor");
  library.def("corr2d_grad_bias(Tensor grad_output) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(convext, CPU, library) {
  library.impl("corr2d", TORCH_BOX(&corr2d));
  library.impl("corr2d_grad_input", TORCH_BOX(&corr2d_grad_input));
  library.impl("corr2d_grad_weight", TORCH_BOX(&corr2d_grad_weight));
  library.impl("corr2d_grad_bias", TORCH_BOX(&corr2d_grad_bias));
}
