// convext._C: what Python may ask about kernels, plans and the build, and the direct calls of direct.cpp.
// Importing it also registers the operators of ops.cpp.
#include <pybind11/pybind11.h>

#include <string>

#include "core/call.h"
#include "core/settings.h"
#include "core/verbose.h"
#include "cpu/fma_probe.h"
#include "cpu/planner.h"
#include "torch/cpu/threads.h"
#include "torch/direct.h"
#include "torch/python_call.h"

namespace py = pybind11;

namespace convext {
namespace {

// The plan of one pass of a call: see `problem_of`.
py::dict plan_pass(const std::string& pass, const py::tuple& call) {
  const ConvProblem problem = problem_of(call_of(call), pass);
  std::string error;
  const Kernel* chosen = plan(problem, &error);
  if (chosen == nullptr) throw std::runtime_error(error);
  const int workers = useful_workers(problem, torch_threads());
  py::list rejected;
  for (const Rejection& rejection : rejections(problem, *chosen))
    rejected.append(py::make_tuple(rejection.kernel, rejection.reason));
  py::dict result;
  result["kernel"] = qualified_name(*chosen);
  result["description"] = chosen->description;
  result["rejected"] = rejected;
  result["multiply_adds"] = multiply_adds(problem);
  result["workspace_bytes"] = chosen->workspace_bytes(problem, workers);
  result["workers"] = workers;
  result["output_size"] = py::make_tuple(problem.output.height, problem.output.width);
  return result;
}

py::list kernel_list() {
  py::list list;
  for (const Kernel* kernel : all_kernels()) {
    list.append(
        py::make_tuple(kernel->name, isa_name(kernel->isa), kernel->description, isa_available(kernel->isa)));
  }
  return list;
}

py::dict build_info() {
  py::dict info;
  info["version"] = CONVEXT_VERSION;
  info["compiler"] = CONVEXT_COMPILER;
  info["isas"] = CONVEXT_ISAS;
  info["cuda_archs"] = CONVEXT_CUDA_ARCHS;
  info["without_cuda"] = CONVEXT_WITHOUT_CUDA;
  info["torch_version"] = CONVEXT_TORCH_VERSION;
  info["best_isa"] = isa_name(best_isa());
  return info;
}

}  // namespace
}  // namespace convext

PYBIND11_MODULE(_C, module) {
  module.doc() = "Kernels, plans and build information of convext's native part.";
  module.def("kernels", &convext::kernel_list,
             "(name, isa, description, available) of every kernel, in order.");
  module.def("plan", &convext::plan_pass, py::arg("pass_name"), py::arg("call"),
             "Which kernel runs a pass of a call, and why those before it do not.");
  module.def("set_forced_kernel", &convext::set_forced_kernel, py::arg("name"),
             "Restrict the planner to kernels of this name; '' lifts the restriction.");
  module.def("forced_kernel", &convext::forced_kernel);
  module.def(
      "set_high_float32_precision",
      [](bool high) {
        convext::set_float32_precision(high ? convext::Float32Precision::high
                                            : convext::Float32Precision::highest);
      },
      py::arg("high"));
  module.def("build_info", &convext::build_info);
  convext::verbose::print_header();
  if (!convext::add_direct_calls(module.ptr())) throw py::error_already_set();
  module.def(
      "run_fma_probe",
      [](const std::string& dtype, int64_t steps) {
        const py::gil_scoped_release release;
        return convext::run_fma_probe(convext::parse_dtype(dtype), steps,
                                      convext::torch_executor(convext::torch_threads()));
      },
      py::arg("dtype"), py::arg("steps"),
      "Multiply-adds in registers, on every thread; returns the operations done, two for each.");
}
