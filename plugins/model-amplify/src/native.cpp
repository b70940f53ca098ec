// What libtorch offers and tch does not. No header of CUDA is included: GPUs are reached through the interfaces that
// libtorch's CUDA library registers itself with, so that one build serves CPU and GPU.
//
// Each function returns null, or an error message that the caller frees with `amplify_free`.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/env.h>

#include <cstdlib>
#include <new>

#include "native.h"

extern "C" {

// A stream's parts in libtorch.
struct AmplifyStream {
  int64_t id;
  int8_t device;
};

void amplify_free(char *message) { free(message); }

char *amplify_allow_tf32() {
  return message_of([] { at::globalContext().setAllowTF32CuBLAS(true); });
}

// Switches deterministic algorithms of GPUs on or off. cuBLAS and libtorch read the variable when they first compute.
char *amplify_set_deterministic(bool on) {
  return message_of([&] {
    if (on) c10::utils::set_env("CUBLAS_WORKSPACE_CONFIG", ":4096:8", false);
    at::globalContext().setDeterministicAlgorithms(on, false);
    // All memory is written before it is read.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

bool amplify_is_deterministic() { return at::globalContext().deterministicAlgorithms(); }

// AdamW's step number `step`, from 1, of `count` parameters.
char *amplify_adamw(at::Tensor *const *parameters, at::Tensor *const *gradients, at::Tensor *const *first,
                    at::Tensor *const *second, size_t count, double step, double rate, double beta1, double beta2,
                    double decay, double eps) {
  return message_of([&] {
    if (count == 0) return;
    auto steps = at::full({}, step, parameters[0]->options().dtype(at::kFloat).requires_grad(false));
    at::_fused_adamw_(list(parameters, count), list(gradients, count), list(first, count), list(second, count), {},
                      std::vector<at::Tensor>(count, steps), rate, beta1, beta2, decay, eps, false, false);
  });
}

// The same with the step's number and the rate on the device, in fp32.
char *amplify_adamw_on_device(at::Tensor *const *parameters, at::Tensor *const *gradients, at::Tensor *const *first,
                              at::Tensor *const *second, size_t count, const at::Tensor *step, const at::Tensor *rate,
                              double beta1, double beta2, double decay, double eps) {
  return message_of([&] {
    if (count == 0) return;
    at::_fused_adamw_(list(parameters, count), list(gradients, count), list(first, count), list(second, count), {},
                      std::vector<at::Tensor>(count, *step), *rate, beta1, beta2, decay, eps, false, false);
  });
}

// The sum of the squares of all elements, as a double on the tensors' device.
char *amplify_squared_norm(at::Tensor *const *tensors, size_t count, at::Tensor **out) {
  return message_of([&] {
    c10::NoGradGuard guard;
    auto norms = at::_foreach_norm(list(tensors, count), 2, at::kDouble);
    *out = new at::Tensor(at::stack(norms).square().sum());
  });
}

// Multiplies all elements by a number on the tensors' device.
char *amplify_scale(at::Tensor *const *tensors, size_t count, const at::Tensor *factor) {
  return message_of([&] {
    c10::NoGradGuard guard;
    at::_foreach_mul_(list(tensors, count), *factor);
  });
}

// The elements from the start of one tensor to that of another in the same memory; -1 if there is no such number, or one of them
// has its elements in another order.
int64_t amplify_distance(const at::Tensor *from, const at::Tensor *to) {
  const bool same = from->storage().is_alias_of(to->storage()) && from->scalar_type() == to->scalar_type();
  return same && from->is_contiguous() && to->is_contiguous() ? to->storage_offset() - from->storage_offset() : -1;
}

// Copies each tensor into another one of its shape.
char *amplify_copy_all(at::Tensor *const *to, at::Tensor *const *from, size_t count) {
  return message_of([&] {
    c10::NoGradGuard guard;
    at::_foreach_copy_(list(to, count), list(from, count));
  });
}

// Pinned memory, or ordinary memory where there is no GPU, for this many floats.
char *amplify_host_memory(int64_t count, bool pinned, at::Tensor **out) {
  return message_of([&] {
    *out = new at::Tensor(at::empty({count}, at::TensorOptions().dtype(at::kFloat).pinned_memory(pinned)));
  });
}

// A copy on a GPU of a tensor on the host, by way of pinned memory. It returns before the copy is done.
char *amplify_to_gpu(const at::Tensor *from, int8_t device, at::Tensor **out) {
  return message_of([&] {
    c10::NoGradGuard guard;
    auto pinned = at::empty(from->sizes(), from->options().pinned_memory(true));
    pinned.copy_(*from);
    *out = new at::Tensor(pinned.to(at::Device(at::kCUDA, device), pinned.scalar_type(), true));
  });
}

// Copies one tensor into another. Between a GPU and pinned memory it returns before the copy is done.
char *amplify_begin_copy(at::Tensor *to, const at::Tensor *from) {
  return message_of([&] { to->copy_(*from, true); });
}

// The functions of libtorch's class of CUDA graphs, version 2.11, which CUDA's library has.
struct AmplifyGraphFunctions {
  void (*construct)(void *graph, bool keep);
  void (*destroy)(void *graph);
  void (*begin)(void *graph, c10::MempoolId_t pool, int mode);
  void (*end)(void *graph);
  void (*replay)(void *graph);
  c10::MempoolId_t (*pool)();
};

struct AmplifyGraphPool {
  unsigned long long first, second;
};

char *amplify_graph_pool(const AmplifyGraphFunctions *of, AmplifyGraphPool *out) {
  return message_of([&] {
    auto pool = of->pool();
    *out = {pool.first, pool.second};
  });
}

// Begins to record a graph of this thread's stream.
char *amplify_graph_begin(const AmplifyGraphFunctions *of, AmplifyGraphPool pool, void **out) {
  return message_of([&] {
    // More than the class has, whose size is in a header that needs CUDA's.
    void *graph = std::aligned_alloc(64, 4096);
    if (!graph) throw std::bad_alloc();
    std::memset(graph, 0, 4096);
    try {
      of->construct(graph, false);
    } catch (...) {
      std::free(graph);
      throw;
    }
    try {
      // `cudaStreamCaptureModeThreadLocal`: other threads may allocate meanwhile.
      of->begin(graph, {pool.first, pool.second}, 1);
    } catch (...) {
      of->destroy(graph);
      std::free(graph);
      throw;
    }
    *out = graph;
  });
}

char *amplify_graph_end(const AmplifyGraphFunctions *of, void *graph) {
  return message_of([&] { of->end(graph); });
}

char *amplify_graph_replay(const AmplifyGraphFunctions *of, void *graph) {
  return message_of([&] { of->replay(graph); });
}

void amplify_graph_free(const AmplifyGraphFunctions *of, void *graph) {
  of->destroy(graph);
  std::free(graph);
}

// Takes a stream from a GPU's pool.
char *amplify_new_stream(int8_t device, AmplifyStream *out) {
  return message_of([&] {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    out->id = gpu.getStreamFromGlobalPool(c10::Device(c10::DeviceType::CUDA, device)).id();
    out->device = device;
  });
}

// Makes a stream this thread's current one, and returns the one before.
char *amplify_enter_stream(AmplifyStream stream, AmplifyStream *previous) {
  return message_of([&] {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    gpu.setDevice(c10::Device(c10::DeviceType::CUDA, stream.device));
    auto old = gpu.exchangeStream(c10::Stream::unpack3(stream.id, stream.device, c10::DeviceType::CUDA));
    *previous = {old.id(), old.device_index()};
  });
}

// Waits for all work of this thread's current stream on a GPU.
char *amplify_wait(int8_t device) {
  return message_of([&] {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    gpu.synchronizeStream(gpu.getStream(c10::Device(c10::DeviceType::CUDA, device)));
  });
}

// The bytes of a GPU that new tensors can have: what the driver has left, and what libtorch caches.
char *amplify_free_bytes(int8_t device, int64_t *out) {
  return message_of([&] {
    auto *allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    auto stats = allocator->getDeviceStats(device);
    auto cached = stats.reserved_bytes[0].current - stats.allocated_bytes[0].current;
    *out = static_cast<int64_t>(allocator->getMemoryInfo(device).first) + cached;
  });
}

// The most bytes of a GPU that this process's tensors used at a time.
char *amplify_peak_bytes(int8_t device, int64_t *out) {
  return message_of([&] {
    auto *allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    *out = allocator->getDeviceStats(device).allocated_bytes[0].peak;
  });
}

// Returns the GPU memory that libtorch caches for later tensors.
char *amplify_empty_cache() {
  return message_of([] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}
}
