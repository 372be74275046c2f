// LayerNorm of the sum of the three embeddings, and of the result of a product with residual.
//
// v1: one warp per row. The row stays in registers, so computing the variance around the mean (two passes, no
//     cancellation) reads memory only once. Statistics are in f32 for every type. Bias and residual were added
//     here. 16,384 rows of 768: 9.8 M warp instructions, 75 MB to and from memory.
// v2: the product adds bias and residual, and vector stores replace 2-byte stores: 7.0 M, 50 MB, which take
//     11.7 us at an H200's 4.3 TB/s. The weights are prefetched before the preceding kernel has ended.
#include "device.cuh"

// A row of `hidden` values in the registers of a warp: vector i of lane l is vector 32i + l of the row.
template <int VECTORS> struct Row {
  float v[VECTORS][8];

  DEVICE static int column(int vector) { return (vector * WARP + int(threadIdx.x) % WARP) * 8; }

  DEVICE void set(int vector, const Vector8& to) {
#pragma unroll
    for (int j = 0; j < 8; j++) v[vector][j] = to.v[j];
  }

  DEVICE void add(int vector, const Vector8& more) {
#pragma unroll
    for (int j = 0; j < 8; j++) v[vector][j] += more.v[j];
  }

  // y = (row - mean) / sqrt(variance + eps) · gamma + beta (Ba et al. 2016, arXiv:1607.06450).
  template <class T> DEVICE void normalize(T* y, const T* gamma, const T* beta, float eps, int hidden) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
      if (column(i) < hidden)
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[i][j];
    float mean = warp_sum(sum) / float(hidden);
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTORS; i++)
      if (column(i) < hidden)
#pragma unroll
        for (int j = 0; j < 8; j++) squares += (v[i][j] - mean) * (v[i][j] - mean);
    float scale = rsqrtf(warp_sum(squares) / float(hidden) + eps);
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
      int at = column(i);
      if (at >= hidden) continue;
      Vector8 g = load8(gamma + at), b = load8(beta + at), out;
#pragma unroll
      for (int j = 0; j < 8; j++) out.v[j] = (v[i][j] - mean) * scale * g.v[j] + b.v[j];
      store8(y + at, out);
    }
  }
};

// y[token] = LayerNorm(words[ids[token]] + positions[position[token]] + types[type[token]]).
template <class T, int VECTORS>
DEVICE void embed_norm(const unsigned* count, const unsigned* ids, const unsigned* type_ids,
                       const unsigned* position_ids, const T* words, const T* positions, const T* types,
                       const T* gamma, const T* beta, float eps, T* y, int hidden) {
  unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  let_next_kernel_begin();
  wait_for_kernel_before();
  if (row >= layout_word(count)) return;
  const T* word = words + size_t(ids[row]) * hidden;
  const T* position = positions + size_t(position_ids[row]) * hidden;
  const T* type = types + size_t(type_ids[row]) * hidden;
  Row<VECTORS> x;
#pragma unroll
  for (int i = 0; i < VECTORS; i++) {
    int at = x.column(i);
    if (at >= hidden) continue;
    x.set(i, load8(word + at));
    x.add(i, load8(type + at));
    x.add(i, load8(position + at));
  }
  x.normalize(y + size_t(row) * hidden, gamma, beta, eps, hidden);
}

// y[row] = LayerNorm(x[row]).
template <class T, int VECTORS>
DEVICE void norm(const unsigned* count, const T* x, const T* gamma, const T* beta, float eps, T* y, int hidden) {
  unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  let_next_kernel_begin();
  bool real = row < layout_word(count);
  if (blockIdx.x == 0)
    for (int at = int(threadIdx.x) * 8; at < hidden; at += int(blockDim.x) * 8) {
      prefetch(gamma + at);
      prefetch(beta + at);
    }
  wait_for_kernel_before();
  if (!real) return;
  size_t start = size_t(row) * hidden;
  Row<VECTORS> values;
#pragma unroll
  for (int i = 0; i < VECTORS; i++)
    if (values.column(i) < hidden) values.set(i, load8(x + start + values.column(i)));
  values.normalize(y + start, gamma, beta, eps, hidden);
}

#define NORM_KERNELS(suffix, T, VECTORS)                                                                        \
  KERNEL(128, 4) embed_norm_##suffix##_##VECTORS(                                                                  \
      const unsigned* count, const unsigned* ids, const unsigned* type_ids, const unsigned* position_ids,       \
      const T* words, const T* positions, const T* types, const T* gamma, const T* beta, float eps, T* y,       \
      int hidden) {                                                                                             \
    embed_norm<T, VECTORS>(count, ids, type_ids, position_ids, words, positions, types, gamma, beta, eps, y,    \
                           hidden);                                                                             \
  }                                                                                                             \
  KERNEL(128, 4) norm_##suffix##_##VECTORS(const unsigned* count, const T* x, const T* gamma, const T* beta,      \
                                           float eps, T* y, int hidden) {                                       \
    norm<T, VECTORS>(count, x, gamma, beta, eps, y, hidden);                                                    \
  }

// Rows of up to 256, 768, 1024 and 2048 values.
#define NORM_KERNELS_OF(suffix, T) \
  NORM_KERNELS(suffix, T, 1)       \
  NORM_KERNELS(suffix, T, 3)       \
  NORM_KERNELS(suffix, T, 4)       \
  NORM_KERNELS(suffix, T, 8)

NORM_KERNELS_OF(f32, float)
NORM_KERNELS_OF(f16, half_t)
NORM_KERNELS_OF(bf16, bfloat_t)
