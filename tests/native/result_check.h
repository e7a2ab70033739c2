// What is demanded of every kernel's result, on whatever device: the numbers, the memory around them, and
// that a sample's result does not depend on the batch.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "case.h"
#include "oracle.h"
#include "tensor.h"

namespace convext::testing {

// The memory of one case; the tensor that the pass writes starts as NaN.
struct Operands {
  Tensor input, weight, output, bias;

  explicit Operands(const Case& c)
      : input(make_input(c)), weight(make_weight(c)), output(make_output(c)), bias(make_bias(c)) {
    const Pass pass = c.problem.pass;
    if (pass != Pass::grad_input) input.fill(c.fill, c.seed);
    if (pass != Pass::grad_weight) weight.fill(c.fill, c.seed + 1000003);
    if (pass != Pass::forward) output.fill(c.fill, c.seed + 2000003);
    bias.fill(c.fill, c.seed + 3000017);
  }

  Tensor& result(Pass pass) {
    return pass == Pass::forward ? output : pass == Pass::grad_input ? input : weight;
  }

  ConvData data(const ConvProblem& problem) const {
    return {input.data(), weight.data(), output.data(), problem.epilogue.bias ? bias.data() : nullptr};
  }
};

// A kernel with everything decided but the case.
struct Runnable {
  std::string name;
  std::function<int64_t(const ConvProblem&)> workspace_bytes;
  std::function<void(const ConvProblem&, const ConvData&, void* workspace)> run;
};

std::string label(const Runnable& kernel, const Case& c, const char* what);

// Runs the kernel with guarded scratch and checks that it writes the result and nothing else. Returns the
// stored result, comparable bit by bit.
std::vector<unsigned char> run_guarded(const Runnable& kernel, const Case& c, Operands& operands);

// One sample of the batch alone must give the same bits as within the batch, whose result is `whole`.
void check_batch_invariance(const Runnable& kernel, const Case& c, Operands operands,
                            const std::vector<unsigned char>& whole);

// The type in which the oracle has to add to be exact where the case is, and elsewhere more precise than any
// kernel by far: double has 29 bits more than float32, and holds the product of two of them. Where long
// double is emulated, as on aarch64, it takes most of the tests' time.
Sums sums_for(const Case& c);

// What a case's result must be, whichever kernel computes it.
struct Expected {
  Exact floating;
  std::vector<uint64_t> integer;

  Expected(const Case& c, const Operands& operands) {
    const ConvProblem& problem = c.problem;
    if (is_floating_point(problem.dtype)) {
      floating = exact_result(problem, sums_for(c), operands.input.numbers(), operands.weight.numbers(),
                              operands.output.numbers(), operands.bias.numbers());
    } else {
      integer = exact_result(problem, operands.input.integers(), operands.weight.integers(),
                             operands.output.integers(), operands.bias.integers());
    }
  }
};

// The error allowed to kernels that keep their partial sums short, in units of epsilon times the sum of the
// terms' absolute values.
double error_factor(const Case& c);

// Exact where the case's numbers are, within `factor` (see above) elsewhere. Raises `error_units` to the
// largest error found, in units of the bound.
bool matches(const Case& c, const Expected& expected, const Tensor& result, double factor,
             double* error_units);

}  // namespace convext::testing
