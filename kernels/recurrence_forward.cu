// The forward way of the alternating recurrence: `begin`, then `step` for t = 0 .. T-1, then `end`. STEP_PRODUCT says
// where a step's product R h comes from: 0 no gate has one, 1 the kernel itself, 2 from p->product.
#include "recurrence.cuh"

static __device__ __forceinline__ long long plane(const pl_forward_arguments *p) {
  return (long long)p->batch * p->heads * p->dim;
}

static __device__ __forceinline__ T *carried_at(const pl_forward_arguments *p, int s, int t, const place &at) {
  return (T *)p->carried[s] + (t & p->mask[s]) * plane(p) + at.index;
}

static __device__ __forceinline__ void put_h(const pl_forward_arguments *p, int t, const place &at, P h) {
  long long line = (long long)at.b * p->heads + at.n, lines = (long long)p->batch * p->heads;
  ((P *)p->h)[((t & p->h_mask) * lines + line) * p->row + at.d] = h;
  if (p->h_current) ((P *)p->h_current)[line * p->row + at.d] = h;
}

// Keeps the arguments where the steps read them, and writes the initial states.
extern "C" __global__ void begin(const __grid_constant__ pl_forward_arguments p, pl_forward_arguments *kept) {
  if (blockIdx.x == 0)
    for (int i = threadIdx.x; i < (int)(sizeof p / 8); i += blockDim.x)
      ((long long *)kept)[i] = ((const long long *)&p)[i];
  place at = any_place(p.batch, p.heads, p.dim);
  if (!at.inside) return;
#pragma unroll
  for (int s = 0; s < STATES; s++) {
    T value = (T)p.initial_value[s];
    if (p.initial.data) value = ((const T *)p.initial.data)[offset(p.initial, s, at.b, 0, at.n, at.d)];
    *carried_at(&p, s, 0, at) = value;
    if (s > 0) continue;
    put_h(&p, 0, at, store_as<P>(value));
  }
}

extern "C" __global__ void __launch_bounds__(PL_STEP_THREADS) step(const pl_forward_arguments *p, int t) {
  let_next_start();
#if STEP_PRODUCT == 1
  __shared__ float sums[WARPS * ROWS * 16 * SUM_STRIDE];
  place at = tile_place(p->batch, p->heads, p->dim);
  weights_ahead ahead;
  const uint4 *weights = weights_of_block(p->packed);
  load_ahead(ahead, weights);
#else
  place at = any_place(p->batch, p->heads, p->dim);
#endif
  T in[GATES + STATES + PARAMS], out[STATES + SAVES];
  bool past = false;
#pragma unroll
  for (int g = 0; g < GATES; g++) {
    T sum = 0;
    if (at.inside && HAS_INPUT >> g & 1)
      sum = widen(((const S *)p->input.data)[offset(p->input, at.b, t, place_in(HAS_INPUT, g), at.n, at.d)]);
    if (at.inside && HAS_BIAS >> g & 1)
      sum += ((const T *)p->bias.data)[offset(p->bias, place_in(HAS_BIAS, g), at.n, at.d)];
    in[g] = sum;
  }
  if (at.inside) {
#pragma unroll
    for (int k = 0; k < PARAMS; k++)
      in[GATES + STATES + k] = ((const T *)p->param[k].data)[offset(p->param[k], at.n, at.d)];
    past = p->lengths && t >= p->lengths[at.b];
  }
  wait_for_previous();
  if (at.inside) {
#pragma unroll
    for (int s = 0; s < STATES; s++) in[GATES + s] = fresh(carried_at(p, s, t, at));
  }
#if STEP_PRODUCT == 1
  long long h_plane = (long long)p->batch * p->heads * p->row;
  multiply(sums, ahead, weights, p->h + (t & p->h_mask) * h_plane * 2, p->batch, p->heads, p->row);
#endif
  if (!at.inside) return;
#if STEP_PRODUCT != 0
#pragma unroll
  for (int g = 0; g < GATES; g++) {
    if (!(HAS_RECURRENT >> g & 1)) continue;
    const int r = place_in(HAS_RECURRENT, g);
#if STEP_PRODUCT == 1
    in[g] += column_sum(sums, r);
#else
    in[g] += fresh((const T *)p->product + (((long long)at.b * p->heads + at.n) * RECURRENTS + r) * p->dim + at.d);
#endif
  }
#endif
  cell_forward(in, out);
#pragma unroll
  for (int s = 0; s < STATES; s++) {
    T value = past ? in[GATES + s] : out[s];
    *carried_at(p, s, t + 1, at) = value;
    if (s == 0) {
      const P h = store_as<P>(value);
      put_h(p, t + 1, at, h);
      value = widen(h);
    }
    if (s < p->states_count)
      ((S *)p->states.data)[offset(p->states, s, at.b, t, at.n, at.d)] = store_as<S>(value);
  }
  if (!p->saves) return;
#pragma unroll
  for (int v = 0; v < SAVES; v++) ((T *)p->saves)[((long long)t * SAVES + v) * plane(p) + at.index] = out[STATES + v];
}

// The states after all steps go to their view.
extern "C" __global__ void end(const pl_forward_arguments *p) {
  place at = any_place(p->batch, p->heads, p->dim);
  if (!at.inside) return;
#pragma unroll
  for (int s = 0; s < STATES; s++)
    ((T *)p->last.data)[offset(p->last, s, at.b, 0, at.n, at.d)] = *carried_at(p, s, p->steps, at);
}
