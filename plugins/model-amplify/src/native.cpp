// What libtorch offers and tch does not. No header of CUDA is included: GPUs are reached through the interfaces that
// libtorch's CUDA library registers itself with, so that one build serves CPU and GPU.
//
// Each function returns null, or an error message that the caller frees with `amplify_free`.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdlib>

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

// Copies one tensor into another. Between a GPU and pinned memory it returns before the copy is done.
char *amplify_begin_copy(at::Tensor *to, const at::Tensor *from) {
  return message_of([&] { to->copy_(*from, true); });
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

// Waits for all work of a stream.
char *amplify_wait(AmplifyStream stream) {
  return message_of([&] {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    gpu.synchronizeStream(c10::Stream::unpack3(stream.id, stream.device, c10::DeviceType::CUDA));
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
