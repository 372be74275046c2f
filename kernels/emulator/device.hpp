// The CPU implementation of what ../cuda/device.cuh provides on a GPU: every CUDA thread is a fiber, and the
// fibers of a block take turns. It is slow, but reports with the kernel's name what is undefined on a GPU: a
// collective that not all lanes of a warp reach, a barrier that not all threads of a block reach, and
// different collectives at the same time in one warp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// The position of the running thread, as in CUDA's built-in variables.
extern thread_local Index thread_index, block_index, block_size, grid_size;

// The words that a lane contributes to a collective: up to ten (the operands of a 16x8x16 product).
struct Words {
  unsigned w[10];
};

// Publishes `mine` to the warp and waits until all 32 lanes have reached a collective of this `kind`.
// The result is valid until the lane's second next collective.
const Words* exchange(const char* kind, const Words& mine);
void block_barrier();
void wait_for_kernel_before();
unsigned char* shared_memory();

// Conversions between f32 and the 2-byte types, rounded to nearest even (IEEE 754, section 4.3.1).
inline unsigned bits(float v) {
  unsigned word;
  std::memcpy(&word, &v, 4);
  return word;
}

inline float from_bits(unsigned word) {
  float v;
  std::memcpy(&v, &word, 4);
  return v;
}

struct Half {
  uint16_t bits;
};

struct Bfloat {
  uint16_t bits;
};

inline float widen(Half h) {
  unsigned sign = unsigned(h.bits & 0x8000) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
  if (exponent == 31) return from_bits(sign | 0x7f800000 | fraction << 13);
  if (exponent == 0) {
    float v = std::ldexp(float(fraction), -24);
    return sign ? -v : v;
  }
  return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

inline Half narrow_half(float v) {
  uint16_t sign = uint16_t(bits(v) >> 16 & 0x8000);
  float magnitude = std::fabs(v);
  if (std::isnan(v)) return {uint16_t(sign | 0x7e00)};
  if (magnitude >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  if (magnitude < 6.103515625e-05f) {
    // Below the smallest normal number the spacing is 2^-24; nearbyint rounds to nearest even.
    return {uint16_t(sign | unsigned(std::nearbyint(std::ldexp(magnitude, 24))))};
  }
  unsigned word = bits(magnitude);
  word += 0xfff + (word >> 13 & 1);
  return {uint16_t(sign | ((word >> 13) - (112 << 10)))};
}

inline float widen(Bfloat b) { return from_bits(unsigned(b.bits) << 16); }

inline Bfloat narrow_bfloat(float v) {
  unsigned word = bits(v);
  if (std::isnan(v)) return {uint16_t(word >> 16 | 0x40)};
  return {uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16)};
}

inline unsigned lane() { return thread_index.x % 32; }

// Element `index` (0 or 1) of a pair of 2-byte values.
template <class T> float half_of(unsigned word, unsigned index) {
  return widen(T{uint16_t(word >> (16 * index))});
}

}  // namespace emulator

#define KERNEL(threads, blocks) extern "C" void
#define SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::shared_memory())
#define DEVICE inline
#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

using std::max;
using std::min;
using half_t = emulator::Half;
using bfloat_t = emulator::Bfloat;

inline float to_float(float v) { return v; }
inline float to_float(half_t v) { return emulator::widen(v); }
inline float to_float(bfloat_t v) { return emulator::widen(v); }

template <class T> T from_float(float v);
template <> inline float from_float<float>(float v) { return v; }
template <> inline half_t from_float<half_t>(float v) { return emulator::narrow_half(v); }
template <> inline bfloat_t from_float<bfloat_t>(float v) { return emulator::narrow_bfloat(v); }

template <class T> unsigned pack2(float low, float high) {
  return from_float<T>(low).bits | unsigned(from_float<T>(high).bits) << 16;
}

inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline void block_barrier() { emulator::block_barrier(); }
inline void wait_for_kernel_before() { emulator::wait_for_kernel_before(); }
inline void let_next_kernel_begin() {}
inline void keep_order() {}
inline void prefetch(const void*) {}
inline unsigned layout_word(const unsigned* from) { return *from; }

inline float power_of_2(float v) { return v < -126.0f ? 0.0f : std::exp2(v); }

inline float reciprocal(float v) { return 1.0f / v; }
inline unsigned lane_id() { return emulator::lane(); }

inline float shuffle(float v, int lane) {
  return emulator::from_bits(emulator::exchange("shuffle", {{emulator::bits(v)}})[lane].w[0]);
}

inline float shuffle_xor(float v, int mask) {
  const emulator::Words* all = emulator::exchange("shuffle_xor", {{emulator::bits(v)}});
  return emulator::from_bits(all[emulator::lane() ^ unsigned(mask)].w[0]);
}

// PTX ISA, ldmatrix: lane 8i+r names row r of matrix i; lane 4c+p receives rows 2p and 2p+1 of column c.
inline void load_transposed(unsigned (&to)[4], const void* row) {
  emulator::Words mine = {};
  std::memcpy(mine.w, row, 16);
  const emulator::Words* all = emulator::exchange("load_transposed", mine);
  unsigned column = emulator::lane() / 4, first = emulator::lane() % 4 * 2;
  for (unsigned matrix = 0; matrix < 4; matrix++) {
    to[matrix] = 0;
    for (unsigned e = 0; e < 2; e++) {
      unsigned word = all[matrix * 8 + first + e].w[column / 2];
      to[matrix] |= (word >> (16 * (column % 2)) & 0xffff) << (16 * e);
    }
  }
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
template <class T> void multiply_16x8x16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const emulator::Words* all =
      emulator::exchange("multiply_16x8x16", {{a[0], a[1], a[2], a[3], b[0], b[1]}});
  for (unsigned e = 0; e < 4; e++) {
    unsigned row = emulator::lane() / 4 + e / 2 * 8, column = emulator::lane() % 4 * 2 + e % 2;
    for (unsigned k = 0; k < 16; k++) {
      unsigned left = all[row % 8 * 4 + k % 8 / 2].w[row / 8 + k / 8 * 2];
      unsigned right = all[column * 4 + k % 8 / 2].w[4 + k / 8];
      c[e] += emulator::half_of<T>(left, k % 2) * emulator::half_of<T>(right, k % 2);
    }
  }
}
