// An independent implementation to check the reference kernel with: all three passes from one loop over the
// terms of the correlation, on dense copies, with the padding looked up in a table.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor.h"

namespace convext::testing {

struct Exact {
  std::vector<long double> value;      // of each element of the result
  std::vector<long double> magnitude;  // the sum of the absolute values of its terms
};

enum class Sums { in_double, in_long_double };

// For floating-point dtypes. The operands are those that the pass reads; the third is ignored.
Exact exact_result(const ConvProblem& problem, Sums in, const std::vector<double>& input,
                   const std::vector<double>& weight, const std::vector<double>& output,
                   const std::vector<double>& bias);

// For integer dtypes, modulo 2^64.
std::vector<uint64_t> exact_result(const ConvProblem& problem, const std::vector<uint64_t>& input,
                                   const std::vector<uint64_t>& weight, const std::vector<uint64_t>& output,
                                   const std::vector<uint64_t>& bias);

}  // namespace convext::testing
