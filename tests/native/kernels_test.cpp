#include "kernels_test.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "cases.h"
#include "check.h"
#include "cpu/kernel_list.h"
#include "cpu/planner.h"
#include "result_check.h"
#include "workers.h"

namespace convext::testing {
namespace {

Executor executor_of(int workers) {
  return {workers, workers == 1 ? nullptr : run_workers};
}

Runnable with_workers(const Kernel& kernel, int workers) {
  return {qualified_name(kernel),
          [&kernel, workers](const ConvProblem& problem) { return kernel.workspace_bytes(problem, workers); },
          [&kernel, workers](const ConvProblem& problem, const ConvData& data, void* workspace) {
            kernel.run(problem, data, workspace, executor_of(workers));
          }};
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

// The reference adds term by term, in double: for float64 its rounding errors walk at random over the whole
// sum.
double error_factor(const Kernel& kernel, const Case& c) {
  const double usual = error_factor(c);
  if (c.fill == Fill::normal || &kernel != &reference_kernel || c.problem.dtype != DType::float64)
    return usual;
  return std::max(usual, std::sqrt(longest_sum(c.problem)));
}

struct Counts {
  int64_t run = 0;
  int64_t refused = 0;
  int64_t failed = 0;
  double worst_error = 0;  // in units of the bound
};

using CountTable = std::map<std::pair<size_t, Pass>, Counts>;

// Runs one kernel in all the ways that must agree. `thorough`: also with several workers and sample by
// sample.
void test_case(const Kernel& kernel, const Case& c, const Operands& untouched, const Expected& expected,
               bool thorough, Counts& counts) {
  const ConvProblem& problem = c.problem;
  const Runnable one_worker = with_workers(kernel, 1);
  std::vector<unsigned char> alone;
  {
    Operands operands = untouched;
    alone = run_guarded(one_worker, c, operands);
    check(matches(c, expected, operands.result(problem.pass), error_factor(kernel, c), &counts.worst_error),
          [&] { return label(one_worker, c, "wrong result"); });
  }
  if (!thorough) return;
  for (int workers : {2, 5}) {
    Operands operands = untouched;
    check(run_guarded(with_workers(kernel, workers), c, operands) == alone, [&] {
      return label(one_worker, c, workers == 2 ? "2 workers give other bits" : "5 workers give other bits");
    });
  }
  Case single = c;
  single.problem.batch = 1;
  if (problem.batch > 1 && problem.pass != Pass::grad_weight && why_not(kernel, single.problem) == nullptr)
    check_batch_invariance(one_worker, c, untouched, alone);
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
    const Expected expected(c, operands);
    for (size_t k = 0; k < all_kernels().size(); ++k) {
      const Kernel& kernel = *all_kernels()[k];
      if (!is_selected(kernel, name) || !isa_available(kernel.isa)) continue;
      Counts& counts = table[{k, c.problem.pass}];
      const Reason reason = kernel.why_not(c.problem);
      if (reason != nullptr) {
        ++counts.refused;
        check(std::strlen(reason) > 0, label(with_workers(kernel, 1), c, "refused without a reason"));
        continue;
      }
      ++counts.run;
      const int64_t failed_before = checks_failed();
      // The reference is slow, and simple enough to be tried with several workers now and then.
      const bool thorough = &kernel != &reference_kernel || (index % 8 == 0);
      test_case(kernel, c, operands, expected, thorough, counts);
      if (checks_failed() != failed_before) ++counts.failed;
    }
  }
  print_counts(table);
}

}  // namespace convext::testing
