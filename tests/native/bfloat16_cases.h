// The problems of bfloat16 that are for products of pairs: channels enough for a vector of results.
#pragma once

#include <vector>

#include "case.h"

namespace convext::testing {

void add_bfloat16_cases(std::vector<Case>& cases);

}  // namespace convext::testing
