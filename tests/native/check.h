// Counting checks, without a test framework: a failed check prints one line and the program goes on.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

namespace convext::testing {

// Counts one check; prints `what` if it failed. Returns `ok`.
bool check(bool ok, const std::string& what);

// The same, with a function that returns `what`: most checks pass, and their text is never read.
template <class What, class = std::enable_if_t<std::is_invocable_v<const What&>>>
bool check(bool ok, const What& what) {
  return check(ok, ok ? std::string() : what());
}

int64_t checks_passed();
int64_t checks_failed();

}  // namespace convext::testing
