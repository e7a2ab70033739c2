// A way from Python to the passes that is shorter than the dispatcher's.
#pragma once

#include <pybind11/pybind11.h>

namespace convext {

void add_direct_calls(pybind11::module_& module);

}  // namespace convext
