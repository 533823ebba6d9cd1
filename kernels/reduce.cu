// Sums, extrema and their positions. The array is seen as [kept..., reduced...]; each kept place gets one result, or
// one partial result per slice of the reduced range, which a second launch brings together. The order of every addition
// is fixed by the shapes, so results repeat bit for bit. The text before this file defines
//   KIND            SUM, LARGEST, SMALLEST, EUCLIDEAN (root of the sum of squares) or DEVIATIONS (sum of the squared
//                   deviations from the mean)
//   POSITION        1 for argmax and argmin: the result is the position, 1-based
//   ACC             the type to compute in (a typedef, as INDEX)
//   TYPE_IN, TYPE_OUT
//   KEPT, REDUCED   axes of each kind after merging
//   V               neighbours that a thread takes at once: along the reduced axis in rows, along the kept one in
//   columns
//   W               rows: threads that share one row, 1, 4, 16, 32 or 256
//   PARTIAL_IN      1: what is read are partial results of an earlier launch
//   FINISH          1: one result per kept place at its place in out; 0: partial results, row-major [slice, kept], each
//                   with its position, or of deviations three such arrays: sums, means and counts
#include "layout.cuh"
#define SUM        0
#define LARGEST    1
#define SMALLEST   2
#define EUCLIDEAN  3
#define DEVIATIONS 4

struct job {
  const void *in;
  const i64 *in_position;
  void *out;
  i64 *out_position;
  f64 factor;               // of sums and deviations
  i64 kept, reduced, slice; // counts; `slice` reduced elements per grid row
  axes kept_shape, reduced_shape;
  i64 kept_stride[2][RANK_MAX]; // of in, out
  i64 reduced_stride[1][RANK_MAX];
};

enum { THREADS = 256, UNROLL = 4 };

struct best {
  ACC value;
#if POSITION
  INDEX position;
#endif
#if KIND == DEVIATIONS
  ACC mean, count;
#endif
};

enum : INDEX { NOWHERE = sizeof(INDEX) == 4 ? 0x7FFFFFFF : (INDEX)0x7FFFFFFFFFFFFFFF };

// What a thread starts with: nothing yet, found at the first place it will look at. Later equals do not replace it.
inline best nothing(i64 first, i64 end) {
  best b;
  b.value = KIND == LARGEST ? lowest<ACC>() : KIND == SMALLEST ? highest<ACC>() : (ACC)0;
#if KIND == DEVIATIONS
  b.mean = b.count = 0;
#endif
#if POSITION
  b.position = first < end && !PARTIAL_IN ? (INDEX)first : NOWHERE;
#endif
  return b;
}

// Whether y takes the place of an earlier x: the earlier of equals stays, a NaN wins.
inline bool replaces(ACC x, ACC y) { return (KIND == LARGEST ? !(y <= x) : !(y >= x)) && x == x; }

inline ACC extreme(ACC x, ACC y) { return KIND == LARGEST ? larger_of(x, y) : smaller_of(x, y); }

#if KIND == DEVIATIONS
// Takes y into x; `share` is y's part of their common count. The order of the factors keeps 0 times a large square 0.
inline void absorb(best &x, const best &y, ACC share) {
  const ACC apart = y.mean - x.mean;
  x.value += y.value + apart * (apart * (x.count * share));
  x.mean += apart * share;
  x.count += y.count;
}

// The tally of the `count` values with which `each` calls a function.
template <class EACH> inline best tally_of(ACC count, ACC part, EACH each) {
  best b = {0, 0, count};
  each([&](ACC x) { b.mean += x; });
  b.mean *= part;
  each([&](ACC x) { b.value += (x - b.mean) * (x - b.mean); });
  return b;
}
#endif

inline best join(best x, best y) {
  if constexpr (KIND == SUM || KIND == EUCLIDEAN) {
    x.value += y.value;
    return x;
  } else {
#if KIND == DEVIATIONS
    // Most tallies meet their equals: a division takes as long as all the rest.
    ACC share = (ACC)0.5;
    if (x.count != y.count) share = x.count == 0 ? (ACC)1 : y.count / (x.count + y.count);
    absorb(x, y, share);
    return x;
#elif POSITION
    bool same = x.value == y.value || (x.value != x.value && y.value != y.value);
    return same ? (y.position < x.position ? y : x) : replaces(x.value, y.value) ? y : x;
#else
    x.value = extreme(x.value, y.value);
    return x;
#endif
  }
}

// Takes in one element; a thread meets its elements in their order.
inline void take(const job &j, best &total, TYPE_IN stored, i64 position, INDEX offset) {
  ACC value = read<ACC>(stored);
  if constexpr (KIND == SUM || (KIND == EUCLIDEAN && PARTIAL_IN)) {
    total.value += value;
  } else if constexpr (KIND == EUCLIDEAN) {
    total.value += value * value;
  } else {
#if KIND == DEVIATIONS
    const i64 plane = j.kept * j.reduced;
    const ACC *means = (const ACC *)j.in + plane;
    total = join(total, {value, means[offset], means[plane + offset]});
#elif POSITION
    best b = {value, PARTIAL_IN ? (INDEX)j.in_position[offset] : (INDEX)position};
    if (PARTIAL_IN)
      total = join(total, b);
    else {
      total.position = replaces(total.value, value) ? b.position : total.position;
      total.value = extreme(total.value, value);
    }
#else
    total.value = extreme(total.value, value);
#endif
  }
}

#if POSITION
enum { WHOLE_VECTORS = V > 1 && !PARTIAL_IN };

// Takes in a vector along the reduced axis by its extreme and the place of its first element: that is one comparison of
// positions instead of V. `within` finds the element at the end.
inline void take_whole(best &total, const pack<TYPE_IN, V> &values, i64 position) {
  ACC top = read<ACC>(values.at[0]);
#pragma unroll
  for (int v = 1; v < V; v++) top = extreme(top, read<ACC>(values.at[v]));
  total.position = replaces(total.value, top) ? (INDEX)position : total.position;
  total.value = extreme(total.value, top);
}

inline best within(const job &j, best b, const TYPE_IN *in) {
  if (b.position == NOWHERE) return b;
  INDEX offset[1];
  locate<REDUCED, 1, INDEX>(j.reduced_shape, j.reduced_stride, b.position, offset);
  const pack<TYPE_IN, V> values = load<TYPE_IN, V>(in + offset[0]);
  int first = V - 1;
#pragma unroll
  for (int v = V - 2; v >= 0; v--) {
    const ACC x = read<ACC>(values.at[v]);
    if (x == b.value || (x != x && b.value != b.value)) first = v;
  }
  b.position += first;
  return b;
}
#endif

inline best across(best b, int lane_mask) {
  best other;
  other.value = __shfl_xor_sync(0xFFFFFFFF, b.value, lane_mask);
#if POSITION
  other.position = __shfl_xor_sync(0xFFFFFFFF, b.position, lane_mask);
#endif
#if KIND == DEVIATIONS
  other.mean = __shfl_xor_sync(0xFFFFFFFF, b.mean, lane_mask);
  other.count = __shfl_xor_sync(0xFFFFFFFF, b.count, lane_mask);
#endif
  return other;
}

inline void leave(const job &j, i64 kept, best b) {
#if FINISH
  INDEX at[2];
  locate<KEPT, 2, INDEX>(j.kept_shape, j.kept_stride, (INDEX)kept, at);
#if POSITION
  ((TYPE_OUT *)j.out)[at[1]] = store_as<TYPE_OUT>((i64)b.position + 1);
#else
  ACC value = b.value;
  if (KIND == SUM || KIND == DEVIATIONS) value *= (ACC)j.factor;
#if KIND == EUCLIDEAN
  value = sqrt(value);
#endif
  ((TYPE_OUT *)j.out)[at[1]] = store_as<TYPE_OUT>(value);
#endif
#else
  i64 at = (i64)blockIdx.y * j.kept + kept;
  ((ACC *)j.out)[at] = b.value;
#if POSITION
  j.out_position[at] = b.position;
#endif
#if KIND == DEVIATIONS
  const i64 plane = gridDim.y * j.kept;
  ((ACC *)j.out)[plane + at] = b.mean;
  ((ACC *)j.out)[2 * plane + at] = b.count;
#endif
#endif
}

// The reduced elements lie side by side: W threads walk along one row.
extern "C" __global__ void __launch_bounds__(THREADS) rows(const __grid_constant__ job j) {
  const int lane = threadIdx.x % W;
  const i64 row = (i64)blockIdx.x * (THREADS / W) + threadIdx.x / W;
  const i64 first = (i64)blockIdx.y * j.slice, end = first + j.slice < j.reduced ? first + j.slice : j.reduced;
  best total[UNROLL];
#pragma unroll
  for (int u = 0; u < UNROLL; u++) total[u] = nothing(first + (lane + u * W) * V, end);
  best b = nothing(end, end);
  if (row < j.kept) {
    INDEX base[2];
    locate<KEPT, 2, INDEX>(j.kept_shape, j.kept_stride, (INDEX)row, base);
    const TYPE_IN *in = (const TYPE_IN *)j.in + base[0];
    for (i64 start = first + lane * V; start < end; start += W * V * UNROLL) {
      pack<TYPE_IN, V> values[UNROLL];
      INDEX offset[UNROLL][1];
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        i64 at = start + u * W * V;
        if (at >= end) continue;
        locate<REDUCED, 1, INDEX>(j.reduced_shape, j.reduced_stride, (INDEX)at, offset[u]);
        values[u] = load<TYPE_IN, V>(in + offset[u][0]);
      }
#if KIND == DEVIATIONS && !PARTIAL_IN
      int there = 0;
#pragma unroll
      for (int u = 0; u < UNROLL; u++) there += start + u * W * V < end ? V : 0;
      const best met = tally_of(there, (ACC)1 / there, [&](auto use) {
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
          if (start + u * W * V >= end) continue;
#pragma unroll
          for (int v = 0; v < V; v++) use(read<ACC>(values[u].at[v]));
        }
      });
      total[0] = join(total[0], met);
#else
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        i64 at = start + u * W * V;
        if (at >= end) continue;
#if POSITION
        if constexpr (WHOLE_VECTORS) {
          take_whole(total[u], values[u], at);
          continue;
        }
#endif
#pragma unroll
        for (int v = 0; v < V; v++) take(j, total[u], values[u].at[v], at + v, base[0] + offset[u][0] + v);
      }
#endif
    }
#if KIND == DEVIATIONS && !PARTIAL_IN
    b = total[0];
#else
    b = join(join(total[0], total[1]), join(total[2], total[3]));
#endif
#if POSITION
    if constexpr (WHOLE_VECTORS) b = within(j, b, in);
#endif
  }
  if constexpr (W > 1) {
#pragma unroll
    for (int mask = (W < 32 ? W : 32) / 2; mask > 0; mask /= 2) b = join(b, across(b, mask));
  }
  if constexpr (W == THREADS) {
    __shared__ best of_warp[THREADS / 32];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = b;
    __syncthreads();
    b = of_warp[threadIdx.x % (THREADS / 32)];
#pragma unroll
    for (int mask = THREADS / 64; mask > 0; mask /= 2) b = join(b, across(b, mask));
  }
  if (lane == 0 && row < j.kept) leave(j, row, b);
}

// Kept elements lie side by side: a block takes LANES V of them, and its threads share out the reduced ones, so that
// few columns keep a block as busy as many.
extern "C" __global__ void __launch_bounds__(THREADS) columns(const __grid_constant__ job j) {
  enum { SHARES = THREADS / LANES };
  const int x = threadIdx.x % LANES, y = threadIdx.x / LANES;
  const i64 column = ((i64)blockIdx.x * LANES + x) * V;
  const i64 first = (i64)blockIdx.y * j.slice, end = first + j.slice < j.reduced ? first + j.slice : j.reduced;
  best total[V];
#pragma unroll
  for (int v = 0; v < V; v++) total[v] = nothing(first + y, end);
  if (column < j.kept) {
    INDEX base[2];
    locate<KEPT, 2, INDEX>(j.kept_shape, j.kept_stride, (INDEX)column, base);
    const TYPE_IN *in = (const TYPE_IN *)j.in + base[0];
    for (i64 start = first + y; start < end; start += SHARES * UNROLL) {
      pack<TYPE_IN, V> values[UNROLL];
      INDEX offset[UNROLL][1];
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        i64 at = start + u * SHARES;
        if (at >= end) continue;
        locate<REDUCED, 1, INDEX>(j.reduced_shape, j.reduced_stride, (INDEX)at, offset[u]);
        values[u] = load<TYPE_IN, V>(in + offset[u][0]);
      }
#if KIND == DEVIATIONS && !PARTIAL_IN
      int there = 0;
#pragma unroll
      for (int u = 0; u < UNROLL; u++) there += start + u * SHARES < end;
      const ACC part = (ACC)1 / there, share = there / (total[0].count + there); // all columns have the same counts
#pragma unroll
      for (int v = 0; v < V; v++) {
        const best met = tally_of(there, part, [&](auto use) {
#pragma unroll
          for (int u = 0; u < UNROLL; u++)
            if (start + u * SHARES < end) use(read<ACC>(values[u].at[v]));
        });
        absorb(total[v], met, share);
      }
#else
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        i64 at = start + u * SHARES;
        if (at >= end) continue;
#pragma unroll
        for (int v = 0; v < V; v++) take(j, total[v], values[u].at[v], at, base[0] + offset[u][0] + v);
      }
#endif
    }
  }
  __shared__ best shared[V][SHARES][LANES];
#pragma unroll
  for (int v = 0; v < V; v++) shared[v][y][x] = total[v];
  for (int half = SHARES / 2; half > 0; half /= 2) {
    __syncthreads();
    if (y < half)
#pragma unroll
      for (int v = 0; v < V; v++) shared[v][y][x] = join(shared[v][y][x], shared[v][y + half][x]);
  }
  if (y == 0 && column < j.kept)
    for (int v = 0; v < V; v++) leave(j, column + v, shared[v][0][x]);
}
