// Chooses the CPU kernel: walk the ordered list, take the first that says yes, keep the reasons of the
// others.
#pragma once

#include <string>
#include <vector>

#include "core/kernel.h"
#include "core/rejection.h"

namespace convext {

// Every kernel of this build, in the order in which they are tried; the reference stands last and runs
// everything.
const std::vector<const Kernel*>& all_kernels();

// "implicit_gemm/avx2"
std::string qualified_name(const Kernel& kernel);

// The reason why `kernel` cannot run `problem` on this CPU, or nullptr.
Reason why_not(const Kernel& kernel, const ConvProblem& problem);

// Of each algorithm the build with the widest vectors that this CPU can run. The planner asks no other,
// unless that one says narrower_vectors_fit: as a rule, what leaves too many lanes of it empty is work for
// another algorithm, not for narrower vectors.
bool is_widest_build(const Kernel& kernel);

// The first of those that can run the problem. With a forced name ("implicit_gemm" or "implicit_gemm/avx2"):
// the first build of that name that can, or nullptr with `error` saying why none of them can run.
const Kernel* plan(const ConvProblem& problem, std::string* error);

// The kernels before `chosen` in the list, with the reasons why none of them runs the problem.
std::vector<Rejection> rejections(const ConvProblem& problem, const Kernel& chosen);

// Workers worth starting: 1 for problems so small that waking a thread costs more than it saves.
int useful_workers(const ConvProblem& problem, int threads);

}  // namespace convext
