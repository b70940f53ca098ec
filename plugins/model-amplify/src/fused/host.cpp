// The kernels on the CPU, for the tests: `kernels.cu` compiled as C++. The threads of a block take turns from one
// `__syncthreads()` to the next one, in an order that alternates, so that a kernel which lacks one gives other results.

#define _XOPEN_SOURCE 700
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <vector>

#include "kernel_list.h"
#include "launcher.h"

namespace {

struct Place {
  unsigned x;
};

// A block that is being computed.
struct Block {
  Place thread, block, threads, blocks;
  float *shared;
  ucontext_t scheduler;
  std::vector<ucontext_t> contexts;
  std::vector<bool> done;
  void (*kernel)(void **);
  void **arguments;
};

thread_local Block *current = nullptr;

void wait_for_block() { swapcontext(&current->contexts[current->thread.x], &current->scheduler); }

// A thread of the block, from its start to its end.
void run_thread() {
  current->kernel(current->arguments);
  current->done[current->thread.x] = true;
}

// Runs each thread to its next barrier, until all are at their end. A message if some wait for a barrier that others
// never reach.
const char *run_block(Block &block, std::vector<std::vector<char>> &stacks) {
  const unsigned threads = block.threads.x;
  block.contexts.assign(threads, {});
  block.done.assign(threads, false);
  for (unsigned i = 0; i < threads; i++) {
    getcontext(&block.contexts[i]);
    block.contexts[i].uc_stack.ss_sp = stacks[i].data();
    block.contexts[i].uc_stack.ss_size = stacks[i].size();
    block.contexts[i].uc_link = &block.scheduler;
    makecontext(&block.contexts[i], run_thread, 0);
  }
  for (unsigned turn = 0;; turn++) {
    unsigned at_end = 0;
    for (unsigned i = 0; i < threads; i++) {
      block.thread.x = (turn + block.block.x) % 2 == 0 ? i : threads - 1 - i;
      swapcontext(&block.scheduler, &block.contexts[block.thread.x]);
      at_end += block.done[block.thread.x];
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
  std::vector<std::vector<char>> stacks(threads, std::vector<char>(1 << 16));
  Block block{};
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
    failure = run_block(block, stacks);
  }
  current = before;
  return failure;
}

const AmplifyLauncher on_host = {launch, 8, -1};

} // namespace

extern "C" const AmplifyLauncher *amplify_host_launcher() { return &on_host; }
