// Every CUDA kernel of the list on a sample of the problems of tests/native, without a GPU.
//
//   cuda-on-cpu [--one-in N] [--kernel NAME]
//
// --one-in takes every N-th of the cases, and no large ones, for sanitizers.
//
// Each case runs with the threads of a block in three orders and for two sizes of device, which must give the
// same bits.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bias_gradient_test.h"
#include "cases.h"
#include "check.h"
#include "cuda/kernel_list.h"
#include "cuda_cases.h"
#include "far_apart_test.h"
#include "random.h"
#include "result_check.h"
#include "schedule.h"

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
  return {kernel.name,
          [&kernel, device](const ConvProblem& problem) { return kernel.workspace_bytes(problem, device); },
          [&kernel, &c, device, way](const ConvProblem& problem, const ConvData& data, void* workspace) {
            cuda_on_cpu::set_schedule(way.schedule, c.seed);
            const char* error = kernel.launch(problem, data, workspace, device, nullptr);
            check(error == nullptr, std::string(kernel.name) + " did not start: " +
                                        (error == nullptr ? "" : error) + ": " + describe(c));
          }};
}

struct Counts {
  int64_t run = 0;
  int64_t refused = 0;
  int64_t failed = 0;
  double worst_error = 0;  // in units of the bound
  std::set<std::pair<DType, DType>> dtypes;
  std::set<std::tuple<Layout, Layout, Layout>> layouts;
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
            label(runnable, c, "wrong result"));
    } else {
      check(result == first, label(runnable, c, "the order of threads or the device changes the result"));
    }
  }
  Case single = c;
  single.problem.batch = 1;
  const bool invariant = c.problem.batch > 1 && c.problem.pass != Pass::grad_weight &&
                         kernel.why_not(single.problem, device_of(132)) == nullptr;
  if (invariant) check_batch_invariance(in_this_way(kernel, c, ways[0]), c, untouched, first);
}

std::vector<Case> sample(int thinning) {
  Random random(11);
  std::vector<Case> cases;
  for (const Case& c : kernel_cases(false)) {
    const double work = multiply_adds(c.problem);
    const bool integer_gradient = c.problem.pass != Pass::forward && !is_floating_point(c.problem.dtype);
    const int64_t one_in = integer_gradient ? 1 : work < 2e4 ? 8 : work < 1e5 ? 25 : work < 1e6 ? 300 : 0;
    if (one_in != 0 && random.one_in(thinning * one_in)) cases.push_back(c);
  }
  for (const Case& c : cuda_cases(thinning)) cases.push_back(c);
  return cases;
}

void test_kernels(int thinning, const std::string& name) {
  std::map<std::pair<size_t, Pass>, Counts> table;
  for (const Case& c : sample(thinning)) {
    const Operands operands(c);
    const Expected expected(c, operands);
    for (size_t k = 0; k < std::size(kernels); ++k) {
      const CudaKernel& kernel = *kernels[k];
      if (!name.empty() && name != kernel.name) continue;
      Counts& counts = table[{k, c.problem.pass}];
      const Reason reason = kernel.why_not(c.problem, device_of(132));
      if (reason != nullptr) {
        ++counts.refused;
        check(std::strlen(reason) > 0,
              std::string(kernel.name) + " refused without a reason: " + describe(c));
        continue;
      }
      ++counts.run;
      counts.dtypes.insert({c.problem.dtype, c.problem.out_dtype});
      counts.layouts.insert({c.input_layout, c.weight_layout, c.output_layout});
      const int64_t failed_before = checks_failed();
      test_case(kernel, c, operands, expected, counts);
      if (checks_failed() != failed_before) ++counts.failed;
    }
  }
  // Sanitizers keep books of all the address space.
  for (const CudaKernel* kernel : kernels) {
    if (thinning == 1 && (name.empty() || name == kernel->name)) test_far_apart(*kernel, device_of(132));
  }
  std::printf("%-14s %-12s %7s %7s %7s %7s %8s  %s\n", "kernel", "pass", "cases", "refused", "failed",
              "dtypes", "layouts", "largest error / bound");
  for (const auto& [key, counts] : table) {
    std::printf("%-14s %-12s %7lld %7lld %7lld %7zu %8zu  %.2f\n", kernels[key.first]->name,
                pass_name(key.second), static_cast<long long>(counts.run),
                static_cast<long long>(counts.refused), static_cast<long long>(counts.failed),
                counts.dtypes.size(), counts.layouts.size(), counts.worst_error);
  }
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
  for (int k = 1; k < argc; ++k) {
    if (std::strcmp(argv[k], "--one-in") == 0 && k + 1 < argc && std::atoi(argv[k + 1]) > 0) {
      thinning = std::atoi(argv[++k]);
    } else if (std::strcmp(argv[k], "--kernel") == 0 && k + 1 < argc && is_known(argv[k + 1])) {
      kernel = argv[++k];
    } else {
      std::fprintf(stderr, "usage: %s [--one-in N] [--kernel NAME]\n", argv[0]);
      return 2;
    }
  }
  if (kernel.empty()) test_bias_gradient();
  test_kernels(thinning, kernel);
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(checks_passed()),
              static_cast<long long>(checks_failed()));
  return checks_failed() == 0 ? 0 : 1;
}
