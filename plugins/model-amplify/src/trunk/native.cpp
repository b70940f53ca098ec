// What libtorch offers for a trunk and tch does not. As in `../native.cpp`, each function returns null or an error message.

#include <torch/csrc/autograd/autograd.h>

#include "../native.h"

extern "C" {

// Writes the gradients of `count` inputs to `out`, from that of a result of theirs. One on which the result does not depend
// is undefined. The caller owns them.
char *amplify_gradients(const at::Tensor *of, const at::Tensor *d_of, at::Tensor *const *inputs, size_t count,
                        at::Tensor **out) {
  return message_of([&] {
    auto found = torch::autograd::grad({*of}, list(inputs, count), {*d_of}, std::nullopt, false, true);
    for (size_t i = 0; i < count; i++) out[i] = new at::Tensor(found[i]);
  });
}
}
