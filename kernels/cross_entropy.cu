// Cross-entropy of rows of logits against 1-based labels, and its gradient: the logits are read once for each, and
// nothing of their size is kept between. Beside what rows.cuh asks for, the text before this file defines
//   GRADIENT    0 or 1
//   TYPE        of the logits and of their gradient
//   TYPE_LABEL  i64, i32, u8
//   SMOOTH      1: a share of the target is spread over all classes
#include "layout.cuh"
#include "rows.cuh"

struct job {
  const TYPE *logits;
  const TYPE_LABEL *labels; // [rows]
  T *loss, *shift;          // [rows]; shift: the logarithm of the sum of exp(logits)
  const T *g;               // the gradient that arrives at the losses
  TYPE *gradient; // may be the logits' memory: each thread writes only where it has read
  i64 rows, classes, first;
  i64 row, g_row;        // strides from row to row
  i64 ignoring, ignored; // rows with the label `ignored` count for nothing, when `ignoring`
  f64 smoothing;
  complaints complaint;
};

// The row's class, counted from 0, or -1 for a row that counts for nothing.
inline i64 class_of(const job &j, i64 row) {
  const i64 label = (i64)read<i64>(j.labels[row]);
  if (j.ignoring && label == j.ignored) return -1;
  if (label >= 1 && label <= j.classes) return label - 1;
  complain(j.complaint, COMPLAINT_INDEX, label, j.first + row + 1, j.classes);
  return 0; // something that exists; the complaint stops whoever reads the result
}

#if !GRADIENT
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(const __grid_constant__ job j) {
  const i64 row = own_row(), classes = row < j.rows ? j.classes : 0; // all threads stay for the exchange
  const TYPE *in = j.logits + (classes ? row * j.row : 0);
  tally mine = no_tally();
  T sum = 0;
#pragma unroll 4
  for (i64 i = own_lane() * V; i < classes; i += W * V) {
    T x[V];
    widened(x, load<TYPE, V>(in + i));
    meet(mine, x);
    if (SMOOTH)
#pragma unroll
      for (int v = 0; v < V; v++) sum += x[v];
  }
  const tally all = together(mine);
  if (SMOOTH) sum = together<added>(sum);
  if (!classes || own_lane() != 0) return;
  const i64 own = class_of(j, row);
  const T of_total = log(all.total), smoothing = SMOOTH ? (T)j.smoothing : 0;
  T loss = of_total + (1 - smoothing) * (all.top - read<T>(in[own < 0 ? 0 : own]));
  if (SMOOTH) loss += smoothing * (all.top - sum / (T)j.classes);
  j.loss[row] = own < 0 ? (T)0 : loss;
  j.shift[row] = all.top + of_total;
}

#else
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(const __grid_constant__ job j) {
  const i64 row = own_row();
  if (row >= j.rows) return;
  const i64 own = class_of(j, row);
  const T g = own < 0 ? (T)0 : j.g[row * j.g_row], shift = j.shift[row];
  const T smoothing = SMOOTH ? (T)j.smoothing : 0, even = smoothing / (T)j.classes;
  const TYPE *in = j.logits + row * j.row;
  TYPE *out = j.gradient + row * j.classes;
#pragma unroll 4
  for (i64 i = own_lane() * V; i < j.classes; i += W * V) {
    T x[V];
    widened(x, load<TYPE, V>(in + i));
    pack<TYPE, V> made;
#pragma unroll
    for (int v = 0; v < V; v++) {
      const T target = even + (i + v == own ? 1 - smoothing : (T)0);
      made.at[v] = store_as<TYPE>(own < 0 ? (T)0 : g * (raised(x[v], shift) - target));
    }
    save<TYPE, V>(out + i, made);
  }
}
#endif
