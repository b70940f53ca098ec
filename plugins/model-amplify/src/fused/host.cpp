// The kernels on the CPU, for the tests: `kernels.cu` compiled as C++. The threads of a block take turns from one
// `__syncthreads()` to the next one, in an order that alternates, so that a kernel which lacks one gives other results.

#define _XOPEN_SOURCE 700
// The fortified `longjmp` refuses to switch to another stack.
#undef _FORTIFY_SOURCE
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <tuple>
#include <vector>

#include "kernel_list.h"
#include "launcher.h"

namespace {

struct Place {
  unsigned x;
};

constexpr size_t STACK_BYTES = 1 << 16;

// A thread that computes its part of each block in turn. Only its start makes system calls; `swapcontext` would make them at
// each barrier.
struct Thread {
  std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
  ucontext_t start;
  jmp_buf barrier;
  bool has_started = false, done = false;
};

// A block that is being computed.
struct Block {
  Place thread, block, threads, blocks;
  float *shared;
  jmp_buf scheduler;
  std::vector<Thread> all;
  void (*kernel)(void **);
  void **arguments;
};

thread_local Block *current = nullptr;

void wait_for_block() {
  if (_setjmp(current->all[current->thread.x].barrier) == 0) _longjmp(current->scheduler, 1);
}

// What a thread runs: its part of each block. After the last block it is left waiting.
void run_thread() {
  for (;;) {
    current->kernel(current->arguments);
    current->all[current->thread.x].done = true;
    wait_for_block();
  }
}

// Runs a thread to its next barrier, or to its end. In a function of its own, since a jump spoils the caller's variables.
[[gnu::noinline]] void resume(Block &block) {
  if (_setjmp(block.scheduler) != 0) return;
  Thread &thread = block.all[block.thread.x];
  if (thread.has_started) _longjmp(thread.barrier, 1);
  thread.has_started = true;
  getcontext(&thread.start);
  thread.start.uc_stack.ss_sp = thread.stack.get();
  thread.start.uc_stack.ss_size = STACK_BYTES;
  makecontext(&thread.start, run_thread, 0);
  setcontext(&thread.start);
}

// Runs each thread to its next barrier, until all are at their end. A message if some wait for a barrier that others
// never reach.
const char *run_block(Block &block) {
  const unsigned threads = block.threads.x;
  for (Thread &thread : block.all) thread.done = false;
  for (unsigned turn = 0;; turn++) {
    unsigned at_end = 0;
    for (unsigned i = 0; i < threads; i++) {
      block.thread.x = (turn + block.block.x) % 2 == 0 ? i : threads - 1 - i;
      resume(block);
      at_end += block.all[block.thread.x].done;
    }
    if (at_end == threads) return nullptr;
    if (at_end > 0) return "some threads of a block wait for others that are at their end";
  }
}

} // namespace

#define __device__ inline
#define __global__
#define __launch_bounds__(threads)
#define __syncthreads wait_for_block
#define DYNAMIC_SHARED(name) float *name = current->shared
#define threadIdx current->thread
#define blockIdx current->block
#define blockDim current->threads
#define gridDim current->blocks

static inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

static inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

struct alignas(8) uint2 {
  unsigned x, y;
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

template <typename T> static void __stwb(T *to, const T &word) { std::memcpy(to, &word, sizeof word); }

static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

#include "kernels.cu"

namespace {

template <typename... Types, size_t... Numbers>
void call(void (*kernel)(Types...), void **arguments, std::index_sequence<Numbers...>) {
  kernel(*static_cast<Types *>(arguments[Numbers])...);
}

template <typename... Types> void call(void (*kernel)(Types...), void **arguments) {
  call(kernel, arguments, std::index_sequence_for<Types...>());
}

#define CALLER(name) [](void **arguments) { call(name, arguments); },
void (*const kernels[])(void **) = {AMPLIFY_KERNELS(CALLER)};

const char *launch(const AmplifyLauncher *, uint32_t kernel, uint32_t blocks, uint32_t threads, uint32_t shared_bytes,
                   void *, void **arguments) {
  if (blocks == 0 || threads == 0) return "invalid configuration";
  // What a kernel leaves there is not a number.
  std::vector<float> shared(shared_bytes / sizeof(float));
  Block block{};
  block.all = std::vector<Thread>(threads);
  block.threads.x = threads;
  block.blocks.x = blocks;
  block.shared = shared.data();
  block.kernel = kernels[kernel];
  block.arguments = arguments;
  Block *before = current;
  current = &block;
  const char *failure = nullptr;
  for (block.block.x = 0; block.block.x < blocks && failure == nullptr; block.block.x++) {
    shared.assign(shared.size(), NAN);
    failure = run_block(block);
  }
  current = before;
  return failure;
}

const AmplifyLauncher on_host = {launch, 8, -1};

} // namespace

extern "C" const AmplifyLauncher *amplify_host_launcher() { return &on_host; }
