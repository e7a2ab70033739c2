// The three passes and the bias gradient on torch's tensors: each validates its arguments once, allocates its
// result and its scratch once, and hands a ConvProblem to the kernel that the planner picks. What is wrong
// with an argument is thrown as std::runtime_error, in one sentence.
//
// They know nothing of autograd: convext/autograd.py gives them derivatives.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>

#include "core/request.h"

namespace convext {

torch::stable::Tensor corr2d(const torch::stable::Tensor& input, const torch::stable::Tensor& weight,
                             const std::optional<torch::stable::Tensor>& bias, const Geometry& geometry,
                             std::optional<torch::headeronly::ScalarType> out_dtype);
torch::stable::Tensor corr2d_grad_input(const torch::stable::Tensor& grad_output,
                                        const torch::stable::Tensor& weight, Size2 input_size,
                                        const Geometry& geometry, bool channels_last);
torch::stable::Tensor corr2d_grad_weight(const torch::stable::Tensor& grad_output,
                                         const torch::stable::Tensor& input, Size2 kernel_size,
                                         const Geometry& geometry, bool channels_last);
torch::stable::Tensor corr2d_grad_bias(const torch::stable::Tensor& grad_output);

// An image or a weight; an image without a batch axis counts as a batch of one. `name` is for the error.
TensorView view_of(const torch::stable::Tensor& tensor, const char* name, bool may_lack_batch);

}  // namespace convext
