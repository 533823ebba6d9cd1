// Copies between arrays whose neighbours lie along different axes, by way of tiles in shared memory, so that both sides move
// whole lines. The text before this file defines
//   TYPE_OUT, TYPE_IN  storage types
//   T                  the type in which a value passes (a typedef)
//   RANK               axes beside the two
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

enum { TILE = 64, THREADS = 256, ROWS = THREADS / TILE };

extern "C" __global__ void __launch_bounds__(THREADS) transpose(const __grid_constant__ job j) {
  __shared__ TYPE_IN tile[TILE][TILE + 1];
  const i64 tiles = j.tiles_x * j.tiles_y, place = blockIdx.x / tiles, within = blockIdx.x % tiles;
  const i64 x0 = within % j.tiles_x * TILE, y0 = within / j.tiles_x * TILE;
  const int lane = threadIdx.x % TILE, row = threadIdx.x / TILE;
  i64 offset[2];
  locate<RANK, 2, i64>(j.shape, j.stride, place, offset);
  const TYPE_IN *in = j.in + offset[1];
  TYPE_OUT *out = j.out + offset[0];
#pragma unroll
  for (int i = row; i < TILE; i += ROWS)
    if (x0 + i < j.size[0] && y0 + lane < j.size[1]) tile[i][lane] = in[(x0 + i) * j.across[1] + y0 + lane];
  __syncthreads();
#pragma unroll
  for (int i = row; i < TILE; i += ROWS)
    if (x0 + lane < j.size[0] && y0 + i < j.size[1])
      out[(y0 + i) * j.across[0] + x0 + lane] = store_as<TYPE_OUT>(read<T>(tile[lane][i]));
}
