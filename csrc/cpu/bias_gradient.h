// The gradient of the bias: the output's gradient summed over batch, rows and columns.
#pragma once

#include <cstdint>

#include "core/executor.h"
#include "core/problem.h"

namespace convext {

struct ImageShape {
  int64_t batch;
  int64_t channels;
  Size2 plane;
};

// Writes grad_bias[channel], contiguous, of the same dtype. Sums of floats are kept in double, sums of
// integers wrap around; the order of the additions depends on the shape and layout alone.
void bias_gradient(DType dtype, const ImageShape& shape, const ImageStrides& strides, const void* grad_output,
                   void* grad_bias, const Executor& executor);

}  // namespace convext
