// The element-wise steps between products: bias and activation, the [CLS] rows, the classifier's logits, and
// the conversion of weights at load.
//
// bias_activation, in warp instructions for 16,384 rows of 3,072 (counted, not timed):
// v1: one thread for eight columns of a row, erff, a 64-bit remainder, eight 2-byte stores: 64.1 M.
// v2: one thread for four rows, which share bias and remainder; GELU by one exponential, one vector store:
//     30.0 M. That is 33 us on an H200's schedulers, less than the 47 us of its memory. Only a product with
//     bias and activation in its epilogue would save those: half a millisecond of five for 128 x 128 tokens.
#include "device.cuh"

// Rows per thread of bias_activation: their loads are in flight at the same time and share one bias.
constexpr unsigned BIAS_ROWS = 4;

// x[row] = activation(x[row] + bias), in place; each thread does eight columns of BIAS_ROWS rows. `columns` is
// a multiple of 8.
template <class T>
DEVICE void bias_activation(const unsigned* count, T* x, const T* bias, unsigned activation, int columns) {
  // The index fits 32 bits: a batch of 16,384 tokens has 2^23 vectors.
  unsigned index = blockIdx.x * blockDim.x + threadIdx.x, vectors = unsigned(columns) / 8;
  unsigned first = index / vectors * BIAS_ROWS, at = index % vectors * 8, rows = layout_word(count);
  let_next_kernel_begin();
  Vector8 b = load8(bias + at), v[BIAS_ROWS];
  wait_for_kernel_before();
  x += size_t(first) * columns + at;
#pragma unroll
  for (unsigned i = 0; i < BIAS_ROWS; i++)
    if (first + i < rows) v[i] = load8(x + size_t(i) * columns);
#pragma unroll
  for (unsigned i = 0; i < BIAS_ROWS; i++) {
    if (first + i >= rows) continue;
#pragma unroll
    for (int j = 0; j < 8; j++) v[i].v[j] = activate<T>(v[i].v[j] + b.v[j], activation);
    store8(x + size_t(i) * columns, v[i]);
  }
}

// y[row] = x[rows[row]]: the first row of each sequence if `rows` are the starts of the sequences.
template <class T> DEVICE void gather_rows(const unsigned* count, const unsigned* rows, const T* x, T* y, int columns) {
  unsigned index = blockIdx.x * blockDim.x + threadIdx.x, vectors = unsigned(columns) / 8;
  unsigned row = index / vectors, at = index % vectors * 8;
  let_next_kernel_begin();
  unsigned row_count = layout_word(count), from = row < row_count ? layout_word(rows + row) : 0;
  wait_for_kernel_before();
  if (row >= row_count) return;
  store8(y + size_t(row) * columns + at, load8(x + size_t(from) * columns + at));
}

// logits[row, label] = x[row] · w[label] + bias[label] in f32; one warp per logit, `columns` a multiple of 8.
template <class T>
DEVICE void classify(const unsigned* count, const T* x, const T* w, const T* bias, float* logits, int columns,
                     int labels) {
  unsigned index = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  unsigned row = index / labels, label = index % labels;
  let_next_kernel_begin();
  unsigned rows = layout_word(count);
  float sum = 0.0f, offset = to_float(bias[label]);
  wait_for_kernel_before();
  if (row >= rows) return;
  for (int at = int(threadIdx.x) % WARP * 8; at < columns; at += WARP * 8) {
    Vector8 a = load8(x + size_t(row) * columns + at), b = load8(w + size_t(label) * columns + at);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += a.v[j] * b.v[j];
  }
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) logits[size_t(row) * labels + label] = sum + offset;
}

// to[i] = from[i], rounded to nearest even.
template <class From, class To> DEVICE void convert(const From* from, To* to, unsigned long long length) {
  // The next kernel must not begin early: it may read the result as weights without waiting.
  wait_for_kernel_before();
  unsigned long long stride = (unsigned long long)(gridDim.x) * blockDim.x;
  for (unsigned long long i = (unsigned long long)(blockIdx.x) * blockDim.x + threadIdx.x; i < length; i += stride)
    to[i] = from_float<To>(to_float(from[i]));
}

#define ELEMENTWISE_KERNELS(suffix, T)                                                                          \
  KERNEL(256, 2) bias_activation_##suffix(const unsigned* count, T* x, const T* bias, unsigned activation,         \
                                       int columns) {                                                           \
    bias_activation<T>(count, x, bias, activation, columns);                                                    \
  }                                                                                                             \
  KERNEL(256, 2) gather_rows_##suffix(const unsigned* count, const unsigned* rows, const T* x, T* y,               \
                                   int columns) {                                                               \
    gather_rows<T>(count, rows, x, y, columns);                                                                 \
  }                                                                                                             \
  KERNEL(128, 4) classify_##suffix(const unsigned* count, const T* x, const T* w, const T* bias, float* logits,    \
                                int columns, int labels) {                                                      \
    classify<T>(count, x, w, bias, logits, columns, labels);                                                    \
  }                                                                                                             \
  KERNEL(256, 2) convert_f32_##suffix(const float* from, T* to, unsigned long long length) {                       \
    convert<float, T>(from, to, length);                                                                        \
  }                                                                                                             \
  KERNEL(256, 2) convert_f16_##suffix(const half_t* from, T* to, unsigned long long length) {                      \
    convert<half_t, T>(from, to, length);                                                                       \
  }                                                                                                             \
  KERNEL(256, 2) convert_bf16_##suffix(const bfloat_t* from, T* to, unsigned long long length) {                   \
    convert<bfloat_t, T>(from, to, length);                                                                     \
  }

ELEMENTWISE_KERNELS(f32, float)
ELEMENTWISE_KERNELS(f16, half_t)
ELEMENTWISE_KERNELS(bf16, bfloat_t)
