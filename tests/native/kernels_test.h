// Every kernel of the list, on every problem that it accepts.
#pragma once

#include <string>

namespace convext::testing {

// `one_in`: so many cases are one that is taken.
// `kernel`: only kernels of this name ("implicit_gemm" or "implicit_gemm/avx2"); empty: all.
// `jobs`: in so many processes.
void test_kernels(bool quick, int one_in, const std::string& kernel, int jobs);

}  // namespace convext::testing
