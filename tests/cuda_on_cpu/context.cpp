#include "context.h"

#include <cstdint>
#include <cstring>

#if defined(CUDA_ON_CPU_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CUDA_ON_CPU_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__x86_64__)
// Saves the registers that a function must preserve, and the stack pointer, and loads those of the other
// side.
extern "C" void cuda_on_cpu_switch(void** saved_stack_pointer, void* next_stack_pointer);
asm(R"(
.text
.globl cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
#endif

namespace cuda_on_cpu {
namespace {

// The one that was suspended last: the sanitizer tells its stack to the one that comes after.
Context* suspended = nullptr;

}  // namespace

Context::Context(void (*entry)()) : stack_(new char[stack_bytes]), bottom_(stack_.get()), size_(stack_bytes) {
#if defined(__x86_64__)
  // As if `entry` had been called: its return address, which is never used, then its own address for `ret`,
  // then six registers.
  auto top = reinterpret_cast<uintptr_t>(stack_.get()) + stack_bytes;
  top -= top % 16;
  void** pointer = reinterpret_cast<void**>(top);
  *--pointer = nullptr;
  *--pointer = reinterpret_cast<void*>(entry);
  for (int k = 0; k < 6; ++k) *--pointer = nullptr;
  stack_pointer_ = pointer;
#else
  getcontext(&state_);
  state_.uc_stack.ss_sp = stack_.get();
  state_.uc_stack.ss_size = stack_bytes;
  makecontext(&state_, entry, 0);
#endif
#if defined(CUDA_ON_CPU_TSAN)
  fiber_ = __tsan_create_fiber(0);
#endif
}

Context::~Context() {
#if defined(CUDA_ON_CPU_TSAN)
  if (stack_ != nullptr) __tsan_destroy_fiber(fiber_);
#endif
}

void Context::switch_to(Context& next) {
  suspended = this;
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_start_switch_fiber(&fake_stack_, next.bottom_, next.size_);
#endif
#if defined(CUDA_ON_CPU_TSAN)
  if (fiber_ == nullptr) fiber_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(next.fiber_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
  cuda_on_cpu_switch(&stack_pointer_, next.stack_pointer_);
#else
  swapcontext(&state_, &next.state_);
#endif
  arrived();
}

void Context::arrived() {
#if defined(CUDA_ON_CPU_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &suspended->bottom_, &suspended->size_);
#endif
}

}  // namespace cuda_on_cpu
