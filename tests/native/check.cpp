#include "check.h"

#include <cstdio>

namespace convext::testing {
namespace {

// One broken kernel fails thousands of checks; the first lines tell what there is to know.
constexpr int64_t printed_failures = 40;
int64_t passed = 0;
int64_t failed = 0;

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

int64_t checks_passed() {
  return passed;
}

int64_t checks_failed() {
  return failed;
}

}  // namespace convext::testing
