// What a CUDA kernel says of itself; the planner needs nothing else. No CUDA headers here: whatever chooses
// or explains kernels compiles without them.
#pragma once

#include <cstdint>

#include "core/kernel.h"
#include "core/problem.h"

namespace convext {

// What a kernel may ask of the device that it is to run on.
struct CudaDevice {
  int capability = 0;  // ten times the compute capability: 90 on Hopper
  int multiprocessors = 1;
  int64_t shared_bytes_per_block = 0;  // with opt-in
};

struct CudaKernel {
  const char* name;         // the algorithm, e.g. "depthwise"
  const char* description;  // one line for people

  Reason (*why_not)(const ConvProblem& problem, const CudaDevice& device);

  // Scratch in device memory; allocated by the caller, 256-byte aligned, uninitialised.
  int64_t (*workspace_bytes)(const ConvProblem& problem, const CudaDevice& device);

  // Queues work on the stream (a cudaStream_t) that writes every element of the problem's result. Neither
  // allocates nor waits, so that it can be captured in a graph. Returns nullptr, or what the runtime says
  // went wrong with the launch.
  const char* (*launch)(const ConvProblem& problem, const ConvData& data, void* workspace,
                        const CudaDevice& device, void* stream);
};

}  // namespace convext
