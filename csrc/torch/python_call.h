// The Python form of a Call: the twelve fields in order.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/call.h"

namespace convext {

static inline Call call_of(const pybind11::tuple& fields) {
  if (fields.size() != 12) throw pybind11::value_error("a call is described by twelve fields");
  const auto list = [&](size_t index) { return fields[index].cast<std::vector<int64_t>>(); };
  return {list(0),
          list(1),
          list(2),
          list(3),
          fields[4].cast<bool>(),
          fields[5].cast<std::string>(),
          fields[6].cast<std::string>(),
          list(7),
          list(8),
          list(9),
          fields[10].cast<int64_t>(),
          fields[11].cast<std::string>()};
}

}  // namespace convext
