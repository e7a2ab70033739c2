// The operators in the form that torch's dispatcher calls. Only torch's stable ABI is used, so one build runs
// on every torch from 2.10 on.
#pragma once

#include <torch/csrc/stable/library.h>

namespace convext {

// Registers the passes of passes.h, for the device that the library is opened for.
void implement_operators(torch::stable::detail::StableLibrary& library);

}  // namespace convext
