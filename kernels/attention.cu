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
#define FORWARD 0
#define QUERIES 1
#define KEYS 2
#define SUMS 3
#include "attention.cuh"

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
