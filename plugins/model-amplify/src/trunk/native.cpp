// What libtorch offers for a trunk and tch does not. As in `../native.cpp`, each function returns null or an error message.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_forward.h>
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

// Softmax attention within each sequence of rows, on a GPU. `q`, `k` and `v` are (rows, heads, size); sequence `i` has the rows
// from `offsets[i]` to `offsets[i + 1]`, at most `longest`. Both kernels have a derivative in libtorch.
char *amplify_attention_of_sequences(const at::Tensor *q, const at::Tensor *k, const at::Tensor *v,
                                     const at::Tensor *offsets, int64_t longest, at::Tensor **out) {
  return message_of([&] {
    if (q->scalar_type() == at::kBFloat16) {
      auto found = at::_flash_attention_forward(*q, *k, *v, *offsets, *offsets, longest, longest, 0.0, false, false);
      *out = new at::Tensor(std::get<0>(found));
      return;
    }
    // The sums of exponentials are for the derivative.
    const bool with_sums = at::GradMode::is_enabled();
    auto found = at::_efficient_attention_forward(q->unsqueeze(0), k->unsqueeze(0), v->unsqueeze(0), std::nullopt,
                                                  *offsets, *offsets, longest, longest, 0.0, 0, with_sums);
    *out = new at::Tensor(std::get<0>(found).squeeze(0));
  });
}
}
