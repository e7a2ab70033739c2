#include "torch/backend.h"

#include <string>

#include "core/verbose.h"
#include "cpu/bias_gradient.h"
#include "cpu/planner.h"
#include "torch/check.h"
#include "torch/cpu/threads.h"
#include "torch/ops.h"

namespace convext {
namespace backend {

using torch::stable::Tensor;

bool is_here(const Tensor& tensor) {
  return tensor.is_cpu();
}

// Nothing to check: where any argument is elsewhere, torch's dispatcher calls another device's operator, and
// direct calls ask `is_here` of each.
int32_t common_device(std::initializer_list<Argument>) {
  return 0;
}

Tensor allocate(const int64_t* sizes, const int64_t* strides, int64_t rank, int32_t torch_dtype,
                int32_t device) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(rank, sizes, strides, torch_dtype,
                                                  aoti_torch_device_type_cpu(), device, &handle));
  return Tensor(handle);
}

namespace {

void run_with_scratch(const Kernel& kernel, const ConvProblem& problem, const ConvData& data,
                      const Executor& executor, int32_t device) {
  const int64_t bytes = kernel.workspace_bytes(problem, executor.workers);
  // Small scratch lives on the stack: an allocation would cost more than a small problem.
  constexpr int64_t stack_bytes = 8192;
  if (bytes <= stack_bytes) {
    alignas(64) char scratch[stack_bytes];
    kernel.run(problem, data, scratch, executor);
    return;
  }
  const int64_t stride = 1;
  const Tensor workspace = allocate(&bytes, &stride, 1, aoti_torch_dtype_uint8(), device);
  kernel.run(problem, data, workspace.mutable_data_ptr(), executor);
}

}  // namespace

void run(const ConvProblem& problem, const ConvData& data, int32_t device) {
  std::string error;
  const Kernel* kernel = plan(problem, &error);
  check(kernel != nullptr, error);
  const Executor executor = torch_executor(useful_workers(problem, torch_threads()));
  const verbose::Stopwatch stopwatch;
  run_with_scratch(*kernel, problem, data, executor, device);
  if (verbose::level > 0) {
    const double milliseconds = stopwatch.milliseconds();
    verbose::print(problem, {"cpu", qualified_name(*kernel), executor.workers, milliseconds},
                   verbose::level > 1 ? rejections(problem, *kernel) : std::vector<Rejection>());
  }
}

void run_bias_gradient(const TensorView& view, const void* grad_output, void* grad_bias, int32_t) {
  const int64_t elements = view.sizes[0] * view.sizes[1] * view.sizes[2] * view.sizes[3];
  const Executor executor = torch_executor(elements < 100000 ? 1 : torch_threads());
  const verbose::Stopwatch stopwatch;
  bias_gradient(view.dtype, {view.sizes[0], view.sizes[1], {view.sizes[2], view.sizes[3]}},
                {view.strides[0], view.strides[1], view.strides[2], view.strides[3]}, grad_output, grad_bias,
                executor);
  if (verbose::level > 0) {
    const double milliseconds = stopwatch.milliseconds();
    verbose::print_bias_gradient(view, {"cpu", "bias_gradient", executor.workers, milliseconds});
  }
}

}  // namespace backend
}  // namespace convext

STABLE_TORCH_LIBRARY_IMPL(convext, CPU, library) {
  convext::implement_operators(library);
}
