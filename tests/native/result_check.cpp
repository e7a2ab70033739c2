#include "result_check.h"

#include <algorithm>
#include <cmath>

#include "check.h"

namespace convext::testing {
namespace {

double epsilon(DType dtype) {
  return dtype == DType::float64 ? 0x1p-52 : 0x1p-23;  // the 16-bit types are summed in float32
}

// The distance to the next number of the result's type at `value`: one rounding costs half of it.
double spacing(DType dtype, double value) {
  const int digits = dtype == DType::float64   ? 53
                     : dtype == DType::float32 ? 24
                     : dtype == DType::float16 ? 11
                                               : 8;
  const int smallest = dtype == DType::float64 ? -1022 : dtype == DType::float16 ? -14 : -126;
  const int exponent = value == 0 ? smallest : std::max(std::ilogb(value), smallest);
  return std::ldexp(1.0, exponent - digits + 1);
}

bool same_number(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

// Whether sums of the case's numbers need more bits than there are.
bool is_rounded(const Case& c) {
  return c.fill == Fill::normal || c.fill == Fill::positive;
}

bool matches_floating(const Case& c, const Exact& exact, const std::vector<double>& result, double factor,
                      double* error_units) {
  const DType dtype = c.problem.dtype;
  bool ok = exact.value.size() == result.size();
  for (size_t at = 0; ok && at < result.size(); ++at) {
    const long double value = exact.value[at];
    if (!is_rounded(c)) {
      const auto number = static_cast<double>(value);  // rounding it takes a while, and is seldom needed
      ok = same_number(result[at], number) || same_number(result[at], round_to(dtype, number));
      continue;
    }
    long double bound = static_cast<long double>(factor * epsilon(dtype)) * exact.magnitude[at];
    // The result's own rounding; for float32 and float64 it is within the bound.
    if (element_size(dtype) == 2)
      bound += static_cast<long double>(0.5 * spacing(dtype, static_cast<double>(value)));
    const long double error = std::fabs(static_cast<long double>(result[at]) - value);
    ok = error <= bound;  // also false for NaN
    if (bound > 0 && element_size(dtype) != 2)
      *error_units = std::max(*error_units, static_cast<double>(error / bound));
  }
  return ok;
}

bool matches_integer(DType out_dtype, const std::vector<uint64_t>& exact,
                     const std::vector<uint64_t>& result) {
  const int64_t bits = 8 * element_size(out_dtype);
  const uint64_t mask = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  bool ok = exact.size() == result.size();
  for (size_t at = 0; ok && at < result.size(); ++at) ok = (exact[at] & mask) == (result[at] & mask);
  return ok;
}

}  // namespace

Sums sums_for(const Case& c) {
  return c.problem.dtype == DType::float64 && is_rounded(c) ? Sums::in_long_double : Sums::in_double;
}

double error_factor(const Case& c) {
  if (c.problem.precision == Float32Precision::high) return 32;
  return c.fill == Fill::normal ? 4 : 16;
}

bool matches(const Case& c, const Expected& expected, const Tensor& result, double factor,
             double* error_units) {
  return is_floating_point(c.problem.dtype)
             ? matches_floating(c, expected.floating, result.numbers(), factor, error_units)
             : matches_integer(c.problem.out_dtype, expected.integer, result.integers());
}

std::string label(const Runnable& kernel, const Case& c, const char* what) {
  return kernel.name + ": " + what + ": " + describe(c);
}

std::vector<unsigned char> run_guarded(const Runnable& kernel, const Case& c, Operands& operands) {
  const ConvProblem& problem = c.problem;
  const int64_t scratch_bytes = kernel.workspace_bytes(problem);
  GuardedBuffer workspace(scratch_bytes, 0);
  const std::vector<unsigned char> before[3] = {operands.input.memory(), operands.weight.memory(),
                                                operands.output.memory()};
  kernel.run(problem, operands.data(problem), scratch_bytes == 0 ? nullptr : workspace.data());
  const auto say = [&](const char* what) { return [&kernel, &c, what] { return label(kernel, c, what); }; };
  check(workspace.guards_intact(), say("wrote outside its workspace"));
  check(operands.input.surroundings_intact() && operands.weight.surroundings_intact() &&
            operands.output.surroundings_intact() && operands.bias.surroundings_intact(),
        say("wrote outside a tensor"));
  const bool operands_unchanged =
      (problem.pass == Pass::grad_input || operands.input.memory() == before[0]) &&
      (problem.pass == Pass::grad_weight || operands.weight.memory() == before[1]) &&
      (problem.pass == Pass::forward || operands.output.memory() == before[2]);
  check(operands_unchanged, say("changed an operand"));
  return operands.result(problem.pass).comparable_bytes();
}

void check_batch_invariance(const Runnable& kernel, const Case& c, Operands operands,
                            const std::vector<unsigned char>& whole) {
  const ConvProblem& problem = c.problem;
  const size_t bytes_per_sample = whole.size() / static_cast<size_t>(problem.batch);
  Case single = c;
  single.problem.batch = 1;
  Tensor& result = operands.result(problem.pass);
  std::vector<unsigned char> joined;
  for (int64_t n = 0; n < problem.batch; ++n) {
    ConvData data = operands.data(problem);
    const int64_t size = element_size(problem.dtype);
    const int64_t out_size = problem.pass == Pass::forward ? element_size(problem.out_dtype) : size;
    data.input = static_cast<unsigned char*>(data.input) + n * problem.input_strides.batch * size;
    data.output = static_cast<unsigned char*>(data.output) + n * problem.output_strides.batch * out_size;
    const int64_t scratch_bytes = kernel.workspace_bytes(single.problem);
    GuardedBuffer workspace(scratch_bytes, 0);
    kernel.run(single.problem, data, scratch_bytes == 0 ? nullptr : workspace.data());
    const std::vector<unsigned char> all = result.comparable_bytes();
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(n) * bytes_per_sample);
    joined.insert(joined.end(), first, first + static_cast<std::ptrdiff_t>(bytes_per_sample));
  }
  check(joined == whole, label(kernel, c, "a sample alone differs from the same sample in a batch"));
}

}  // namespace convext::testing
