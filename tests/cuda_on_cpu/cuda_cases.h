// Problems chosen for how the CUDA kernels cut them up, beside those of tests/native.
#pragma once

#include <vector>

#include "case.h"

namespace convext::testing {

// As many as one in `thinning`, and if that is not 1, no large ones.
std::vector<Case> cuda_cases(int thinning);

}  // namespace convext::testing
