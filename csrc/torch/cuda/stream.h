// torch's current stream. Its function lives in libtorch_cuda.so, to which a build beside a CPU-only torch
// cannot be linked; so it is looked up in the library that torch has loaded.
#pragma once

#include <cstdint>

namespace convext {

// Whether the torch of this process has such a library, and the function in it.
bool torch_has_cuda();

// A cudaStream_t. Throws std::runtime_error where torch has no CUDA.
void* current_stream(int32_t device);

}  // namespace convext
