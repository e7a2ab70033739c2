// Tests of the core and of every kernel, without torch.
//
//   native-tests [--quick] [--one-in N] [--kernel NAME] [--jobs N]
//
// --quick samples the cases, --one-in takes every N-th of them; --kernel runs only the kernels of that name
// ("reference", "implicit_gemm/avx2");
// --jobs shares the cases among N processes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "check.h"
#include "core_test.h"
#include "cpu/planner.h"
#include "kernels_test.h"
#include "processes.h"

namespace {

using namespace convext;

bool is_known(const std::string& name) {
  for (const Kernel* kernel : all_kernels()) {
    if (name == kernel->name || name == qualified_name(*kernel)) return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  int one_in = 1;
  std::string kernel;
  int jobs = 1;
  for (int k = 1; k < argc; ++k) {
    if (std::strcmp(argv[k], "--quick") == 0) {
      quick = true;
    } else if (std::strcmp(argv[k], "--one-in") == 0 && k + 1 < argc && std::atoi(argv[k + 1]) > 0) {
      one_in = std::atoi(argv[++k]);
    } else if (std::strcmp(argv[k], "--kernel") == 0 && k + 1 < argc && is_known(argv[k + 1])) {
      kernel = argv[++k];
    } else if (std::strcmp(argv[k], "--jobs") == 0 && k + 1 < argc &&
               testing::parse_jobs(argv[k + 1], &jobs)) {
      ++k;
    } else {
      std::fprintf(stderr,
                   "usage: %s [--quick] [--one-in N] [--kernel NAME] [--jobs N], where NAME is one of\n",
                   argv[0]);
      for (const Kernel* known : all_kernels())
        std::fprintf(stderr, "  %s\n", qualified_name(*known).c_str());
      return 2;
    }
  }

  std::printf("best instruction set: %s\n", isa_name(best_isa()));
  if (kernel.empty()) {
    testing::test_geometry();
    testing::test_padding();
    testing::test_element_conversions();
    testing::test_planner();
    std::printf("core: %lld checks passed\n", static_cast<long long>(testing::checks_passed()));
  }
  testing::test_kernels(quick, one_in, kernel, jobs);
  return testing::conclude();
}
