#include "core/call.h"

#include <stdexcept>

#include "core/request.h"
#include "core/settings.h"

namespace convext {
namespace {

TensorView make_view(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides, DType dtype) {
  if (sizes.size() != 4 || strides.size() != 4)
    throw std::invalid_argument("sizes and strides must have four elements");
  TensorView view;
  view.dtype = dtype;
  for (size_t axis = 0; axis < 4; ++axis) {
    view.sizes[axis] = sizes[axis];
    view.strides[axis] = strides[axis];
  }
  return view;
}

Geometry geometry_of(const Call& call) {
  if (call.stride.size() != 2 || call.padding.size() != 4 || call.dilation.size() != 2)
    throw std::invalid_argument("stride and dilation must have two elements and padding four");
  Geometry geometry;
  geometry.stride = {call.stride[0], call.stride[1]};
  geometry.padding = {call.padding[0], call.padding[1], call.padding[2], call.padding[3]};
  geometry.dilation = {call.dilation[0], call.dilation[1]};
  geometry.groups = call.groups;
  if (!parse_padding_mode(call.padding_mode.c_str(), &geometry.padding_mode)) {
    throw std::invalid_argument(
        "padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', but it is '" +
        call.padding_mode + "'");
  }
  return geometry;
}

void require(const std::string& error) {
  if (!error.empty()) throw std::runtime_error(error);
}

}  // namespace

DType parse_dtype(const std::string& name) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::uint8,
                      DType::int8, DType::int16, DType::int32, DType::int64}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  throw std::invalid_argument("dtype must be a floating-point or integer dtype, but it is " + name);
}

ConvProblem problem_of(const Call& call, const std::string& pass) {
  const DType dtype = parse_dtype(call.dtype);
  const TensorView input = make_view(call.input_sizes, call.input_strides, dtype);
  const TensorView weight = make_view(call.weight_sizes, call.weight_strides, dtype);
  const Geometry geometry = geometry_of(call);
  const bool channels_last = is_channels_last(input) || is_channels_last(weight);
  ConvProblem problem;
  TensorView output;
  require(request_forward(input, weight, call.has_bias ? &dtype : nullptr, weight.sizes[0],
                          parse_dtype(call.out_dtype), geometry, &problem));
  require(lay_out_result(&problem, channels_last, &output));
  if (pass == "grad_input") {
    TensorView grad_input;
    require(request_grad_input(output, weight, problem.input, geometry, &problem));
    require(lay_out_result(&problem, channels_last, &grad_input));
  } else if (pass == "grad_weight") {
    TensorView grad_weight;
    require(request_grad_weight(output, input, problem.kernel, geometry, &problem));
    require(lay_out_result(&problem, channels_last, &grad_weight));
  } else if (pass != "forward") {
    throw std::invalid_argument("pass must be 'forward', 'grad_input' or 'grad_weight', but it is '" + pass +
                                "'");
  }
  problem.precision = float32_precision();
  return problem;
}

}  // namespace convext
