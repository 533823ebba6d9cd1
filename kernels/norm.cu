// Layer norm and RMS norm of rows, and their gradients. Beside what rows.cuh asks for, the text before this file
// defines
//   STEP      FORWARD, INPUT_GRADIENT or WEIGHT_GRADIENT
//   CENTRED   1: layer norm, 0: RMS norm
//   WEIGHTED  1: the result is multiplied by a weight per element of a row
//   BIASED    1: and a bias is added
//   ADDING    1: the gradient of x is added to what is in its place
//   TYPE_Y, TYPE_X, TYPE_WEIGHT, TYPE_BIAS
#define FORWARD         0
#define INPUT_GRADIENT  1
#define WEIGHT_GRADIENT 2
#include "rows.cuh"

struct job {
  TYPE_Y *y;
  const TYPE_X *x;
  const TYPE_WEIGHT *weight;
  const TYPE_BIAS *bias;
  T *mean, *scale; // [rows]
  const TYPE_Y *g; // the gradient that arrives at y
  TYPE_X *gx;
  T *partial[2];           // [slices, length]: sums for the gradients of weight and bias; NULL where not wanted
  i64 rows, length, slice; // rows of one slice
  i64 x_row, g_row;        // strides from row to row; elsewhere rows follow each other
  f64 epsilon;
};

// Calls f(number of the vector, its first element, vector of x) for the vectors of this thread, from registers or from
// memory.
template <class F> inline void over_row(const held<TYPE_X> &x, const TYPE_X *row, i64 length, F f) {
  if constexpr (HOLD > 0) {
#pragma unroll
    for (int k = 0; k < HOLD; k++) {
      const i64 i = (i64)(k * W + own_lane()) * V;
      if (i < length) f(k, i, x.at[k]);
    }
  } else {
#pragma unroll 2
    for (i64 i = own_lane() * V; i < length; i += W * V) f(0, i, load<TYPE_X, V>(row + i));
  }
}

#if STEP == FORWARD
extern "C" __global__ void __launch_bounds__(THREADS) normalise(const __grid_constant__ job j) {
  const i64 row = own_row(), length = row < j.rows ? j.length : 0; // all threads stay for the exchange
  const TYPE_X *in = j.x + (length ? row * j.x_row : 0);
  const T share = (T)1 / (T)j.length;
  held<TYPE_X> x;
  x.fetch(in, length);
  T mean = 0, square = 0;
  if (CENTRED) {
    over_row(x, in, length, [&](int, i64, const pack<TYPE_X, V> &part) {
#pragma unroll
      for (int v = 0; v < V; v++) mean += read<T>(part.at[v]);
    });
    mean = together<added>(mean) * share;
  }
  over_row(x, in, length, [&](int, i64, const pack<TYPE_X, V> &part) {
#pragma unroll
    for (int v = 0; v < V; v++) {
      const T u = read<T>(part.at[v]) - mean;
      square += u * u;
    }
  });
  const T scale = 1 / sqrt(together<added>(square) * share + (T)j.epsilon);
  if (length && own_lane() == 0) {
    j.scale[row] = scale;
    if (CENTRED) j.mean[row] = mean;
  }
  over_row(x, in, length, [&](int, i64 i, const pack<TYPE_X, V> &part) {
    pack<TYPE_Y, V> y;
    pack<TYPE_WEIGHT, V> weight;
    pack<TYPE_BIAS, V> bias;
    if (WEIGHTED) weight = load<TYPE_WEIGHT, V>(j.weight + i);
    if (BIASED) bias = load<TYPE_BIAS, V>(j.bias + i);
#pragma unroll
    for (int v = 0; v < V; v++) {
      T n = (read<T>(part.at[v]) - mean) * scale;
      if (WEIGHTED) n *= read<T>(weight.at[v]);
      if (BIASED) n += read<T>(bias.at[v]);
      y.at[v] = store_as<TYPE_Y>(n);
    }
    save<TYPE_Y, V>(j.y + row * j.length + i, y);
  });
}

#elif STEP == INPUT_GRADIENT
// gx = scale (h - [mean(h)] - n mean(h n)) with h = g weight and n the normalised x; the mean in brackets where
// centred.
extern "C" __global__ void __launch_bounds__(THREADS) normalise(const __grid_constant__ job j) {
  const i64 row = own_row(), length = row < j.rows ? j.length : 0;
  const TYPE_X *in = j.x + (length ? row * j.x_row : 0);
  const TYPE_Y *arrived = j.g + (length ? row * j.g_row : 0);
  const T share = (T)1 / (T)j.length, scale = length ? j.scale[row] : 0, mean = CENTRED && length ? j.mean[row] : 0;
  held<TYPE_X> x;
  held<TYPE_Y> g;
  held<TYPE_X> before;
  TYPE_X *to = j.gx + (length ? row * j.length : 0);
  x.fetch(in, length);
  g.fetch(arrived, length);
  if (ADDING) before.fetch(to, length);
  auto over = [&](auto f) {
    over_row(x, in, length, [&](int k, i64 i, const pack<TYPE_X, V> &part) {
      pack<TYPE_WEIGHT, V> weight;
      const pack<TYPE_Y, V> other = HOLD > 0 ? g.at[k] : load<TYPE_Y, V>(arrived + i);
      if (WEIGHTED) weight = load<TYPE_WEIGHT, V>(j.weight + i);
      T h[V], n[V];
#pragma unroll
      for (int v = 0; v < V; v++) {
        h[v] = read<T>(other.at[v]);
        if (WEIGHTED) h[v] *= read<T>(weight.at[v]);
        n[v] = (read<T>(part.at[v]) - mean) * scale;
      }
      f(k, i, h, n);
    });
  };
  T of_h = 0, of_hn = 0;
  over([&](int, i64, const T(&h)[V], const T(&n)[V]) {
#pragma unroll
    for (int v = 0; v < V; v++) {
      if (CENTRED) of_h += h[v];
      of_hn += h[v] * n[v];
    }
  });
  if (CENTRED) of_h = together<added>(of_h) * share;
  of_hn = together<added>(of_hn) * share;
  over([&](int k, i64 i, const T(&h)[V], const T(&n)[V]) {
    pack<TYPE_X, V> gx, sum;
    if (ADDING) sum = HOLD > 0 ? before.at[k] : load<TYPE_X, V>(to + i);
#pragma unroll
    for (int v = 0; v < V; v++) {
      const T own = scale * (h[v] - of_h - n[v] * of_hn);
      gx.at[v] = store_as<TYPE_X>(ADDING ? read<T>(sum.at[v]) + own : own);
    }
    save<TYPE_X, V>(to + i, gx);
  });
}

#else
// Sums of g n and of g over the rows of a slice, for 32 V elements of a row: each of the 8 warps takes every eighth
// row.
extern "C" __global__ void __launch_bounds__(THREADS) normalise(const __grid_constant__ job j) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const i64 i = ((i64)blockIdx.x * 32 + lane) * V, first = (i64)blockIdx.y * j.slice;
  const i64 end = i >= j.length ? 0 : first + j.slice < j.rows ? first + j.slice : j.rows;
  T sum[2][V] = {};
#pragma unroll 4
  for (i64 row = first + warp; row < end; row += 8) {
    const pack<TYPE_Y, V> g = load<TYPE_Y, V>(j.g + row * j.g_row + i);
    const pack<TYPE_X, V> x = load<TYPE_X, V>(j.x + row * j.x_row + i);
    const T scale = j.scale[row], mean = CENTRED ? j.mean[row] : 0;
#pragma unroll
    for (int v = 0; v < V; v++) {
      const T of_g = read<T>(g.at[v]);
      sum[0][v] += of_g * ((read<T>(x.at[v]) - mean) * scale);
      sum[1][v] += of_g;
    }
  }
  __shared__ T of_warp[8][32 * V];
#pragma unroll
  for (int which = 0; which < 2; which++) {
#pragma unroll
    for (int v = 0; v < V; v++) of_warp[warp][lane * V + v] = sum[which][v];
    __syncthreads();
    for (int k = threadIdx.x; k < 32 * V; k += 256) {
      T total = 0;
      for (int w = 0; w < 8; w++) total += of_warp[w][k];
      const i64 at = (i64)blockIdx.x * 32 * V + k;
      if (at < j.length && j.partial[which]) j.partial[which][blockIdx.y * j.length + at] = total;
    }
    __syncthreads();
  }
}
#endif
