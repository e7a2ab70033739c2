// A way from Python to the passes that is shorter than the dispatcher's. Python's own C interface does for
// it: pybind11 would add to what a call and a compilation take.
#pragma once

#include <Python.h>

namespace convext {

// Gives a module the functions of direct.cpp, which run on the device that the module is linked for. False
// with a Python error set.
bool add_direct_calls(PyObject* module);

}  // namespace convext
