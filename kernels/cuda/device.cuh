// What the kernels need of the device, in one place: number types, 16-byte vectors, warp collectives
// and the matrix unit. Everything else in this folder is plain C++, so that the same sources also run
// on the CPU (../emulator), where the tests compare them with their oracles.
#pragma once

#ifdef INTENTD_EMULATOR
#include "device.hpp"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// `threads` a block, of which `blocks` shall fit on a multiprocessor: that bounds the registers.
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

DEVICE float shuffle_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
DEVICE float shuffle(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
DEVICE void block_barrier() { __syncthreads(); }

// The transpose of an 8x8 matrix of 2-byte values, one 4-byte pair a lane: lane 4r+c holds row r,
// columns 2c and 2c+1 (PTX ISA, movmatrix).
DEVICE unsigned transpose8x8(unsigned pair) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// c += a·b on the matrix unit: a is 16x16, b is 16x8, c is 16x8 in f32, spread over a warp as PTX's
// mma.m16n8k16 has it. Turing has k8 only; its two halves are the same registers.
template <class T> DEVICE void multiply_16x8x16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

template <> DEVICE void multiply_16x8x16<half_t>(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int k = 0; k < 2; k++) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
  }
#endif
}

template <> DEVICE void multiply_16x8x16<bfloat_t>(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Turing has no bf16 products; the host refuses the type there before it launches anything.
  __trap();
#endif
}
#endif

constexpr int WARP = 32;
constexpr float LOG2_E = 1.4426950408889634f;

// Sixteen bytes as the matrix unit's registers: eight 2-byte values, two a word.
struct alignas(16) Words4 {
  unsigned w[4];
};

// Eight consecutive values, read and written in 16-byte accesses.
template <class T> struct alignas(16) Vec8 {
  T v[8];
};

template <class T> DEVICE Vec8<T> load8(const T* from) { return *reinterpret_cast<const Vec8<T>*>(from); }
template <class T> DEVICE void store8(T* to, const Vec8<T>& value) { *reinterpret_cast<Vec8<T>*>(to) = value; }
template <class T> DEVICE Words4 load_words(const T* from) { return *reinterpret_cast<const Words4*>(from); }

template <class T> DEVICE unsigned pack2(float low, float high) {
  T pair[2] = {from_float<T>(low), from_float<T>(high)};
  unsigned word;
  memcpy(&word, pair, 4);
  return word;
}

template <class T> DEVICE void unpack2(unsigned word, float& low, float& high) {
  T pair[2];
  memcpy(pair, &word, 4);
  low = to_float(pair[0]);
  high = to_float(pair[1]);
}

// Sum over the warp, the same in every lane.
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

// The activations, numbered as the host numbers them (src/ops, Activation).
enum Activation : unsigned { NONE = 0, GELU = 1, GELU_TANH = 2, RELU = 3, TANH = 4 };

DEVICE float activate(float v, unsigned activation) {
  switch (activation) {
    case GELU: return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
    case GELU_TANH: return 0.5f * v * (1.0f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
    case RELU: return fmaxf(v, 0.0f);
    case TANH: return tanhf(v);
    default: return v;
  }
}
