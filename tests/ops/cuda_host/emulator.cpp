// Runs the blocks of a kernel one after the other, the threads of a block as fibers.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "fiber_context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

// Small: AddressSanitizer clears its notes on a stack whenever it is entered.
constexpr size_t kStackBytes = 32 * 1024;
constexpr int kWarp = 32, kMaxThreads = 1024;

struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* fake_stack = nullptr;
  Barrier waiting = Barrier::kNone;
  bool done = false;
  uint64_t exchanged[2] = {}, site[2] = {};  // by turns, so that a shuffle needs one barrier
  int turn = 0;
};

struct State {
  std::vector<std::unique_ptr<Fiber>> fibers;
  Context scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  const std::function<void()>* kernel = nullptr;
  uint4* shared = nullptr;
  Order order = Order::kForward;
  std::mt19937 random;
  int multiprocessors = 132;
  const char *first_counted = nullptr, *last_counted = nullptr;
  int64_t additions = 0;
} state;

[[noreturn]] void fail(const char* message) {
  std::fprintf(stderr, "emulator: %s (block %u, thread %u)\n", message, blockIdx.x, threadIdx.x);
  std::abort();
}

void resume(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&state.scheduler_fake_stack, fiber.stack.get(), kStackBytes);
#endif
  switch_context(state.scheduler, fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(state.scheduler_fake_stack, nullptr, nullptr);
#endif
}

void back_to_scheduler(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fiber.done ? nullptr : &fiber.fake_stack, state.scheduler_stack,
                                 state.scheduler_stack_bytes);
#endif
  switch_context(fiber.context, state.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &state.scheduler_stack, &state.scheduler_stack_bytes);
#endif
  (*state.kernel)();
  Fiber& fiber = *state.fibers[threadIdx.x];
  fiber.done = true;
  back_to_scheduler(fiber);
}

void start(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack.get(), kStackBytes);
#endif
  fiber.waiting = Barrier::kNone;
  fiber.done = false;
  make_context(fiber.context, fiber.stack.get(), kStackBytes, run_thread);
}

// Lets threads [first, last) go on if all of them wait at a barrier of this kind. Returns whether it did.
bool release(int first, int last, Barrier barrier) {
  for (int i = first; i < last; ++i) {
    if (state.fibers[i]->waiting != barrier) return false;
  }
  for (int i = first; i < last; ++i) state.fibers[i]->waiting = Barrier::kNone;
  return true;
}

void run_block(int threads) {
  std::vector<int> order(threads);
  std::iota(order.begin(), order.end(), 0);
  if (state.order == Order::kBackward) std::reverse(order.begin(), order.end());
  for (int i = 0; i < threads; ++i) start(*state.fibers[i]);
  for (;;) {
    if (state.order == Order::kRandom) std::shuffle(order.begin(), order.end(), state.random);
    bool all_done = true, progress = false;
    for (const int thread : order) {
      Fiber& fiber = *state.fibers[thread];
      if (!fiber.done && fiber.waiting == Barrier::kNone) {
        threadIdx.x = thread;
        resume(fiber);
        progress = true;
      }
      all_done &= fiber.done;
    }
    if (all_done) return;
    for (int warp = 0; warp < threads; warp += kWarp) {
      progress |= release(warp, warp + kWarp, Barrier::kWarp) || release(warp, warp + kWarp, Barrier::kShuffle);
    }
    progress |= release(0, threads, Barrier::kBlock);
    if (!progress) fail("threads wait at different barriers, or for threads that have ended");
  }
}

}  // namespace

void set_order(Order order, unsigned int seed) {
  state.order = order;
  state.random.seed(seed);
}

uint4* shared_memory() { return state.shared; }

void wait_for_all(Barrier barrier) {
  Fiber& fiber = *state.fibers[threadIdx.x];
  fiber.waiting = barrier;
  back_to_scheduler(fiber);
}

uint64_t exchange(uint64_t bits, int source, uint64_t site) {
  Fiber& fiber = *state.fibers[threadIdx.x];
  const int turn = fiber.turn;
  fiber.turn = 1 - turn;
  fiber.exchanged[turn] = bits;
  fiber.site[turn] = site;
  wait_for_all(Barrier::kShuffle);
  // The other lane may be at the next shuffle already, which uses the other slot, but no further.
  const Fiber& other = *state.fibers[threadIdx.x / kWarp * kWarp + source];
  if (other.site[turn] != site) fail("lanes meet at different shuffles");
  return other.exchanged[turn];
}

void set_multiprocessors(int count) { state.multiprocessors = count; }

void count_additions(const void* first, const void* last) {
  state.first_counted = static_cast<const char*>(first);
  state.last_counted = static_cast<const char*>(last);
  state.additions = 0;
}
int64_t counted_additions() { return state.additions; }
void note_addition(const void* address) {
  const char* byte = static_cast<const char*>(address);
  state.additions += byte >= state.first_counted && byte < state.last_counted;
}

void launch(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  if (blocks < 1 || blocks > 2147483647 || threads < 1 || threads > kMaxThreads || threads % kWarp != 0) {
    fail("invalid launch");
  }
  if (shared_bytes < 0 || shared_bytes > 48 * 1024) fail("more shared memory than every GPU has");
  while (static_cast<int>(state.fibers.size()) < threads) state.fibers.push_back(std::make_unique<Fiber>());
  for (int i = 0; i < threads; ++i) state.fibers[i]->turn = 0;
  state.kernel = &kernel;
  blockDim.x = threads;
  gridDim.x = static_cast<unsigned int>(blocks);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned int>(block);
    // Of exactly this size, for AddressSanitizer, and not zero, as shared memory is not.
    state.shared = static_cast<uint4*>(std::malloc(shared_bytes));
    memset(state.shared, 0xff, shared_bytes);
    run_block(threads);
    std::free(state.shared);
    state.shared = nullptr;
  }
}

}  // namespace emulation

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = emulation::state.multiprocessors;
  return cudaSuccess;
}
