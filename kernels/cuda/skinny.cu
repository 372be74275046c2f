// y = activation(norm(x)·wᵀ + bias) + residual for a few rows (up to 64): what a handful of short
// queries needs. The time is the reading of w, so all that surrounds the product is done beside it:
// LayerNorm of x on the way in (each block takes the statistics of the few rows itself), activation or
// residual on the way out. A layer is then five launches.
//
// v1: a block has 8 or 16 of w's rows and all rows of x; its eight warps share out the inner dimension
//     and add up at the end. w goes from global memory into registers in 16-byte reads, several in
//     flight a lane, every byte once. The inner dimension may be summed in any order: a lane reads
//     eight neighbours where the instruction wants four pairs (as in attention.cu).
// Next, to be measured on Hopper: programmatic dependent launch, so that the reading of w starts
// before the kernel in front has ended.
#include "device.cuh"

constexpr int SKINNY_WARPS = 8;

// Mean and 1/σ of each row of x, in shared memory; `normalized`, where wanted, gets the rows in turn.
template <class T>
DEVICE void row_statistics(unsigned rows, const T* x, const unsigned* x_rows, const T* gamma, const T* beta, float eps,
                           T* normalized, int inner, float* statistics) {
  int lane = int(threadIdx.x) % WARP;
#pragma unroll 1
  for (unsigned row = threadIdx.x / WARP; row < rows; row += SKINNY_WARPS) {
    const T* from = x + size_t(x_rows ? x_rows[row] : row) * inner;
    float sum = 0.0f, squares = 0.0f;
#pragma unroll 2
    for (int at = lane * 8; at < inner; at += WARP * 8) {
      Vector8 v = load8(from + at);
#pragma unroll
      for (int j = 0; j < 8; j++) sum += v.v[j];
    }
    float mean = warp_sum(sum) / float(inner);
#pragma unroll 2
    for (int at = lane * 8; at < inner; at += WARP * 8) {
      Vector8 v = load8(from + at);
#pragma unroll
      for (int j = 0; j < 8; j++) squares += (v.v[j] - mean) * (v.v[j] - mean);
    }
    float scale = rsqrtf(warp_sum(squares) / float(inner) + eps);
    if (lane == 0) {
      statistics[2 * row] = mean;
      statistics[2 * row + 1] = scale;
    }
    if (normalized && row % gridDim.x == blockIdx.x) {
#pragma unroll 1
      for (int at = lane * 8; at < inner; at += WARP * 8) {
        Vector8 v = load8(from + at), g = load8(gamma + at), b = load8(beta + at);
#pragma unroll
        for (int j = 0; j < 8; j++)
          v.v[j] = (v.v[j] - mean) * scale * g.v[j] + b.v[j];
        store8(normalized + size_t(row) * inner + at, v);
      }
    }
  }
}

// Gains and offsets of eight columns, and what they make of eight values of a row.
struct Affine {
  float gain[8], offset[8];

  template <class T> DEVICE void set(const T* gamma, const T* beta) {
    Words4 g = load_words(gamma), b = load_words(beta);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      unpack2<T>(g.w[i], gain[2 * i], gain[2 * i + 1]);
      unpack2<T>(b.w[i], offset[2 * i], offset[2 * i + 1]);
    }
  }

  template <class T> DEVICE Words4 apply(Words4 x, float mean, float scale) const {
    Words4 y;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float low, high;
      unpack2<T>(x.w[i], low, high);
      y.w[i] = pack2<T>((low - mean) * scale * gain[2 * i] + offset[2 * i],
                        (high - mean) * scale * gain[2 * i + 1] + offset[2 * i + 1]);
    }
    return y;
  }
};

// `ROWS`·16 rows of x at most, `COLUMNS`·8 rows of w a block; `inner` is a multiple of 32 and `outer`
// of COLUMNS·8. `x_rows` and `residual_rows` may be null: then row r is row r.
template <class T, int ROWS, int COLUMNS, bool NORM>
DEVICE void skinny(const unsigned* count, const T* x, const unsigned* x_rows, const T* gamma, const T* beta, float eps,
                   T* normalized, const T* w, const T* bias, unsigned activation, const T* residual,
                   const unsigned* residual_rows, T* y, int inner, int outer) {
  SHARED(float, sums);  // [warp][row][column], then the rows' statistics
  constexpr int TILE_COLUMNS = COLUMNS * 8, TILE_SIZE = ROWS * 16 * TILE_COLUMNS;
  float* statistics = sums + SKINNY_WARPS * TILE_SIZE;
  unsigned rows = min(count[0], unsigned(ROWS * 16));
  let_next_kernel_begin();
  wait_for_kernel_before();
  if (rows == 0) return;
  int warp = int(threadIdx.x) / WARP, group = int(threadIdx.x) % WARP / 4, at = int(threadIdx.x) % 4 * 8;
  int first_column = int(blockIdx.x) * TILE_COLUMNS;
  if (NORM) {
    row_statistics(rows, x, x_rows, gamma, beta, eps, normalized, inner, statistics);
    block_barrier();
  }
  // This lane's rows of x. Those beyond the last are its copies; nobody stores what comes of them.
  unsigned x_row[ROWS * 2];
  float mean[ROWS * 2], scale[ROWS * 2];
#pragma unroll
  for (int i = 0; i < ROWS * 2; i++) {
    unsigned row = min(unsigned(i * 8 + group), rows - 1);
    x_row[i] = (x_rows ? x_rows[row] : row) * unsigned(inner) + at;
    if (NORM) {
      mean[i] = statistics[2 * row];
      scale[i] = statistics[2 * row + 1];
    }
  }
  float c[ROWS][COLUMNS][4] = {};
  constexpr int IN_FLIGHT = ROWS == 1 ? 4 : 2;
#pragma unroll 1
  for (int first = warp * 32; first < inner; first += SKINNY_WARPS * IN_FLIGHT * 32) {
    Words4 b[IN_FLIGHT][COLUMNS] = {};
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) {
      int k = first + i * SKINNY_WARPS * 32;
#pragma unroll
      for (int column = 0; column < COLUMNS; column++)
        if (k < inner) b[i][column] = load_words(w + size_t(first_column + column * 8 + group) * inner + k + at);
    }
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) {
      int k = first + i * SKINNY_WARPS * 32;
      if (k >= inner) break;
      Affine affine;
      if (NORM) affine.set(gamma + k + at, beta + k + at);
#pragma unroll
      for (int tile = 0; tile < ROWS; tile++) {
        Words4 low = load_words(x + x_row[2 * tile] + k), high = load_words(x + x_row[2 * tile + 1] + k);
        if (NORM) {
          low = affine.apply<T>(low, mean[2 * tile], scale[2 * tile]);
          high = affine.apply<T>(high, mean[2 * tile + 1], scale[2 * tile + 1]);
        }
#pragma unroll
        for (int step = 0; step < 2; step++) {
          unsigned a[4] = {low.w[2 * step], high.w[2 * step], low.w[2 * step + 1], high.w[2 * step + 1]};
#pragma unroll
          for (int column = 0; column < COLUMNS; column++) {
            unsigned pair[2] = {b[i][column].w[2 * step], b[i][column].w[2 * step + 1]};
            multiply_16x8x16<T>(c[tile][column], a, pair);
          }
        }
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < ROWS; tile++)
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int row = tile * 16 + e / 2 * 8 + group, col = column * 8 + int(threadIdx.x) % 4 * 2 + e % 2;
        sums[warp * TILE_SIZE + row * TILE_COLUMNS + col] = c[tile][column][e];
      }
  block_barrier();
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < rows * TILE_COLUMNS; i += SKINNY_WARPS * WARP) {
    unsigned row = i / TILE_COLUMNS;
    size_t column = first_column + i % TILE_COLUMNS;
    float v = to_float(bias[column]);
#pragma unroll
    for (int part = 0; part < SKINNY_WARPS; part++) v += sums[part * TILE_SIZE + i];
    v = activate<T>(v, activation);
    if (residual) v += to_float(residual[size_t(residual_rows ? residual_rows[row] : row) * outer + column]);
    y[size_t(row) * outer + column] = from_float<T>(v);
  }
}

#define SKINNY(suffix, T, ROWS, COLUMNS, name, NORM)                                                                \
  KERNEL(256, ROWS == 4 ? 1 : 2) skinny_##name##_##suffix##_##ROWS##_##COLUMNS(                                                        \
      const unsigned* count, const T* x, const unsigned* x_rows, const T* gamma, const T* beta, float eps,          \
      T* normalized, const T* w, const T* bias, unsigned activation, const T* residual,                             \
      const unsigned* residual_rows, T* y, int inner, int outer) {                                                  \
    skinny<T, ROWS, COLUMNS, NORM>(count, x, x_rows, gamma, beta, eps, normalized, w, bias, activation, residual,   \
                                   residual_rows, y, inner, outer);                                                 \
  }
#define SKINNY_COLUMNS(suffix, T, ROWS, COLUMNS)  \
  SKINNY(suffix, T, ROWS, COLUMNS, plain, false)  \
  SKINNY(suffix, T, ROWS, COLUMNS, norm, true)
// Sixteen columns of 64 rows would not fit the registers.
#define SKINNY_OF(suffix, T)      \
  SKINNY_COLUMNS(suffix, T, 1, 1) \
  SKINNY_COLUMNS(suffix, T, 1, 2) \
  SKINNY_COLUMNS(suffix, T, 2, 1) \
  SKINNY_COLUMNS(suffix, T, 2, 2) \
  SKINNY_COLUMNS(suffix, T, 4, 1)

SKINNY_OF(f16, half_t)
SKINNY_OF(bf16, bfloat_t)
