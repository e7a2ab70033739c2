// The gradient of the bias on the device: grad_output summed over batch, rows and columns, in an order that
// the sizes fix.
#pragma once

#include "core/problem.h"

namespace convext {
namespace cuda {

struct BiasGradientSizes {
  int64_t batch;
  int64_t channels;
  Size2 plane;
};

// Scratch in device memory that `bias_gradient` needs.
int64_t bias_gradient_workspace_bytes(DType dtype, const BiasGradientSizes& sizes);

// Queues the work; returns nullptr or what went wrong with the launch. `grad_bias` is contiguous.
const char* bias_gradient(DType dtype, const BiasGradientSizes& sizes, const ImageStrides& strides,
                          const void* grad_output, void* grad_bias, void* workspace, void* stream);

}  // namespace cuda
}  // namespace convext
