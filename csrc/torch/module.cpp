// convext._C: what Python may ask about kernels, plans and the build, and the direct calls of direct.cpp.
// Importing it also registers the operators of ops.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "core/planner.h"
#include "core/request.h"
#include "cpu/fma_probe.h"
#include "torch/direct.h"
#include "torch/threads.h"

namespace py = pybind11;

namespace convext {
namespace {

using IntList = std::vector<int64_t>;

DType parse_dtype(const std::string& name) {
  for (DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::uint8,
                      DType::int8, DType::int16, DType::int32, DType::int64}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  throw py::value_error("dtype must be a floating-point or integer dtype, but it is " + name);
}

TensorView make_view(const IntList& sizes, const IntList& strides, DType dtype) {
  if (sizes.size() != 4 || strides.size() != 4)
    throw py::value_error("sizes and strides must have four elements");
  TensorView view;
  view.dtype = dtype;
  for (size_t axis = 0; axis < 4; ++axis) {
    view.sizes[axis] = sizes[axis];
    view.strides[axis] = strides[axis];
  }
  return view;
}

// The plan of one pass: of a call `conv2d(input, weight)` or of its gradients, in the layout that they get.
py::dict plan_pass(const std::string& pass, const IntList& input_sizes, const IntList& input_strides,
                   const IntList& weight_sizes, const IntList& weight_strides, bool has_bias,
                   const std::string& dtype_text, const std::string& out_dtype_text, const IntList& stride,
                   const IntList& padding, const IntList& dilation, int64_t groups,
                   const std::string& padding_mode) {
  const DType dtype = parse_dtype(dtype_text);
  const TensorView input = make_view(input_sizes, input_strides, dtype);
  const TensorView weight = make_view(weight_sizes, weight_strides, dtype);
  if (stride.size() != 2 || padding.size() != 4 || dilation.size() != 2) {
    throw py::value_error("stride and dilation must have two elements and padding four");
  }
  Geometry geometry;
  geometry.stride = {stride[0], stride[1]};
  geometry.padding = {padding[0], padding[1], padding[2], padding[3]};
  geometry.dilation = {dilation[0], dilation[1]};
  geometry.groups = groups;
  if (!parse_padding_mode(padding_mode.c_str(), &geometry.padding_mode)) {
    throw py::value_error("padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', but it is '" +
                          padding_mode + "'");
  }
  const auto require = [](const std::string& error) {
    if (!error.empty()) throw std::runtime_error(error);
  };
  const bool channels_last = is_channels_last(input) || is_channels_last(weight);
  ConvProblem problem;
  TensorView output;
  require(request_forward(input, weight, has_bias ? &dtype : nullptr, weight.sizes[0],
                          parse_dtype(out_dtype_text), geometry, &problem));
  require(lay_out_result(&problem, channels_last, &output));
  if (pass == "grad_input") {
    TensorView grad_input;
    require(request_grad_input(output, weight, problem.input, geometry, &problem));
    require(lay_out_result(&problem, channels_last, &grad_input));
  } else if (pass == "grad_weight") {
    TensorView grad_weight;
    require(request_grad_weight(output, input, problem.kernel, geometry, &problem));
    require(lay_out_result(&problem, channels_last, &grad_weight));
  } else if (pass != "forward") {
    throw py::value_error("pass must be 'forward', 'grad_input' or 'grad_weight', but it is '" + pass + "'");
  }
  problem.precision = float32_precision();

  std::string error;
  const Kernel* chosen = plan(problem, &error);
  require(error);
  const int workers = useful_workers(problem, torch_threads());
  py::list rejected;
  for (const Kernel* kernel : all_kernels()) {
    if (kernel == chosen) break;
    Reason reason = why_not(*kernel, problem);
    if (reason == nullptr)
      reason = is_widest_build(*kernel) ? "another kernel is forced" : "there is a build with wider vectors";
    rejected.append(py::make_tuple(qualified_name(*kernel), reason));
  }
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
  module.def("plan", &convext::plan_pass, py::arg("pass_name"), py::arg("input_sizes"),
             py::arg("input_strides"), py::arg("weight_sizes"), py::arg("weight_strides"),
             py::arg("has_bias"), py::arg("dtype"), py::arg("out_dtype"), py::arg("stride"),
             py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("padding_mode"),
             "Which kernel runs a pass, and why those before it do not.");
  module.def(
      "set_forced_kernel",
      [](const std::string& name) {
        if (!convext::set_forced_kernel(name)) throw py::value_error("no kernel is named '" + name + "'");
      },
      py::arg("name"), "Restrict the planner to kernels of this name; '' lifts the restriction.");
  module.def("forced_kernel", &convext::forced_kernel);
  module.def(
      "set_high_float32_precision",
      [](bool high) {
        convext::set_float32_precision(high ? convext::Float32Precision::high
                                            : convext::Float32Precision::highest);
      },
      py::arg("high"));
  module.def("build_info", &convext::build_info);
  if (!convext::add_direct_calls(module.ptr())) throw py::error_already_set();
  module.def(
      "enable_direct_calls",
      [](const py::object& handle_from_tensor, const py::object& tensors_from_handles,
         const py::type& tensor_type, const py::type& parameter_type) {
        convext::enable_direct_calls(handle_from_tensor.ptr(), tensors_from_handles.ptr(), tensor_type.ptr(),
                                     parameter_type.ptr());
      },
      py::arg("handle_from_tensor"), py::arg("tensors_from_handles"), py::arg("tensor_type"),
      py::arg("parameter_type"), "Without this call the direct functions return None.");
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
