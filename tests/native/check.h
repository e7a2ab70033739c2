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

// Checks of another process, which has printed what there was to print.
void add_checks(int64_t more_passed, int64_t more_failed);

int64_t checks_passed();
int64_t checks_failed();

// Prints the totals and how long the program ran. Returns its exit status.
int conclude();

}  // namespace convext::testing
