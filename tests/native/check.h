// Counting checks, without a test framework: a failed check prints one line and the program goes on.
#pragma once

#include <cstdint>
#include <string>

namespace convext::testing {

// Counts one check; prints `what` if it failed. Returns `ok`.
bool check(bool ok, const std::string& what);

int64_t checks_passed();
int64_t checks_failed();

}  // namespace convext::testing
