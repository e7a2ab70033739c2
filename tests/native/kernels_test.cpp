#include "kernels_test.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "cases.h"
#include "check.h"
#include "core/planner.h"
#include "cpu/kernel_list.h"
#include "oracle.h"
#include "tensor.h"

namespace convext::testing {
namespace {

void run_threads(int workers, void (*body)(void*, int), void* context) {
  std::vector<std::thread> threads;
  for (int worker = 1; worker < workers; ++worker) threads.emplace_back(body, context, worker);
  body(context, 0);
  for (std::thread& thread : threads) thread.join();
}

Executor executor_of(int workers) {
  return {workers, workers == 1 ? nullptr : run_threads};
}

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

std::string label(const Kernel& kernel, const Case& c, const char* what) {
  return qualified_name(kernel) + ": " + what + ": " + describe(c);
}

// Runs the kernel on fresh memory; returns the stored result, comparable bit by bit.
std::vector<unsigned char> run_kernel(const Kernel& kernel, const Case& c, Operands& operands, int workers) {
  const ConvProblem& problem = c.problem;
  const int64_t scratch_bytes = kernel.workspace_bytes(problem, workers);
  GuardedBuffer workspace(scratch_bytes, 0);
  const std::vector<unsigned char> before[3] = {operands.input.bytes(), operands.weight.bytes(),
                                                operands.output.bytes()};
  kernel.run(problem, operands.data(problem), scratch_bytes == 0 ? nullptr : workspace.data(),
             executor_of(workers));
  check(workspace.guards_intact(), label(kernel, c, "wrote outside its workspace"));
  check(operands.input.surroundings_intact() && operands.weight.surroundings_intact() &&
            operands.output.surroundings_intact() && operands.bias.surroundings_intact(),
        label(kernel, c, "wrote outside a tensor"));
  const bool operands_unchanged =
      (problem.pass == Pass::grad_input || operands.input.bytes() == before[0]) &&
      (problem.pass == Pass::grad_weight || operands.weight.bytes() == before[1]) &&
      (problem.pass == Pass::forward || operands.output.bytes() == before[2]);
  check(operands_unchanged, label(kernel, c, "changed an operand"));
  return operands.result(problem.pass).comparable_bytes();
}

// What a case's result must be, whichever kernel computes it.
struct Expected {
  Exact floating;
  std::vector<uint64_t> integer;

  Expected(const ConvProblem& problem, const Operands& operands) {
    if (is_floating_point(problem.dtype)) {
      floating = exact_result(problem, operands.input.numbers(), operands.weight.numbers(),
                              operands.output.numbers(), operands.bias.numbers());
    } else {
      integer = exact_result(problem, operands.input.integers(), operands.weight.integers(),
                             operands.output.integers(), operands.bias.integers());
    }
  }
};

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

// The number of terms of the longest sum of the result.
double longest_sum(const ConvProblem& p) {
  const double results =
      p.pass == Pass::forward
          ? static_cast<double>(p.batch * p.out_channels * p.output.height * p.output.width)
      : p.pass == Pass::grad_input
          ? static_cast<double>(p.batch * p.in_channels * p.input.height * p.input.width)
          : static_cast<double>(p.out_channels * in_channels_per_group(p) * p.kernel.height * p.kernel.width);
  return results == 0 ? 0 : multiply_adds(p) / results;
}

// The error allowed, in units of epsilon times the sum of the terms' absolute values. It is a constant for
// the kernels proper, which must keep their partial sums short. The reference adds term by term, in double:
// for float64 its rounding errors walk at random over the whole sum.
double error_factor(const Kernel& kernel, const Case& c) {
  if (c.problem.precision == Float32Precision::high) return 32;
  if (c.fill == Fill::normal) return 4;
  if (&kernel != &reference_kernel || c.problem.dtype != DType::float64) return 16;
  return std::max(16.0, std::sqrt(longest_sum(c.problem)));
}

// `error_units`: the largest error found, in units of the bound.
bool matches_floating(const Kernel& kernel, const Case& c, const Exact& exact,
                      const std::vector<double>& result, double* error_units) {
  const DType dtype = c.problem.dtype;
  const double factor = error_factor(kernel, c);
  bool ok = exact.value.size() == result.size();
  for (size_t at = 0; ok && at < result.size(); ++at) {
    const long double value = exact.value[at];
    if (c.fill != Fill::normal && c.fill != Fill::positive) {
      ok = same_number(result[at], round_to(dtype, static_cast<double>(value)));
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

struct Counts {
  int64_t run = 0;
  int64_t refused = 0;
  int64_t failed = 0;
  double worst_error = 0;  // in units of the bound
};

using CountTable = std::map<std::pair<size_t, Pass>, Counts>;

// One sample of the batch alone must give the same bits as within the batch.
void check_batch_invariance(const Kernel& kernel, const Case& c, const std::vector<unsigned char>& whole) {
  const ConvProblem& problem = c.problem;
  const size_t bytes_per_sample = whole.size() / static_cast<size_t>(problem.batch);
  Case single = c;
  single.problem.batch = 1;
  if (why_not(kernel, single.problem) != nullptr) return;
  Operands operands(c);
  Tensor& result = operands.result(problem.pass);
  std::vector<unsigned char> joined;
  for (int64_t n = 0; n < problem.batch; ++n) {
    ConvData data = operands.data(problem);
    const int64_t size = element_size(problem.dtype);
    const int64_t out_size = problem.pass == Pass::forward ? element_size(problem.out_dtype) : size;
    data.input = static_cast<unsigned char*>(data.input) + n * problem.input_strides.batch * size;
    data.output = static_cast<unsigned char*>(data.output) + n * problem.output_strides.batch * out_size;
    const int64_t scratch_bytes = kernel.workspace_bytes(single.problem, 1);
    GuardedBuffer workspace(scratch_bytes, 0);
    kernel.run(single.problem, data, scratch_bytes == 0 ? nullptr : workspace.data(), executor_of(1));
    const std::vector<unsigned char> all = result.comparable_bytes();
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(n) * bytes_per_sample);
    joined.insert(joined.end(), first, first + static_cast<std::ptrdiff_t>(bytes_per_sample));
  }
  check(joined == whole, label(kernel, c, "a sample alone differs from the same sample in a batch"));
}

// Runs one kernel in all the ways that must agree. `thorough`: also with several workers and sample by
// sample.
void test_case(const Kernel& kernel, const Case& c, const Expected& expected, bool thorough, Counts& counts) {
  const ConvProblem& problem = c.problem;
  std::vector<unsigned char> alone;
  {
    Operands operands(c);
    alone = run_kernel(kernel, c, operands, 1);
    const Tensor& result = operands.result(problem.pass);
    if (is_floating_point(problem.dtype)) {
      check(matches_floating(kernel, c, expected.floating, result.numbers(), &counts.worst_error),
            label(kernel, c, "wrong result"));
    } else {
      check(matches_integer(problem.out_dtype, expected.integer, result.integers()),
            label(kernel, c, "wrong result"));
    }
  }
  if (!thorough) return;
  for (int workers : {2, 5}) {
    Operands operands(c);
    check(run_kernel(kernel, c, operands, workers) == alone,
          label(kernel, c, workers == 2 ? "2 workers give other bits" : "5 workers give other bits"));
  }
  if (problem.batch > 1 && problem.pass != Pass::grad_weight) check_batch_invariance(kernel, c, alone);
}

bool is_selected(const Kernel& kernel, const std::string& name) {
  return name.empty() || name == kernel.name || name == qualified_name(kernel);
}

void print_counts(const CountTable& table) {
  std::printf("%-28s %-12s %8s %8s %8s  %s\n", "kernel", "pass", "cases", "refused", "failed",
              "largest error / bound");
  for (const auto& [key, counts] : table) {
    std::printf("%-28s %-12s %8lld %8lld %8lld  %.2f\n", qualified_name(*all_kernels()[key.first]).c_str(),
                pass_name(key.second), static_cast<long long>(counts.run),
                static_cast<long long>(counts.refused), static_cast<long long>(counts.failed),
                counts.worst_error);
  }
}

}  // namespace

void test_kernels(bool quick, const std::string& name) {
  CountTable table;
  size_t index = 0;
  for (const Case& c : kernel_cases(quick)) {
    ++index;
    const Operands operands(c);
    const Expected expected(c.problem, operands);
    for (size_t k = 0; k < all_kernels().size(); ++k) {
      const Kernel& kernel = *all_kernels()[k];
      if (!is_selected(kernel, name) || !isa_available(kernel.isa)) continue;
      Counts& counts = table[{k, c.problem.pass}];
      const Reason reason = kernel.why_not(c.problem);
      if (reason != nullptr) {
        ++counts.refused;
        check(std::strlen(reason) > 0, label(kernel, c, "refused without a reason"));
        continue;
      }
      ++counts.run;
      const int64_t failed_before = checks_failed();
      // The reference is slow, and simple enough to be tried with several workers now and then.
      const bool thorough = &kernel != &reference_kernel || (index % 8 == 0);
      test_case(kernel, c, expected, thorough, counts);
      if (checks_failed() != failed_before) ++counts.failed;
    }
  }
  print_counts(table);
}

}  // namespace convext::testing
