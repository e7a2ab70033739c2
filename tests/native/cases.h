// Which problems the kernels are tried on.
#pragma once

#include <vector>

#include "case.h"

namespace convext::testing {

// Always the same list, in the same order. `quick`: a sample without the largest ones, for emulators and
// sanitizers.
std::vector<Case> kernel_cases(bool quick);

}  // namespace convext::testing
