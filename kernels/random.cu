// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the
// same numbers as on the CPU. The text before this file defines
//   KIND   UNIFORM, NORMAL, BERNOULLI or WHOLE
//   TYPE   the storage type
//   RANK   axes after merging
#include "layout.cuh"
#define UNIFORM 0
#define NORMAL 1
#define BERNOULLI 2
#define WHOLE 3

struct job {
  TYPE *out;
  i64 count;
  axes shape;
  i64 stride[1][RANK_MAX];
  u64 seed, offset;
  f64 p0, p1;
};

struct quad {
  u32 lane[4];
};

inline quad philox(u64 seed, u64 counter) {
  quad x = {{(u32)counter, (u32)(counter >> 32), 0, 0}};
  u32 key0 = (u32)seed, key1 = (u32)(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    u32 high0 = __umulhi(0xD2511F53u, x.lane[0]), low0 = 0xD2511F53u * x.lane[0];
    u32 high1 = __umulhi(0xCD9E8D57u, x.lane[2]), low1 = 0xCD9E8D57u * x.lane[2];
    x = {{high1 ^ x.lane[1] ^ key0, low1, high0 ^ x.lane[3] ^ key1, low0}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return x;
}

// 24 random bits in [0, 1).
inline f64 unit(u32 bits) { return (f64)(bits >> 8) * 0x1p-24; }

// The roundings of the CPU: no fused multiplication and addition.
inline f64 scaled(f64 p0, f64 factor, f64 x) { return __dadd_rn(p0, __dmul_rn(factor, x)); }

extern "C" __global__ void __launch_bounds__(256) random(const __grid_constant__ job j) {
  i64 group = (i64)blockIdx.x * 256 + threadIdx.x;
  if (group * 4 >= j.count) return;
  quad x = philox(j.seed, j.offset + (u64)group);
#if KIND == NORMAL
  f64 radius[2], angle[2];
#pragma unroll
  for (int pair = 0; pair < 2; pair++) { // Box-Muller
    radius[pair] = sqrt(-2 * log(1 - unit(x.lane[2 * pair])));
    angle[pair] = 6.283185307179586 * unit(x.lane[2 * pair + 1]);
  }
#endif
#pragma unroll
  for (int lane = 0; lane < 4; lane++) {
    i64 at = group * 4 + lane, offset[1];
    if (at >= j.count) return;
    locate<RANK, 1, i64>(j.shape, j.stride, at, offset);
#if KIND == UNIFORM
    f64 value = scaled(j.p0, __dadd_rn(j.p1, -j.p0), unit(x.lane[lane]));
#elif KIND == NORMAL
    f64 value = scaled(j.p0, j.p1, radius[lane / 2] * (lane & 1 ? sin(angle[lane / 2]) : cos(angle[lane / 2])));
#elif KIND == BERNOULLI
    f64 value = unit(x.lane[lane]) < j.p0;
#else
    u64 range = (u64)((i64)j.p1 - (i64)j.p0) + 1, bits = (u64)x.lane[lane] << 32 | x.lane[lane ^ 1];
    i64 value = range == 0 ? (i64)bits : (i64)j.p0 + (i64)__umul64hi(bits, range);
#endif
    j.out[offset[0]] = store_as<TYPE>(value);
  }
}
