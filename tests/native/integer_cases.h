// The problems of integers that kernels are tried on.
#pragma once

#include <vector>

#include "case.h"

namespace convext::testing {

void add_integer_cases(std::vector<Case>& cases);

}  // namespace convext::testing
