// The forward way of the alternating recurrence: `begin`, then `step` for t = 0 .. T-1 in pieces, then `end`.
// STEP_PRODUCT says where a step's product R h comes from: 0 no gate has one, 1 the kernel itself, 2 from p->product.
#include "recurrence.cuh"

static __device__ __forceinline__ T *carried_at(const pl_step_arguments *p, int s, int t, const place &at) {
  return (T *)p->carried[s] + (t & p->mask[s]) * plane(p) + at.index;
}

// Keeps the arguments where the steps read them, and writes the initial states.
extern "C" __global__ void begin(const __grid_constant__ pl_step_arguments p, pl_step_arguments *kept) {
  keep_arguments(p, kept);
  place at = any_place(p.batch, p.heads, p.dim);
  if (!at.inside) return;
  bring_length(p, at);
#pragma unroll
  for (int s = 0; s < STATES; s++) {
    T value = (T)p.initial_value[s];
    if (p.initial.data) value = ((const T *)p.initial.data)[offset(p.initial, s, at.b, 0, at.n, at.d)];
    *carried_at(&p, s, 0, at) = value;
    if (s > 0) continue;
    long long element = ((long long)at.b * p.heads + at.n) * p.row + at.d;
    ((P *)p.h)[element] = store_as<P>(value);
    if (p.h_current) ((P *)p.h_current)[element] = store_as<P>(value);
  }
}

// What a thread needs for its element of a step, as far as it can be had before the step in front has ended.
struct element {
  T in[GATES + STATES + PARAMS]; // of the cell: gates without their product, params
  const T *before[STATES], *product;
  T *after[STATES], *save; // save NULL: no backward will follow
  P *h, *h_current;
  S *given_out[STATES]; // NULL: not wanted
  bool past;            // beyond the row's length
};

static __device__ __forceinline__ void prepare(element &e, const pl_step_arguments *p, int t, const place &at) {
  const long long line = (long long)at.b * p->heads + at.n, lines = (long long)p->batch * p->heads;
#pragma unroll
  for (int g = 0; g < GATES; g++) {
    e.in[g] = 0;
    if (HAS_INPUT >> g & 1)
      e.in[g] = widen(((const S *)p->input.data)[offset(p->input, at.b, t, place_in(HAS_INPUT, g), at.n, at.d)]);
    if (HAS_BIAS >> g & 1) e.in[g] += ((const T *)p->bias.data)[offset(p->bias, place_in(HAS_BIAS, g), at.n, at.d)];
  }
#pragma unroll
  for (int k = 0; k < PARAMS; k++)
    e.in[GATES + STATES + k] = ((const T *)p->param[k].data)[offset(p->param[k], at.n, at.d)];
#pragma unroll
  for (int s = 0; s < STATES; s++) {
    e.before[s] = carried_at(p, s, t, at);
    e.after[s] = carried_at(p, s, t + 1, at);
    e.given_out[s] = s < p->states_count ? (S *)p->states.data + offset(p->states, s, at.b, t, at.n, at.d) : nullptr;
  }
  e.h = (P *)p->h + (((t + 1) & p->h_mask) * lines + line) * p->row + at.d;
  e.h_current = STEP_PRODUCT == 2 ? (P *)p->h_current + line * p->row + at.d : nullptr;
  e.save = p->saves ? (T *)p->saves + (long long)t * SAVES * plane(p) + at.index : nullptr;
  e.product = (const T *)p->product + line * RECURRENTS * p->dim + at.d;
  e.past = p->lengths && t >= p->lengths[at.b];
}

// The cell, with all gates complete.
static __device__ __forceinline__ void finish(const element &e, long long save_step) {
  T out[STATES + SAVES];
  cell_forward(e.in, out);
#pragma unroll
  for (int s = 0; s < STATES; s++) {
    T value = e.past ? e.in[GATES + s] : out[s];
    *e.after[s] = value;
    if (s == 0) {
      const P h = store_as<P>(value);
      *e.h = h;
      if (e.h_current) *e.h_current = h;
      value = widen(h);
    }
    if (e.given_out[s]) *e.given_out[s] = store_as<S>(value);
  }
  if (!e.save) return;
#pragma unroll
  for (int v = 0; v < SAVES; v++) e.save[v * save_step] = out[STATES + v];
}

extern "C" __global__ void __launch_bounds__(STEP_THREADS) step(const pl_step_arguments *p, int k) {
  let_next_start();
  const int t = p->first + k;
#if STEP_PRODUCT == 1
  __shared__ float sums[WARPS * ROWS * 16 * SUM_STRIDE];
  const int batch = p->batch, heads = p->heads, row = p->row;
  const place at = tile_place(batch, heads, p->dim);
  const char *h_before = p->h + (t & p->h_mask) * ((long long)batch * heads * row) * sizeof(P);
  const uint4 *weights = weights_of_block(p->packed);
  weights_ahead ahead;
  load_ahead(ahead, weights);
#else
  const place at = any_place(p->batch, p->heads, p->dim);
#endif
  element e;
  if (at.inside) prepare(e, p, t, at);
  const long long dim = p->dim, save_step = plane(p);
  wait_for_previous();
  if (at.inside) {
#pragma unroll
    for (int s = 0; s < STATES; s++) e.in[GATES + s] = fresh(e.before[s]);
  }
#if STEP_PRODUCT == 1
  multiply(sums, ahead, weights, h_before, batch, heads, row);
#endif
  if (!at.inside) return;
#if STEP_PRODUCT != 0
#pragma unroll
  for (int g = 0; g < GATES; g++) {
    if (!(HAS_RECURRENT >> g & 1)) continue;
    const int r = place_in(HAS_RECURRENT, g);
#if STEP_PRODUCT == 1
    e.in[g] += column_sum(sums, r);
#else
    e.in[g] += fresh(e.product + r * dim);
#endif
  }
#endif
  finish(e, save_step);
}

// The states after all steps go to their view.
extern "C" __global__ void end(const pl_step_arguments *p) {
  place at = any_place(p->batch, p->heads, p->dim);
  if (!at.inside) return;
#pragma unroll
  for (int s = 0; s < STATES; s++)
    ((T *)p->last.data)[offset(p->last, s, at.b, 0, at.n, at.d)] = *carried_at(p, s, p->steps, at);
}
