// What the runtime says of the devices of this machine. No CUDA headers here.
#pragma once

#include <string>

#include "cuda/kernel.h"

namespace convext {
namespace cuda {

// The properties of a device, asked for once; nullptr, with what the runtime says in `error`, if it cannot be
// used.
const CudaDevice* find_device(int index, std::string* error);

// Makes the device current for this thread and this module's runtime. Returns nullptr or what went wrong.
const char* select_device(int index);

// 13000 is CUDA 13.0. That of the driver is 0 where there is none.
int runtime_version();
int driver_version();

}  // namespace cuda
}  // namespace convext
