// What the passes of kernels/attention.cu share: tiles of rows in shared memory, a warp's products with them, and which
// rows see each other.
#pragma once
#include "tensor_core.cuh"

enum {
  THREADS = 32 * WARPS,
  OWN = 16 * WARPS,
  CHUNKS = D / 8,       // pieces of 16 bytes in a row
  SLICES = D / 16,      // products that a sum over the features takes
  ROW = 2 * D + 16,     // bytes; an odd number of pieces, so that 8 rows under one another lie in different banks
  OWN_BYTES = OWN * ROW,
  TILE_BYTES = TILE * ROW,
  OWN_MATRICES = PASS == FORWARD ? 1 : 2,
  NUMBERS_BYTES = PASS == KEYS ? TILE * 8 : 0, // logsumexp and sum of a tile's queries
  STAGE_BYTES = 2 * TILE_BYTES + NUMBERS_BYTES,
};
static_assert(D % 16 == 0 && D <= 128 && TILE % STEP == 0 && STEP % 16 == 0, "tiles are made of fragments");

// The rows of a head begin at data + batch * b + head * h; strides in bytes.
struct rows {
  char *data;
  i64 batch, head, row;
};

struct job {
  rows q, k, v, out, g, gq, gk, gv;
  float *logsumexp, *sums; // [B,H,queries]
  i64 batches;
  int heads, queries, keys;
  float scale;
};

inline char *head_of(const rows &r, i64 batch, int head) { return r.data + batch * r.batch + head * r.head; }

constexpr float LOG2_E = 1.44269504088896340736f, LN_2 = 0.69314718055994530942f;

// ---- shared memory ----

// `count` rows from `first` on; zeros for those from `limit` on.
template <int count> inline void fetch_rows(u32 to, const char *head, i64 stride, int first, int limit) {
#pragma unroll
  for (int i = threadIdx.x; i < count * CHUNKS; i += THREADS) {
    const int row = i / CHUNKS, piece = i % CHUNKS;
    const bool there = first + row < limit;
    fetch(to + row * ROW + piece * 16, there ? head + (first + row) * stride + piece * 16 : head, there);
  }
}

inline void fetch_numbers(u32 to, const float *from, int first, int limit) {
  for (int i = threadIdx.x; i < TILE; i += THREADS)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to + i * 4),
                 "l"(first + i < limit ? from + first + i : from), "r"(first + i < limit ? 4 : 0)
                 : "memory");
}

inline void load_two(float &a, float &b, u32 at) {
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(a), "=f"(b) : "r"(at) : "memory");
}

// ---- a warp's products ----

// 16 own rows as the left operand.
struct own_rows {
  u32 at; // where this lane's part begins
  u32 held[HELD ? SLICES : 1][4];

  inline void begin(u32 tile, int warp, int lane) {
    at = tile + (warp * 16 + lane % 16) * ROW + lane / 16 * 16;
    if (HELD)
#pragma unroll
      for (int i = 0; i < SLICES; i++) load_matrices(held[HELD ? i : 0], at + i * 32);
  }
  inline void fragment(u32 (&to)[4], int slice) const {
    if (!HELD) return load_matrices(to, at + slice * 32);
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = held[HELD ? slice : 0][i];
  }
};

// sum [16][STEP] = own other^T
inline void multiply_rows(float (&sum)[STEP / 8][4], const own_rows &own, u32 other, int lane) {
  const u32 at = other + (lane / 16 * 8 + lane % 8) * ROW + lane / 8 % 2 * 16;
#pragma unroll
  for (int n = 0; n < STEP / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) sum[n][i] = 0;
#pragma unroll
  for (int slice = 0; slice < SLICES; slice++) {
    u32 a[4];
    own.fragment(a, slice);
#pragma unroll
    for (int n = 0; n < STEP / 16; n++) {
      u32 b[4];
      load_matrices(b, at + n * 16 * ROW + slice * 32);
      multiply_16(TYPE(), sum[2 * n], a, b[0], b[1]);
      multiply_16(TYPE(), sum[2 * n + 1], a, b[2], b[3]);
    }
  }
}

// sum [16][D] += weights [16][STEP] other, with the weights rounded to TYPE.
inline void add_weighted(float (&sum)[D / 8][4], const float (&weight)[STEP / 8][4], u32 other, int lane) {
  const u32 at = other + lane % 16 * ROW + lane / 16 * 16;
#pragma unroll
  for (int n = 0; n < STEP / 16; n++) {
    const float(&left)[4] = weight[2 * n], (&right)[4] = weight[2 * n + 1];
    const u32 a[4] = {pack_two(TYPE(), left[0], left[1]), pack_two(TYPE(), left[2], left[3]),
                      pack_two(TYPE(), right[0], right[1]), pack_two(TYPE(), right[2], right[3])};
#pragma unroll
    for (int f = 0; f < D / 16; f++) {
      u32 b[4];
      load_transposed(b[0], b[1], b[2], b[3], at + n * 16 * ROW + f * 32);
      multiply_16(TYPE(), sum[2 * f], a, b[0], b[1]);
      multiply_16(TYPE(), sum[2 * f + 1], a, b[2], b[3]);
    }
  }
}

// Writes a warp's sums, times a factor for each of a lane's two rows, by way of the warp's own rows in shared memory,
// which nobody needs any more: 16 bytes of a row at once.
inline void store_sums(char *head, i64 stride, int first, int limit, const float (&sum)[D / 8][4], float upper,
                       float lower, char *tile, int warp, int lane) {
  char *mine = tile + warp * 16 * ROW;
  __syncwarp();
#pragma unroll
  for (int f = 0; f < D / 8; f++) {
    char *at = mine + lane / 4 * ROW + f * 16 + lane % 4 * 4;
    *(u32 *)at = pack_two(TYPE(), sum[f][0] * upper, sum[f][1] * upper);
    *(u32 *)(at + 8 * ROW) = pack_two(TYPE(), sum[f][2] * lower, sum[f][3] * lower);
  }
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 16 * CHUNKS; i += 32) {
    const int row = i / CHUNKS, piece = i % CHUNKS;
    if (first + row < limit)
      *(uint4 *)(head + (first + row) * stride + piece * 16) = *(const uint4 *)(mine + row * ROW + piece * 16);
  }
}

// ---- who sees whom ----

// The block's head and rows. Blocks of one head follow one another, for they read the same rows; those with most to do
// come first.
struct place {
  int batch, head, first;
  inline place(const job &j, int owned) {
    const int tiles = (owned + OWN - 1) / OWN, tile = blockIdx.x % tiles, at = blockIdx.x / tiles;
    batch = at / j.heads, head = at % j.heads;
    first = (PASS == KEYS ? tile : tiles - 1 - tile) * OWN;
  }
  // Where the numbers of the head's queries begin.
  inline i64 line(const job &j) const { return ((i64)batch * j.heads + head) * j.queries; }
};

// The others from begin to end that any of `count` own rows from `own` on sees.
struct range {
  int begin, end;
  inline range(const job &j, int own, int count) {
    const int before = j.keys - j.queries;
    begin = 0, end = PASS == KEYS ? j.queries : j.keys;
    if (CAUSAL && PASS == KEYS) begin = max(0, own - before);
    if (CAUSAL && PASS != KEYS) end = min(end, own + count + before);
  }
};

// The others from begin to end that all of a warp's rows see.
struct common {
  int begin, end;
  inline common(const job &j, int own) {
    const int before = j.keys - j.queries;
    begin = CAUSAL && PASS == KEYS ? own + 15 - before : 0;
    end = PASS == KEYS ? j.queries : CAUSAL ? min(j.keys, own + 1 + before) : j.keys;
  }
};

inline bool sees(const job &j, int own, int other) {
  if (PASS == KEYS) return !CAUSAL || own <= other + j.keys - j.queries;
  return other < j.keys && (!CAUSAL || other <= own + j.keys - j.queries);
}

// Own row and other row of element i of the n-th tile of 8 columns.
inline int own_of(int own, int lane, int i) { return own + lane / 4 + i / 2 * 8; }
inline int other_of(int other, int lane, int n, int i) { return other + n * 8 + lane % 4 * 2 + i % 2; }

// Goes over the tiles of the others: fetch_tile(shared address, first row), body(shared address, the step's first row in
// the tile, and among the others). `prepare` is called once, when what the caller has begun to fetch is there.
template <class FETCH, class PREPARE, class BODY>
inline void over_tiles(const range &all, u32 stages, FETCH fetch_tile, PREPARE prepare, BODY body) {
  const int begin = all.begin / TILE * TILE;
  u32 now = stages, next = stages + STAGE_BYTES;
  end_fetches();
  if (begin < all.end) fetch_tile(now, begin);
  end_fetches();
  await_fetches<1>();
  __syncthreads();
  prepare();
  for (int first = begin; first < all.end; first += TILE) {
    await_fetches<0>();
    __syncthreads();
    if (first + TILE < all.end) fetch_tile(next, first + TILE);
    end_fetches();
#pragma unroll 1
    for (int at = 0; at < TILE; at += STEP) body(now, at, first + at);
    const u32 before = now;
    now = next, next = before;
  }
}
