#include "torch/backend.h"

#include <torch/csrc/stable/accelerator.h>

#include <optional>
#include <string>

#include "core/verbose.h"
#include "cuda/bias_gradient.h"
#include "cuda/device.h"
#include "cuda/planner.h"
#include "torch/check.h"
#include "torch/cuda/stream.h"
#include "torch/ops.h"

namespace convext {
namespace backend {
namespace {

using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;
using torch::stable::accelerator::getCurrentDeviceIndex;

std::string device_name(const Tensor& tensor) {
  int32_t type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &type));
  if (type == aoti_torch_device_type_cpu()) return "on the CPU";
  if (type == aoti_torch_device_type_cuda()) return "on cuda:" + std::to_string(tensor.get_device_index());
  return "on a device of another type";
}

// Scratch from torch's allocator, which gives it out again in the order of the stream: it may be let go of as
// soon as the work that needs it is queued.
Tensor allocate_workspace(int64_t bytes, int32_t device) {
  const int64_t stride = 1;
  return allocate(&bytes, &stride, 1, aoti_torch_dtype_uint8(), device);
}

bool is_aligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

// Selects the device for as long as it lives: for torch, and for the runtime that this module is linked with.
// Nearly always it is the current one, and then nothing has to be restored either.
class Selected {
 public:
  explicit Selected(int32_t device) {
    if (getCurrentDeviceIndex() != device) guard_.emplace(device);
    std::string error;
    properties_ = cuda::find_device(device, &error);
    check(properties_ != nullptr, error);
    const char* problem = cuda::select_device(device);
    check(problem == nullptr, "cuda:", device, " cannot be selected: ", problem == nullptr ? "" : problem);
  }
  const CudaDevice& properties() const { return *properties_; }

 private:
  std::optional<DeviceGuard> guard_;
  const CudaDevice* properties_ = nullptr;
};

}  // namespace

bool is_here(const Tensor& tensor) {
  return tensor.is_cuda();
}

int32_t common_device(std::initializer_list<Argument> arguments) {
  const Argument& first = *arguments.begin();
  const int32_t device = first.tensor.get_device_index();
  for (const Argument& other : arguments) {
    if (other.tensor.is_cuda() && other.tensor.get_device_index() == device) continue;
    check(false, first.name, " and ", other.name, " must be on the same device, but ", first.name, " is ",
          device_name(first.tensor), " and ", other.name, " is ", device_name(other.tensor));
  }
  return device;
}

Tensor allocate(const int64_t* sizes, const int64_t* strides, int64_t rank, int32_t torch_dtype,
                int32_t device) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(rank, sizes, strides, torch_dtype,
                                                  aoti_torch_device_type_cuda(), device, &handle));
  return Tensor(handle);
}

void run(const ConvProblem& requested, const ConvData& data, int32_t device) {
  const Selected selected(device);
  ConvProblem problem = requested;
  problem.aligned = is_aligned(data.input) && is_aligned(data.weight) && is_aligned(data.output);
  std::string error;
  const CudaKernel* kernel = cuda::plan(problem, selected.properties(), &error);
  check(kernel != nullptr, error);
  const int64_t bytes = kernel->workspace_bytes(problem, selected.properties());
  void* stream = current_stream(device);
  const char* failure = nullptr;
  if (bytes == 0) {
    failure = kernel->launch(problem, data, nullptr, selected.properties(), stream);
  } else {
    const Tensor workspace = allocate_workspace(bytes, device);
    failure = kernel->launch(problem, data, workspace.mutable_data_ptr(), selected.properties(), stream);
  }
  check(failure == nullptr, "the kernel ", kernel->name,
        "/cuda could not be launched: ", failure == nullptr ? "" : failure);
  if (verbose::level > 0) {
    // The work is queued and has not run yet: to know its time, this thread would have to wait for it.
    verbose::print(problem, {"cuda:" + std::to_string(device), cuda::qualified_name(*kernel)},
                   verbose::level > 1 ? cuda::rejections(problem, selected.properties(), *kernel)
                                      : std::vector<Rejection>());
  }
}

void run_bias_gradient(const TensorView& view, const void* grad_output, void* grad_bias, int32_t device) {
  const Selected selected(device);
  const cuda::BiasGradientSizes sizes{view.sizes[0], view.sizes[1], {view.sizes[2], view.sizes[3]}};
  const ImageStrides strides{view.strides[0], view.strides[1], view.strides[2], view.strides[3]};
  void* stream = current_stream(device);
  const int64_t bytes = cuda::bias_gradient_workspace_bytes(view.dtype, sizes);
  const char* failure = nullptr;
  if (bytes == 0) {
    failure = cuda::bias_gradient(view.dtype, sizes, strides, grad_output, grad_bias, nullptr, stream);
  } else {
    const Tensor workspace = allocate_workspace(bytes, device);
    failure = cuda::bias_gradient(view.dtype, sizes, strides, grad_output, grad_bias,
                                  workspace.mutable_data_ptr(), stream);
  }
  check(failure == nullptr,
        "the gradient of the bias could not be launched: ", failure == nullptr ? "" : failure);
  if (verbose::level > 0)
    verbose::print_bias_gradient(view, {"cuda:" + std::to_string(device), "bias_gradient"});
}

}  // namespace backend
}  // namespace convext

STABLE_TORCH_LIBRARY_IMPL(convext, CUDA, library) {
  convext::implement_operators(library);
}
