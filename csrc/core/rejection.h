#pragma once

#include <string>

#include "core/kernel.h"

namespace convext {

// A kernel that a planner passed over, by its qualified name, and why.
struct Rejection {
  std::string kernel;
  Reason reason;
};

}  // namespace convext
