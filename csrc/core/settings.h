// Settings that belong to the process, not to a thread: autograd may run backward passes on threads of its
// own, which must not see other settings than the caller's. Every planner obeys them.
#pragma once

#include <string>

#include "core/problem.h"

namespace convext {

// Restricts the planner to kernels of this name ("grouped" or "grouped/avx2"); empty: no restriction.
void set_forced_kernel(const std::string& name);
std::string forced_kernel();
bool kernel_is_forced();  // the same without a lock, for every call

// The sentence for a forced kernel that cannot run; `reasons` says why.
std::string forced_kernel_cannot_run(const std::string& name, const std::string& reasons);

void set_float32_precision(Float32Precision precision);
Float32Precision float32_precision();

}  // namespace convext
