// Switching between stacks: what a fiber needs. A few instructions on x86-64, ucontext elsewhere.
#pragma once

#include <cstddef>
#include <memory>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

// A point of execution on a stack, suspended or running. The first one of a thread is the thread itself.
class Context {
 public:
  Context() = default;
  // Enters `entry` when it is first switched to; `entry` must never return.
  explicit Context(void (*entry)());
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Suspends this one, which must be the running one, and resumes `next`.
  void switch_to(Context& next);

  // The first thing to be called on a new stack.
  void arrived();

 private:
  static constexpr size_t stack_bytes = 256 * 1024;

  std::unique_ptr<char[]> stack_;
#if defined(__x86_64__)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t state_{};
#endif
  // The sanitizers keep books of the stacks.
  [[maybe_unused]] void* fake_stack_ = nullptr;
  [[maybe_unused]] const void* bottom_ = nullptr;
  [[maybe_unused]] size_t size_ = 0;
  [[maybe_unused]] void* fiber_ = nullptr;
};

}  // namespace cuda_on_cpu
