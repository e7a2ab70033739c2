// What the passes need to know of the device that they run on. Each extension module links one of the
// implementations: convext._C that in cpu/, convext._cuda that in cuda/.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "core/problem.h"
#include "core/request.h"

namespace convext {
namespace backend {

struct Argument {
  const char* name;
  const torch::stable::Tensor& tensor;
};

// Whether it is on a device of this kind.
bool is_here(const torch::stable::Tensor& tensor);

// The device that all of them are on; one sentence where they are not, as std::runtime_error.
int32_t common_device(std::initializer_list<Argument> arguments);

// A tensor without contents, on this device.
torch::stable::Tensor allocate(const int64_t* sizes, const int64_t* strides, int64_t rank,
                               int32_t torch_dtype, int32_t device);

// Plans, allocates scratch and runs, or queues the work on the device's current stream.
void run(const ConvProblem& problem, const ConvData& data, int32_t device);

// `view` is the gradient of the output, `grad_bias` contiguous.
void run_bias_gradient(const TensorView& view, const void* grad_output, void* grad_bias, int32_t device);

}  // namespace backend
}  // namespace convext
