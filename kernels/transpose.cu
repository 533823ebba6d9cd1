// Copies between arrays whose neighbours lie along different axes, by way of tiles in shared memory, so that both sides
// move vectors. The text before this file defines
//   TYPE_OUT, TYPE_IN  storage types
//   T                  the type in which a value passes (a typedef)
//   RANK               axes beside the two
//   EDGE               a thread turns EDGE x EDGE elements: 4; 2 where one has 8 bytes; 8 where all have 2 at most
//   WHOLE_OUT, WHOLE_IN  1: that side is aligned for vectors of EDGE
#include "layout.cuh"

struct job {
  TYPE_OUT *out;
  const TYPE_IN *in;
  i64 size[2];   // along x, where out's neighbours lie, and y, where in's do
  i64 across[2]; // out's stride along y, in's stride along x
  i64 tiles_x, tiles_y;
  axes shape; // the other axes
  i64 stride[2][RANK_MAX];
};

enum { SIDE = 16, THREADS = SIDE * SIDE, TILE = SIDE * EDGE };

// EDGE neighbours of which `left` exist.
template <class S, bool whole> inline pack<S, EDGE> load_some(const S *from, i64 left) {
  if (whole && left >= EDGE) return load<S, EDGE>(from);
  pack<S, EDGE> values;
#pragma unroll
  for (int i = 0; i < EDGE; i++)
    if (i < left) values.at[i] = from[i];
  return values;
}
template <class S, bool whole> inline void save_some(S *to, const pack<S, EDGE> &values, i64 left) {
  if (whole && left >= EDGE) {
    save<S, EDGE>(to, values);
    return;
  }
#pragma unroll
  for (int i = 0; i < EDGE; i++)
    if (i < left) to[i] = values.at[i];
}

extern "C" __global__ void __launch_bounds__(THREADS) transpose(const __grid_constant__ job j) {
  // Vectors along x. Those of one line stand at the place of their number, with the bits of the line's group turned
  // over, so that neighbouring threads meet other banks both when they write down columns and when they read along
  // lines.
  __shared__ pack<TYPE_OUT, EDGE> tile[TILE][SIDE];
  const i64 tiles = j.tiles_x * j.tiles_y, place = blockIdx.x / tiles, inner = blockIdx.x % tiles;
  const i64 x0 = inner % j.tiles_x * TILE, y0 = inner / j.tiles_x * TILE;
  const int fast = threadIdx.x % SIDE, slow = threadIdx.x / SIDE;
  i64 offset[2];
  locate<RANK, 2, i64>(j.shape, j.stride, place, offset);
  const TYPE_IN *in = j.in + offset[1];
  TYPE_OUT *out = j.out + offset[0];
  pack<TYPE_IN, EDGE> rows[EDGE];
#pragma unroll
  for (int i = 0; i < EDGE; i++) {
    const i64 x = x0 + slow * EDGE + i, y = y0 + fast * EDGE;
    if (x < j.size[0] && y < j.size[1]) rows[i] = load_some<TYPE_IN, WHOLE_IN>(in + x * j.across[1] + y, j.size[1] - y);
  }
#pragma unroll
  for (int k = 0; k < EDGE; k++) {
    pack<TYPE_OUT, EDGE> column;
#pragma unroll
    for (int i = 0; i < EDGE; i++) column.at[i] = store_as<TYPE_OUT>(read<T>(rows[i].at[k]));
    tile[fast * EDGE + k][slow ^ fast] = column;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < EDGE; i++) {
    const int line = slow + i * SIDE;
    const i64 x = x0 + fast * EDGE, y = y0 + line;
    if (x < j.size[0] && y < j.size[1])
      save_some<TYPE_OUT, WHOLE_OUT>(out + y * j.across[0] + x, tile[line][fast ^ line / EDGE], j.size[0] - x);
  }
}
