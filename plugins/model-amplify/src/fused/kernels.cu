// The fused kernels. NVRTC compiles this file for the GPU at hand, and `host.cpp` compiles it for the tests, as C++.
//
// Elements are fp32 or bfloat16, and all arithmetic is in fp32. Every sum has a fixed order and there are no atomics,
// so results have the same bits in every run. A block computes rows, one after the other; its threads share the columns
// of a row, `W` columns at a time. Blocks have a power of two of threads.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]
#endif

struct Bf16 {
  unsigned short bits;
};

static __device__ float to_float(float x) { return x; }
static __device__ float to_float(Bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

// The closest value of a type; of two equally close ones, the even one.
template <typename T> static __device__ T rounded(float x);
template <> __device__ float rounded<float>(float x) { return x; }
template <> __device__ Bf16 rounded<Bf16>(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return Bf16{0x7fc0};
  return Bf16{static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// `W` elements, which are read or written at once, or 16 bytes at a time.
template <typename T, int W> struct alignas(sizeof(T) * W < 16 ? sizeof(T) * W : 16) Pack {
  T at[W];
};

template <int W, typename T> static __device__ Pack<float, W> load(const T *from) {
  const Pack<T, W> raw = *reinterpret_cast<const Pack<T, W> *>(from);
  Pack<float, W> x;
  for (int k = 0; k < W; k++) x.at[k] = to_float(raw.at[k]);
  return x;
}

// Numbers of the block's own, in shared or global memory.
template <int W> static __device__ Pack<float, W> &at(float *own) { return *reinterpret_cast<Pack<float, W> *>(own); }

// Types of these bytes, which `__stwb` writes by one instruction. The compiler writes a structure by its members where
// a pointer depends on two loops.
template <int> struct Word;
template <> struct Word<2> {
  typedef unsigned short Type;
};
template <> struct Word<4> {
  typedef unsigned Type;
};
template <> struct Word<8> {
  typedef uint2 Type;
};
template <> struct Word<16> {
  typedef uint4 Type;
};

// Writes to global memory.
template <int W, typename T> static __device__ void store(T *to, const Pack<float, W> &x) {
  constexpr int bytes = alignof(Pack<T, W>), each = bytes / sizeof(T);
  typedef typename Word<bytes>::Type Written;
  for (int first = 0; first < W; first += each) {
    Pack<T, each> raw;
    for (int k = 0; k < each; k++) raw.at[k] = rounded<T>(x.at[first + k]);
    Written word;
    memcpy(&word, &raw, sizeof word);
    __stwb(reinterpret_cast<Written *>(to + first), word);
  }
}

// The sum of the block's values, in a fixed order. `room` has a number for each thread.
static __device__ float block_sum(float value, float *room) {
  room[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
    __syncthreads();
  }
  const float sum = room[0];
  // Before `room` is written again.
  __syncthreads();
  return sum;
}

// SwiGLU: `out = SiLU(a) · b`. `ab` is (rows, 2 n), `out` (rows, n).
template <typename T, int W> static __device__ void swiglu(const T *ab, T *out, long long rows, int n) {
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *a = ab + 2 * n * row, *b = a + n;
    for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) {
      Pack<float, W> x = load<W>(a + i);
      const Pack<float, W> gate = load<W>(b + i);
      for (int k = 0; k < W; k++) x.at[k] = x.at[k] / (1.0f + expf(-x.at[k])) * gate.at[k];
      store<W>(out + n * row + i, x);
    }
  }
}

// Its derivative, which computes SiLU once more. `d` is (rows, n), `ab` and `d_ab` are (rows, 2 n).
template <typename T, int W>
static __device__ void swiglu_backward(const T *d, const T *ab, T *d_ab, long long rows, int n) {
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *a = ab + 2 * n * row, *b = a + n;
    T *d_a = d_ab + 2 * n * row, *d_b = d_a + n;
    for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) {
      Pack<float, W> x = load<W>(a + i), gate = load<W>(b + i);
      const Pack<float, W> up = load<W>(d + n * row + i);
      for (int k = 0; k < W; k++) {
        const float s = 1.0f / (1.0f + expf(-x.at[k])), silu = x.at[k] * s;
        x.at[k] = up.at[k] * gate.at[k] * s * (1.0f + x.at[k] * (1.0f - s));
        gate.at[k] = up.at[k] * silu;
      }
      store<W>(d_a + i, x);
      store<W>(d_b + i, gate);
    }
  }
}

// A tensor of (batch, length, heads, head size), by the distances of its elements; those of one head adjoin.
struct Heads {
  void *data;
  long long batch, position, head;
};

// The tensors that a call rotates, and one that it copies; `data` is null where there is none.
struct HeadsList {
  Heads at[3];
};

// Rotary embedding: multiplies the pairs of the first two tensors, as complex numbers, by those of `table`, (length,
// size / 2); or by their conjugates, with `sign` -1. The third tensor is copied.
template <typename T, int W>
static __device__ void rotate(HeadsList from, HeadsList to, const float *table, long long rows, long long length,
                              int heads, int size, float sign) {
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    const long long batch = row / length, position = row % length;
    for (int i = threadIdx.x * W; i < heads * size; i += blockDim.x * W) {
      const int head = i / size, column = i % size;
      const Pack<float, W> turn = load<W>(table + position * size + column);
      for (int tensor = 0; tensor < 3; tensor++) {
        const Heads &in = from.at[tensor], &out = to.at[tensor];
        if (in.data == nullptr) continue;
        Pack<float, W> x = load<W>(static_cast<const T *>(in.data) + batch * in.batch + position * in.position +
                                   head * in.head + column);
        for (int k = 0; k < W && tensor < 2; k += 2) {
          const float re = x.at[k], im = x.at[k + 1], c = turn.at[k], s = sign * turn.at[k + 1];
          x.at[k] = re * c - im * s;
          x.at[k + 1] = re * s + im * c;
        }
        store<W>(static_cast<T *>(out.data) + batch * out.batch + position * out.position + head * out.head + column,
                 x);
      }
    }
  }
}

// RMSNorm of a sum: `sum = x + r` and `y = sum · scale · w` with `scale = 1 / √(mean(sum²) + ε)` of each row. Without
// `r` the sum is `x`, and not written. All are (rows, n) but `w`, (n), and `scale`, (rows).
template <typename X, typename R, typename Y, int W>
static __device__ void norm(const X *x, const R *r, X *sum, const float *w, Y *y, float *scale, long long rows, int n,
                            float eps) {
  DYNAMIC_SHARED(room);
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    float squares = 0.0f;
    for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) {
      Pack<float, W> s = load<W>(x + n * row + i);
      if (r != nullptr) {
        const Pack<float, W> addend = load<W>(r + n * row + i);
        for (int k = 0; k < W; k++) s.at[k] = to_float(rounded<X>(s.at[k] + addend.at[k]));
        store<W>(sum + n * row + i, s);
      }
      for (int k = 0; k < W; k++) squares += s.at[k] * s.at[k];
    }
    const float root = rsqrtf(block_sum(squares, room) / n + eps);
    if (threadIdx.x == 0) scale[row] = root;
    // Each thread reads what it wrote.
    const X *normed = r == nullptr ? x : sum;
    for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) {
      Pack<float, W> s = load<W>(normed + n * row + i);
      const Pack<float, W> weight = load<W>(w + i);
      for (int k = 0; k < W; k++) s.at[k] = s.at[k] * root * weight.at[k];
      store<W>(y + n * row + i, s);
    }
  }
}

// Its derivative. `d_y` and `d_sum` are those of both outputs. `d_x` is that of `x`, and of `r`, which `d_r` has in the
// type of `r` unless it is null. `d_w`, if it is not null, is (blocks, n): that of `w` by the rows of each block. The
// shared memory has a number for each thread, and if `in_shared` one for each column.
template <typename X, typename R, typename Y, int W>
static __device__ void norm_backward(const Y *d_y, const X *d_sum, const X *sum, const float *w, const float *scale,
                                     X *d_x, R *d_r, float *d_w, long long rows, int n, int in_shared) {
  DYNAMIC_SHARED(room);
  float *own = d_w == nullptr ? nullptr : d_w + static_cast<long long>(n) * blockIdx.x;
  // Each thread adds up columns of its own.
  float *columns = in_shared ? room + blockDim.x : own;
  if (own != nullptr) {
    for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) at<W>(columns + i) = {};
  }
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    const float root = scale[row];
    float dot = 0.0f;
    for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) {
      const Pack<float, W> s = load<W>(sum + n * row + i), d = load<W>(d_y + n * row + i), weight = load<W>(w + i);
      for (int k = 0; k < W; k++) dot += d.at[k] * weight.at[k] * s.at[k];
    }
    const float mean = block_sum(dot, room) / n * root * root;
    for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) {
      const Pack<float, W> s = load<W>(sum + n * row + i), d = load<W>(d_y + n * row + i), weight = load<W>(w + i);
      Pack<float, W> out = load<W>(d_sum + n * row + i);
      for (int k = 0; k < W; k++) out.at[k] += root * (d.at[k] * weight.at[k] - s.at[k] * mean);
      store<W>(d_x + n * row + i, out);
      if (d_r != nullptr) store<W>(d_r + n * row + i, out);
      if (own == nullptr) continue;
      Pack<float, W> column = at<W>(columns + i);
      for (int k = 0; k < W; k++) column.at[k] += d.at[k] * s.at[k] * root;
      at<W>(columns + i) = column;
    }
  }
  if (own == nullptr || !in_shared) return;
  for (int i = threadIdx.x * W; i < n; i += blockDim.x * W) {
    const Pack<float, W> column = at<W>(columns + i);
    store<W>(own + i, column);
  }
}

// The kernels of `kernel_list.h`: each for its types, and for one column at a time (for `rotate`, one pair) or 16
// bytes.
#define KERNEL extern "C" __global__ void __launch_bounds__(256)

#define SWIGLU(suffix, T, W)                                                                                           \
  KERNEL swiglu_##suffix(const T *ab, T *out, long long rows, int n) { swiglu<T, W>(ab, out, rows, n); }               \
  KERNEL swiglu_backward_##suffix(const T *d, const T *ab, T *d_ab, long long rows, int n) {                           \
    swiglu_backward<T, W>(d, ab, d_ab, rows, n);                                                                       \
  }
SWIGLU(f32, float, 1)
SWIGLU(f32_wide, float, 4)
SWIGLU(bf16, Bf16, 1)
SWIGLU(bf16_wide, Bf16, 8)

#define ROTATE(suffix, T, W)                                                                                           \
  KERNEL rotate_##suffix(HeadsList from, HeadsList to, const float *table, long long rows, long long length,           \
                         int heads, int size, float sign) {                                                            \
    rotate<T, W>(from, to, table, rows, length, heads, size, sign);                                                    \
  }
ROTATE(f32, float, 2)
ROTATE(f32_wide, float, 4)
ROTATE(bf16, Bf16, 2)
ROTATE(bf16_wide, Bf16, 8)

#define NORM_OF_WIDTH(suffix, X, R, Y, W)                                                                              \
  KERNEL norm_##suffix(const X *x, const R *r, X *sum, const float *w, Y *y, float *scale, long long rows, int n,      \
                       float eps) {                                                                                    \
    norm<X, R, Y, W>(x, r, sum, w, y, scale, rows, n, eps);                                                            \
  }                                                                                                                    \
  KERNEL norm_backward_##suffix(const Y *d_y, const X *d_sum, const X *sum, const float *w, const float *scale,        \
                                X *d_x, R *d_r, float *d_w, long long rows, int n, int in_shared) {                    \
    norm_backward<X, R, Y, W>(d_y, d_sum, sum, w, scale, d_x, d_r, d_w, rows, n, in_shared);                           \
  }
#define NORM(suffix, X, R, Y, WIDE)                                                                                    \
  NORM_OF_WIDTH(suffix, X, R, Y, 1)                                                                                    \
  NORM_OF_WIDTH(suffix##_wide, X, R, Y, WIDE)
// The types of `x`, `r` and `y`.
NORM(f32_f32_f32, float, float, float, 4)
NORM(f32_f32_bf16, float, float, Bf16, 4)
NORM(f32_bf16_f32, float, Bf16, float, 4)
NORM(f32_bf16_bf16, float, Bf16, Bf16, 4)
NORM(bf16_bf16_f32, Bf16, Bf16, float, 8)
NORM(bf16_bf16_bf16, Bf16, Bf16, Bf16, 8)
