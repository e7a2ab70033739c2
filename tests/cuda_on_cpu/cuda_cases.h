// Problems chosen for how the CUDA kernels cut them up, beside those of tests/native.
#pragma once

#include <vector>

#include "case.h"

namespace convext::testing {

std::vector<Case> cuda_cases(bool quick);

}  // namespace convext::testing
