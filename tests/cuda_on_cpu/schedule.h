// How the threads of a block take turns. A kernel's result must not depend on it.
#pragma once

#include <cstdint>

namespace cuda_on_cpu {

enum class Schedule { forward, reverse, random };

// For all launches from now on, blocks included. A thread runs until it must wait for others.
void set_schedule(Schedule schedule, uint64_t seed);

const char* schedule_name(Schedule schedule);

}  // namespace cuda_on_cpu
