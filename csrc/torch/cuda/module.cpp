// convext._cuda: what Python may ask about the CUDA kernels. Importing it also registers the operators for
// CUDA tensors. It needs neither a driver nor a device for that.
#include <pybind11/pybind11.h>

#include <string>

#include "core/settings.h"
#include "cuda/device.h"
#include "cuda/planner.h"
#include "torch/cuda/stream.h"
#include "torch/python_call.h"

namespace py = pybind11;

namespace convext {
namespace {

py::dict plan_pass(const std::string& pass, const py::tuple& call, const CudaDevice& device) {
  const ConvProblem problem = problem_of(call_of(call), pass);
  std::string error;
  const CudaKernel* chosen = cuda::plan(problem, device, &error);
  if (chosen == nullptr) throw std::runtime_error(error);
  py::list rejected;
  for (const CudaKernel* kernel : cuda::all_kernels()) {
    if (kernel == chosen) break;
    const Reason reason = kernel->why_not(problem, device);
    rejected.append(py::make_tuple(cuda::qualified_name(*kernel),
                                   reason == nullptr ? "another kernel is forced" : reason));
  }
  py::dict result;
  result["kernel"] = cuda::qualified_name(*chosen);
  result["description"] = chosen->description;
  result["rejected"] = rejected;
  result["multiply_adds"] = multiply_adds(problem);
  result["workspace_bytes"] = chosen->workspace_bytes(problem, device);
  result["workers"] = 0;
  result["output_size"] = py::make_tuple(problem.output.height, problem.output.width);
  return result;
}

py::tuple device_properties(int index) {
  std::string error;
  const CudaDevice* device = cuda::find_device(index, &error);
  if (device == nullptr) throw std::runtime_error(error);
  return py::make_tuple(device->capability, device->multiprocessors, device->shared_bytes_per_block);
}

py::list kernel_list() {
  py::list list;
  for (const CudaKernel* kernel : cuda::all_kernels())
    list.append(py::make_tuple(kernel->name, "cuda", kernel->description));
  return list;
}

}  // namespace
}  // namespace convext

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "Kernels and plans of convext's CUDA part.";
  module.def("kernels", &convext::kernel_list, "(name, 'cuda', description) of every kernel, in order.");
  module.def(
      "plan",
      [](const std::string& pass, const py::tuple& call, int capability, int multiprocessors,
         int64_t shared_bytes_per_block) {
        return convext::plan_pass(pass, call, {capability, multiprocessors, shared_bytes_per_block});
      },
      py::arg("pass_name"), py::arg("call"), py::arg("capability"), py::arg("multiprocessors"),
      py::arg("shared_bytes_per_block"),
      "Which kernel runs a pass of a call on such a device, and why those before it do not.");
  module.def("device", &convext::device_properties, py::arg("index"),
             "(capability, multiprocessors, shared bytes per block) of a device of this machine.");
  module.def("set_forced_kernel", &convext::set_forced_kernel, py::arg("name"));
  module.def(
      "set_high_float32_precision",
      [](bool high) {
        convext::set_float32_precision(high ? convext::Float32Precision::high
                                            : convext::Float32Precision::highest);
      },
      py::arg("high"));
  module.def("torch_has_cuda", &convext::torch_has_cuda,
             "Whether the torch of this process can give its current CUDA stream.");
  module.def(
      "versions",
      [] { return py::make_tuple(convext::cuda::runtime_version(), convext::cuda::driver_version()); },
      "CUDA's runtime that is linked in, and the driver (0: none), as 13000 for 13.0.");
}
