#include "kernels_test.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cases.h"
#include "check.h"
#include "cpu/kernel_list.h"
#include "cpu/planner.h"
#include "processes.h"
#include "random.h"
#include "result_check.h"
#include "shared_array.h"
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

// One for each kernel and pass, and for each process.
class CountTable {
 public:
  explicit CountTable(int processes)
      : processes_(processes), counts_(static_cast<size_t>(processes) * all_kernels().size() * passes) {}

  Counts& at(int process, size_t kernel, Pass pass) const {
    return counts_[(static_cast<size_t>(process) * all_kernels().size() + kernel) * passes +
                   static_cast<size_t>(pass)];
  }

  void print() const {
    std::printf("%-28s %-12s %8s %8s %8s  %s\n", "kernel", "pass", "cases", "refused", "failed",
                "largest error / bound");
    for (size_t kernel = 0; kernel < all_kernels().size(); ++kernel) {
      for (Pass pass : {Pass::forward, Pass::grad_input, Pass::grad_weight}) print_row(kernel, pass);
    }
  }

 private:
  static constexpr size_t passes = 3;

  void print_row(size_t kernel, Pass pass) const {
    Counts sum;
    for (int process = 0; process < processes_; ++process) {
      const Counts& counts = at(process, kernel, pass);
      sum.run += counts.run;
      sum.refused += counts.refused;
      sum.failed += counts.failed;
      sum.worst_error = std::max(sum.worst_error, counts.worst_error);
    }
    if (sum.run + sum.refused == 0) return;
    std::printf("%-28s %-12s %8lld %8lld %8lld  %.2f\n", qualified_name(*all_kernels()[kernel]).c_str(),
                pass_name(pass), static_cast<long long>(sum.run), static_cast<long long>(sum.refused),
                static_cast<long long>(sum.failed), sum.worst_error);
  }

  int processes_;
  SharedArray<Counts> counts_;
};

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

// Tries the kernels of that name on one case, the `index`-th of all.
void test_all_on(const Case& c, int64_t index, const std::string& name, int process,
                 const CountTable& table) {
  const Operands operands(c);
  const Expected expected(c, operands);
  for (size_t k = 0; k < all_kernels().size(); ++k) {
    const Kernel& kernel = *all_kernels()[k];
    if (!is_selected(kernel, name) || !isa_available(kernel.isa)) continue;
    // The reference is slow, and simple enough to be tried on large problems, and with several workers, now
    // and then.
    const bool is_taken = &kernel != &reference_kernel || ((index + 1) % 8 == 0);
    if (!is_taken && multiply_adds(c.problem) > 2e5) continue;
    Counts& counts = table.at(process, k, c.problem.pass);
    const Reason reason = kernel.why_not(c.problem);
    if (reason != nullptr) {
      ++counts.refused;
      check(std::strlen(reason) > 0,
            [&] { return label(with_workers(kernel, 1), c, "refused without a reason"); });
      continue;
    }
    ++counts.run;
    const int64_t failed_before = checks_failed();
    test_case(kernel, c, operands, expected, is_taken, counts);
    if (checks_failed() != failed_before) ++counts.failed;
  }
}

}  // namespace

void test_kernels(bool quick, int one_in, const std::string& name, int jobs) {
  std::vector<Case> cases;
  Random random(29);  // neighbours in the list have much in common
  for (const Case& c : kernel_cases(quick)) {
    if (random.one_in(one_in)) cases.push_back(c);
  }
  const CountTable table(jobs);
  const auto at = [&](int64_t piece) -> const Case& { return cases[static_cast<size_t>(piece)]; };
  run_in_processes(jobs,
                   {static_cast<int64_t>(cases.size()),
                    [&](int process, int64_t piece) { test_all_on(at(piece), piece, name, process, table); },
                    [&](int64_t piece) { return describe(at(piece)); }});
  table.print();
}

}  // namespace convext::testing
