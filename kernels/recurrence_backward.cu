// The backward way of the alternating recurrence: `begin`, then `step` for t = T-1 .. 0, once more with t = -1 for the
// gradient of the initial states, `sum_rows`, and `spread_weights` after the product for dR. STEP_PRODUCT as in the
// forward way; here the product is R^T times the gradients of the gates that R feeds.
#include "recurrence.cuh"

static __device__ __forceinline__ long long plane(const pl_backward_arguments *p) {
  return (long long)p->batch * p->heads * p->dim;
}

static __device__ __forceinline__ T *leaving_at(const pl_backward_arguments *p, int s, const place &at) {
  return (T *)p->leaving + s * plane(p) + at.index;
}

static __device__ __forceinline__ T kept_state(const pl_backward_arguments *p, int s, int t, const place &at) {
  return KEPT >> s & 1 ? ((const T *)p->carried[s])[t * plane(p) + at.index] : (T)0;
}

// Keeps the arguments where the steps read them; the gradients of the last states, and empty sums.
extern "C" __global__ void begin(const __grid_constant__ pl_backward_arguments p, pl_backward_arguments *kept) {
  if (blockIdx.x == 0)
    for (int i = threadIdx.x; i < (int)(sizeof p / 8); i += blockDim.x)
      ((long long *)kept)[i] = ((const long long *)&p)[i];
  place at = any_place(p.batch, p.heads, p.dim);
  if (!at.inside) return;
#pragma unroll
  for (int s = 0; s < STATES; s++)
    *leaving_at(&p, s, at) = p.last.data ? ((const T *)p.last.data)[offset(p.last, s, at.b, 0, at.n, at.d)] : (T)0;
#pragma unroll
  for (int i = 0; i < BIASES + PARAMS; i++) ((T *)p.sums)[i * plane(&p) + at.index] = 0;
}

extern "C" __global__ void __launch_bounds__(STEP_THREADS) step(const pl_backward_arguments *p, int t) {
  let_next_start();
  const bool through = p->through && t < p->steps - 1; // whether R brings something from the step behind
#if STEP_PRODUCT == 1
  __shared__ float shared[WARPS * ROWS * 16 * SUM_STRIDE];
  const int batch = p->batch, heads = p->heads, across = p->across;
  const place at = tile_place(batch, heads, p->dim);
  const char *gates_behind = p->gates + ((t + 1) & p->gates_mask) * ((long long)batch * heads * across) * sizeof(P);
  const uint4 *weights = weights_of_block(p->packed);
  weights_ahead ahead;
  if (through) load_ahead(ahead, weights);
#else
  const place at = any_place(p->batch, p->heads, p->dim);
#endif
  enum { BEFORE = SAVES, AFTER = BEFORE + STATES, PARAM = AFTER + STATES, ARRIVING = PARAM + PARAMS };
  T in[ARRIVING + STATES], out[GATES + STATES + PARAMS], arriving[STATES], sums[BIASES + PARAMS + 1];
  T *leaving = nullptr, *initial[STATES], *sum = nullptr;
  const T *product = nullptr;
  P *gates = nullptr, *gates_current = nullptr;
  S *input[GATES + 1];
  bool past = false;
#pragma unroll
  for (int s = 0; s < STATES; s++) arriving[s] = 0;
  if (at.inside) {
    const long long line = (long long)at.b * p->heads + at.n, lines = (long long)p->batch * p->heads;
    leaving = leaving_at(p, 0, at);
    product = (const T *)p->product + at.index;
    sum = (T *)p->sums + at.index;
    if (t < 0) {
#pragma unroll
      for (int s = 0; s < STATES; s++)
        initial[s] = (T *)p->initial.data + offset(p->initial, s, at.b, 0, at.n, at.d);
    } else {
#pragma unroll
      for (int v = 0; v < SAVES; v++) in[v] = ((const T *)p->saves)[((long long)t * SAVES + v) * plane(p) + at.index];
#pragma unroll
      for (int s = 0; s < STATES; s++) {
        in[BEFORE + s] = kept_state(p, s, t, at);
        in[AFTER + s] = kept_state(p, s, t + 1, at);
        if (s < p->states_count)
          arriving[s] = widen(((const S *)p->states.data)[offset(p->states, s, at.b, t, at.n, at.d)]);
      }
#pragma unroll
      for (int k = 0; k < PARAMS; k++) in[PARAM + k] = ((const T *)p->param[k].data)[offset(p->param[k], at.n, at.d)];
#pragma unroll
      for (int g = 0; g < GATES; g++) {
        input[g] = nullptr;
        if (HAS_INPUT >> g & 1 && p->input.data)
          input[g] = (S *)p->input.data + offset(p->input, at.b, t, place_in(HAS_INPUT, g), at.n, at.d);
      }
      gates = (P *)p->gates + ((t & p->gates_mask) * lines + line) * p->across + at.d;
      if (p->gates_current) gates_current = (P *)p->gates_current + line * p->across + at.d;
      past = p->lengths && t >= p->lengths[at.b];
    }
  }
  const long long state_step = plane(p), dim = p->dim;
  const T clip = (T)p->clip;
  wait_for_previous();
  if (at.inside) {
#pragma unroll
    for (int s = 0; s < STATES; s++) arriving[s] += fresh(leaving + s * state_step);
#pragma unroll
    for (int i = 0; i < BIASES + PARAMS; i++) sums[i] = fresh(sum + i * state_step);
  }
#if STEP_PRODUCT == 1
  if (through) multiply(shared, ahead, weights, gates_behind, batch, heads, across);
#endif
  if (!at.inside) return;
#if STEP_PRODUCT != 0
  if (through) {
#if STEP_PRODUCT == 1
    T more = column_sum(shared, 0);
#else
    T more = fresh(product);
#endif
    if (clip > 0) more = more > clip ? clip : more < -clip ? -clip : more;
    arriving[0] += more;
  }
#endif
  if (t < 0) {
#pragma unroll
    for (int s = 0; s < STATES; s++) *initial[s] = arriving[s];
    return;
  }
#pragma unroll
  for (int s = 0; s < STATES; s++) in[ARRIVING + s] = arriving[s];
  cell_backward(in, out);
#pragma unroll
  for (int g = 0; g < GATES; g++) {
    const T gradient = past ? (T)0 : out[g];
    if (HAS_RECURRENT >> g & 1) {
      const P rounded = store_as<P>(gradient);
      gates[place_in(HAS_RECURRENT, g) * dim] = rounded;
      if (gates_current) gates_current[place_in(HAS_RECURRENT, g) * dim] = rounded;
    }
    if (input[g]) *input[g] = store_as<S>(gradient);
    if (HAS_BIAS >> g & 1) sums[place_in(HAS_BIAS, g)] += gradient;
  }
#pragma unroll
  for (int s = 0; s < STATES; s++) leaving[s * state_step] = past ? arriving[s] : out[GATES + s];
#pragma unroll
  for (int k = 0; k < PARAMS; k++)
    if (!past) sums[BIASES + k] += out[GATES + STATES + k];
#pragma unroll
  for (int i = 0; i < BIASES + PARAMS; i++) sum[i * state_step] = sums[i];
}

// Gradients of biases and params: a thread per unit adds the batch rows in order.
extern "C" __global__ void sum_rows(const pl_backward_arguments *p) {
  int unit = blockIdx.x * blockDim.x + threadIdx.x, units = p->heads * p->dim, i = blockIdx.y;
  if (unit >= units) return;
  T sum = 0;
  for (int b = 0; b < p->batch; b++) sum += ((const T *)p->sums)[i * plane(p) + (long long)b * units + unit];
  int n = unit / p->dim, d = unit % p->dim;
  if (i < BIASES) {
    if (p->bias.data) ((T *)p->bias.data)[offset(p->bias, i, n, d)] = sum;
  } else {
    const pl_view &to = p->param_gradient[i - BIASES];
    if (to.data) ((T *)to.data)[offset(to, n, d)] = sum;
  }
}

// dR from [N][Gr D][D] to its view [Gr,N,D,D].
extern "C" __global__ void spread_weights(const pl_backward_arguments *p) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, dim = p->dim;
  if (i >= p->heads * RECURRENTS * dim * dim) return;
  long long previous = i % dim, unit = i / dim % dim, g = i / dim / dim % RECURRENTS, n = i / dim / dim / RECURRENTS;
  store_typed(p->recurrent.data, p->recurrent_type, offset(p->recurrent, g, n, unit, previous), ((const T *)p->weights)[i]);
}
