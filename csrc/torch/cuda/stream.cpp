#include "torch/cuda/stream.h"

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "torch/check.h"

namespace convext {
namespace {

using GetCurrentStream = AOTITorchError (*)(int32_t device_index, void** stream);

GetCurrentStream find_function() {
  // Only if it is there already: a second copy of torch's library would know nothing of the first one's
  // streams.
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  return reinterpret_cast<GetCurrentStream>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
}

GetCurrentStream function() {
  static const GetCurrentStream found = find_function();
  return found;
}

}  // namespace

bool torch_has_cuda() {
  return function() != nullptr;
}

void* current_stream(int32_t device) {
  check(torch_has_cuda(), "torch's current CUDA stream is not to be had: this torch was built without CUDA");
  void* stream = nullptr;
  check(function()(device, &stream) == AOTI_TORCH_SUCCESS,
        "torch does not give the current stream of cuda:", device);
  return stream;
}

}  // namespace convext
