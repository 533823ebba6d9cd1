// Softmax along one axis, its logarithm, and their gradients. Beside what rows.cuh asks for, the text before this file
// defines
//   LOGARITHM  0 or 1
//   GRADIENT   1: in is the gradient that arrives at y, out the gradient of softmax's operand
//   TYPE_OUT, TYPE_IN, TYPE_Y
//   RANK       axes of a row's place after merging
//   ACROSS     1: rows lie side by side, and vectors hold neighbours of V rows
//   PART       0: rows in one launch; 1: leaves the tallies of slices of the rows; 2: goes on from them
#include "layout.cuh"
#include "rows.cuh"

struct job {
  TYPE_OUT *out;
  const TYPE_IN *in;
  const TYPE_Y *y;
  tally *tallies;          // [slices, rows]
  i64 rows, length, slice; // elements of a row in one slice; slices are the grid's rows
  axes shape;              // of the rows
  i64 stride[3][RANK_MAX]; // of out, in, y
  i64 step[3];             // along the axis; 1 where vectors lie along it
};

// Takes in the elements of a vector: for the gradient the total alone counts.
inline void take(tally &mine, const pack<TYPE_IN, V> &in, const pack<TYPE_Y, V> &y) {
  T x[V];
  widened(x, in);
#if GRADIENT
#pragma unroll
  for (int i = 0; i < V; i++) mine.total += LOGARITHM ? x[i] : x[i] * read<T>(y.at[i]);
#else
  meet(mine, x);
#endif
}

inline tally nothing() { return {GRADIENT ? (T)0 : lowest<T>(), (T)0}; }
inline tally joined(tally a, tally b) { return GRADIENT ? tally{0, a.total + b.total} : join(a, b); }

// What all elements of a row need of its tally.
struct shared_part {
  T from, factor; // log-softmax: x - from; softmax: exp(x - from) factor; gradients: the total is the factor
};
inline shared_part of_tally(tally all) {
  if (GRADIENT) return {0, all.total};
  return LOGARITHM ? shared_part{all.top + log(all.total), 0} : shared_part{all.top, 1 / all.total};
}

inline TYPE_OUT result(shared_part all, TYPE_IN in, TYPE_Y y) {
  const T x = read<T>(in);
#if GRADIENT
  const T of_y = read<T>(y);
  return store_as<TYPE_OUT>(LOGARITHM ? x - raised(of_y, 0) * all.factor : of_y * (x - all.factor));
#else
  return store_as<TYPE_OUT>(LOGARITHM ? x - all.from : raised(x, all.from) * all.factor);
#endif
}

inline pack<TYPE_OUT, V> results(shared_part all, const pack<TYPE_IN, V> &in, const pack<TYPE_Y, V> &y) {
  pack<TYPE_OUT, V> made;
#pragma unroll
  for (int i = 0; i < V; i++) made.at[i] = result(all, in.at[i], y.at[i]);
  return made;
}

struct place {
  TYPE_OUT *out;
  const TYPE_IN *in;
  const TYPE_Y *y;
};

inline place place_of(const job &j, i64 row) {
  i64 offset[3];
  locate<RANK, 3, i64>(j.shape, j.stride, row, offset);
  return {j.out + offset[0], j.in + offset[1], j.y + offset[2]};
}

#if !ACROSS && HOLD
// The largest first and then the sum, both of what the registers hold.
extern "C" __global__ void __launch_bounds__(THREADS) softmax(const __grid_constant__ job j) {
  const i64 row = own_row(), length = row < j.rows ? j.length : 0; // all threads stay for the exchange
  const place at = place_of(j, row < j.rows ? row : 0);
  held<TYPE_IN> in;
  held<TYPE_Y> y;
  in.fetch(at.in, length);
  if (GRADIENT) y.fetch(at.y, length);
  tally all = nothing();
#if !GRADIENT
#pragma unroll
  for (int k = 0; k < HOLD; k++)
    if ((k * W + own_lane()) * V < length)
#pragma unroll
      for (int i = 0; i < V; i++) all.top = larger::of(read<T>(in.at[k].at[i]), all.top);
  all.top = together<larger>(all.top);
#endif
#pragma unroll
  for (int k = 0; k < HOLD; k++)
    if ((k * W + own_lane()) * V < length) {
#if GRADIENT
      take(all, in.at[k], y.at[k]);
#else
#pragma unroll
      for (int i = 0; i < V; i++) all.total += raised(read<T>(in.at[k].at[i]), all.top);
#endif
    }
  all.total = together<added>(all.total);
  const shared_part part = of_tally(all);
#pragma unroll
  for (int k = 0; k < HOLD; k++) {
    const i64 i = (i64)(k * W + own_lane()) * V;
    if (i < length) save<TYPE_OUT, V>(at.out + i, results(part, in.at[k], y.at[k]));
  }
}
#elif !ACROSS
// Longer rows, rows in slices, and rows of any step (V is 1 then).
extern "C" __global__ void __launch_bounds__(THREADS) softmax(const __grid_constant__ job j) {
  const i64 row = own_row(), step = W * V, first = (i64)blockIdx.y * j.slice + own_lane() * V;
  const bool here = row < j.rows;
  const i64 last = (i64)(blockIdx.y + 1) * j.slice, end = !here ? 0 : last < j.length ? last : j.length;
  const place at = place_of(j, here ? row : 0);
  tally mine = nothing();
  pack<TYPE_Y, V> y;
#if PART == 2
  for (i64 s = own_lane(); here && s < gridDim.y; s += W) mine = joined(mine, j.tallies[s * j.rows + row]);
#else
#pragma unroll 4
  for (i64 i = first; i < end; i += step) {
    if (GRADIENT) y = load<TYPE_Y, V>(at.y + i * j.step[2]);
    take(mine, load<TYPE_IN, V>(at.in + i * j.step[1]), y);
  }
#endif
  const tally all = GRADIENT ? tally{0, together<added>(mine.total)} : together(mine);
#if PART == 1
  if (here && own_lane() == 0) j.tallies[blockIdx.y * j.rows + row] = all;
#else
  const shared_part part = of_tally(all);
#pragma unroll 4
  for (i64 i = first; i < end; i += step) {
    if (GRADIENT) y = load<TYPE_Y, V>(at.y + i * j.step[2]);
    save<TYPE_OUT, V>(at.out + i * j.step[0], results(part, load<TYPE_IN, V>(at.in + i * j.step[1]), y));
  }
#endif
}
#else
// A block takes 32 V rows, and each of its 8 warps every eighth element of them.
extern "C" __global__ void __launch_bounds__(THREADS) softmax(const __grid_constant__ job j) {
  const int x = threadIdx.x % 32, warp = threadIdx.x / 32;
  const i64 row = ((i64)blockIdx.x * 32 + x) * V, first = (i64)blockIdx.y * j.slice;
  const bool here = row < j.rows;
  const i64 end = !here ? 0 : first + j.slice < j.length ? first + j.slice : j.length;
  const place at = place_of(j, here ? row : 0);
  tally mine[V];
#pragma unroll
  for (int v = 0; v < V; v++) mine[v] = nothing();
#if PART == 2
  for (i64 s = warp; here && s < gridDim.y; s += 8)
#pragma unroll
    for (int v = 0; v < V; v++) mine[v] = joined(mine[v], j.tallies[s * j.rows + row + v]);
#else
#if GRADIENT
#pragma unroll 4
  for (i64 i = first + warp; i < end; i += 8) {
    const pack<TYPE_IN, V> in = load<TYPE_IN, V>(at.in + i * j.step[1]);
    const pack<TYPE_Y, V> y = load<TYPE_Y, V>(at.y + i * j.step[2]);
#pragma unroll
    for (int v = 0; v < V; v++) mine[v].total += read<T>(in.at[v]) * (LOGARITHM ? (T)1 : read<T>(y.at[v]));
  }
#else
  enum { AT_ONCE = 4 }; // a tally is scaled once for all of them
  for (i64 i = first + warp; i < end; i += 8 * AT_ONCE) {
    pack<TYPE_IN, V> in[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++)
      if (i + 8 * u < end) in[u] = load<TYPE_IN, V>(at.in + (i + 8 * u) * j.step[1]);
#pragma unroll
    for (int v = 0; v < V; v++) {
      T values[AT_ONCE];
#pragma unroll
      for (int u = 0; u < AT_ONCE; u++) values[u] = i + 8 * u < end ? read<T>(in[u].at[v]) : lowest<T>();
      meet(mine[v], values);
    }
  }
#endif
#endif
  __shared__ tally of_warp[8][32 * V];
#pragma unroll
  for (int v = 0; v < V; v++) of_warp[warp][v * 32 + x] = mine[v];
  __syncthreads();
#pragma unroll
  for (int v = 0; v < V; v++) {
    mine[v] = of_warp[0][v * 32 + x];
    for (int i = 1; i < 8; i++) mine[v] = joined(mine[v], of_warp[i][v * 32 + x]);
  }
#if PART == 1
  for (int v = 0; here && warp == 0 && v < V; v++) j.tallies[blockIdx.y * j.rows + row + v] = mine[v];
#else
  shared_part part[V];
#pragma unroll
  for (int v = 0; v < V; v++) part[v] = of_tally(mine[v]);
#pragma unroll 4
  for (i64 i = first + warp; i < end; i += 8) {
    const pack<TYPE_IN, V> in = load<TYPE_IN, V>(at.in + i * j.step[1]);
    pack<TYPE_Y, V> y;
    if (GRADIENT) y = load<TYPE_Y, V>(at.y + i * j.step[2]);
    pack<TYPE_OUT, V> made;
#pragma unroll
    for (int v = 0; v < V; v++) made.at[v] = result(part[v], in.at[v], y.at[v]);
    save<TYPE_OUT, V>(at.out + i * j.step[0], made);
  }
#endif
}
#endif
