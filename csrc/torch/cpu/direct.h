// A way from Python to the passes that is shorter than the dispatcher's. Python's own C interface does for
// it: pybind11 would add to what a call and a compilation take.
#pragma once

#include <Python.h>

namespace convext {

// False with a Python error set.
bool add_direct_calls(PyObject* module);

// Without this call the direct functions return None. The types are those of tensors and parameters.
void enable_direct_calls(PyObject* handle_from_tensor, PyObject* tensors_from_handles, PyObject* tensor_type,
                         PyObject* parameter_type);

}  // namespace convext
