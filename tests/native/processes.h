// Independent pieces of work in several processes: one of them that crashes does not take the others along.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace convext::testing {

struct Work {
  int64_t pieces = 0;
  // Process `process` does piece `piece`. What it finds is to be kept in memory that is shared
  // (shared_array.h); check() counts for all processes.
  std::function<void(int process, int64_t piece)> run;
  std::function<std::string(int64_t piece)> describe;
};

// Each of `processes` processes draws the next piece when it has done one; a single one is this one, for
// debuggers. A process that does not get to its end, or ends with an error that check() does not know of, as
// sanitizers have them, is a failed check.
void run_in_processes(int processes, const Work& work);

// Reads "--jobs N". False if N is not a number from 1 on.
bool parse_jobs(const char* text, int* jobs);

}  // namespace convext::testing
