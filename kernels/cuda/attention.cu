// softmax(q·kᵀ/√d)·v for sequences of different lengths, stored end to end; no padding, and no mask except the
// length (scaled dot-product attention, Vaswani et al. 2017, arXiv:1706.03762; online softmax, Milakov and
// Gimelshein 2018, arXiv:1805.02867).
//
// v1 attention_rows: one warp per query, f32 arithmetic, any type and head size. It remains for what the matrix
//    unit does not support: f32, head sizes other than 32 and 64, and the last layer's single query per sequence.
// v2 one warp per 16 queries of a head, on the matrix unit (Turing and newer), operands from global memory
//    directly into registers. Each warp read all keys and values of its sequence, and rescaled its sums every
//    16 keys.
// v3 attention_tiles: eight such warps share keys and values in shared memory, 128 at a time. Up to 48 keys
//    share a maximum, and sums are rescaled only when it rises by much. ldmatrix transposes the values.
//
// Counts from the PTX of sm_90 for BERT-base in f16, 12 heads of 64, one layer; not timed:
//                            warp instructions      sectors read     products
//    sequences x tokens         v2        v3         v2       v3      v2     v3
//    1 x 12                  6,072    18,504     0.06 MB  0.08 MB    192    204
//    128 x 128              27.2 M    13.7 M      429 MB    80 MB  1.57 M  1.67 M
//    1365 x 12               8.2 M     8.9 M       78 MB    86 MB  0.26 M  0.28 M
// Short sequences cost more because of the path through shared memory and the warps of a block without a tile.
#include "device.cuh"

// A tile is 16 tokens of one sequence. The list has the tiles of all sequences in order; an entry is the number
// of the sequence times 256 plus the number of the tile within the sequence.
constexpr int TILE = 16;

struct Tile {
  unsigned sequence;
  int number;
  DEVICE explicit Tile(unsigned entry) : sequence(entry / 256), number(int(entry % 256)) {}
};

// The position of a sequence among the tokens.
struct Sequence {
  int start, length;
  DEVICE Sequence(const unsigned* offsets, unsigned number)
      : start(int(layout_word(offsets + number))), length(int(layout_word(offsets + number + 1)) - start) {}
  DEVICE int tiles() const { return (length + TILE - 1) / TILE; }
};

// The rows of the tile at `index` of the list; no rows from `end` on.
struct TileRows {
  unsigned first = 0;
  int count = 0;

  DEVICE TileRows(const unsigned* tiles, const unsigned* offsets, int index, int end) {
    if (index >= end) return;
    Tile tile(layout_word(tiles + index));
    Sequence sequence(offsets, tile.sequence);
    first = unsigned(sequence.start + tile.number * TILE);
    count = sequence.length - tile.number * TILE;
  }
};

// A block of attention_tiles has one warp per tile of queries, and as many tiles of keys in shared memory. The
// host uses the same two numbers (src/ops/attention.rs).
constexpr int ATTENTION_WARPS = 8;
constexpr int CHUNK = ATTENTION_WARPS;

// attention_tiles reads and copies units of eight values, 16 bytes; all its strides and positions are in units.
// In units, every batch fits 32 bits and an address takes one instruction.

// Sixteen rows of `SIZE` values as the left operand; rows from `rows` on are copies of the last row. The order
// of a sum over d is free: a lane reads eight adjacent values where the instruction expects four pairs.
template <int SIZE> struct Queries {
  unsigned a[SIZE / 32][2][4];

  DEVICE void load(const Words4* from, unsigned first, unsigned stride, unsigned rows) {
    unsigned lane = lane_id(), row = lane / 4, unit = first + lane % 4;
    const Words4* low_row = from + (unit + min(row, rows - 1) * stride);
    const Words4* high_row = from + (unit + min(row + 8, rows - 1) * stride);
#pragma unroll
    for (int block = 0; block < SIZE / 32; block++) {
      Words4 low = low_row[block * 4], high = high_row[block * 4];
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

// The position of a unit of keys or values in shared memory. Rows are consecutive; the units of a row are
// permuted so that no access uses a bank twice. A read of keys takes four units of two rows at a time, a read
// of values one unit of eight rows, a write every other unit of adjacent rows. The permutation repeats every
// eight rows. Rows of four units already lie side by side in pairs.
template <unsigned UNITS> DEVICE unsigned place(unsigned row, unsigned unit) {
  unsigned swap = UNITS == 8 ? row % 8 ^ row % 2 * 4 : row / 2 % 4;
  return row * UNITS + (unit ^ swap);
}

// Copies keys and values of a tile into shared memory, with one warp. Rows from `rows` on become copies of the
// last row: their scores are masked, but weight 0 needs a finite value.
// The pairs of two adjacent units of values are rearranged, even pairs into the first unit and odd pairs into
// the second. A lane's columns of the product are then four adjacent values, and those of a row are 32 bytes.
template <unsigned UNITS>
DEVICE void copy_tile(const Words4* from, unsigned first_key, unsigned first_value, unsigned stride, unsigned rows,
                      Words4* keys, Words4* values) {
  constexpr unsigned ROWS = WARP / UNITS, PASSES = TILE / ROWS;
  unsigned lane = lane_id(), row = lane / UNITS, unit = lane % UNITS;
  Words4 k[PASSES], v[PASSES];
#pragma unroll
  for (unsigned pass = 0; pass < PASSES; pass++) {
    unsigned at = min(row + pass * ROWS, rows - 1) * stride + unit;
    k[pass] = from[first_key + at];
    v[pass] = from[first_value + at];
  }
  unsigned whole = place<UNITS>(row, unit), even = place<UNITS>(row, unit & ~1u), half = unit % 2;
#pragma unroll
  for (unsigned pass = 0; pass < PASSES; pass++) {
    // Four rows further, a unit's position is four units away.
    unsigned swap = pass * ROWS % 8, before = pass * ROWS * UNITS;
    keys[before + (whole ^ swap)] = k[pass];
    Words2* first = reinterpret_cast<Words2*>(&values[before + (even ^ swap)]);
    Words2* second = reinterpret_cast<Words2*>(&values[before + (even ^ swap ^ 1)]);
    first[half] = {v[pass].w[0], v[pass].w[2]};
    second[half] = {v[pass].w[1], v[pass].w[3]};
  }
}

// The running sums and maxima of 16 queries. A lane holds parts of rows `lane / 4` and `lane / 4 + 8`; four
// lanes together hold a row.
template <class T, int SIZE> struct Attended {
  static constexpr unsigned UNITS = SIZE / 8;
  float out[SIZE / 8][4] = {}, sum[4] = {}, maximum[2] = {-INFINITY, -INFINITY};
  unsigned lane = threadIdx.x % WARP;
  unsigned key_at = place<UNITS>(lane / 4, lane % 4), value_at = place<UNITS>(lane % 16, lane / 16);

  // Attends to the next `TILES` tiles of keys and values in shared memory. `present` keys are real: the last
  // tile may end early. `factor` converts scores to exponents of 2.
  template <int TILES>
  DEVICE void attend(const Queries<SIZE>& q, const Words4* keys, const Words4* values, int present,
                     float factor) {
    float score[2 * TILES][4] = {};
#pragma unroll
    for (int block = 0; block < SIZE / 32; block++)
#pragma unroll
      for (int n = 0; n < 2 * TILES; n++) {
        Words4 k = keys[n * 8 * UNITS + (key_at ^ block * 4)];
#pragma unroll
        for (int step = 0; step < 2; step++) {
          unsigned b[2] = {k.w[2 * step], k.w[2 * step + 1]};
          multiply_16x8x16<T>(score[n], q.a[block][step], b);
        }
      }
    if (present < TILES * TILE) {
#pragma unroll
      for (int e = 0; e < 8; e++) {
        int n = 2 * TILES - 2 + e / 4;
        if (n * 8 + int(lane) % 4 * 2 + e % 2 >= present) score[n][e % 4] = -INFINITY;
      }
    }
    unsigned weights[TILES][4];
    weigh<TILES>(score, factor, weights);
    // The sum of the weights is the product with a column of ones.
    const unsigned ones[2] = {pack2<T>(1.0f, 1.0f), pack2<T>(1.0f, 1.0f)};
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      multiply_16x8x16<T>(sum, weights[tile], ones);
#pragma unroll
      for (int n = 0; n < SIZE / 8; n += 2) {
        unsigned v[4];
        load_transposed(v, &values[tile * TILE * UNITS + (value_at ^ n)]);
        unsigned first[2] = {v[0], v[1]}, second[2] = {v[2], v[3]};
        multiply_16x8x16<T>(out[n], weights[tile], first);
        multiply_16x8x16<T>(out[n + 1], weights[tile], second);
      }
    }
  }

  // Converts scores to weights: powers of 2 relative to `maximum`, one of the row's scores as an exponent. It
  // need not be the largest: a weight of up to 2^SLACK is as accurate and fits f16. Only for larger scores does
  // `maximum` rise and are the sums rescaled; the first time there are no sums.
  template <int TILES> DEVICE void weigh(float (&score)[2 * TILES][4], float factor, unsigned (&weights)[TILES][4]) {
    constexpr float SLACK = 8.0f;
    float before[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int row = 0; row < 2; row++) {
      float largest = score[0][2 * row];
#pragma unroll
      for (int n = 0; n < 2 * TILES; n++) largest = fmaxf(largest, fmaxf(score[n][2 * row], score[n][2 * row + 1]));
      largest = fmaxf(largest, shuffle_xor(largest, 1));
      largest = fmaxf(largest, shuffle_xor(largest, 2)) * factor;
      if (largest > maximum[row] + SLACK) maximum[row] = largest;
#pragma unroll
      for (int n = 0; n < 2 * TILES; n++) {
        float low = power_of_2(fmaf(score[n][2 * row], factor, -maximum[row]));
        float high = power_of_2(fmaf(score[n][2 * row + 1], factor, -maximum[row]));
        weights[n / 2][n % 2 * 2 + row] = pack2<T>(low, high);
      }
    }
    bool nothing_yet = before[0] == -INFINITY && before[1] == -INFINITY;
    if (nothing_yet || (maximum[0] == before[0] && maximum[1] == before[1])) return;
#pragma unroll
    for (int row = 0; row < 2; row++) {
      float shrink = power_of_2(before[row] - maximum[row]);
      sum[2 * row] *= shrink;
#pragma unroll
      for (int n = 0; n < SIZE / 8; n++) {
        out[n][2 * row] *= shrink;
        out[n][2 * row + 1] *= shrink;
      }
    }
  }

  // Stores the result; rows from `rows` on are not written. `to`, `first` and `stride` are in half units.
  DEVICE void store(Words2* to, unsigned first, unsigned stride, int rows) const {
#pragma unroll
    for (unsigned row = lane / 4, high = 0; high < 2; row += 8, high++) {
      if (int(row) >= rows) continue;
      Words2* at = to + (first + row * stride + lane % 4);
      float inverse = reciprocal(sum[2 * high]);
#pragma unroll
      for (unsigned n = 0; n < UNITS; n += 2)
        at[n * 2] = {pack2<T>(out[n][2 * high] * inverse, out[n][2 * high + 1] * inverse),
                     pack2<T>(out[n + 1][2 * high] * inverse, out[n + 1][2 * high + 1] * inverse)};
    }
  }
};

// Block b processes eight tiles of queries of head b % heads. Their keys are also adjacent in the list of
// tiles: from the first tile of the first sequence to the last tile of the last sequence.
template <class T, int SIZE>
DEVICE void attention_tiles(const unsigned* tile_count, const unsigned* tiles, const unsigned* offsets, const T* qkv,
                            T* context, float scale, int heads) {
  SHARED(Words4, keys);  // [tile of the chunk][row][unit], as `place` has it; then the values
  constexpr unsigned UNITS = SIZE / 8, TILE_UNITS = TILE * UNITS;
  Words4* values = keys + CHUNK * TILE_UNITS;
  int count = int(layout_word(tile_count)), first = int(blockIdx.x / unsigned(heads)) * ATTENTION_WARPS;
  let_next_kernel_begin();
  if (first >= count) return wait_for_kernel_before();
  int warp = int(threadIdx.x / WARP), last = min(first + ATTENTION_WARPS, count) - 1, index = min(first + warp, last);
  Tile tile(layout_word(tiles + index)), last_tile(layout_word(tiles + last));
  Sequence sequence(offsets, tile.sequence);
  int begin = first - Tile(layout_word(tiles + first)).number;
  int end = last - last_tile.number + Sequence(offsets, last_tile.sequence).tiles();
  // The next tile of this warp's keys, and their end as if each preceding tile had 16 rows. A warp beyond the
  // last tile only takes part in the barriers.
  int next = index - tile.number, keys_end = first + warp > last ? 0 : next * TILE + sequence.length;
  int own_end = (keys_end + TILE - 1) / TILE;
  unsigned hidden = unsigned(heads) * UNITS, stride = hidden * 3, column = blockIdx.x % unsigned(heads) * UNITS;
  unsigned row = unsigned(sequence.start + tile.number * TILE);
  const Words4* from = reinterpret_cast<const Words4*>(qkv);
  TileRows copied(tiles, offsets, begin + warp, end);
  wait_for_kernel_before();
  Queries<SIZE> q;
  if (keys_end > 0) q.load(from, row * stride + column, stride, keys_end - (first + warp) * TILE);
  Attended<T, SIZE> attended;
  float factor = scale * LOG2_E;
#pragma unroll 1
  for (int chunk = begin;; chunk += CHUNK) {
    if (copied.count > 0) {
      unsigned first_key = copied.first * stride + hidden + column;
      copy_tile<UNITS>(from, first_key, first_key + hidden, stride, copied.count, keys + warp * TILE_UNITS,
                       values + warp * TILE_UNITS);
    }
    block_barrier();
    int stop = min(chunk + CHUNK, own_end);
#pragma unroll 1
    while (next < stop) {
      const Words4 *k = keys + (next - chunk) * TILE_UNITS, *v = k + CHUNK * TILE_UNITS;
      int present = keys_end - next * TILE;
      // Tiles processed together share a maximum; more than three would need too many registers.
      if (next + 3 <= stop) {
        attended.template attend<3>(q, k, v, present, factor);
        next += 3;
      } else if (next + 2 <= stop) {
        attended.template attend<2>(q, k, v, present, factor);
        next += 2;
      } else {
        attended.template attend<1>(q, k, v, present, factor);
        next++;
      }
    }
    if (chunk + CHUNK >= end) break;
    copied = TileRows(tiles, offsets, chunk + CHUNK + warp, end);
    block_barrier();  // until no warp reads this chunk
  }
  attended.store(reinterpret_cast<Words2*>(context), (row * hidden + column) * 2, hidden * 2,
                 keys_end - (first + warp) * TILE);
}

// The position of a sequence's queries in attention_rows.
enum QueryRows : unsigned {
  ALL = 0,    // `items` are tiles: every token of the sequence is a query
  FIRST = 1,  // the sequence's first token, at its position among the tokens
  PACKED = 2  // one query per sequence, in the row of the sequence's number
};

// `item_count` is the number of items: tiles for ALL, otherwise sequences, for which context has one row per
// sequence. A lane computes the score of one of 32 keys. Then the warp sums their weighted values, as many rows
// at a time as it can read with 16 bytes per lane.
template <class T>
DEVICE void attention_rows(const unsigned* item_count, const unsigned* tiles, const unsigned* offsets, const T* q,
                           long long q_stride, const T* keys, const T* values, long long stride, T* context,
                           float scale, int heads, int head_size, unsigned query_rows) {
  unsigned index = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, count = layout_word(item_count);
  let_next_kernel_begin();
  if (index >= count * unsigned(heads)) return wait_for_kernel_before();
  unsigned head = index / count, item = index % count;
  Tile tile(query_rows == ALL ? layout_word(tiles + item) : item * 256);
  Sequence sequence(offsets, tile.sequence);
  wait_for_kernel_before();
  unsigned lane = threadIdx.x % WARP, lanes_a_row = unsigned(head_size) / 8, rows = WARP / lanes_a_row;
  unsigned row = lane / lanes_a_row;
  int length = sequence.length, first_query = tile.number * TILE;
  size_t start = size_t(sequence.start);
  int queries = query_rows == ALL ? min(TILE, length - first_query) : 1;
  keys += start * stride + head * head_size;
  values += start * stride + head * head_size + lane % lanes_a_row * 8;
  for (int query = 0; query < queries; query++) {
    size_t q_row = query_rows == ALL ? start + first_query + query : query_rows == FIRST ? start : item;
    size_t out_row = query_rows == ALL ? q_row : item;
    const T* q_at = q + q_row * q_stride + head * head_size;
    float maximum = -INFINITY, sum = 0.0f;
    Vector8 out = {};
    for (int first_key = 0; first_key < length; first_key += WARP) {
      float score = -INFINITY;
      int here = min(WARP, length - first_key);
      if (int(lane) < here) {
        const T* k_at = keys + (first_key + int(lane)) * stride;
        float dot = 0.0f;
        for (int at = 0; at < head_size; at += 8) {
          Vector8 a = load8(q_at + at), b = load8(k_at + at);
#pragma unroll
          for (int j = 0; j < 8; j++) dot += a.v[j] * b.v[j];
        }
        score = dot * (scale * LOG2_E);
      }
      float largest = fmaxf(maximum, warp_max(score));
      float shrink = power_of_2(maximum - largest), weight = power_of_2(score - largest);
      maximum = largest;
      sum = sum * shrink + weight;
#pragma unroll
      for (int j = 0; j < 8; j++) out.v[j] *= shrink;
#pragma unroll 4
      for (int first_row = 0; first_row < here; first_row += int(rows)) {
        int key = first_row + int(row);
        float w = shuffle(weight, key % WARP);
        if (row >= rows || key >= here) continue;
        Vector8 v = load8(values + (first_key + key) * stride);
#pragma unroll
        for (int j = 0; j < 8; j++) out.v[j] += w * v.v[j];
      }
    }
    // The lanes of the first row add the other lanes' sums of their columns.
    float inverse = reciprocal(warp_sum(sum));
    Vector8 total = out;
    for (unsigned other = 1; other < rows; other++)
#pragma unroll
      for (int j = 0; j < 8; j++) total.v[j] += shuffle(out.v[j], int((lane + other * lanes_a_row) % WARP));
#pragma unroll
    for (int j = 0; j < 8; j++) total.v[j] *= inverse;
    T* to = context + out_row * size_t(heads * head_size) + head * head_size;
    if (row == 0) store8(to + lane * 8, total);
  }
}

#define ATTENTION_TILES(suffix, T, SIZE)                                                                          \
  KERNEL(256, 2) attention_tiles_##suffix##_##SIZE(const unsigned* tile_count, const unsigned* tiles,                \
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
