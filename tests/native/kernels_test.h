// Every kernel of the list, on every problem that it accepts.
#pragma once

#include <string>

namespace convext::testing {

// `kernel`: only kernels of this name ("implicit_gemm" or "implicit_gemm/avx2"); empty: all.
// `jobs`: in so many processes.
void test_kernels(bool quick, const std::string& kernel, int jobs);

}  // namespace convext::testing
