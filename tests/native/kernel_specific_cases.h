// Problems at the edges of single kernels: the ends of their tiles, bands and panels.
#pragma once

#include "case_collector.h"

namespace convext::testing {

void add_kernel_specific_cases(Collector& cases);

}  // namespace convext::testing
