// Where a fiber stopped, and the change from one fiber to another.
#pragma once

#include <cstddef>
#include <cstdint>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation {

#if defined(__x86_64__)

// What ucontext does, without the signal mask: saving it is a system call, which took most of the emulator's time.
struct Context {
  void* stack_pointer = nullptr;
};

extern "C" void emulation_switch_stack(void** from, void* to);
asm(R"(
  .text
  .type emulation_switch_stack, @function
emulation_switch_stack:
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
  .size emulation_switch_stack, . - emulation_switch_stack
)");

// `entry` must not return.
inline void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  constexpr int kSaved = 6;  // registers that a function must preserve
  auto* top = reinterpret_cast<uint64_t*>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15});
  *--top = 0;  // the return address of `entry`: the stack is aligned as after a call
  *--top = reinterpret_cast<uint64_t>(entry);
  for (int i = 0; i < kSaved; ++i) *--top = 0;
  context.stack_pointer = top;
}

inline void switch_context(Context& from, const Context& to) {
  emulation_switch_stack(&from.stack_pointer, to.stack_pointer);
}

#else

using Context = ucontext_t;

inline void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

inline void switch_context(Context& from, const Context& to) { swapcontext(&from, &to); }

#endif

}  // namespace emulation
