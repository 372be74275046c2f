// What is left between the products: bias and activation, the [CLS] rows, the classifier's logits, and
// the conversion of weights at load.
#include "device.cuh"

// x[row] = activation(x[row] + bias), in place; eight values a thread. `columns` is a multiple of 8.
template <class T> DEVICE void bias_activation(const unsigned* count, T* x, const T* bias, unsigned activation, int columns) {
  size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  size_t vectors = size_t(columns) / 8;
  if (index >= count[0] * vectors) return;
  Vec8<T> value = load8(x + index * 8), b = load8(bias + index % vectors * 8);
#pragma unroll
  for (int j = 0; j < 8; j++)
    value.v[j] = from_float<T>(activate(to_float(value.v[j]) + to_float(b.v[j]), activation));
  store8(x + index * 8, value);
}

// y[row] = x[rows[row]]: the first row of each sequence, when `rows` are the sequences' starts.
template <class T> DEVICE void gather_rows(const unsigned* count, const unsigned* rows, const T* x, T* y, int columns) {
  size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  size_t vectors = size_t(columns) / 8;
  if (index >= count[0] * vectors) return;
  size_t row = index / vectors, at = index % vectors * 8;
  store8(y + row * columns + at, load8(x + size_t(rows[row]) * columns + at));
}

// logits[row, label] = x[row] · w[label] + bias[label] in f32; a warp a logit, `columns` a multiple of 8.
template <class T>
DEVICE void classify(const unsigned* count, const T* x, const T* w, const T* bias, float* logits, int columns, int labels) {
  unsigned index = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  unsigned row = index / labels, label = index % labels;
  if (row >= count[0]) return;
  float sum = 0.0f;
  for (int at = int(threadIdx.x) % WARP * 8; at < columns; at += WARP * 8) {
    Vec8<T> a = load8(x + size_t(row) * columns + at), b = load8(w + size_t(label) * columns + at);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += to_float(a.v[j]) * to_float(b.v[j]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) logits[size_t(row) * labels + label] = sum + to_float(bias[label]);
}

// to[i] = from[i], rounded to nearest even.
template <class From, class To> DEVICE void convert(const From* from, To* to, unsigned long long length) {
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
