// Everything that the kernels need from the device: number types, 16-byte vectors, warp collectives and the
// matrix unit. The rest of this folder is plain C++, so the same sources also run on the CPU (../emulator),
// where tests compare the kernels with their oracles.
#pragma once

#ifdef INTENTD_EMULATOR
#include "device.hpp"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// A kernel with `threads` per block; `blocks` blocks have to fit on a multiprocessor, which limits registers.
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
// A kernel's dynamic shared memory as an array of `type`.
#define SHARED(type, name)                                           \
  extern __shared__ __align__(16) unsigned char dynamic_shared[];    \
  type* name = reinterpret_cast<type*>(dynamic_shared)
#define DEVICE __device__ __forceinline__

using half_t = __half;
using bfloat_t = __nv_bfloat16;

DEVICE float to_float(float v) { return v; }
DEVICE float to_float(half_t v) { return __half2float(v); }
DEVICE float to_float(bfloat_t v) { return __bfloat162float(v); }

template <class T> DEVICE T from_float(float v);
template <> DEVICE float from_float<float>(float v) { return v; }
template <> DEVICE half_t from_float<half_t>(float v) { return __float2half_rn(v); }
template <> DEVICE bfloat_t from_float<bfloat_t>(float v) { return __float2bfloat16_rn(v); }

// Packs two values into a word, the first in the lower half.
template <class T> DEVICE unsigned pack2(float low, float high);
template <> DEVICE unsigned pack2<half_t>(float low, float high) {
#if __CUDA_ARCH__ >= 800
  half2 pair = __floats2half2_rn(low, high);
#else
  half_t pair[2] = {from_float<half_t>(low), from_float<half_t>(high)};
#endif
  unsigned word;
  memcpy(&word, &pair, 4);
  return word;
}
template <> DEVICE unsigned pack2<bfloat_t>(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  unsigned word;
  memcpy(&word, &pair, 4);
  return word;
}

DEVICE float shuffle_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEVICE float shuffle(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
DEVICE void block_barrier() { __syncthreads(); }

// Programmatic dependent launch (Hopper and newer; CUDA C++ Programming Guide): a kernel may begin while its
// predecessor is still running. Before `wait_for_kernel_before` returns, a kernel reads only weights and the
// batch's layout, and writes nothing. Every thread of every kernel calls it, so a kernel ends after its
// predecessor, and all earlier kernels have ended as well.
DEVICE void wait_for_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Reads a word of the batch's layout: a count, an offset or a tile. The read bypasses the multiprocessor's
// cache, which may still hold the previous batch: a kernel that begins early is ordered after the copy of the
// layout only by the first kernel, which began when the copy was done.
DEVICE unsigned layout_word(const unsigned* from) { return __ldcg(from); }

// Allows the next kernel to begin on the resources that this kernel leaves free.
DEVICE void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Loads before this call are issued before those after it. Without it, the assembler moves a load next to its
// use to save registers.
DEVICE void keep_order() { __syncwarp(); }

// Prefetches the cache line at `from` into the L2 cache.
DEVICE void prefetch(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(from)));
}

// 2^v, accurate to two units in the last place; results below 2^-126 are zero.
DEVICE float power_of_2(float v) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
}

// 1/v, accurate to one unit in the last place unless v is tiny or huge.
DEVICE float reciprocal(float v) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
}

// The thread's lane in its warp. The compiler reads it again at each use; a value computed from threadIdx
// would occupy registers during whole loops.
DEVICE unsigned lane_id() {
  unsigned result;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(result));
  return result;
}

// Loads four 8x8 matrices of 2-byte values from shared memory and transposes each: lane 8i+r passes the address
// of row r of matrix i, 16 bytes; lane 4c+p receives rows 2p and 2p+1 of column c of each (PTX ISA, ldmatrix).
DEVICE void load_transposed(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
}

// c += a·b on the matrix unit: a is 16x16, b is 16x8, c is 16x8 in f32, distributed over a warp as for PTX's
// mma.m16n8k16. Turing has only k8; the two halves use the same registers.
template <class T> DEVICE void multiply_16x8x16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

template <> DEVICE void multiply_16x8x16<half_t>(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
#pragma unroll
  for (int k = 0; k < 2; k++) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
        : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  }
#endif
}

template <> DEVICE void multiply_16x8x16<bfloat_t>(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
  // Turing has no bf16 products; the host refuses the type before it launches anything.
  __trap();
#endif
}
#endif

constexpr int WARP = 32;
constexpr float LOG2_E = 1.4426950408889634f;

// Sixteen bytes as registers of the matrix unit: eight 2-byte values, two per word.
struct alignas(16) Words4 {
  unsigned w[4];
};

// Eight bytes: four 2-byte values.
struct alignas(8) Words2 {
  unsigned w[2];
};

template <class T> DEVICE Words4 load_words(const T* from) { return *reinterpret_cast<const Words4*>(from); }
template <class T> DEVICE void store_words(T* to, const Words4& words) { *reinterpret_cast<Words4*>(to) = words; }

template <class T> DEVICE void unpack2(unsigned word, float& low, float& high) {
  T pair[2];
  memcpy(pair, &word, 4);
  low = to_float(pair[0]);
  high = to_float(pair[1]);
}

// Eight consecutive values of a row, of any type in memory; read and written in 16-byte accesses.
struct Vector8 {
  float v[8];
};

template <class T> DEVICE Vector8 unpack8(const Words4& words) {
  Vector8 to;
#pragma unroll
  for (int i = 0; i < 4; i++) unpack2<T>(words.w[i], to.v[2 * i], to.v[2 * i + 1]);
  return to;
}

template <class T> DEVICE Words4 pack8(const Vector8& from) {
  Words4 words;
#pragma unroll
  for (int i = 0; i < 4; i++) words.w[i] = pack2<T>(from.v[2 * i], from.v[2 * i + 1]);
  return words;
}

template <class T> DEVICE Vector8 load8(const T* from) {
  if constexpr (sizeof(T) == 2) {
    return unpack8<T>(load_words(from));
  } else {
    Words4 halves[2] = {load_words(from), load_words(from + 4)};
    Vector8 to;
    memcpy(to.v, halves, sizeof(to.v));
    return to;
  }
}

template <class T> DEVICE void store8(T* to, const Vector8& from) {
  if constexpr (sizeof(T) == 2) {
    store_words(to, pack8<T>(from));
  } else {
    Words4 halves[2];
    memcpy(halves, from.v, sizeof(from.v));
    store_words(to, halves[0]);
    store_words(to + 4, halves[1]);
  }
}

// Sum over the warp, in every lane.
DEVICE float warp_sum(float v) {
#pragma unroll
  for (int mask = WARP / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}

DEVICE float warp_max(float v) {
#pragma unroll
  for (int mask = WARP / 2; mask > 0; mask /= 2) v = fmaxf(v, shuffle_xor(v, mask));
  return v;
}

// The activations, with the host's numbers (Activation in src/activation.rs).
enum Activation : unsigned { NONE = 0, GELU = 1, GELU_TANH = 2, RELU = 3, TANH = 4 };

// x·Φ(x) = max(x, 0) - |x|·Φ(-|x|), where Φ is the normal distribution. log2 Φ(-a) is approximated by a
// polynomial of degree seven, fitted to a in [0, 6.5] by reweighted least squares. The absolute error is below
// 1e-6; for negative x the relative error is below 1e-5, a twentieth of the error of rounding to f16. Outside
// of the interval GELU is x, or zero in f16.
DEVICE float gelu_rounded(float v) {
  // Not fminf, which would replace NaN with 10.
  float a = fabsf(v) > 10.0f ? 10.0f : fabsf(v), log2 = -1.757776800e-6f;
  constexpr float LOWER[7] = {5.9936585e-5f, -9.163629e-4f, 8.447385e-3f, -5.3824503e-2f, -4.5861572e-1f,
                              -1.151180100f, -1.000003800f};
#pragma unroll
  for (int i = 0; i < 7; i++) log2 = log2 * a + LOWER[i];
  return fmaxf(v, 0.0f) - a * power_of_2(log2);
}

// Applies an activation. `T` is the type to which the caller rounds the result.
template <class T> DEVICE float activate(float v, unsigned activation) {
  switch (activation) {
    case GELU:
      if constexpr (sizeof(T) == 2) return gelu_rounded(v);
      return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
    case GELU_TANH: return 0.5f * v * (1.0f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
    case RELU: return fmaxf(v, 0.0f);
    case TANH: return tanhf(v);
    default: return v;
  }
}
