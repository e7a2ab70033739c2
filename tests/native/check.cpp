#include "check.h"

#include <chrono>
#include <cstdio>

namespace convext::testing {
namespace {

// One broken kernel fails thousands of checks; the first lines tell what there is to know.
constexpr int64_t printed_failures = 40;
int64_t passed = 0;
int64_t failed = 0;
const auto start = std::chrono::steady_clock::now();

}  // namespace

bool check(bool ok, const std::string& what) {
  if (ok) {
    ++passed;
    return true;
  }
  ++failed;
  if (failed <= printed_failures) std::printf("FAIL %s\n", what.c_str());
  if (failed == printed_failures) std::printf("(further failures are only counted)\n");
  std::fflush(stdout);
  return false;
}

void add_checks(int64_t more_passed, int64_t more_failed) {
  passed += more_passed;
  failed += more_failed;
}

int64_t checks_passed() {
  return passed;
}

int64_t checks_failed() {
  return failed;
}

int conclude() {
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("%lld passed, %lld failed in %.1f s\n", static_cast<long long>(passed),
              static_cast<long long>(failed), took.count());
  return failed == 0 ? 0 : 1;
}

}  // namespace convext::testing
