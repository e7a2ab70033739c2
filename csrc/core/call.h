// A call of conv2d as Python describes it to whoever plans it without running it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/problem.h"

namespace convext {

struct Call {
  std::vector<int64_t> input_sizes;
  std::vector<int64_t> input_strides;
  std::vector<int64_t> weight_sizes;
  std::vector<int64_t> weight_strides;
  bool has_bias = false;
  std::string dtype;
  std::string out_dtype;
  std::vector<int64_t> stride;
  std::vector<int64_t> padding;
  std::vector<int64_t> dilation;
  int64_t groups = 1;
  std::string padding_mode;
};

// One pass of the call, "forward", "grad_input" or "grad_weight", in the layout that its result gets. Throws
// std::invalid_argument for a name that it does not know and std::runtime_error for a call that conv2d
// refuses.
ConvProblem problem_of(const Call& call, const std::string& pass);

DType parse_dtype(const std::string& name);  // throws std::invalid_argument

}  // namespace convext
