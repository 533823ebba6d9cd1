// Brings R [Gr,N,D,D], of any type and strides, to the type P and the layout in which a step reads it.
#include "recurrence.cuh"

extern "C" __global__ void pack_weights(const __grid_constant__ pl_pack_arguments p) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, dim = p.dim, g, n, unit, previous;
  if (p.layout == PL_PACK_PLAIN) {
    previous = i % dim, unit = i / dim % dim, g = i / dim / dim % p.gates, n = i / dim / dim / p.gates;
  } else {
    long long tiles = p.tiles, rest = i / PL_CHUNK / PL_TILE_UNITS;
    long long column = i / PL_CHUNK % PL_TILE_UNITS, depth = rest % p.chunks * PL_CHUNK + i % PL_CHUNK;
    rest /= p.chunks;
    if (p.layout == PL_PACK_FORWARD) {
      g = rest % p.gates, rest /= p.gates;
      unit = rest % tiles * PL_TILE_UNITS + column, previous = depth;
    } else {
      previous = rest % tiles * PL_TILE_UNITS + column;
      g = depth / dim, unit = depth % dim;
    }
    n = rest / tiles;
  }
  if (n >= p.heads) return;
  T value = 0;
  if (g < p.gates && unit < dim && previous < dim)
    value = load_typed(p.recurrent.data, p.type, offset(p.recurrent, g, n, unit, previous));
  ((P *)p.packed)[i] = store_as<P>(value);
}
