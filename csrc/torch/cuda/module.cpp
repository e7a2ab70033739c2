// convext._cuda: what Python may ask about the CUDA kernels, and the direct calls of direct.cpp. Importing it
// also registers the operators for CUDA tensors; it needs neither a driver nor a device for that. Python's
// own C interface does for so little: pybind11 would take ten seconds to compile.
#include <Python.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "core/call.h"
#include "core/settings.h"
#include "cuda/device.h"
#include "cuda/planner.h"
#include "torch/cuda/stream.h"
#include "torch/direct.h"

namespace convext {
namespace {

// Thrown where Python's error is set already.
struct PythonError {};

PyObject* present(PyObject* object) {
  if (object == nullptr) throw PythonError();
  return object;
}

// Appends the object, which it takes.
void append(PyObject* list, PyObject* object) {
  const int status = PyList_Append(list, present(object));
  Py_DECREF(object);
  if (status != 0) throw PythonError();
}

std::vector<int64_t> integers_of(PyObject* sequence) {
  PyObject* items = present(PySequence_Tuple(sequence));
  std::vector<int64_t> integers;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); ++i)
    integers.push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(items, i)));
  Py_DECREF(items);
  if (PyErr_Occurred() != nullptr) throw PythonError();
  return integers;
}

// The same fields as in python_call.h.
Call call_of(PyObject* fields) {
  PyObject* lists[7];
  int has_bias = 0;
  const char* dtype = nullptr;
  const char* out_dtype = nullptr;
  const char* padding_mode = nullptr;
  long long groups = 1;
  if (PyArg_ParseTuple(fields, "OOOOpssOOOLs", &lists[0], &lists[1], &lists[2], &lists[3], &has_bias, &dtype,
                       &out_dtype, &lists[4], &lists[5], &lists[6], &groups, &padding_mode) == 0) {
    throw PythonError();
  }
  return {integers_of(lists[0]),
          integers_of(lists[1]),
          integers_of(lists[2]),
          integers_of(lists[3]),
          has_bias != 0,
          dtype,
          out_dtype,
          integers_of(lists[4]),
          integers_of(lists[5]),
          integers_of(lists[6]),
          groups,
          padding_mode};
}

// Runs the body of a function that Python calls, and turns what it throws into Python's exceptions.
template <class Body>
PyObject* guarded(const Body& body) noexcept {
  try {
    return body();
  } catch (const PythonError&) {
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyObject* kernels(PyObject*, PyObject*) {
  return guarded([] {
    PyObject* list = present(PyList_New(0));
    for (const CudaKernel* kernel : cuda::all_kernels())
      append(list, Py_BuildValue("(sss)", kernel->name, "cuda", kernel->description));
    return list;
  });
}

PyObject* plan(PyObject*, PyObject* arguments) {
  return guarded([&] {
    const char* pass = nullptr;
    PyObject* call = nullptr;
    CudaDevice device;
    long long shared_bytes = 0;
    if (PyArg_ParseTuple(arguments, "sO!iiL", &pass, &PyTuple_Type, &call, &device.capability,
                         &device.multiprocessors, &shared_bytes) == 0) {
      throw PythonError();
    }
    device.shared_bytes_per_block = shared_bytes;
    const ConvProblem problem = problem_of(call_of(call), pass);
    std::string error;
    const CudaKernel* chosen = cuda::plan(problem, device, &error);
    if (chosen == nullptr) throw std::runtime_error(error);
    PyObject* rejected = present(PyList_New(0));
    for (const Rejection& rejection : cuda::rejections(problem, device, *chosen))
      append(rejected, Py_BuildValue("(ss)", rejection.kernel.c_str(), rejection.reason));
    const long long workspace = chosen->workspace_bytes(problem, device);
    return Py_BuildValue("{s:s,s:s,s:N,s:d,s:L,s:i,s:(LL)}", "kernel", cuda::qualified_name(*chosen).c_str(),
                         "description", chosen->description, "rejected", rejected, "multiply_adds",
                         multiply_adds(problem), "workspace_bytes", workspace, "workers", 0, "output_size",
                         static_cast<long long>(problem.output.height),
                         static_cast<long long>(problem.output.width));
  });
}

PyObject* device(PyObject*, PyObject* index) {
  return guarded([&] {
    const long number = PyLong_AsLong(index);
    if (number == -1 && PyErr_Occurred() != nullptr) throw PythonError();
    std::string error;
    const CudaDevice* found = cuda::find_device(static_cast<int>(number), &error);
    if (found == nullptr) throw std::runtime_error(error);
    return Py_BuildValue("(iiL)", found->capability, found->multiprocessors,
                         static_cast<long long>(found->shared_bytes_per_block));
  });
}

PyObject* set_forced_kernel(PyObject*, PyObject* name) {
  return guarded([&] {
    const char* text = PyUnicode_AsUTF8(name);
    if (text == nullptr) throw PythonError();
    convext::set_forced_kernel(text);
    return Py_NewRef(Py_None);
  });
}

PyObject* set_high_float32_precision(PyObject*, PyObject* high) {
  const int is_high = PyObject_IsTrue(high);
  if (is_high < 0) return nullptr;
  set_float32_precision(is_high != 0 ? Float32Precision::high : Float32Precision::highest);
  Py_RETURN_NONE;
}

PyObject* torch_has_cuda(PyObject*, PyObject*) {
  return PyBool_FromLong(convext::torch_has_cuda() ? 1 : 0);
}

PyObject* versions(PyObject*, PyObject*) {
  return Py_BuildValue("(ii)", cuda::runtime_version(), cuda::driver_version());
}

PyMethodDef methods[] = {
    {"kernels", kernels, METH_NOARGS, "(name, 'cuda', description) of every kernel, in order."},
    {"plan", plan, METH_VARARGS,
     "plan(pass_name, call, capability, multiprocessors, shared_bytes_per_block): which kernel runs a pass "
     "of "
     "a call on such a device, and why those before it do not."},
    {"device", device, METH_O,
     "(capability, multiprocessors, shared bytes per block) of a device of this machine."},
    {"set_forced_kernel", set_forced_kernel, METH_O,
     "Restrict the planner to kernels of this name; '' lifts the restriction."},
    {"set_high_float32_precision", set_high_float32_precision, METH_O, nullptr},
    {"torch_has_cuda", torch_has_cuda, METH_NOARGS,
     "Whether the torch of this process can give its current CUDA stream."},
    {"versions", versions, METH_NOARGS,
     "CUDA's runtime that is linked in, and the driver (0: none), as 13000 for 13.0."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_cuda",
                          "Kernels and plans of convext's CUDA part.",
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace
}  // namespace convext

PyMODINIT_FUNC PyInit__cuda() {
  PyObject* module = PyModule_Create(&convext::definition);
  if (module != nullptr && !convext::add_direct_calls(module)) Py_CLEAR(module);
  return module;
}
