// What libtorch can do and tch has no call for. Nothing here names CUDA's own headers: devices are reached through the
// interfaces that libtorch's CUDA library registers itself with, so that one build serves CPU and GPU.
//
// Each function returns a null pointer, or the message of an error, which the caller gives back to `amplify_free`.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

namespace {

template <typename F> char *told(F work) {
  try {
    work();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception that is no std::exception");
  }
}

std::vector<at::Tensor> listed(at::Tensor *const *tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; i++) list.push_back(*tensors[i]);
  return list;
}

} // namespace

extern "C" {

// A stream of a device, as libtorch takes it apart.
struct AmplifyStream {
  int64_t id;
  int8_t device;
};

void amplify_free(char *message) { free(message); }

char *amplify_allow_tf32() {
  return told([] { at::globalContext().setAllowTF32CuBLAS(true); });
}

// A step of AdamW on `count` parameters that took `steps` steps, this one included.
char *amplify_adamw(at::Tensor *const *parameters, at::Tensor *const *gradients, at::Tensor *const *first,
                    at::Tensor *const *second, size_t count, double steps, double rate, double beta1, double beta2,
                    double decay, double eps) {
  return told([&] {
    if (count == 0) return;
    auto step = at::full({}, steps, parameters[0]->options().dtype(at::kFloat).requires_grad(false));
    at::_fused_adamw_(listed(parameters, count), listed(gradients, count), listed(first, count), listed(second, count),
                      {}, std::vector<at::Tensor>(count, step), rate, beta1, beta2, decay, eps, false, false);
  });
}

// Copies one tensor into another. Between a device and pinned memory it only begins to.
char *amplify_begin_copy(at::Tensor *to, const at::Tensor *from) {
  return told([&] { to->copy_(*from, true); });
}

// A stream of a GPU's pool.
char *amplify_new_stream(int8_t device, AmplifyStream *out) {
  return told([&] {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    out->id = gpu.getStreamFromGlobalPool(c10::Device(c10::DeviceType::CUDA, device)).id();
    out->device = device;
  });
}

// Lets this thread's work go to a stream, and tells to which it went.
char *amplify_enter_stream(AmplifyStream stream, AmplifyStream *before) {
  return told([&] {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    gpu.setDevice(c10::Device(c10::DeviceType::CUDA, stream.device));
    auto old = gpu.exchangeStream(c10::Stream::unpack3(stream.id, stream.device, c10::DeviceType::CUDA));
    *before = {old.id(), old.device_index()};
  });
}

// Waits until a stream has done its work.
char *amplify_wait(AmplifyStream stream) {
  return told([&] {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    gpu.synchronizeStream(c10::Stream::unpack3(stream.id, stream.device, c10::DeviceType::CUDA));
  });
}

// The most bytes of a GPU that this process's tensors had at a time.
char *amplify_peak_bytes(int8_t device, int64_t *out) {
  return told([&] {
    auto *allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    *out = allocator->getDeviceStats(device).allocated_bytes[0].peak;
  });
}
}
