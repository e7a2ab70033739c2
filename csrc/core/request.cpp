#include "core/request.h"

#include <cstring>

#include "core/geometry.h"

namespace convext {
namespace {

std::string shape(const int64_t (&sizes)[4]) {
  std::string text = "[";
  for (int axis = 0; axis < 4; ++axis) text += (axis == 0 ? "" : ", ") + std::to_string(sizes[axis]);
  return text + "]";
}

void set_image_strides(const TensorView& tensor, ImageStrides* strides) {
  *strides = {tensor.strides[0], tensor.strides[1], tensor.strides[2], tensor.strides[3]};
}

void set_weight_strides(const TensorView& tensor, WeightStrides* strides) {
  *strides = {tensor.strides[0], tensor.strides[1], tensor.strides[2], tensor.strides[3]};
}

void set_geometry(const Geometry& geometry, ConvProblem* problem) {
  problem->stride = geometry.stride;
  problem->padding = geometry.padding;
  problem->dilation = geometry.dilation;
  problem->groups = geometry.groups;
  problem->padding_mode = geometry.padding_mode;
}

std::string check_same_dtype(const char* first_name, DType first, const char* second_name, DType second) {
  if (first == second) return "";
  return std::string(first_name) + " and " + second_name + " must have the same dtype, but " + first_name +
         " is " + dtype_name(first) + " and " + second_name + " is " + dtype_name(second);
}

std::string check_groups(int64_t in_channels, int64_t out_channels, int64_t groups) {
  if (groups <= 0) return "groups must be a positive integer, but it is " + std::to_string(groups);
  if (in_channels <= 0) return "the input must have at least one channel, but it has none";
  if (in_channels % groups != 0) {
    return "in_channels must be divisible by groups, but in_channels is " + std::to_string(in_channels) +
           " and groups is " + std::to_string(groups);
  }
  if (out_channels % groups != 0 || out_channels < groups) {
    return "out_channels must be a positive multiple of groups, but out_channels is " +
           std::to_string(out_channels) + " and groups is " + std::to_string(groups);
  }
  return "";
}

std::string check_grad_output(const TensorView& grad_output, const ConvProblem& problem) {
  const int64_t expected[4] = {problem.batch, problem.out_channels, problem.output.height,
                               problem.output.width};
  for (int axis = 0; axis < 4; ++axis) {
    if (grad_output.sizes[axis] != expected[axis]) {
      return "grad_output must have the shape of the output, " + shape(expected) + ", but it has shape " +
             shape(grad_output.sizes);
    }
  }
  return "";
}

}  // namespace

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float16:
      return "float16";
    case DType::uint8:
      return "uint8";
    case DType::int8:
      return "int8";
    case DType::int16:
      return "int16";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
  }
  return "unknown";
}

bool parse_padding_mode(const char* name, PaddingMode* mode) {
  const struct {
    const char* name;
    PaddingMode mode;
  } modes[] = {{"zeros", PaddingMode::zeros},
               {"reflect", PaddingMode::reflect},
               {"replicate", PaddingMode::replicate},
               {"circular", PaddingMode::circular}};
  for (const auto& candidate : modes) {
    if (std::strcmp(name, candidate.name) == 0) {
      *mode = candidate.mode;
      return true;
    }
  }
  return false;
}

std::string request_forward(const TensorView& input, const TensorView& weight, const DType* bias_dtype,
                            int64_t bias_size, DType out_dtype, const Geometry& geometry,
                            ConvProblem* problem) {
  std::string error = check_same_dtype("input", input.dtype, "weight", weight.dtype);
  if (error.empty() && bias_dtype != nullptr)
    error = check_same_dtype("input", input.dtype, "bias", *bias_dtype);
  if (!error.empty()) return error;
  const bool is_8_bit = input.dtype == DType::int8 || input.dtype == DType::uint8;
  if (out_dtype != input.dtype && !(is_8_bit && out_dtype == DType::int32)) {
    return std::string("out_dtype must be the dtype of the input, or int32 for an 8-bit input, but it is ") +
           dtype_name(out_dtype) + " and the input is " + dtype_name(input.dtype);
  }
  *problem = ConvProblem();
  set_geometry(geometry, problem);
  error = check_groups(input.sizes[1], weight.sizes[0], geometry.groups);
  if (!error.empty()) return error;
  if (input.sizes[1] != weight.sizes[1] * geometry.groups) {
    return "input must have weight.shape[1] * groups channels, but input has shape " + shape(input.sizes) +
           ", weight has shape " + shape(weight.sizes) + " and groups is " + std::to_string(geometry.groups);
  }
  if (bias_dtype != nullptr && bias_size != weight.sizes[0]) {
    return "bias must have one element per output channel, " + std::to_string(weight.sizes[0]) +
           ", but it has " + std::to_string(bias_size);
  }
  problem->pass = Pass::forward;
  problem->dtype = input.dtype;
  problem->out_dtype = out_dtype;
  problem->epilogue.bias = bias_dtype != nullptr;
  problem->batch = input.sizes[0];
  problem->in_channels = input.sizes[1];
  problem->out_channels = weight.sizes[0];
  problem->input = {input.sizes[2], input.sizes[3]};
  problem->kernel = {weight.sizes[2], weight.sizes[3]};
  set_image_strides(input, &problem->input_strides);
  set_weight_strides(weight, &problem->weight_strides);
  return check_geometry(*problem);
}

std::string request_grad_input(const TensorView& grad_output, const TensorView& weight, Size2 input_size,
                               const Geometry& geometry, ConvProblem* problem) {
  std::string error = check_same_dtype("grad_output", grad_output.dtype, "weight", weight.dtype);
  if (!error.empty()) return error;
  if (input_size.height < 0 || input_size.width < 0) {
    return "input_size must not be negative, but it is (" + std::to_string(input_size.height) + ", " +
           std::to_string(input_size.width) + ")";
  }
  *problem = ConvProblem();
  set_geometry(geometry, problem);
  if (geometry.groups <= 0) return check_groups(0, 0, geometry.groups);
  int64_t in_channels = 0;
  if (__builtin_mul_overflow(weight.sizes[1], geometry.groups, &in_channels)) {
    return "weight.shape[1] * groups must be below 2^63, but they are " + std::to_string(weight.sizes[1]) +
           " and " + std::to_string(geometry.groups);
  }
  error = check_groups(in_channels, weight.sizes[0], geometry.groups);
  if (!error.empty()) return error;
  problem->pass = Pass::grad_input;
  problem->dtype = problem->out_dtype = weight.dtype;
  problem->batch = grad_output.sizes[0];
  problem->in_channels = in_channels;
  problem->out_channels = weight.sizes[0];
  problem->input = input_size;
  problem->kernel = {weight.sizes[2], weight.sizes[3]};
  set_image_strides(grad_output, &problem->output_strides);
  set_weight_strides(weight, &problem->weight_strides);
  error = check_geometry(*problem);
  return error.empty() ? check_grad_output(grad_output, *problem) : error;
}

std::string request_grad_weight(const TensorView& grad_output, const TensorView& input, Size2 kernel_size,
                                const Geometry& geometry, ConvProblem* problem) {
  std::string error = check_same_dtype("grad_output", grad_output.dtype, "input", input.dtype);
  if (!error.empty()) return error;
  *problem = ConvProblem();
  set_geometry(geometry, problem);
  error = check_groups(input.sizes[1], grad_output.sizes[1], geometry.groups);
  if (!error.empty()) return error;
  problem->pass = Pass::grad_weight;
  problem->dtype = problem->out_dtype = input.dtype;
  problem->batch = input.sizes[0];
  problem->in_channels = input.sizes[1];
  problem->out_channels = grad_output.sizes[1];
  problem->input = {input.sizes[2], input.sizes[3]};
  problem->kernel = kernel_size;
  set_image_strides(grad_output, &problem->output_strides);
  set_image_strides(input, &problem->input_strides);
  error = check_geometry(*problem);
  return error.empty() ? check_grad_output(grad_output, *problem) : error;
}

std::string lay_out_result(ConvProblem* problem, bool channels_last, TensorView* result) {
  const ConvProblem& p = *problem;
  result->dtype = p.out_dtype;
  int64_t (&sizes)[4] = result->sizes;
  int64_t (&strides)[4] = result->strides;
  const auto set_sizes = [&](int64_t first, int64_t second, Size2 plane) {
    sizes[0] = first;
    sizes[1] = second;
    sizes[2] = plane.height;
    sizes[3] = plane.width;
  };
  switch (p.pass) {
    case Pass::forward:
      set_sizes(p.batch, p.out_channels, p.output);
      break;
    case Pass::grad_input:
      set_sizes(p.batch, p.in_channels, p.input);
      break;
    case Pass::grad_weight:
      set_sizes(p.out_channels, in_channels_per_group(p), p.kernel);
      break;
  }
  const int contiguous_order[4] = {3, 2, 1, 0};
  const int channels_last_order[4] = {1, 3, 2, 0};
  int64_t elements = 1;
  for (int axis : channels_last ? channels_last_order : contiguous_order) {
    strides[axis] = elements;
    // An axis of size 0 counts as 1, as in torch, so that the strides stay distinct.
    const int64_t size = sizes[axis] > 1 ? sizes[axis] : 1;
    if (__builtin_mul_overflow(elements, size, &elements) || elements > (int64_t{1} << 59)) {
      return "the result must have at most 2^59 elements, but its shape is " + shape(sizes);
    }
  }
  switch (p.pass) {
    case Pass::forward:
      set_image_strides(*result, &problem->output_strides);
      break;
    case Pass::grad_input:
      set_image_strides(*result, &problem->input_strides);
      break;
    case Pass::grad_weight:
      set_weight_strides(*result, &problem->weight_strides);
      break;
  }
  return "";
}

// The strides must grow from channels over width and height to the batch. Where sizes of 1 leave both layouts
// possible, torch decides for contiguous unless the channels' stride says otherwise; so does this.
bool is_channels_last(const TensorView& tensor) {
  if (tensor.strides[1] == 0) return false;
  int64_t smallest = 0;
  for (int axis : {1, 3, 2, 0}) {
    const int64_t stride = tensor.strides[axis];
    if (tensor.sizes[axis] == 0 || stride < smallest) return false;
    if (axis == 0 && smallest == tensor.strides[1]) return false;
    smallest = stride * (tensor.sizes[axis] > 1 ? tensor.sizes[axis] : 1);
  }
  return true;
}

}  // namespace convext
