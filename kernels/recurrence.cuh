// What the kernels of the recurrence share: element types, places, the chain from step to step, and the product of a
// step on tensor cores. Before it come kernels/formulas.cuh and generated text: the types T (arithmetic), S (Wx and the
// states given out) and P (products), the arguments, the cell, and for STEP_PRODUCT == 1 the sizes
// COLUMNS, CHUNKS, ROWS, UNIT_TILES.

#include "typed.cuh"

// What an earlier step wrote: past the first-level cache, which may hold what lay there before.
static __device__ __forceinline__ float fresh(const float *at) { return __ldcg(at); }
static __device__ __forceinline__ double fresh(const double *at) { return __ldcg(at); }

static __device__ __forceinline__ long long offset(const pl_view &v, long long i, long long j, long long k = 0,
                                                   long long l = 0, long long m = 0) {
  return i * v.stride[0] + j * v.stride[1] + k * v.stride[2] + l * v.stride[3] + m * v.stride[4];
}

// Gates below g that belong to the set: a gate's place on the axis of that part.
static __device__ __forceinline__ int place_in(unsigned set, int g) { return __popc(set & ((1u << g) - 1)); }

// ---- from step to step ---------------------------------------------------------------------------------------------
// From sm_90 on, a step's kernel may begin before the one in front has ended; what it reads before `wait_for_previous`
// must not come from an earlier step, and it writes nothing before. All addresses are made before, too: reading an
// argument for the first time takes as long as reading h.

static __device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

static __device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ long long plane(const pl_step_arguments *p) {
  return (long long)p->batch * p->heads * p->dim;
}

// Puts the arguments where the steps read them.
static __device__ __forceinline__ void keep_arguments(const pl_step_arguments &p, pl_step_arguments *kept) {
  if (blockIdx.x > 0) return;
  for (int i = threadIdx.x; i < (int)(sizeof p / 8); i += blockDim.x)
    ((long long *)kept)[i] = ((const long long *)&p)[i];
}

// The element of a thread.
struct place {
  int b, n, d;
  long long index; // in [B][N][D]
  bool inside;
};

static __device__ __forceinline__ place at_index(unsigned i, int batch, int heads, int dim) {
  place at;
  at.d = (int)(i % (unsigned)dim);
  at.n = (int)(i / (unsigned)dim % (unsigned)heads);
  at.b = (int)(i / (unsigned)dim / (unsigned)heads);
  at.index = i;
  at.inside = at.b < batch;
  return at;
}

// The first thread of a batch row brings its length to where the steps read it, within bounds: the complaint stops
// whoever reads the results.
static __device__ __forceinline__ void bring_length(const pl_step_arguments &p, const place &at) {
  if (!p.lengths || at.n > 0 || at.d > 0) return;
  long long length = *((const long long *)p.given_lengths.data + at.b * p.given_lengths.stride[0]);
  if (length < 0 || length > p.steps) {
    complain({(complaint *)p.complaint, p.lock}, COMPLAINT_LENGTH, length, at.b + 1, p.steps);
    length = length < 0 ? 0 : p.steps;
  }
  p.lengths[at.b] = (int)length;
}

static __device__ __forceinline__ place any_place(int batch, int heads, int dim) {
  return at_index(blockIdx.x * blockDim.x + threadIdx.x, batch, heads, dim);
}

#if STEP_PRODUCT == 1
// ---- the product of a step: [16 ROWS batch rows] by [8 COLUMNS units], summed over CHUNKS of 64 bytes ----

// A block has 8 UNIT_TILES units of one head and 16 ROWS batch rows; each tile of units has a column per gate that it
// sums. The warps share the chunks out; every lane reads 16 consecutive bytes of both operands, so an instruction's
// terms are not consecutive, which a sum does not mind.

enum { WARPS = STEP_THREADS / 32, PER_WARP = (CHUNKS + WARPS - 1) / WARPS, BLOCK_UNITS = UNIT_TILES * PL_TILE_UNITS };
enum { AHEAD_MOST = 16 / COLUMNS > 0 ? 16 / COLUMNS : 1, AHEAD = PER_WARP < AHEAD_MOST ? PER_WARP : AHEAD_MOST };
// A lone chain of dependent instructions would wait for each of them: two sums then take turns.
enum { SETS = ROWS * COLUMNS < 3 ? 2 : 1, SUM_STRIDE = (COLUMNS | 1) * PL_TILE_UNITS };

static_assert(ROWS * 16 * BLOCK_UNITS <= STEP_THREADS, "every element has a thread of its own");
static_assert(WARPS * ROWS * 16 * SUM_STRIDE * sizeof(float) <= 48 << 10, "the sums fit into shared memory");
static_assert(PL_CHUNK * sizeof(P) == 64, "four lanes read a chunk of a row");

static __device__ __forceinline__ place tile_place(int batch, int heads, int dim) {
  place at;
  int row = threadIdx.x / BLOCK_UNITS;
  at.d = blockIdx.x * BLOCK_UNITS + threadIdx.x % BLOCK_UNITS;
  at.n = blockIdx.y;
  at.b = blockIdx.z * 16 * ROWS + row;
  at.index = ((long long)at.b * heads + at.n) * dim + at.d;
  at.inside = at.d < dim && at.b < batch && row < 16 * ROWS;
  return at;
}

#if PRODUCT_BITS == 32
// A float32 as the sum of two numbers that tensor cores take (tf32, 11 bits each).
static __device__ __forceinline__ void split(unsigned x, unsigned &high, unsigned &low) {
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(high) : "f"(__uint_as_float(x)));
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(low) : "f"(__uint_as_float(x) - __uint_as_float(high)));
}

static __device__ __forceinline__ void multiply_tf32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Three products make up one of float32, but for the product of the low parts, which is below its rounding. Those with
// a low part have a sum of their own: beside an infinity it is NaN, or an infinity of either sign, and means nothing.
struct partial {
  float sum[4], rest[4];
};

static __device__ __forceinline__ float value_of(const partial &p, int k) {
  return TF32_ALLOWED || fabsf(p.sum[k]) == __int_as_float(0x7F800000) ? p.sum[k] : p.sum[k] + p.rest[k];
}

static __device__ __forceinline__ void tensor_multiply(partial &to, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                                       unsigned b0, unsigned b1) {
  unsigned high_a[4], low_a[4], high_b[2], low_b[2];
  split(a0, high_a[0], low_a[0]), split(a1, high_a[1], low_a[1]);
  split(a2, high_a[2], low_a[2]), split(a3, high_a[3], low_a[3]);
  split(b0, high_b[0], low_b[0]), split(b1, high_b[1], low_b[1]);
  if (!TF32_ALLOWED) {
    multiply_tf32(to.rest, low_a, high_b);
    multiply_tf32(to.rest, high_a, low_b);
  }
  multiply_tf32(to.sum, high_a, high_b);
}
#else
struct partial {
  float sum[4];
};

static __device__ __forceinline__ float value_of(const partial &p, int k) { return p.sum[k]; }

static __device__ __forceinline__ void tensor_multiply(partial &to, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                                       unsigned b0, unsigned b1) {
#if PRODUCT_IS_BF16
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
      : "+f"(to.sum[0]), "+f"(to.sum[1]), "+f"(to.sum[2]), "+f"(to.sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#endif

// R of this block's units: what can be loaded before the step in front has ended.
struct weights_ahead {
  uint4 part[AHEAD][COLUMNS];
};

static __device__ __forceinline__ uint4 weights_at(const uint4 *weights, int column, int chunk) {
  return __ldg(weights + (column * CHUNKS + chunk) * 32 + threadIdx.x % 32);
}

static __device__ __forceinline__ const uint4 *weights_of_block(const char *packed) {
  long long tile = (long long)blockIdx.y * gridDim.x + blockIdx.x;
  return (const uint4 *)packed + tile * COLUMNS * CHUNKS * 32;
}

static __device__ __forceinline__ void load_ahead(weights_ahead &ahead, const uint4 *weights) {
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    int chunk = threadIdx.x / 32 + i * WARPS;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
      if (chunk < CHUNKS) ahead.part[i][c] = weights_at(weights, c, chunk);
  }
}

// left: P [B][N][row elements]. The result lies in shared memory; column_sum fetches a thread's own.
static __device__ __forceinline__ void multiply(float *shared, const weights_ahead &ahead, const uint4 *weights,
                                                const char *left, int batch, int heads, int row) {
  partial sum[SETS][ROWS][COLUMNS] = {};
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.z * 16 * ROWS + lane / 4;
#pragma unroll
  for (int i = 0; i < PER_WARP; i++) {
    int chunk = warp + i * WARPS;
    if (chunk >= CHUNKS) break;
    uint4 part[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) part[c] = i < AHEAD ? ahead.part[i][c] : weights_at(weights, c, chunk);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      uint4 half[2];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        int b = first + 16 * r + 8 * k;
        long long at = ((long long)b * heads + blockIdx.y) * row + chunk * PL_CHUNK + lane % 4 * (PL_CHUNK / 4);
        half[k] = b < batch ? __ldcg((const uint4 *)(left + at * sizeof(P))) : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        tensor_multiply(sum[0][r][c], half[0].x, half[1].x, half[0].y, half[1].y, part[c].x, part[c].y);
        tensor_multiply(sum[SETS - 1][r][c], half[0].z, half[1].z, half[0].w, half[1].w, part[c].z, part[c].w);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      float whole[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        whole[k] = value_of(sum[0][r][c], k);
        if (SETS == 2) whole[k] += value_of(sum[1][r][c], k);
      }
      float *to = shared + (warp * ROWS * 16 + r * 16 + lane / 4) * SUM_STRIDE + c * PL_TILE_UNITS + lane % 4 * 2;
      *(float2 *)to = make_float2(whole[0], whole[1]);
      *(float2 *)(to + 8 * SUM_STRIDE) = make_float2(whole[2], whole[3]);
    }
  __syncthreads();
}

// `gate` counts the columns of the thread's own tile of units.
static __device__ __forceinline__ float column_sum(const float *shared, int gate) {
  int unit = threadIdx.x % BLOCK_UNITS, column = unit / PL_TILE_UNITS * (COLUMNS / UNIT_TILES) + gate;
  const float *from = shared + threadIdx.x / BLOCK_UNITS * SUM_STRIDE + column * PL_TILE_UNITS + unit % PL_TILE_UNITS;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < WARPS; w++) sum += from[w * ROWS * 16 * SUM_STRIDE];
  return sum;
}
#endif
