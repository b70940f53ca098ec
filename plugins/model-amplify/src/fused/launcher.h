// How the functions of `functions.cpp` queue kernels: on a GPU, or in tests on the CPU.

#pragma once

#include <cstdint>

extern "C" {

// The first member of what implements it.
struct AmplifyLauncher {
  // Queues a kernel of `kernel_list.h` on a CUDA stream. `arguments` has the address of each argument. Null, or a
  // message that nobody frees.
  const char *(*launch)(const AmplifyLauncher *self, uint32_t kernel, uint32_t blocks, uint32_t threads,
                        uint32_t shared_bytes, void *stream, void **arguments);
  // The threads that a block may have, a power of two.
  uint32_t most_threads;
  // The number of the GPU, which only its own `launch` reads.
  int32_t gpu;
};
}
