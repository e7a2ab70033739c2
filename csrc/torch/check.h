#pragma once

#include <sstream>
#include <stdexcept>

namespace convext {

// Like STD_TORCH_CHECK, which would put file and line before the sentence.
template <class... Parts>
static inline void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

}  // namespace convext
