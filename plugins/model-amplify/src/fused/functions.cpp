// The fused kernels as functions with a derivative. As in `../native.cpp`, each function for Rust returns null or an
// error message.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "../native.h"
#include "kernel_list.h"
#include "launcher.h"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

#define NUMBER(name) name,
enum Kernel : uint32_t { AMPLIFY_KERNELS(NUMBER) kernel_count };
#define NAME(name) #name,
const char *const names[] = {AMPLIFY_KERNELS(NAME)};

// As `kernels.cu` declares them.
struct Heads {
  void *data;
  long long batch, position, head;
};
struct HeadsList {
  Heads at[3];
};

// The most blocks of a launch, which take rows in turn. It is the same on every GPU, and so are the sums of the norm's
// derivative.
constexpr int64_t most_blocks = 1 << 16, most_blocks_of_sums = 1024;
// The most columns whose sums are in shared memory.
constexpr int64_t most_columns_in_shared = 8192;

bool is_bf16(const Tensor &x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
              "fused kernels compute in fp32 and bf16, not in ", x.scalar_type());
  return x.scalar_type() == at::kBFloat16;
}

// The kernel for this type and width, of those that begin with `first`.
Kernel of_type(Kernel first, bool bf16, bool wide) { return static_cast<Kernel>(first + 2 * bf16 + wide); }

// The columns that a wide kernel computes at once, by the type of what it reads first.
int64_t width_of(bool bf16) { return bf16 ? 8 : 4; }

// Whether a wide kernel can read the memory of a tensor, if it is defined.
bool is_aligned(const Tensor &x, int64_t width) {
  return !x.defined() ||
         reinterpret_cast<uintptr_t>(x.const_data_ptr()) % std::min<int64_t>(16, width * x.element_size()) == 0;
}

bool are_aligned(std::initializer_list<Tensor> tensors, int64_t width) {
  return std::all_of(tensors.begin(), tensors.end(), [&](const Tensor &x) { return is_aligned(x, width); });
}

// The elements, or null of an undefined tensor.
void *data_of(const Tensor &x) { return x.defined() ? const_cast<void *>(x.const_data_ptr()) : nullptr; }

// The threads of a block for this many packs of columns.
uint32_t threads_for(const AmplifyLauncher &launcher, int64_t packs) {
  return std::min<uint32_t>(packs <= 256 ? 64 : packs <= 1024 ? 128 : 256, launcher.most_threads);
}

// Queues a kernel on the current stream of the device of `on`. The arguments have the types that the kernel declares.
template <typename... Arguments>
void launch(const AmplifyLauncher &launcher, const Tensor &on, Kernel kernel, int64_t blocks, uint32_t threads,
            size_t shared_floats, Arguments... arguments) {
  void *stream = nullptr;
  if (on.is_cuda()) {
    c10::impl::VirtualGuardImpl gpu(c10::DeviceType::CUDA);
    stream = gpu.getStreamNativeHandle(gpu.getStream(on.device()));
  }
  void *addresses[] = {&arguments...};
  const char *failure = launcher.launch(&launcher, kernel, static_cast<uint32_t>(blocks), threads,
                                        static_cast<uint32_t>(shared_floats * sizeof(float)), stream, addresses);
  TORCH_CHECK(failure == nullptr, "the fused kernel `", names[kernel], "` failed: ", failure);
}

int64_t address(const AmplifyLauncher *launcher) { return reinterpret_cast<int64_t>(launcher); }

// What a function's derivative needs besides tensors.
const AmplifyLauncher &launcher_of(AutogradContext *ctx) {
  TORCH_CHECK(!at::GradMode::is_enabled(), "fused kernels have no second derivative");
  return *reinterpret_cast<const AmplifyLauncher *>(ctx->saved_data["launcher"].toInt());
}

struct SwiGlu : Function<SwiGlu> {
  static Tensor forward(AutogradContext *ctx, const Tensor &input, int64_t launcher) {
    TORCH_CHECK(input.dim() > 0 && input.size(-1) % 2 == 0, "SwiGLU takes rows of two halves");
    auto ab = input.contiguous();
    auto shape = ab.sizes().vec();
    const int64_t n = shape.back() /= 2;
    auto out = at::empty(shape, ab.options());
    ctx->saved_data["launcher"] = launcher;
    ctx->save_for_backward({ab});
    if (out.numel() == 0) return out;
    const auto &with = *reinterpret_cast<const AmplifyLauncher *>(launcher);
    const bool bf16 = is_bf16(ab);
    const int64_t rows = out.numel() / n, width = width_of(bf16);
    const bool wide = n % width == 0 && are_aligned({ab, out}, width);
    launch(with, ab, of_type(swiglu_f32, bf16, wide), std::min(rows, most_blocks),
           threads_for(with, wide ? n / width : n), 0, data_of(ab), data_of(out), static_cast<long long>(rows),
           static_cast<int>(n));
    return out;
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &d_out) {
    const auto &with = launcher_of(ctx);
    const auto ab = ctx->get_saved_variables()[0], d = d_out[0].contiguous();
    auto d_ab = at::empty_like(ab);
    if (ab.numel() == 0) return {d_ab, Tensor()};
    const bool bf16 = is_bf16(ab);
    const int64_t n = d.size(-1), rows = d.numel() / n, width = width_of(bf16);
    const bool wide = n % width == 0 && are_aligned({d, ab, d_ab}, width);
    launch(with, ab, of_type(swiglu_backward_f32, bf16, wide), std::min(rows, most_blocks),
           threads_for(with, wide ? n / width : n), 0, data_of(d), data_of(ab), data_of(d_ab),
           static_cast<long long>(rows), static_cast<int>(n));
    return {d_ab, Tensor()};
  }
};

// Rotates two tensors of (…, length, heads, size), and copies a third one, if there is one. `table` is (length, size)
// in fp32.
void rotate_into(const AmplifyLauncher &with, variable_list from, const variable_list &to, const Tensor &table,
                 float sign) {
  const auto &first = to[0];
  TORCH_CHECK(first.dim() >= 3, "heads have a position and a size");
  if (first.numel() == 0) return;
  const int64_t size = first.size(-1), heads = first.size(-2), length = first.size(-3);
  TORCH_CHECK(first.dim() <= 4 && size % 2 == 0 && table.numel() == length * size,
              "the angles are those of other rows");
  HeadsList in{}, out{};
  const bool bf16 = is_bf16(first);
  const int64_t width = width_of(bf16);
  bool wide = size % width == 0 && is_aligned(table, width);
  auto heads_of = [&](const Tensor &x) {
    const int64_t batch = x.dim() == 4 ? x.stride(0) : 0;
    for (auto stride : {batch, x.stride(-3), x.stride(-2)}) wide = wide && stride % width == 0;
    wide = wide && is_aligned(x, width);
    return Heads{data_of(x), batch, x.stride(-3), x.stride(-2)};
  };
  for (size_t i = 0; i < from.size(); i++) {
    TORCH_CHECK(from[i].sizes() == first.sizes() && from[i].scalar_type() == first.scalar_type(),
                "heads of several shapes");
    if (from[i].stride(-1) != 1) from[i] = from[i].contiguous();
    in.at[i] = heads_of(from[i]);
    out.at[i] = heads_of(to[i]);
  }
  const int64_t rows = first.numel() / (heads * size), packs = heads * size / (wide ? width : 2);
  launch(with, first, of_type(rotate_f32, bf16, wide), std::min(rows, most_blocks), threads_for(with, packs), 0, in,
         out, data_of(table), static_cast<long long>(rows), static_cast<long long>(length), static_cast<int>(heads),
         static_cast<int>(size), sign);
}

// The rotations as the kernel reads them, from complex ones of (length, 1, size / 2).
Tensor table_of(const Tensor &angles) { return at::view_as_real(angles).contiguous(); }

struct Rotate : Function<Rotate> {
  static variable_list forward(AutogradContext *ctx, const Tensor &q, const Tensor &k, const Tensor &angles,
                               int64_t launcher) {
    auto table = table_of(angles);
    ctx->saved_data["launcher"] = launcher;
    ctx->save_for_backward({table});
    variable_list out = {at::empty(q.sizes(), q.options()), at::empty(k.sizes(), k.options())};
    rotate_into(*reinterpret_cast<const AmplifyLauncher *>(launcher), {q, k}, out, table, 1);
    return out;
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &d) {
    const auto &with = launcher_of(ctx);
    variable_list out = {at::empty(d[0].sizes(), d[0].options()), at::empty(d[1].sizes(), d[1].options())};
    rotate_into(with, d, out, ctx->get_saved_variables()[0], -1);
    return {out[0], out[1], Tensor(), Tensor()};
  }
};

// Queries, keys and values of (…, 3 · heads · size), as views of (…, heads, size).
variable_list parts_of(const Tensor &packed, int64_t heads) {
  auto shape = packed.sizes().vec();
  const int64_t size = shape.back() / 3;
  shape.back() = heads;
  shape.push_back(size / heads);
  variable_list parts;
  for (int64_t i = 0; i < 3; i++) parts.push_back(packed.narrow(-1, i * size, size).view(shape));
  return parts;
}

struct RotatePacked : Function<RotatePacked> {
  static variable_list forward(AutogradContext *ctx, const Tensor &input, const Tensor &angles, int64_t heads,
                               int64_t launcher) {
    auto packed = input.contiguous();
    auto table = table_of(angles);
    ctx->saved_data["launcher"] = launcher;
    ctx->save_for_backward({table});
    auto parts = parts_of(packed, heads);
    // The values are read where they are. What a function returns must not be a view of what it got.
    auto values = at::empty({0}, packed.options());
    values.set_(packed.storage(), parts[2].storage_offset(), parts[2].sizes(), parts[2].strides());
    variable_list out = {at::empty(parts[0].sizes(), packed.options()), at::empty(parts[1].sizes(), packed.options()),
                         values};
    rotate_into(*reinterpret_cast<const AmplifyLauncher *>(launcher), {parts[0], parts[1]}, out, table, 1);
    return out;
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &d) {
    const auto &with = launcher_of(ctx);
    auto shape = d[0].sizes().vec();
    const int64_t size = shape.back(), heads = shape[shape.size() - 2];
    shape.pop_back();
    shape.back() = 3 * heads * size;
    auto d_packed = at::empty(shape, d[0].options());
    rotate_into(with, d, parts_of(d_packed, heads), ctx->get_saved_variables()[0], -1);
    return {d_packed, Tensor(), Tensor(), Tensor()};
  }
};

// The kernel for these types of `x`, `r` and `y`, of those that begin with `first`.
Kernel of_types(Kernel first, bool x, bool r, bool y, bool wide) {
  return static_cast<Kernel>(first + 2 * ((x ? 4 : 2 * r) + y) + wide);
}

// `sum = x + r`, or `x` without `r`, and its norm in the type `kind`.
struct AddNorm : Function<AddNorm> {
  static variable_list forward(AutogradContext *ctx, const Tensor &x, const std::optional<Tensor> &addend,
                               const Tensor &w, double eps, at::ScalarType kind, int64_t launcher) {
    const auto &with = *reinterpret_cast<const AmplifyLauncher *>(launcher);
    auto in = x.contiguous(), weight = w.contiguous();
    auto r = addend ? addend->contiguous() : Tensor();
    const bool bf16 = is_bf16(in), r_bf16 = r.defined() ? is_bf16(r) : bf16;
    TORCH_CHECK(!r.defined() || r.sizes() == in.sizes(), "a sum takes two tensors of one shape");
    TORCH_CHECK(weight.dim() == 1 && in.dim() > 0 && weight.numel() == in.size(-1),
                "a norm takes a weight for each column");
    TORCH_CHECK(!bf16 || r_bf16, "a sum in bf16 takes an addend in bf16");
    TORCH_CHECK(weight.scalar_type() == at::kFloat, "the weight of a norm is fp32");
    auto sum = r.defined() ? at::empty_like(in) : x;
    auto y = at::empty(in.sizes(), in.options().dtype(kind));
    const int64_t n = in.size(-1), rows = n == 0 ? 0 : in.numel() / n;
    auto scale = at::empty({rows}, in.options().dtype(at::kFloat));
    if (rows > 0) {
      const int64_t width = width_of(bf16);
      const bool wide =
          n % width == 0 && are_aligned({in, r, weight, y}, width) && (!r.defined() || is_aligned(sum, width));
      const auto threads = threads_for(with, wide ? n / width : n);
      launch(with, in, of_types(norm_f32_f32_f32, bf16, r_bf16, is_bf16(y), wide), std::min(rows, most_blocks), threads,
             threads, data_of(in), data_of(r), r.defined() ? data_of(sum) : nullptr, data_of(weight), data_of(y),
             data_of(scale), static_cast<long long>(rows), static_cast<int>(n), static_cast<float>(eps));
    }
    ctx->saved_data["launcher"] = launcher;
    ctx->saved_data["addend"] = r.defined() ? r_bf16 ? 2 : 1 : 0;
    ctx->save_for_backward({r.defined() ? sum : in, weight, scale});
    return {sum, y};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &d) {
    const auto &with = launcher_of(ctx);
    const auto saved = ctx->get_saved_variables();
    const auto &sum = saved[0], &weight = saved[1], &scale = saved[2];
    const auto d_sum = d[0].contiguous(), d_y = d[1].contiguous();
    const int64_t addend = ctx->saved_data["addend"].toInt(), n = sum.size(-1), rows = scale.numel();
    const bool bf16 = is_bf16(sum), r_bf16 = addend == 0 ? bf16 : addend == 2;
    const int64_t blocks = std::min(rows, most_blocks_of_sums);
    auto d_x = at::empty_like(sum);
    auto d_r = addend != 0 && r_bf16 != bf16 ? at::empty(sum.sizes(), sum.options().dtype(at::kBFloat16)) : Tensor();
    auto d_w = Tensor();
    if (ctx->needs_input_grad(addend == 0 ? 1 : 2)) d_w = at::empty({blocks, n}, weight.options());
    if (rows > 0) {
      const int64_t width = width_of(bf16);
      const bool wide = n % width == 0 && are_aligned({d_y, d_sum, sum, weight, d_x, d_r, d_w}, width);
      const bool in_shared = d_w.defined() && n <= most_columns_in_shared;
      const auto threads = threads_for(with, wide ? n / width : n);
      launch(with, sum, of_types(norm_backward_f32_f32_f32, bf16, r_bf16, is_bf16(d_y), wide), blocks, threads,
             threads + (in_shared ? n : 0), data_of(d_y), data_of(d_sum), data_of(sum), data_of(weight), data_of(scale),
             data_of(d_x), data_of(d_r), data_of(d_w), static_cast<long long>(rows), static_cast<int>(n),
             static_cast<int>(in_shared));
    }
    if (d_w.defined()) d_w = d_w.sum(0);
    return {d_x, addend == 0 ? Tensor() : d_r.defined() ? d_r : d_x, d_w, Tensor(), Tensor(), Tensor()};
  }
};

} // namespace

extern "C" {

// The name of a kernel, or null of a number that none has.
const char *amplify_kernel_name(size_t number) { return number < kernel_count ? names[number] : nullptr; }

// SiLU(a) · b of (…, 2 n), where a is the first half and b the second.
char *amplify_swiglu(const AmplifyLauncher *launcher, const Tensor *ab, Tensor **out) {
  return message_of([&] { *out = new Tensor(SwiGlu::apply(*ab, address(launcher))); });
}

// Rotates queries and keys, (…, length, heads, size), by the angles of their positions, (length, 1, size / 2).
char *amplify_rotate(const AmplifyLauncher *launcher, const Tensor *q, const Tensor *k, const Tensor *angles,
                     Tensor **out) {
  return message_of([&] {
    auto rotated = Rotate::apply(*q, *k, *angles, address(launcher));
    for (size_t i = 0; i < 2; i++) out[i] = new Tensor(rotated[i]);
  });
}

// The same for the product of a single layer, (…, length, 3 · heads · size). Writes queries, keys and values.
char *amplify_rotate_packed(const AmplifyLauncher *launcher, const Tensor *packed, int64_t heads, const Tensor *angles,
                            Tensor **out) {
  return message_of([&] {
    auto rotated = RotatePacked::apply(*packed, *angles, heads, address(launcher));
    for (size_t i = 0; i < 3; i++) out[i] = new Tensor(rotated[i]);
  });
}

// x + r and its RMSNorm, or x and its norm if `r` is null. The norm is in bfloat16 or in fp32.
char *amplify_add_norm(const AmplifyLauncher *launcher, const Tensor *x, const Tensor *r, const Tensor *w, double eps,
                       bool to_bf16, Tensor **out) {
  return message_of([&] {
    auto addend = r == nullptr ? std::nullopt : std::optional<Tensor>(*r);
    auto both = AddNorm::apply(*x, addend, *w, eps, to_bf16 ? at::kBFloat16 : at::kFloat, address(launcher));
    for (size_t i = 0; i < 2; i++) out[i] = new Tensor(both[i]);
  });
}
}
