// Sizes: the only place where an output size is computed or an argument's range is checked.
#pragma once

#include <cstdint>
#include <string>

#include "core/problem.h"

namespace convext {

// floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1; may be <= 0. All arguments have passed
// `check_geometry`.
int64_t output_size(int64_t size, int64_t total_padding, int64_t kernel, int64_t stride, int64_t dilation);

// Checks the sizes, strides, dilation, padding and groups of a problem whose tensors' shapes are filled in,
// and fills in `output`. Returns an empty string, or one sentence that names the argument, what it was and
// what it must be.
std::string check_geometry(ConvProblem& problem);

}  // namespace convext
