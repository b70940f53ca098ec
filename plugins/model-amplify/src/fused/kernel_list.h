// The names of the kernels of `kernels.cu`, in the order of their numbers. Of each pair the second reads 16 bytes at
// once: four columns in fp32, eight in bf16.

#pragma once

#define AMPLIFY_PAIR(X, name) X(name) X(name##_wide)
#define AMPLIFY_ELEMENTS(X, name) AMPLIFY_PAIR(X, name##_f32) AMPLIFY_PAIR(X, name##_bf16)
#define AMPLIFY_SUMS(X, name)                                                                                          \
  AMPLIFY_PAIR(X, name##_f32_f32_f32)                                                                                  \
  AMPLIFY_PAIR(X, name##_f32_f32_bf16)                                                                                 \
  AMPLIFY_PAIR(X, name##_f32_bf16_f32)                                                                                 \
  AMPLIFY_PAIR(X, name##_f32_bf16_bf16)                                                                                \
  AMPLIFY_PAIR(X, name##_bf16_bf16_f32)                                                                                \
  AMPLIFY_PAIR(X, name##_bf16_bf16_bf16)

#define AMPLIFY_KERNELS(X)                                                                                             \
  AMPLIFY_ELEMENTS(X, swiglu)                                                                                          \
  AMPLIFY_ELEMENTS(X, swiglu_backward)                                                                                 \
  AMPLIFY_ELEMENTS(X, rotate)                                                                                          \
  AMPLIFY_SUMS(X, norm)                                                                                                \
  AMPLIFY_SUMS(X, norm_backward)
