#include "core/settings.h"

#include <atomic>
#include <mutex>

namespace convext {
namespace {

std::mutex forced_name_mutex;
std::string forced_name;
std::atomic<bool> is_forced{false};
std::atomic<Float32Precision> precision{Float32Precision::highest};

}  // namespace

void set_forced_kernel(const std::string& name) {
  const std::lock_guard<std::mutex> lock(forced_name_mutex);
  forced_name = name;
  is_forced.store(!name.empty(), std::memory_order_release);
}

std::string forced_kernel() {
  const std::lock_guard<std::mutex> lock(forced_name_mutex);
  return forced_name;
}

bool kernel_is_forced() {
  return is_forced.load(std::memory_order_acquire);
}

std::string forced_kernel_cannot_run(const std::string& name, const std::string& reasons) {
  return "kernel '" + name + "' was forced, but it cannot run this problem: " + reasons;
}

void set_float32_precision(Float32Precision value) {
  precision.store(value, std::memory_order_relaxed);
}

Float32Precision float32_precision() {
  return precision.load(std::memory_order_relaxed);
}

}  // namespace convext
