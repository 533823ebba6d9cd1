// Brings R [Gr,N,D,D], of any type and strides, to the type P and the order in which the warps of a fused recurrence
// hold it: [head][block][warp][fragment][lane][4 words], with zeros behind the units and gates. LAYOUT_BACKWARD: R's
// transpose, for the way back.
#include "fused.cuh"

enum {
  HALVES = PARTS * UNITS / 8 / WARPS, // as in kernels/exchange.cuh
  FED = RECURRENTS * UNITS,
  TILES = LAYOUT_BACKWARD ? (HALVES + 1) / 2 : (RECURRENTS * GROUPS + 1) / 2,
  DEPTH = LAYOUT_BACKWARD ? (GATHERS * FED + TILE_UNITS - 1) / TILE_UNITS : PADDED / TILE_UNITS / SPLITS,
};

extern "C" __global__ void fused_pack(const __grid_constant__ pl_pack p) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; // a fragment's word
  const int word = i % 4, lane = i / 4 % LANES;
  long long rest = i / 4 / LANES;
  const int tile = rest % TILES, k = rest / TILES % DEPTH;
  rest = rest / TILES / DEPTH;
  const int warp = rest % WARPS, rank = rest / WARPS % BLOCKS, head = rest / WARPS / BLOCKS;
  if (head >= p.heads) return;
  const int half = word % 2, row = lane / 4, first = (lane % 4 + word / 2 * 4) * PER_WORD;
  P value[PER_WORD];
  for (int e = 0; e < PER_WORD; e++) {
    int gate, unit, previous;
    if (LAYOUT_BACKWARD) {
      const int depth = k * TILE_UNITS + first + e;
      const int set = depth / FED, line = tile * 2 + half;
      gate = set < GATHERS && line < HALVES ? depth % FED / UNITS : RECURRENTS;
      unit = (set * PARTS + rank % PARTS) * UNITS + depth % UNITS;
      previous = rank / PARTS * PARTS * UNITS + (warp * HALVES + line) * 8 + row;
    } else {
      const int line = tile * 2 + half;
      gate = line / GROUPS, unit = rank * UNITS + (warp / SPLITS * GROUPS + line % GROUPS) * 8 + row;
      // In the grid scope a lane finds the units of its two words of a tile side by side.
      const int within = SCOPE == SCOPE_GRID ? (lane % 4 * 2 + word / 2) * PER_WORD : first;
      previous = (warp % SPLITS * DEPTH + k) * TILE_UNITS + within + e;
    }
    float x = 0;
    if (gate < RECURRENTS && unit < DIM && previous < DIM)
      x = load_typed(p.recurrent.data, p.type, offset(p.recurrent, gate, head, unit, previous));
    value[e] = store_as<P>(x);
  }
  for (int e = 0; e < PER_WORD; e++) ((P *)p.packed)[i * PER_WORD + e] = value[e];
}
