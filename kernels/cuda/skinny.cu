// y = activation(norm(x)·wᵀ + bias) + residual for few rows (up to 32), as for a few short queries. Reading w
// takes most of the time, so the other steps are fused with the product: LayerNorm of x before it (each block
// computes the statistics of all rows), activation or residual after it. A layer is then five launches.
//
// A block has some rows of w and all rows of x. Its eight warps divide the inner dimension and add their sums
// at the end. w is read from global memory into registers, 16 bytes at a time, every byte once. The order of
// a sum over the inner dimension is free: a lane reads eight adjacent values where the instruction expects four
// pairs (as in attention.cu).
//
// v1: w was loaded after the barrier of the statistics, four steps at a time, and the x of each step after the
//     product of the preceding step; at most two tiles of columns per block, up to 64 rows.
// v2: a block loads all of its w at once and before anything else, then gain, offset and bias; on Hopper this
//     is before the preceding kernel has ended. (With 32 rows, and with rows of more than 768 values, the end
//     of w is loaded later.) Up to four tiles of columns per block, so that every product of BERT-base is one
//     wave of blocks. Two blocks fit on a multiprocessor, so there is always room for the next kernel's
//     weights. The matrix unit computes the row statistics, and the lanes that hold normalized rows write them.
//
// Counts from the PTX of sm_90 for 12 rows of BERT-base in f16; not timed:
//                             warp instructions    per warp, mean; for     sectors read
//                                                    v2 after its wait
//     product                    v1        v2          v1        v2          v1        v2
//     queries, keys, values  1.29 M    0.64 M       1,123       739     12.1 MB    5.6 MB
//     attention output       0.13 M    0.19 M         166       162      3.0 MB    3.0 MB
//     feed-forward in        1.75 M    0.87 M       1,140       754     16.1 MB    7.5 MB
//     feed-forward out       0.22 M    0.27 M         291       252     11.9 MB   11.9 MB
// Tried in between: a warp computes the statistics of whole rows and keeps them in registers, 1,264 instructions
// per warp. Up to 64 rows (v1): 4,175 per warp, by the estimate more than the library's kernels.
#include "device.cuh"

constexpr int SKINNY_WARPS = 8;
constexpr int SKINNY_THREADS = SKINNY_WARPS * WARP;
// Columns that the warps process in one step, 32 each.
constexpr int STEP = SKINNY_WARPS * 32;

struct alignas(8) Float2 {
  float low, high;
};

// Sizes for a block with `ROWS`·16 rows of x and `COLUMNS`·8 rows of w, chosen so that 128 registers suffice.
template <int ROWS, int COLUMNS, bool NORM> struct Skinny {
  static constexpr int TILE_COLUMNS = COLUMNS * 8;
  // Stride of a row of sums; a multiple of 16 would put four rows into the same banks.
  static constexpr int STRIDE = TILE_COLUMNS % 16 == 0 ? TILE_COLUMNS + 8 : TILE_COLUMNS;
  static constexpr int SUMS = ROWS * 16 * STRIDE;
  // Steps whose w is in flight. Normalized rows have the hidden size, three steps in BERT-base; other rows are up
  // to four times as long.
  static constexpr int STEPS = NORM         ? (ROWS * COLUMNS < 3 ? 4 : 3)
                               : ROWS == 1  ? (COLUMNS == 1 ? 12 : COLUMNS == 2 ? 6 : 3)
                                            : (COLUMNS == 1 ? 8 : COLUMNS == 2 ? 4 : 3);
  // Steps whose x is in flight: all of them where x stays in registers after the statistics.
  static constexpr int AHEAD = ROWS == 2  ? (NORM || COLUMNS == 3 ? 1 : 2)
                               : !NORM    ? (COLUMNS == 1 ? 6 : 3)
                                          : (COLUMNS == 4 ? 1 : STEPS);
  static_assert(STEPS % AHEAD == 0, "a step finds its x where the round before has put it");
};

// x as the left operand of this lane: rows `group` and `group` + 8 of each 16, eight columns per step.
template <class T, int ROWS, int AHEAD> struct Rows {
  // Rows beyond the last are copies of it; their results are not stored.
  const T* from[ROWS * 2];
  Words4 words[AHEAD][ROWS * 2];

  DEVICE Rows(const T* x, const unsigned* x_rows, unsigned rows, int inner) {
    int group = int(threadIdx.x) % WARP / 4;
#pragma unroll
    for (int i = 0; i < ROWS * 2; i++) {
      unsigned row = rows == 0 ? 0 : min(unsigned(i * 8 + group), rows - 1);
      from[i] = x + size_t(x_rows && rows > 0 ? layout_word(x_rows + row) : row) * inner;
    }
  }

  // Loads the columns from `k` on, unless the row has ended: it has `left` columns.
  DEVICE void load(int slot, int k, int left) {
    if (k >= left) return;
#pragma unroll
    for (int i = 0; i < ROWS * 2; i++) words[slot][i] = load_words(from[i] + k);
  }

  DEVICE void load_first(int left) {
#pragma unroll
    for (int i = 0; i < AHEAD; i++) load(i, i * STEP, left);
  }

  // The operand of the first or second half of a step's columns.
  DEVICE void operand(unsigned (&a)[4], int slot, int tile, int half) const {
    const Words4 &low = words[slot][2 * tile], &high = words[slot][2 * tile + 1];
    a[0] = low.w[2 * half];
    a[1] = high.w[2 * half];
    a[2] = low.w[2 * half + 1];
    a[3] = high.w[2 * half + 1];
  }
};

// Sums of the rows and of their squares over this warp's columns, on the matrix unit: x times ones, and the
// diagonal of x·xᵀ. Then mean and 1/σ of this lane's rows over all warps.
//
// The variance is the mean square minus the squared mean, in f32. Its error of 1e-6·(1 + mean²/variance) is
// visible in 16 bits only if the mean is ten times σ.
template <class T, int ROWS> struct Statistics {
  float sum[ROWS][4] = {}, low[ROWS][4] = {}, high[ROWS][4] = {};
  float mean[ROWS * 2], scale[ROWS * 2];

  template <int AHEAD> DEVICE void add(const Rows<T, ROWS, AHEAD>& rows, int slot) {
    unsigned one = pack2<T>(1.0f, 1.0f), ones[2] = {one, one};
#pragma unroll
    for (int tile = 0; tile < ROWS; tile++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        unsigned a[4];
        rows.operand(a, slot, tile, half);
        // The right operand has columns where the left one has rows, so both use the same registers.
        unsigned first[2] = {a[0], a[2]}, second[2] = {a[1], a[3]};
        multiply_16x8x16<T>(sum[tile], a, ones);
        multiply_16x8x16<T>(low[tile], a, first);
        multiply_16x8x16<T>(high[tile], a, second);
      }
  }

  // Adds all of this warp's columns; the first steps are already in `rows`.
  template <int AHEAD> DEVICE void add_all(Rows<T, ROWS, AHEAD>& rows, int left) {
#pragma unroll 1
    for (int first = 0; first < left; first += AHEAD * STEP) {
#pragma unroll
      for (int i = 0; i < AHEAD; i++) {
        if (first + i * STEP >= left) continue;
        if (first > 0) rows.load(i, first + i * STEP, left);
        add(rows, i);
      }
    }
  }

  // Combines the warps' sums through `parts`, [warp][row] in shared memory.
  DEVICE void finish(Float2* parts, float eps, float inverse) {
    int warp = int(threadIdx.x) / WARP, group = int(threadIdx.x) % WARP / 4;
    bool odd = group % 2 == 1;
    if (int(threadIdx.x) % 4 == group / 2) {
      // This lane holds the diagonal elements of its rows.
#pragma unroll
      for (int tile = 0; tile < ROWS; tile++) {
        Float2* to = parts + (warp * ROWS + tile) * 16 + group;
        to[0] = {sum[tile][0], odd ? low[tile][1] : low[tile][0]};
        to[8] = {sum[tile][2], odd ? high[tile][3] : high[tile][2]};
      }
    }
    block_barrier();
#pragma unroll
    for (int i = 0; i < ROWS * 2; i++) {
      float values = 0.0f, squares = 0.0f;
#pragma unroll
      for (int part = 0; part < SKINNY_WARPS; part++) {
        Float2 from = parts[part * ROWS * 16 + i * 8 + group];
        values += from.low;
        squares += from.high;
      }
      mean[i] = values * inverse;
      scale[i] = rsqrtf(fmaxf(squares * inverse - mean[i] * mean[i], 0.0f) + eps);
    }
  }
};

// Normalizes eight columns of this lane's rows in place, and writes them to `copy` unless it is null. `gains`
// points to gamma at those columns; beta is `inner` elements further.
template <class T, int ROWS>
DEVICE void normalize(Words4 (&words)[ROWS * 2], const Statistics<T, ROWS>& statistics, const T* gains, int inner,
                      T* copy, unsigned row_count) {
  Vector8 gain = load8(gains), offset = load8(gains + inner);
#pragma unroll
  for (int i = 0; i < ROWS * 2; i++) {
    float scale = statistics.scale[i], shift = -statistics.mean[i] * scale;
    Vector8 v = unpack8<T>(words[i]);
#pragma unroll
    for (int j = 0; j < 8; j++) v.v[j] = (v.v[j] * scale + shift) * gain.v[j] + offset.v[j];
    words[i] = pack8<T>(v);
    unsigned row = i * 8 + threadIdx.x % WARP / 4;
    if (copy && row < row_count) store_words(copy + size_t(row) * inner, words[i]);
  }
}

// c += x·wᵀ for the 32 columns of a step.
template <class T, int ROWS, int COLUMNS, int AHEAD>
DEVICE void multiply(float (&c)[ROWS][COLUMNS][4], const Rows<T, ROWS, AHEAD>& rows, int slot,
                     const Words4 (&w)[COLUMNS]) {
#pragma unroll
  for (int tile = 0; tile < ROWS; tile++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      unsigned a[4];
      rows.operand(a, slot, tile, half);
#pragma unroll
      for (int column = 0; column < COLUMNS; column++) {
        unsigned b[2] = {w[column].w[2 * half], w[column].w[2 * half + 1]};
        multiply_16x8x16<T>(c[tile][column], a, b);
      }
    }
}

// The two adjacent results that a thread combines in each round of the block over its tile.
template <int ROWS, int COLUMNS> struct Pair {
  static constexpr int PAIRS_A_ROW = COLUMNS * 4;
  static constexpr int ROUNDS = (ROWS * 16 * PAIRS_A_ROW + SKINNY_THREADS - 1) / SKINNY_THREADS;
  unsigned row, column;
  DEVICE explicit Pair(int round)
      : row((round * SKINNY_THREADS + threadIdx.x) / PAIRS_A_ROW),
        column((round * SKINNY_THREADS + threadIdx.x) % PAIRS_A_ROW * 2) {}
};

// The residuals of this thread's results, loaded while the product is computed.
template <class T, int ROWS, int COLUMNS> struct Residuals {
  unsigned words[Pair<ROWS, COLUMNS>::ROUNDS] = {};

  DEVICE Residuals(unsigned rows, const T* residual, const unsigned* residual_rows, int first_column, int outer) {
    if (!residual) return;
#pragma unroll
    for (int round = 0; round < Pair<ROWS, COLUMNS>::ROUNDS; round++) {
      Pair<ROWS, COLUMNS> pair(round);
      if (pair.row >= rows) continue;
      size_t row = residual_rows ? layout_word(residual_rows + pair.row) : pair.row;
      words[round] = *reinterpret_cast<const unsigned*>(residual + row * outer + first_column + pair.column);
    }
  }
};

// y = activation(Σ c over the warps + offset) + residual.
template <class T, int ROWS, int COLUMNS, bool NORM>
DEVICE void add_up(const float (&c)[ROWS][COLUMNS][4], float* sums, const float* offsets, unsigned activation,
                   const Residuals<T, ROWS, COLUMNS>& residuals, T* y, unsigned rows, int outer) {
  using Size = Skinny<ROWS, COLUMNS, NORM>;
  float* own = sums + threadIdx.x / WARP * Size::SUMS + threadIdx.x % WARP / 4 * Size::STRIDE + threadIdx.x % 4 * 2;
#pragma unroll
  for (int tile = 0; tile < ROWS; tile++)
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        Float2* to = reinterpret_cast<Float2*>(own + (tile * 16 + half * 8) * Size::STRIDE + column * 8);
        *to = {c[tile][column][2 * half], c[tile][column][2 * half + 1]};
      }
  block_barrier();
#pragma unroll
  for (int round = 0; round < Pair<ROWS, COLUMNS>::ROUNDS; round++) {
    Pair<ROWS, COLUMNS> pair(round);
    if (pair.row >= rows) continue;
    float low = offsets[pair.column], high = offsets[pair.column + 1];
#pragma unroll
    for (int part = 0; part < SKINNY_WARPS; part++) {
      Float2 sum = *reinterpret_cast<const Float2*>(sums + part * Size::SUMS + pair.row * Size::STRIDE + pair.column);
      low += sum.low;
      high += sum.high;
    }
    float more_low, more_high;
    unpack2<T>(residuals.words[round], more_low, more_high);
    low = activate<T>(low, activation) + more_low;
    high = activate<T>(high, activation) + more_high;
    *reinterpret_cast<unsigned*>(y + size_t(pair.row) * outer + pair.column) = pack2<T>(low, high);
  }
}

// At most `ROWS`·16 rows of x, and `COLUMNS`·8 rows of w per block; `inner` is a multiple of 32 and `outer` of
// COLUMNS·8. `x_rows` and `residual_rows` may be null: then row r is row r.
template <class T, int ROWS, int COLUMNS, bool NORM>
DEVICE void skinny(const unsigned* count, const T* x, const unsigned* x_rows, const T* gamma, const T* beta, float eps,
                   T* normalized, const T* w, const T* bias, unsigned activation, const T* residual,
                   const unsigned* residual_rows, T* y, int inner, int outer) {
  using Size = Skinny<ROWS, COLUMNS, NORM>;
  constexpr int ROUND = Size::STEPS * STEP;
  SHARED(float, sums);  // [warp][row][column]
  Float2* parts = reinterpret_cast<Float2*>(sums + SKINNY_WARPS * Size::SUMS);
  float* offsets = reinterpret_cast<float*>(parts + SKINNY_WARPS * ROWS * 16);
  T* gains = reinterpret_cast<T*>(offsets + Size::TILE_COLUMNS);  // gamma, then beta
  int group = int(threadIdx.x) % WARP / 4, begin = int(threadIdx.x) / WARP * 32 + int(threadIdx.x) % 4 * 8;
  int first_column = int(blockIdx.x) * Size::TILE_COLUMNS;
  let_next_kernel_begin();

  // Load everything that is not the result of a kernel, w first. From here on, this lane's columns begin at 0.
  int left = inner - begin;
  const T* w_at = w + size_t(first_column + group) * inner + begin;
  Words4 b[Size::STEPS][COLUMNS];
  auto load_w = [&](int i, int k) {
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
      if (k < left) b[i][column] = load_words(w_at + size_t(column * 8) * inner + k);
  };
#pragma unroll
  for (int i = 0; i < Size::STEPS; i++) load_w(i, i * STEP);
  keep_order();
  if (NORM)
#pragma unroll 1
    for (int i = int(threadIdx.x) * 8; i < inner; i += SKINNY_THREADS * 8) {
      store_words(gains + i, load_words(gamma + i));
      store_words(gains + inner + i, load_words(beta + i));
    }
  if (threadIdx.x < Size::TILE_COLUMNS) offsets[threadIdx.x] = to_float(bias[first_column + threadIdx.x]);
  unsigned row_count = min(layout_word(count), unsigned(ROWS * 16));
  Rows<T, ROWS, Size::AHEAD> rows(x + begin, x_rows, row_count, inner);
  float inverse = reciprocal(float(inner));

  wait_for_kernel_before();
  if (row_count == 0) return;
  rows.load_first(left);
  Residuals<T, ROWS, COLUMNS> residuals(row_count, residual, residual_rows, first_column, outer);
  Statistics<T, ROWS> statistics;
  if (NORM) {
    statistics.add_all(rows, left);
    statistics.finish(parts, eps, inverse);
    if (left > Size::AHEAD * STEP) rows.load_first(left);
  }

  float c[ROWS][COLUMNS][4] = {};
  // The position, in this lane's columns, of the normalized values that this block writes next.
  int own = int(blockIdx.x) * 32 - int(threadIdx.x) / WARP * 32;
#pragma unroll 1
  for (int first = 0; first < left; first += ROUND) {
#pragma unroll
    for (int i = 0; i < Size::STEPS; i++) {
      int k = first + i * STEP, slot = i % Size::AHEAD;
      if (k >= left) continue;
      if (NORM) {
        while (own < k) own += int(gridDim.x) * 32;
        normalize<T, ROWS>(rows.words[slot], statistics, gains + begin + k, inner,
                           normalized && own == k ? normalized + begin + k : nullptr, row_count);
      }
      multiply<T>(c, rows, slot, b[i]);
      rows.load(slot, k + Size::AHEAD * STEP, left);
      load_w(i, k + ROUND);
    }
  }
  add_up<T, ROWS, COLUMNS, NORM>(c, sums, offsets, activation, residuals, y + first_column, row_count, outer);
}

#define SKINNY(suffix, T, ROWS, COLUMNS, name, NORM)                                                                \
  KERNEL(256, 2) skinny_##name##_##suffix##_##ROWS##_##COLUMNS(                                                     \
      const unsigned* count, const T* x, const unsigned* x_rows, const T* gamma, const T* beta, float eps,          \
      T* normalized, const T* w, const T* bias, unsigned activation, const T* residual,                             \
      const unsigned* residual_rows, T* y, int inner, int outer) {                                                  \
    skinny<T, ROWS, COLUMNS, NORM>(count, x, x_rows, gamma, beta, eps, normalized, w, bias, activation, residual,   \
                                   residual_rows, y, inner, outer);                                                 \
  }
#define SKINNY_COLUMNS(suffix, T, ROWS, COLUMNS)  \
  SKINNY(suffix, T, ROWS, COLUMNS, plain, false)  \
  SKINNY(suffix, T, ROWS, COLUMNS, norm, true)
// 32 columns of 32 rows would not fit the registers.
#define SKINNY_OF(suffix, T)      \
  SKINNY_COLUMNS(suffix, T, 1, 1) \
  SKINNY_COLUMNS(suffix, T, 1, 2) \
  SKINNY_COLUMNS(suffix, T, 1, 3) \
  SKINNY_COLUMNS(suffix, T, 1, 4) \
  SKINNY_COLUMNS(suffix, T, 2, 1) \
  SKINNY_COLUMNS(suffix, T, 2, 2) \
  SKINNY_COLUMNS(suffix, T, 2, 3)

SKINNY_OF(f16, half_t)
SKINNY_OF(bf16, bfloat_t)
