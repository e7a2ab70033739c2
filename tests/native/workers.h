// Threads for kernels that are given several.
#pragma once

namespace convext::testing {

// An Executor's run_workers: body(context, worker) for worker 0 here, for each other one on a thread of its
// own. The threads stay for the next call: starting one costs much under emulators and sanitizers, and QEMU 7
// keeps 280 KB of every thread that has ended.
void run_workers(int workers, void (*body)(void*, int), void* context);

}  // namespace convext::testing
