/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * An element's value depends on seed, offset and its position only, never on threads. */
#include "host/cpu/blocks.h"

#include <math.h>

typedef struct {
  uint32_t lane[4];
} quad;

static quad philox(uint64_t seed, uint64_t counter) {
  quad x = {{(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0}};
  uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * x.lane[0], p1 = (uint64_t)0xCD9E8D57u * x.lane[2];
    x = (quad){
        {(uint32_t)(p1 >> 32) ^ x.lane[1] ^ key0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ x.lane[3] ^ key1, (uint32_t)p0}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return x;
}

/* 24 random bits in [0, 1): exact in float32, so all types and devices see the same number. */
static double unit(uint32_t bits) { return (double)(bits >> 8) * 0x1p-24; }

/* Lanes 0, 1 and 2, 3 make a Box-Muller pair each. */
static double normal(quad x, int lane) {
  double radius = sqrt(-2 * log(1 - unit(x.lane[lane & 2])));
  double angle = 6.283185307179586 * unit(x.lane[lane | 1]);
  return radius * (lane & 1 ? sin(angle) : cos(angle));
}

/* The high part of range * 32 (or 64) random bits: even to within range / 2^32 (2^64). */
static int64_t whole(quad x, int lane, double low, double high) {
  uint64_t range = (uint64_t)((int64_t)high - (int64_t)low) + 1;
  uint64_t bits = (uint64_t)x.lane[lane] << 32 | x.lane[lane ^ 1];
  if (range == 0) return (int64_t)bits;
  return (int64_t)low + (int64_t)(((unsigned __int128)bits * range) >> 64);
}

pl_status pl_cpu_random(pl_device *device, pl_distribution kind, uint64_t seed, uint64_t offset, double p0, double p1,
                        const pl_array *out) {
  (void)device;
  pl_array view = *out;
  pl_array *views[] = {&view};
  pl_arrays_merge(views, 1);
  int64_t count = pl_array_count(out);
  bool integers = kind == PL_INTEGER;
#pragma omp parallel for if (count > PL_PARALLEL_MIN)
  for (int64_t start = 0; start < count; start += PL_BLOCK) {
    if (pl_interrupt_pending()) continue; /* the slowest of the simple primitives: a gibibyte takes seconds */
    int64_t n = count - start < PL_BLOCK ? count - start : PL_BLOCK;
    union {
      double number[PL_BLOCK];
      int64_t integer[PL_BLOCK];
    } block;
    quad x = {{0}};
    for (int64_t i = 0; i < n; i++) {
      int lane = (int)(i & 3);
      if (lane == 0) x = philox(seed, offset + (uint64_t)(start + i) / 4);
      if (kind == PL_UNIFORM)
        block.number[i] = p0 + (p1 - p0) * unit(x.lane[lane]);
      else if (kind == PL_NORMAL)
        block.number[i] = p0 + p1 * normal(x, lane);
      else if (kind == PL_BERNOULLI)
        block.number[i] = unit(x.lane[lane]) < p0;
      else
        block.integer[i] = whole(x, lane, p0, p1);
    }
    pl_blocks_write(&view, integers ? PL_COMPUTE_I64 : PL_COMPUTE_F64, start, n, &block);
  }
  return pl_check_interrupt();
}
