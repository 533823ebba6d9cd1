// Attention and its gradient (Dao 2023, "FlashAttention-2"): scores of 16-bit types are made tile by tile on tensor
// cores, used, and forgotten. A block owns rows of one head, 16 for each warp, and goes over the rows of the other
// side, which are fetched while the tile before them is multiplied:
//   FORWARD  owns queries: out and logsumexp, with a running maximum and sum
//   QUERIES  owns queries: the gradient of q
//   KEYS     owns keys: the gradients of k and v
//   SUMS     the products of the rows of out and g, which both gradients need
// No sum is shared between blocks, so that results are the same bits each time. The text before this file defines
//   PASS      one of the above      TYPE      f16 or bf16
//   D         features of a head, a multiple of 16
//   CAUSAL    1: query t sees the keys up to keys - queries + t
//   WARPS     of a block           RESIDENT  blocks that a multiprocessor shall hold
//   TILE      rows of the other side that lie in shared memory, twice; STEP of them are multiplied at once
//   HELD      1: fragments of the own rows stay in registers
#include "tensor_core.cuh"

#define FORWARD 0
#define QUERIES 1
#define KEYS 2
#define SUMS 3

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

extern __shared__ uint4 shared_memory[];

#if PASS == FORWARD
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) attention(const __grid_constant__ job j) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const place here(j, j.queries);
  const int own = here.first + warp * 16;
  const range all(j, here.first, OWN), mine(j, own, 16);
  const common certain(j, own);
  const u32 own_tile = shared_address(shared_memory), stages = own_tile + OWN_BYTES;
  const char *k = head_of(j.k, here.batch, here.head), *v = head_of(j.v, here.batch, here.head);
  // A negative scale is one of -q. The smallest factor stands for 0, which would make NaN of what is masked.
  const float factor = fmaxf(fabsf(j.scale) * LOG2_E, 1e-30f);
  const u32 flip = j.scale < 0 ? 0x80008000u : 0;
  fetch_rows<OWN>(own_tile, head_of(j.q, here.batch, here.head), j.q.row, here.first, j.queries);
  own_rows q;
  float out[D / 8][4] = {}, top[2] = {lowest<f32>(), lowest<f32>()}, total[2] = {};
  over_tiles(
      all, stages,
      [&](u32 to, int first) {
        fetch_rows<TILE>(to, k, j.k.row, first, j.keys);
        fetch_rows<TILE>(to + TILE_BYTES, v, j.v.row, first, j.keys);
      },
      [&] {
        q.begin(own_tile, warp, lane);
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
          for (int i = 0; i < 4; i++) q.held[slice][i] ^= flip;
      },
      [&](u32 tile, int at, int first) {
        if (first >= mine.end) return;
        float score[STEP / 8][4];
        multiply_rows(score, q, tile + at * ROW, lane);
        if (first + STEP > certain.end)
#pragma unroll
          for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
              if (!sees(j, own_of(own, lane, i), other_of(first, lane, n, i))) score[n][i] = lowest<f32>();
#pragma unroll
        for (int r = 0; r < 2; r++) { // a lane has two rows, each shared by four lanes
          float most = top[r];
#pragma unroll
          for (int n = 0; n < STEP / 8; n++) most = fmaxf(most, fmaxf(score[n][2 * r], score[n][2 * r + 1]));
          most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
          most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
          const float shift = most * factor, shrink = exp2_flushed(top[r] * factor - shift);
          float sum = 0;
#pragma unroll
          for (int n = 0; n < STEP / 8; n++)
#pragma unroll
            for (int i = 2 * r; i < 2 * r + 2; i++) {
              score[n][i] = exp2_flushed(score[n][i] * factor - shift);
              sum += score[n][i];
            }
          total[r] = total[r] * shrink + sum;
          top[r] = most;
#pragma unroll
          for (int f = 0; f < D / 8; f++) out[f][2 * r] *= shrink, out[f][2 * r + 1] *= shrink;
        }
        add_weighted(out, score, tile + TILE_BYTES + at * ROW, lane);
      });
#pragma unroll
  for (int r = 0; r < 2; r++) {
    total[r] += __shfl_xor_sync(~0u, total[r], 1);
    total[r] += __shfl_xor_sync(~0u, total[r], 2);
    const int row = own_of(own, lane, 2 * r);
    if (lane % 4 == 0 && row < j.queries)
      j.logsumexp[here.line(j) + row] = (top[r] * factor + __log2f(total[r])) * LN_2;
  }
  store_sums(head_of(j.out, here.batch, here.head), j.out.row, own, j.queries, out, 1 / total[0], 1 / total[1],
             (char *)shared_memory, warp, lane);
}

#elif PASS == SUMS
// A row to so many lanes; rows in the order of [B,queries,H], in which results lie in memory.
enum { SHARE = CHUNKS <= 2 ? 2 : CHUNKS <= 4 ? 4 : CHUNKS <= 8 ? 8 : 16 };
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) attention(const __grid_constant__ job j) {
  const i64 index = ((i64)blockIdx.x * THREADS + threadIdx.x) / SHARE;
  const int piece = threadIdx.x % SHARE, head = index % j.heads;
  const i64 at = index / j.heads, batch = at / j.queries;
  const int query = at % j.queries;
  float sum = 0;
  if (batch < j.batches && piece < CHUNKS) {
    const auto x = load<TYPE, 8>((const TYPE *)(head_of(j.out, batch, head) + query * j.out.row) + piece * 8);
    const auto y = load<TYPE, 8>((const TYPE *)(head_of(j.g, batch, head) + query * j.g.row) + piece * 8);
#pragma unroll
    for (int i = 0; i < 8; i++) sum += widen(x.at[i]) * widen(y.at[i]);
  }
#pragma unroll
  for (int apart = SHARE / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
  if (batch < j.batches && piece == 0) j.sums[(batch * j.heads + head) * j.queries + query] = sum;
}

#else
// With P the weights and S the scores before they are scaled: gP = g V^T, gS = scale P (gP - sum), gQ = gS K, gK =
// gS^T Q, gV = P^T g. Own rows are q and g, others k and v; or own rows k and v, others q and g, and P and gS transposed.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) attention(const __grid_constant__ job j) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, owned = PASS == KEYS ? j.keys : j.queries;
  const int others = PASS == KEYS ? j.queries : j.keys;
  const place here(j, owned);
  const int own = here.first + warp * 16;
  const range all(j, here.first, OWN), mine(j, own, 16);
  const common certain(j, own);
  const u32 own_tile = shared_address(shared_memory), stages = own_tile + OWN_MATRICES * OWN_BYTES;
  const rows &own_1 = PASS == KEYS ? j.k : j.q, &own_2 = PASS == KEYS ? j.v : j.g;
  const rows &other_1 = PASS == KEYS ? j.q : j.k, &other_2 = PASS == KEYS ? j.g : j.v;
  const char *first_other = head_of(other_1, here.batch, here.head);
  const char *second_other = head_of(other_2, here.batch, here.head);
  const i64 line = here.line(j);
  const float factor = j.scale * LOG2_E;
  fetch_rows<OWN>(own_tile, head_of(own_1, here.batch, here.head), own_1.row, here.first, owned);
  fetch_rows<OWN>(own_tile + OWN_BYTES, head_of(own_2, here.batch, here.head), own_2.row, here.first, owned);
  own_rows one, two;
  float shift[2] = {}, sum[2] = {}; // of the lane's two queries
  if (PASS == QUERIES)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int row = own_of(own, lane, 2 * r);
      if (row < j.queries) shift[r] = j.logsumexp[line + row] * LOG2_E, sum[r] = j.sums[line + row];
    }
  float g_one[D / 8][4] = {}, g_two[D / 8][4] = {};
  over_tiles(
      all, stages,
      [&](u32 to, int first) {
        fetch_rows<TILE>(to, first_other, other_1.row, first, others);
        fetch_rows<TILE>(to + TILE_BYTES, second_other, other_2.row, first, others);
        if (PASS == KEYS) {
          fetch_numbers(to + 2 * TILE_BYTES, j.logsumexp + line, first, others);
          fetch_numbers(to + 2 * TILE_BYTES + TILE * 4, j.sums + line, first, others);
        }
      },
      [&] {
        one.begin(own_tile, warp, lane);
        two.begin(own_tile + OWN_BYTES, warp, lane);
      },
      [&](u32 tile, int at, int first) {
        if (first >= mine.end || first + STEP <= mine.begin) return;
        const bool partly = first < certain.begin || first + STEP > certain.end;
        float weight[STEP / 8][4], g_score[STEP / 8][4];
        multiply_rows(weight, one, tile + at * ROW, lane);
        multiply_rows(g_score, two, tile + TILE_BYTES + at * ROW, lane);
#pragma unroll
        for (int n = 0; n < STEP / 8; n++) {
          float of_two[2], sum_of_two[2]; // queries that are columns
          if (PASS == KEYS) {
            const u32 numbers = tile + 2 * TILE_BYTES + (at + n * 8 + lane % 4 * 2) * 4;
            load_two(of_two[0], of_two[1], numbers);
            load_two(sum_of_two[0], sum_of_two[1], numbers + TILE * 4);
          }
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const float from = PASS == KEYS ? of_two[i % 2] * LOG2_E : shift[i / 2];
            float p = exp2_flushed(weight[n][i] * factor - from);
            if (partly && !sees(j, own_of(own, lane, i), other_of(first, lane, n, i))) p = 0;
            g_score[n][i] = p * (g_score[n][i] - (PASS == KEYS ? sum_of_two[i % 2] : sum[i / 2]));
            weight[n][i] = p;
          }
        }
        if (PASS == KEYS) add_weighted(g_two, weight, tile + TILE_BYTES + at * ROW, lane);
        add_weighted(g_one, g_score, tile + at * ROW, lane);
      });
  const rows &to_one = PASS == KEYS ? j.gk : j.gq;
  store_sums(head_of(to_one, here.batch, here.head), to_one.row, own, owned, g_one, j.scale, j.scale,
             (char *)shared_memory, warp, lane);
  if (PASS == KEYS)
    store_sums(head_of(j.gv, here.batch, here.head), j.gv.row, own, owned, g_two, 1, 1,
               (char *)shared_memory + OWN_BYTES, warp, lane);
}
#endif
