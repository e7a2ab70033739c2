// Tensors in the form that tensor cores are fed from: the channels of a group side by side, in whole vectors
// of 16 bytes. Those that are not stored so are copied into the workspace first, which costs a pass over
// their bytes and makes every problem, whatever its layout, channels and padding, one for the same kernel. No
// CUDA headers.
#pragma once

#include "cuda/kernel.h"

namespace convext {
namespace cuda {
namespace mma {

// The problem over the tensors that are read in the end, and where copies of the others lie.
struct Packing {
  ConvProblem problem;
  bool copies_input, copies_weight, copies_output;
  int64_t input_bytes, weight_bytes, output_bytes;  // of the copies; 0 if there is none
  int64_t weight_group;                             // numbers from the weights of a group to the next group's

  int64_t bytes() const { return flag_bytes + input_bytes + weight_bytes + output_bytes; }

  // The workspace begins with a number that is not 0 if a weight that was copied is not finite.
  static constexpr int64_t flag_bytes = 256;
};

// Of a problem that why_no_tiles accepts.
Reason why_no_packing(const ConvProblem& problem);

Packing packing_of(const ConvProblem& problem);

// Makes the copies. `data` becomes that of the packed problem, as far as it is read.
const char* launch_packing(const ConvProblem& problem, const Packing& packing, void* workspace,
                           ConvData* data, void* stream);

// Of a group.
inline int64_t result_channels(const ConvProblem& p) {
  return p.pass == Pass::grad_input ? in_channels_per_group(p) : out_channels_per_group(p);
}

inline int64_t round_up(int64_t number, int64_t multiple) {
  return (number + multiple - 1) / multiple * multiple;
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
