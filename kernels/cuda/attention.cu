// softmax(q·kᵀ/√d)·v for sequences of different lengths, laid end to end; no padding, no mask but the
// length (scaled dot-product attention, Vaswani et al. 2017, arXiv:1706.03762; the softmax is taken
// online, Milakov and Gimelshein 2018, arXiv:1805.02867).
//
// v1 attention_rows: a warp a query, f32 arithmetic, any type and head size. What the matrix unit does
//    not reach: f32, head sizes other than 32 and 64, and the last layer's single query a sequence.
// v2 attention_tiles: a warp 16 queries of one head on the matrix unit (Turing and newer). Operands go
//    from global memory into registers in 16-byte reads and need no shared memory: a sum over d may be
//    taken in any order, so a lane reads eight neighbours where the instruction wants four pairs, and
//    v is transposed inside the warp. Warps are independent: a block holds several short sequences.
// Next, to be measured: keys and values of long sequences through shared memory (cp.async).
#include "device.cuh"

// A tile is 16 queries of one sequence: number of the sequence times 256, plus number of the tile in it.
constexpr int TILE = 16;

struct Tile {
  unsigned sequence;
  int first_query;
  DEVICE explicit Tile(unsigned entry) : sequence(entry / 256), first_query(int(entry % 256) * TILE) {}
};

// A lane's place in the operands of multiply_16x8x16: row (or column) `group`, eight values from `at`.
struct Lane {
  int group, at;
  DEVICE Lane() : group(int(threadIdx.x) % WARP / 4), at(int(threadIdx.x) % 4 * 8) {}
};

// Sixteen rows of `SIZE` values as the left operand; rows from `rows` on read as zero.
template <class T, int SIZE> struct Queries {
  unsigned a[SIZE / 32][2][4];

  DEVICE Queries(const T* from, size_t stride, int rows, Lane lane) {
#pragma unroll
    for (int block = 0; block < SIZE / 32; block++) {
      Words4 low = {}, high = {};
      const T* at = from + block * 32 + lane.at;
      if (lane.group < rows) low = load_words(at + lane.group * stride);
      if (lane.group + 8 < rows) high = load_words(at + (lane.group + 8) * stride);
#pragma unroll
      for (int step = 0; step < 2; step++) {
        a[block][step][0] = low.w[2 * step];
        a[block][step][1] = high.w[2 * step];
        a[block][step][2] = low.w[2 * step + 1];
        a[block][step][3] = high.w[2 * step + 1];
      }
    }
  }
};

template <class T, int SIZE>
DEVICE void attention_tiles(const unsigned* tile_count, const unsigned* tiles, const unsigned* offsets, const T* qkv,
                            T* context, float scale, int heads) {
  unsigned index = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  let_next_kernel_begin();
  wait_for_kernel_before();
  if (tile_count[0] == 0) return;
  unsigned head = index / tile_count[0];
  if (head >= unsigned(heads)) return;
  Tile tile(tiles[index % tile_count[0]]);
  int start = int(offsets[tile.sequence]), length = int(offsets[tile.sequence + 1]) - start;
  int hidden = heads * SIZE;
  size_t stride = size_t(hidden) * 3;
  const T* keys = qkv + start * stride + hidden + head * SIZE;
  const T* values = keys + hidden;
  Lane lane;
  int pair = int(threadIdx.x) % 4 * 2;
  Queries<T, SIZE> q(qkv + (start + tile.first_query) * stride + head * SIZE, stride, length - tile.first_query, lane);

  float out[SIZE / 32][4][4] = {};
  float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
  for (int first_key = 0; first_key < length; first_key += 16) {
    // Scores of 16 queries with two times eight keys.
    float score[2][4] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int key = first_key + half * 8 + lane.group;
#pragma unroll
      for (int block = 0; block < SIZE / 32; block++) {
        Words4 k = {};
        if (key < length) k = load_words(keys + key * stride + block * 32 + lane.at);
#pragma unroll
        for (int step = 0; step < 2; step++) {
          unsigned b[2] = {k.w[2 * step], k.w[2 * step + 1]};
          multiply_16x8x16<T>(score[half], q.a[block][step], b);
        }
      }
    }
    // Rows `group` and `group` + 8; the four lanes of a group hold a row together.
    unsigned weights[4];
#pragma unroll
    for (int row = 0; row < 2; row++) {
      float largest = maximum[row];
#pragma unroll
      for (int half = 0; half < 2; half++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float& s = score[half][row * 2 + e];
          s = first_key + half * 8 + pair + e < length ? s * (scale * LOG2_E) : -INFINITY;
          largest = fmaxf(largest, s);
        }
      largest = fmaxf(largest, shuffle_xor(largest, 1));
      largest = fmaxf(largest, shuffle_xor(largest, 2));
      // The first key of a step lies inside the sequence, so `largest` is finite from here on.
      float shrink = exp2f(maximum[row] - largest);
      maximum[row] = largest;
      sum[row] *= shrink;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float low = exp2f(score[half][row * 2] - largest), high = exp2f(score[half][row * 2 + 1] - largest);
        sum[row] += low + high;
        weights[half * 2 + row] = pack2<T>(low, high);
      }
#pragma unroll
      for (int block = 0; block < SIZE / 32; block++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          out[block][j][row * 2] *= shrink;
          out[block][j][row * 2 + 1] *= shrink;
        }
    }
#pragma unroll
    for (int block = 0; block < SIZE / 32; block++) {
      Words4 v[2] = {};
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int key = first_key + half * 8 + lane.group;
        if (key < length) v[half] = load_words(values + key * stride + block * 32 + lane.at);
      }
      // Word j of all lanes is a matrix of eight keys by eight of the columns; its transpose is the
      // right operand, and its columns come out as eight neighbours a lane again.
#pragma unroll
      for (int j = 0; j < 4; j++) {
        unsigned b[2] = {transpose8x8(v[0].w[j]), transpose8x8(v[1].w[j])};
        multiply_16x8x16<T>(out[block][j], weights, b);
      }
    }
  }
#pragma unroll
  for (int row = 0; row < 2; row++) {
    float total = sum[row];
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
    int query = tile.first_query + lane.group + row * 8;
    if (query >= length) continue;
    T* to = context + size_t(start + query) * hidden + head * SIZE + lane.at;
#pragma unroll
    for (int block = 0; block < SIZE / 32; block++) {
      Words4 packed;
#pragma unroll
      for (int j = 0; j < 4; j++)
        packed.w[j] = pack2<T>(out[block][j][row * 2] / total, out[block][j][row * 2 + 1] / total);
      store_words(to + block * 32, packed);
    }
  }
}

// Largest head size of attention_rows: eight values a lane.
constexpr int HEAD_SIZE_MAX = 256;

// Where attention_rows finds a sequence's queries.
enum QueryRows : unsigned {
  ALL = 0,    // `items` are tiles: every token of the sequence is a query
  FIRST = 1,  // the sequence's first token, at its own place among the tokens
  PACKED = 2  // one query a sequence, number of the sequence = row
};

// `items` are counted by `item_count`: tiles with ALL, else sequences. q and context of the latter two
// have one row a sequence (context always so).
template <class T>
DEVICE void attention_rows(const unsigned* item_count, const unsigned* tiles, const unsigned* offsets, const T* q,
                           long long q_stride, const T* keys, const T* values, long long stride, T* context,
                           float scale, int heads, int head_size, unsigned query_rows) {
  unsigned index = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  let_next_kernel_begin();
  wait_for_kernel_before();
  if (item_count[0] == 0) return;
  unsigned head = index / item_count[0], item = index % item_count[0];
  if (head >= unsigned(heads)) return;
  Tile tile(query_rows == ALL ? tiles[item] : item * 256);
  int lane = int(threadIdx.x) % WARP;
  size_t start = offsets[tile.sequence];
  int length = int(offsets[tile.sequence + 1] - start);
  int queries = query_rows == ALL ? min(TILE, length - tile.first_query) : 1;
  keys += start * stride + head * head_size;
  values += start * stride + head * head_size;
  for (int query = 0; query < queries; query++) {
    size_t q_row = query_rows == ALL ? start + tile.first_query + query : query_rows == FIRST ? start : item;
    size_t out_row = query_rows == ALL ? q_row : item;
    const T* q_at = q + q_row * q_stride + head * head_size;
    float maximum = -INFINITY, sum = 0.0f, out[HEAD_SIZE_MAX / WARP] = {};
    for (int first_key = 0; first_key < length; first_key += WARP) {
      float score = -INFINITY;
      if (first_key + lane < length) {
        const T* k_at = keys + (first_key + lane) * stride;
        float dot = 0.0f;
        for (int at = 0; at < head_size; at += 8) {
          Vector8 a = load8(q_at + at), b = load8(k_at + at);
#pragma unroll
          for (int j = 0; j < 8; j++) dot += a.v[j] * b.v[j];
        }
        score = dot * (scale * LOG2_E);
      }
      float largest = fmaxf(maximum, warp_max(score));
      float shrink = exp2f(maximum - largest), weight = exp2f(score - largest);
      maximum = largest;
      sum = sum * shrink + warp_sum(weight);
#pragma unroll
      for (int i = 0; i < HEAD_SIZE_MAX / WARP; i++) out[i] *= shrink;
      int here = min(WARP, length - first_key);
      for (int j = 0; j < here; j++) {
        float w = shuffle(weight, j);
        const T* v_at = values + (first_key + j) * stride;
#pragma unroll
        for (int i = 0; i < HEAD_SIZE_MAX / WARP; i++) {
          int d = i * WARP + lane;
          if (d < head_size) out[i] += w * to_float(v_at[d]);
        }
      }
    }
    T* to = context + out_row * size_t(heads * head_size) + head * head_size;
#pragma unroll
    for (int i = 0; i < HEAD_SIZE_MAX / WARP; i++) {
      int d = i * WARP + lane;
      if (d < head_size) to[d] = from_float<T>(out[i] / sum);
    }
  }
}

#define ATTENTION_TILES(suffix, T, SIZE)                                                                          \
  KERNEL(128, 4) attention_tiles_##suffix##_##SIZE(const unsigned* tile_count, const unsigned* tiles,                \
                                                const unsigned* offsets, const T* qkv, T* context, float scale,   \
                                                int heads) {                                                      \
    attention_tiles<T, SIZE>(tile_count, tiles, offsets, qkv, context, scale, heads);                             \
  }
ATTENTION_TILES(f16, half_t, 32)
ATTENTION_TILES(f16, half_t, 64)
ATTENTION_TILES(bf16, bfloat_t, 32)
ATTENTION_TILES(bf16, bfloat_t, 64)

#define ATTENTION_ROWS(suffix, T)                                                                                 \
  KERNEL(128, 4) attention_rows_##suffix(const unsigned* item_count, const unsigned* tiles, const unsigned* offsets, \
                                      const T* q, long long q_stride, const T* keys, const T* values,             \
                                      long long stride, T* context, float scale, int heads, int head_size,        \
                                      unsigned query_rows) {                                                      \
    attention_rows<T>(item_count, tiles, offsets, q, q_stride, keys, values, stride, context, scale, heads,       \
                      head_size, query_rows);                                                                     \
  }
ATTENTION_ROWS(f32, float)
ATTENTION_ROWS(f16, half_t)
ATTENTION_ROWS(bf16, bfloat_t)
