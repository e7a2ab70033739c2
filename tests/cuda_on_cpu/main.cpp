// Every CUDA kernel of the list on a sample of the problems of tests/native, without a GPU.
//
//   cuda-on-cpu [--one-in N] [--kernel NAME] [--jobs N]
//
// --one-in takes every N-th of the cases, and no large ones, for sanitizers; --jobs shares the cases among N
// processes.
//
// Each case runs with the threads of a block in three orders and for two sizes of device, which must give the
// same bits.
#include <algorithm>
#include <bitset>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bias_gradient_test.h"
#include "cases.h"
#include "check.h"
#include "cuda/kernel_list.h"
#include "cuda_cases.h"
#include "far_apart_test.h"
#include "processes.h"
#include "random.h"
#include "result_check.h"
#include "schedule.h"
#include "shared_array.h"

namespace convext::testing {
namespace {

using cuda_on_cpu::Schedule;

#define CONVEXT_KERNEL_ADDRESS(name) &cuda::name,
const CudaKernel* const kernels[] = {CONVEXT_CUDA_KERNELS(CONVEXT_KERNEL_ADDRESS)};
#undef CONVEXT_KERNEL_ADDRESS

CudaDevice device_of(int multiprocessors) {
  CudaDevice device;
  device.capability = 90;
  device.multiprocessors = multiprocessors;
  device.shared_bytes_per_block = 227 * 1024;
  return device;
}

// The three offsets at which tensors begin follow from the seed (tests/native).
bool starts_at_vectors(const Case& c) {
  return c.seed % 27 == 0;
}

struct Way {
  Schedule schedule;
  int multiprocessors;
};

// One multiprocessor: kernels that walk over their work in steps of the grid walk furthest.
#if defined(__SANITIZE_THREAD__)
constexpr Way ways[] = {{Schedule::forward, 132}};  // a race is seen in whatever order the threads run
#else
constexpr Way ways[] = {{Schedule::forward, 132}, {Schedule::reverse, 1}, {Schedule::random, 132}};
#endif

Runnable in_this_way(const CudaKernel& kernel, const Case& c, Way way) {
  const CudaDevice device = device_of(way.multiprocessors);
  const auto as_placed = [&c](ConvProblem problem) {
    problem.aligned = starts_at_vectors(c);
    return problem;
  };
  return {kernel.name,
          [&kernel, device, as_placed](const ConvProblem& problem) {
            return kernel.workspace_bytes(as_placed(problem), device);
          },
          [&kernel, &c, device, way, as_placed](const ConvProblem& problem, const ConvData& data,
                                                void* workspace) {
            cuda_on_cpu::set_schedule(way.schedule, c.seed);
            const char* error = kernel.launch(as_placed(problem), data, workspace, device, nullptr);
            check(error == nullptr, std::string(kernel.name) + " did not start: " +
                                        (error == nullptr ? "" : error) + ": " + describe(c));
          }};
}

struct Counts {
  int64_t run = 0;
  int64_t refused = 0;
  int64_t failed = 0;
  double worst_error = 0;    // in units of the bound
  std::bitset<100> dtypes;   // of the operands and of the result
  std::bitset<125> layouts;  // of the three tensors

  void note(const Case& c) {
    const auto code = [](auto value) { return static_cast<size_t>(value); };
    dtypes.set(10 * code(c.problem.dtype) + code(c.problem.out_dtype));
    layouts.set(25 * code(c.input_layout) + 5 * code(c.weight_layout) + code(c.output_layout));
  }
};

// One for each kernel and pass, and for each process.
class CountTable {
 public:
  explicit CountTable(int processes)
      : processes_(processes), counts_(static_cast<size_t>(processes) * std::size(kernels) * passes) {}

  Counts& at(int process, size_t kernel, Pass pass) const {
    return counts_[(static_cast<size_t>(process) * std::size(kernels) + kernel) * passes +
                   static_cast<size_t>(pass)];
  }

  void print() const {
    std::printf("%-14s %-12s %7s %7s %7s %7s %8s  %s\n", "kernel", "pass", "cases", "refused", "failed",
                "dtypes", "layouts", "largest error / bound");
    for (size_t kernel = 0; kernel < std::size(kernels); ++kernel) {
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
      sum.dtypes |= counts.dtypes;
      sum.layouts |= counts.layouts;
    }
    if (sum.run + sum.refused == 0) return;
    std::printf("%-14s %-12s %7lld %7lld %7lld %7zu %8zu  %.2f\n", kernels[kernel]->name, pass_name(pass),
                static_cast<long long>(sum.run), static_cast<long long>(sum.refused),
                static_cast<long long>(sum.failed), sum.dtypes.count(), sum.layouts.count(), sum.worst_error);
  }

  int processes_;
  SharedArray<Counts> counts_;
};

void test_case(const CudaKernel& kernel, const Case& c, const Operands& untouched, const Expected& expected,
               Counts& counts) {
  std::vector<unsigned char> first;
  for (const Way& way : ways) {
    const Runnable runnable = in_this_way(kernel, c, way);
    Operands operands = untouched;
    const std::vector<unsigned char> result = run_guarded(runnable, c, operands);
    if (first.empty()) {
      first = result;
      check(matches(c, expected, operands.result(c.problem.pass), error_factor(c), &counts.worst_error),
            [&] { return label(runnable, c, "wrong result"); });
    } else {
      check(result == first,
            [&] { return label(runnable, c, "the order of threads or the device changes the result"); });
    }
  }
  Case single = c;
  single.problem.batch = 1;
  const bool invariant = c.problem.batch > 1 && c.problem.pass != Pass::grad_weight &&
                         kernel.why_not(single.problem, device_of(132)) == nullptr;
  if (invariant) check_batch_invariance(in_this_way(kernel, c, ways[0]), c, untouched, first);
}

struct Sample {
  std::vector<Case> cases;
  size_t own;  // from here on, they were made for these kernels
};

Sample sample(int thinning) {
  Random random(11);
  std::vector<Case> cases;
  for (const Case& c : kernel_cases(false)) {
    const double work = multiply_adds(c.problem);
    const bool integer_gradient = c.problem.pass != Pass::forward && !is_floating_point(c.problem.dtype);
    const int64_t one_in = integer_gradient ? 1 : work < 2e4 ? 8 : work < 1e5 ? 25 : work < 1e6 ? 300 : 0;
    if (one_in != 0 && random.one_in(thinning * one_in)) cases.push_back(c);
  }
  const size_t own = cases.size();
  for (const Case& c : cuda_cases(thinning)) cases.push_back(c);
  return {cases, own};
}

// A tile of tensor cores takes 256 fibers, however little of it is used.
bool is_slow(const CudaKernel& kernel) {
  return std::strcmp(kernel.name, "tensor_cores") == 0;
}

// Tries the kernels of that name on one case.
void test_all_on(const Case& c, const std::string& name, bool slow_ones, int process,
                 const CountTable& table) {
  const Operands operands(c);
  const Expected expected(c, operands);
  for (size_t k = 0; k < std::size(kernels); ++k) {
    const CudaKernel& kernel = *kernels[k];
    if ((!name.empty() && name != kernel.name) || (!slow_ones && is_slow(kernel))) continue;
    Counts& counts = table.at(process, k, c.problem.pass);
    const Reason reason = kernel.why_not(c.problem, device_of(132));
    if (reason != nullptr) {
      ++counts.refused;
      check(std::strlen(reason) > 0,
            [&] { return std::string(kernel.name) + " refused without a reason: " + describe(c); });
      continue;
    }
    ++counts.run;
    counts.note(c);
    const int64_t failed_before = checks_failed();
    test_case(kernel, c, operands, expected, counts);
    if (checks_failed() != failed_before) ++counts.failed;
  }
}

void test_kernels(int thinning, const std::string& name, int jobs) {
  const Sample sampled = sample(thinning);
  const CountTable table(jobs);
  const auto at = [&](int64_t piece) -> const Case& { return sampled.cases[static_cast<size_t>(piece)]; };
  const auto with_slow_ones = [&](int64_t piece) {
    const ConvProblem& p = at(piece).problem;
    const bool is_small = multiply_adds(p) < 2e5;
    const bool is_own = static_cast<size_t>(piece) >= sampled.own && p.groups <= 3;
    return is_own ? is_small || piece % 8 == 0 : is_small && piece % 16 == 0;
  };
  run_in_processes(jobs, {static_cast<int64_t>(sampled.cases.size()),
                          [&](int process, int64_t piece) {
                            test_all_on(at(piece), name, with_slow_ones(piece), process, table);
                          },
                          [&](int64_t piece) { return describe(at(piece)); }});
  // Sanitizers keep books of all the address space.
  for (const CudaKernel* kernel : kernels) {
    if (thinning == 1 && (name.empty() || name == kernel->name)) test_far_apart(*kernel, device_of(132));
  }
  table.print();
}

bool is_known(const char* name) {
  for (const CudaKernel* kernel : kernels) {
    if (std::strcmp(kernel->name, name) == 0) return true;
  }
  return false;
}

}  // namespace
}  // namespace convext::testing

int main(int argc, char** argv) {
  using namespace convext::testing;
  int thinning = 1;
  std::string kernel;
  int jobs = 1;
  for (int k = 1; k < argc; ++k) {
    if (std::strcmp(argv[k], "--one-in") == 0 && k + 1 < argc && std::atoi(argv[k + 1]) > 0) {
      thinning = std::atoi(argv[++k]);
    } else if (std::strcmp(argv[k], "--kernel") == 0 && k + 1 < argc && is_known(argv[k + 1])) {
      kernel = argv[++k];
    } else if (std::strcmp(argv[k], "--jobs") == 0 && k + 1 < argc && parse_jobs(argv[k + 1], &jobs)) {
      ++k;
    } else {
      std::fprintf(stderr, "usage: %s [--one-in N] [--kernel NAME] [--jobs N]\n", argv[0]);
      return 2;
    }
  }
  // First, while there are no fibers: ThreadSanitizer loses track of those that a fork copies.
  test_kernels(thinning, kernel, jobs);
  if (kernel.empty()) test_bias_gradient();
  return conclude();
}
