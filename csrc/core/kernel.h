// What a kernel says of itself. The planner needs nothing else.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/executor.h"
#include "core/problem.h"

namespace convext {

// Why a kernel cannot run a problem, as a clause that completes "cannot run because ..."; nullptr: it can.
using Reason = const char*;

struct Kernel {
  const char* name;         // the algorithm, e.g. "implicit_gemm"
  Isa isa;                  // the instruction set that this build of it needs
  const char* description;  // one line for people

  Reason (*why_not)(const ConvProblem& problem);

  // Scratch that `run` needs with that many workers; 0 is common. Allocated by the caller, 64-byte aligned,
  // uninitialised.
  int64_t (*workspace_bytes)(const ConvProblem& problem, int workers);

  // Writes every element of the problem's result. Must not throw or allocate.
  void (*run)(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor);
};

}  // namespace convext
