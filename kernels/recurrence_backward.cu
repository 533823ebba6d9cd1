// The backward way of the alternating recurrence: `begin`, then `step` for t = T-1 .. 0, once more with t = -1 for the
// gradient of the initial states, `sum_rows`, and `spread_weights` after the product for dR. STEP_PRODUCT as in the
// forward way; here the product is R^T times the gradients of the gates that R feeds.
#include "recurrence.cuh"

static __device__ __forceinline__ T *leaving_at(const pl_step_arguments *p, int s, const place &at) {
  return (T *)p->leaving + s * plane(p) + at.index;
}

static __device__ __forceinline__ T kept_state(const pl_step_arguments *p, int s, int t, const place &at) {
  return KEPT >> s & 1 ? ((const T *)p->carried[s])[t * plane(p) + at.index] : (T)0;
}

// Keeps the arguments where the steps read them; the gradients of the last states, and empty sums.
extern "C" __global__ void begin(const __grid_constant__ pl_step_arguments p, pl_step_arguments *kept) {
  keep_arguments(p, kept);
  place at = any_place(p.batch, p.heads, p.dim);
  if (!at.inside) return;
  bring_length(p, at);
#pragma unroll
  for (int s = 0; s < STATES; s++)
    *leaving_at(&p, s, at) = p.last.data ? ((const T *)p.last.data)[offset(p.last, s, at.b, 0, at.n, at.d)] : (T)0;
#pragma unroll
  for (int i = 0; i < BIASES + PARAMS; i++) ((T *)p.sums)[i * plane(&p) + at.index] = 0;
}

// Places of the cell's inputs.
enum { BEFORE = SAVES, AFTER = BEFORE + STATES, PARAM = AFTER + STATES, ARRIVING = PARAM + PARAMS };

// What a thread needs for its element of a step, as far as it can be had before the step behind has ended.
struct element {
  T in[ARRIVING + STATES]; // of the cell; what arrives: from the states given out only
  T sums[BIASES + PARAMS + 1];
  T *leaving, *sum;
  const T *product;
  P *gates, *gates_current;
  S *input; // NULL: not wanted
  long long input_step;
  bool past; // beyond the row's length
};

static __device__ __forceinline__ void prepare(element &e, const pl_step_arguments *p, int t, const place &at) {
  const long long line = (long long)at.b * p->heads + at.n, lines = (long long)p->batch * p->heads;
  e.leaving = leaving_at(p, 0, at);
  e.product = (const T *)p->product + at.index;
  e.sum = (T *)p->sums + at.index;
#pragma unroll
  for (int s = 0; s < STATES; s++) e.in[ARRIVING + s] = 0;
  if (t < 0) return;
#pragma unroll
  for (int v = 0; v < SAVES; v++) e.in[v] = ((const T *)p->saves)[((long long)t * SAVES + v) * plane(p) + at.index];
#pragma unroll
  for (int s = 0; s < STATES; s++) {
    e.in[BEFORE + s] = kept_state(p, s, t, at);
    e.in[AFTER + s] = kept_state(p, s, t + 1, at);
    if (s < p->states_count)
      e.in[ARRIVING + s] = widen(((const S *)p->states.data)[offset(p->states, s, at.b, t, at.n, at.d)]);
  }
#pragma unroll
  for (int k = 0; k < PARAMS; k++) e.in[PARAM + k] = ((const T *)p->param[k].data)[offset(p->param[k], at.n, at.d)];
  e.input = p->input.data ? (S *)p->input.data + offset(p->input, at.b, t, 0, at.n, at.d) : nullptr;
  e.input_step = p->input.stride[2];
  e.gates = (P *)p->gates + ((t & p->gates_mask) * lines + line) * p->across + at.d;
  e.gates_current = STEP_PRODUCT == 2 ? (P *)p->gates_current + line * p->across + at.d : nullptr;
  e.past = p->lengths && t >= p->lengths[at.b];
}

// The cell's gradient, with all that arrives.
static __device__ __forceinline__ void finish(element &e, int dim, int state_step) {
  T out[GATES + STATES + PARAMS];
  cell_backward(e.in, out);
#pragma unroll
  for (int g = 0; g < GATES; g++) {
    const T gradient = e.past ? (T)0 : out[g];
    if (HAS_RECURRENT >> g & 1) {
      const P rounded = store_as<P>(gradient);
      e.gates[place_in(HAS_RECURRENT, g) * dim] = rounded;
      if (e.gates_current) e.gates_current[place_in(HAS_RECURRENT, g) * dim] = rounded;
    }
    if (HAS_INPUT >> g & 1 && e.input) e.input[place_in(HAS_INPUT, g) * e.input_step] = store_as<S>(gradient);
    if (HAS_BIAS >> g & 1) e.sums[place_in(HAS_BIAS, g)] += gradient;
  }
#pragma unroll
  for (int s = 0; s < STATES; s++) e.leaving[(long long)s * state_step] = e.past ? e.in[ARRIVING + s] : out[GATES + s];
#pragma unroll
  for (int k = 0; k < PARAMS; k++)
    if (!e.past) e.sums[BIASES + k] += out[GATES + STATES + k];
#pragma unroll
  for (int i = 0; i < BIASES + PARAMS; i++) e.sum[(long long)i * state_step] = e.sums[i];
}

extern "C" __global__ void __launch_bounds__(STEP_THREADS) step(const pl_step_arguments *p, int k) {
  let_next_start();
  const int t = p->first - k;
  const bool through = p->through && k >= 0; // whether R brings something: not to the last step in time, which is -1
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
  element e;
  if (at.inside) prepare(e, p, t, at);
  const int state_step = (int)plane(p), dim = p->dim; // one register each: the host sees to it that they fit
  const T clip = (T)p->clip;
  wait_for_previous();
  if (at.inside) {
#pragma unroll
    for (int s = 0; s < STATES; s++) e.in[ARRIVING + s] += fresh(e.leaving + (long long)s * state_step);
#pragma unroll
    for (int i = 0; i < BIASES + PARAMS; i++) e.sums[i] = fresh(e.sum + (long long)i * state_step);
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
    T more = fresh(e.product);
#endif
    if (clip > 0) more = more > clip ? clip : more < -clip ? -clip : more;
    e.in[ARRIVING] += more;
  }
#endif
  if (t >= 0) {
    finish(e, dim, state_step);
    return;
  }
#pragma unroll
  for (int s = 0; s < STATES; s++)
    ((T *)p->initial.data)[offset(p->initial, s, at.b, 0, at.n, at.d)] = e.in[ARRIVING + s];
}

// Gradients of biases and params: a block takes PL_SUM_UNITS units, and its threads share out the batch rows of each.
extern "C" __global__ void __launch_bounds__(PL_STEP_THREADS) sum_rows(const pl_step_arguments *p) {
  enum { SHARES = PL_STEP_THREADS / PL_SUM_UNITS };
  __shared__ T of_share[SHARES][PL_SUM_UNITS];
  const int lane = threadIdx.x % PL_SUM_UNITS, share = threadIdx.x / PL_SUM_UNITS;
  const int unit = blockIdx.x * PL_SUM_UNITS + lane, units = p->heads * p->dim, i = blockIdx.y;
  T sum = 0;
#pragma unroll 4
  for (int b = share; b < p->batch && unit < units; b += SHARES)
    sum += ((const T *)p->sums)[i * plane(p) + (long long)b * units + unit];
  of_share[share][lane] = sum;
  __syncthreads();
  if (share > 0 || unit >= units) return;
  for (int other = 1; other < SHARES; other++) sum += of_share[other][lane];
  int n = unit / p->dim, d = unit % p->dim;
  if (i < BIASES) {
    if (p->bias.data) ((T *)p->bias.data)[offset(p->bias, i, n, d)] = sum;
  } else {
    const pl_view &to = p->param_gradient[i - BIASES];
    if (to.data) ((T *)to.data)[offset(to, n, d)] = sum;
  }
}

// dR from [N][Gr D][D] to its view [Gr,N,D,D].
extern "C" __global__ void spread_weights(const pl_step_arguments *p) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, dim = p->dim;
  if (i >= p->heads * RECURRENTS * dim * dim) return;
  long long previous = i % dim, unit = i / dim % dim, g = i / dim / dim % RECURRENTS, n = i / dim / dim / RECURRENTS;
  store_typed(p->recurrent.data, p->recurrent_type, offset(p->recurrent, g, n, unit, previous),
              ((const T *)p->weights)[i]);
}
