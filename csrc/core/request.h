// From the shapes and arguments of a call to a validated ConvProblem. Shared by the operators, which run the
// problem, and by the planner's Python interface, which explains it.
#pragma once

#include <cstdint>
#include <string>

#include "core/problem.h"

namespace convext {

// A tensor's metadata; images are (batch, channels, height, width), weights (out, in / groups, height,
// width).
struct TensorView {
  DType dtype = DType::float32;
  int64_t sizes[4] = {0, 0, 0, 0};
  int64_t strides[4] = {0, 0, 0, 0};
};

struct Geometry {
  Size2 stride;
  Padding padding;
  Size2 dilation;
  int64_t groups = 1;
  PaddingMode padding_mode = PaddingMode::zeros;
};

const char* dtype_name(DType dtype);

// False for a name that is no padding mode.
bool parse_padding_mode(const char* name, PaddingMode* mode);

// Each fills in every field of `problem` but the strides of the tensor that the pass writes, and returns an
// empty string or one sentence about what is wrong. `bias` may be nullptr.
std::string request_forward(const TensorView& input, const TensorView& weight, const DType* bias_dtype,
                            int64_t bias_size, DType out_dtype, const Geometry& geometry,
                            ConvProblem* problem);
std::string request_grad_input(const TensorView& grad_output, const TensorView& weight, Size2 input_size,
                               const Geometry& geometry, ConvProblem* problem);
std::string request_grad_weight(const TensorView& grad_output, const TensorView& input, Size2 kernel_size,
                                const Geometry& geometry, ConvProblem* problem);

// The shape of the tensor that the pass writes, and its dense strides in either layout, which are also stored
// in the problem. An element count beyond 2^62 is an error.
std::string lay_out_result(ConvProblem* problem, bool channels_last, TensorView* result);

// Whether torch would call this tensor channels_last (`suggest_memory_format`).
bool is_channels_last(const TensorView& tensor);

}  // namespace convext
