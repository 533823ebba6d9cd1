/* Compares the recurrence of host/cpu with plain loops in double, one element at a time: hand-written cells, odd sizes,
 * random strides, lengths, cut, clip, 16-bit products, teams of threads. Exits with 1 on the first difference. */
#include "host/cpu/cpu.h"
#include "host/cpu/recurrence.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state = 88172645463325252u;

static double random_unit(void) { /* xorshift64*, in [-1, 1) */
  random_state ^= random_state >> 12, random_state ^= random_state << 25, random_state ^= random_state >> 27;
  return (double)(int64_t)(random_state * 2685821657736338717u) / 9223372036854775808.0;
}

static int random_below(int n) { return (int)((random_unit() + 1) / 2 * n) % n; }

static void *allocate(size_t bytes) {
  void *memory = calloc(1, bytes ? bytes : 1);
  if (!memory) exit(2);
  return memory;
}

/* ---- cells ---- */

/* register[target] = op(register[a], register[b], register[c]). */
static int write_to(pl_program *p, pl_op op, int target, int a, int b, int c) {
  p->code = realloc(p->code, (size_t)(p->count + 1) * sizeof *p->code);
  if (!p->code) exit(2);
  p->code[p->count++] = (pl_instruction){(uint8_t)op, (uint8_t)target, (uint8_t)a, (uint8_t)b, (uint8_t)c};
  return target;
}
/* The same into a new register. */
static int unary(pl_program *p, pl_op op, int a) { return write_to(p, op, p->registers++, a, a, a); }
static int binary(pl_program *p, pl_op op, int a, int b) { return write_to(p, op, p->registers++, a, b, a); }
static int times(pl_program *p, int a, int b) { return binary(p, PL_OP_mul, a, b); }
static int plus(pl_program *p, int a, int b) { return binary(p, PL_OP_add, a, b); }
static int minus(pl_program *p, int a, int b) { return binary(p, PL_OP_sub, a, b); }

/* s (1 - s), by writing over an operand as compiled programs do. */
static int slope(pl_program *p, int s, int one) {
  int r = minus(p, one, s);
  return write_to(p, PL_OP_mul, r, r, s, r);
}
/* 1 - y y */
static int tanh_slope(pl_program *p, int y, int one) { return minus(p, one, times(p, y, y)); }

static void begin(pl_program *p, int inputs, int constants, const double *constant) {
  p->inputs = inputs, p->constants = constants, p->registers = inputs + constants;
  p->constant = allocate(sizeof(double) * (size_t)constants);
  for (int i = 0; i < constants; i++) p->constant[i] = constant[i];
}

static void finish(pl_program *p, int outputs, const int *output) {
  p->outputs = outputs;
  p->output = allocate(sizeof *p->output * (size_t)outputs);
  for (int i = 0; i < outputs; i++) p->output[i] = (int16_t)output[i];
}

static pl_cell *cell_new(int gates, int states, int params, int saves) {
  pl_cell *cell = allocate(sizeof *cell);
  cell->count = 1, cell->key = allocate(1);
  cell->gates = gates, cell->states = states, cell->params = params, cell->saves = saves;
  return cell;
}

/* c = s(f) c' + s(i) tanh(z); h = s(o) tanh(c) */
static pl_cell *lstm(void) {
  pl_cell *cell = cell_new(4, 2, 0, 5);
  for (int g = 0; g < 4; g++) cell->has_input[g] = cell->has_recurrent[g] = cell->has_bias[g] = true;
  cell->initial[1] = 0.25;
  pl_program *f = &cell->forward, *b = &cell->backward;
  begin(f, 6, 0, NULL); /* i f z o, h c */
  int i = unary(f, PL_OP_sigmoid, 0), forget = unary(f, PL_OP_sigmoid, 1), z = unary(f, PL_OP_tanh, 2);
  int o = unary(f, PL_OP_sigmoid, 3), c = plus(f, times(f, forget, 5), times(f, i, z)), y = unary(f, PL_OP_tanh, c);
  finish(f, 7, (int[]){times(f, o, y), c, i, forget, z, o, y});
  enum { I, F, Z, O, Y, H0, C0, H1, C1, DH, DC, ONE };
  begin(b, ONE, 1, (double[]){1});
  int dc = plus(b, DC, times(b, times(b, DH, O), tanh_slope(b, Y, ONE)));
  int di = times(b, times(b, dc, Z), slope(b, I, ONE)), df = times(b, times(b, dc, C0), slope(b, F, ONE));
  int dz = times(b, times(b, dc, I), tanh_slope(b, Z, ONE)), go = times(b, times(b, DH, Y), slope(b, O, ONE));
  finish(b, 6, (int[]){di, df, dz, go, -1, times(b, dc, F)});
  return cell;
}

/* h = s(z) h' + (1 - s(z)) tanh(p (n + s(r) g)); a = a' + h p. n has no recurrent part, g no input, z no bias. */
static pl_cell *gru(void) {
  pl_cell *cell = cell_new(4, 2, 1, 5);
  cell->has_input[0] = cell->has_input[1] = cell->has_input[2] = true;
  cell->has_recurrent[0] = cell->has_recurrent[1] = cell->has_recurrent[3] = true;
  cell->has_bias[0] = cell->has_bias[2] = cell->has_bias[3] = true;
  cell->initial[0] = -0.5;
  pl_program *f = &cell->forward, *b = &cell->backward;
  begin(f, 7, 1, (double[]){1}); /* r z n g, h a, p */
  int r = unary(f, PL_OP_sigmoid, 0), z = unary(f, PL_OP_sigmoid, 1), m = plus(f, 2, times(f, r, 3));
  int y = unary(f, PL_OP_tanh, times(f, m, 6));
  int h = plus(f, times(f, z, 4), times(f, minus(f, 7, z), y));
  finish(f, 7, (int[]){h, plus(f, 5, times(f, h, 6)), r, z, y, 3, m});
  enum { R, Z, Y, G, M, H0, A0, H1, A1, P, DH, DA, ONE };
  begin(b, ONE, 1, (double[]){1});
  int dh = plus(b, DH, times(b, DA, P));
  int dy = times(b, times(b, dh, minus(b, ONE, Z)), tanh_slope(b, Y, ONE)), dm = times(b, dy, P);
  int dz = times(b, times(b, dh, minus(b, H0, Y)), slope(b, Z, ONE));
  int dr = times(b, times(b, dm, G), slope(b, R, ONE)), dg = times(b, dm, R);
  int dp = plus(b, times(b, dy, M), times(b, DA, H1));
  finish(b, 7, (int[]){dr, dz, dm, dg, times(b, dh, Z), DA, dp});
  return cell;
}

/* No product at all: h = x, twice = x, a constant state; outputs that are inputs, constants, shared or zero. */
static pl_cell *plain(void) {
  pl_cell *cell = cell_new(2, 3, 0, 0);
  cell->has_input[0] = true;
  begin(&cell->forward, 5, 1, (double[]){0.75}); /* x none, h c k */
  int sum = plus(&cell->forward, 0, 1);
  finish(&cell->forward, 3, (int[]){sum, sum, 5});
  begin(&cell->backward, 9, 0, NULL); /* h c k, h c k, dh dc dk */
  int both = plus(&cell->backward, 6, 7);
  finish(&cell->backward, 5, (int[]){both, both, -1, -1, -1});
  return cell;
}

/* ---- arrays ---- */

/* An array with its axes in a random order in memory and gaps between elements. The gaps hold GAP and must keep it. */
typedef struct {
  pl_array array;
  pl_buffer buffer;
  int64_t count;
  bool *used;
} strided;

static const double GAP = -1234.5;

static double get(const strided *s, int64_t i) {
  return s->array.dtype == PL_F64 ? ((double *)s->buffer.data)[i] : (double)((float *)s->buffer.data)[i];
}
static void put(strided *s, int64_t i, double x) {
  if (s->array.dtype == PL_F64)
    ((double *)s->buffer.data)[i] = x;
  else
    ((float *)s->buffer.data)[i] = (float)x;
}
static int64_t place(const strided *s, const int64_t *index) {
  int64_t at = s->array.offset;
  for (int d = 0; d < s->array.rank; d++) at += index[d] * s->array.stride[d];
  return at;
}
static double value(const strided *s, int64_t i, int64_t j, int64_t k, int64_t l, int64_t m) {
  return get(s, place(s, (int64_t[]){i, j, k, l, m}));
}

/* Fills with `scale` times random numbers, or with NaN when scale is 0. */
static strided *strided_new(pl_dtype type, bool packed, double scale, int rank, const int64_t *size) {
  strided *s = allocate(sizeof *s);
  int order[5], axes = rank;
  int64_t stride = packed ? 1 : 1 + random_below(2);
  s->array = (pl_array){.buffer = &s->buffer, .dtype = type, .rank = rank, .offset = packed ? 0 : random_below(4)};
  for (int d = 0; d < rank; d++) order[d] = d, s->array.size[d] = size[d];
  while (axes > 0) {
    int pick = packed ? axes - 1 : random_below(axes), d = order[pick];
    order[pick] = order[--axes];
    s->array.stride[d] = stride;
    stride = stride * size[d] + (packed ? 0 : random_below(3));
  }
  s->count = s->array.offset + 1;
  int64_t elements = 1;
  for (int d = 0; d < rank; d++) s->count += (size[d] - 1) * s->array.stride[d], elements *= size[d];
  if (elements == 0) s->count = 0;
  s->buffer = (pl_buffer){.count = 1, .data = allocate((size_t)s->count * pl_dtype_size(type))};
  s->used = allocate((size_t)s->count);
  for (int64_t i = 0; i < s->count; i++) put(s, i, GAP);
  for (int64_t e = 0; e < elements; e++) {
    int64_t at = s->array.offset, rest = e;
    for (int d = rank - 1; d >= 0; d--) at += rest % size[d] * s->array.stride[d], rest /= size[d];
    put(s, at, scale == 0 ? (double)NAN : scale * random_unit());
    s->used[at] = true;
  }
  return s;
}

static void strided_free(strided *s) {
  if (!s) return;
  free(s->buffer.data);
  free(s->used);
  free(s);
}

/* ---- the oracle: one element after another ---- */

static double apply(int op, double a, double b) {
  switch (op) {
  case PL_OP_add:
    return a + b;
  case PL_OP_sub:
    return a - b;
  case PL_OP_mul:
    return a * b;
  case PL_OP_tanh:
    return tanh(a);
  case PL_OP_sigmoid:
    return 1 / (1 + exp(-a));
  default:
    exit(2);
  }
}

static void interpret(const pl_program *p, const double *in, double *out) {
  double reg[PL_REGISTERS_MAX + 1];
  for (int i = 0; i < p->inputs; i++) reg[i] = in[i];
  for (int i = 0; i < p->constants; i++) reg[p->inputs + i] = p->constant[i];
  for (int i = 0; i < p->count; i++)
    reg[p->code[i].target] = apply(p->code[i].op, reg[p->code[i].a], reg[p->code[i].b]);
  for (int o = 0; o < p->outputs; o++) out[o] = p->output[o] < 0 ? 0 : reg[p->output[o]];
}

typedef struct {
  int64_t batch, steps, heads, dim;
  int kind;
  pl_dtype type, product;
  bool cut, lengths, initial, packed, first_only, some_missing;
  double clip;
} setting;

/* A whole problem and its solutions, the device's and the oracle's. */
typedef struct {
  setting set;
  pl_cell *cell;
  int64_t *lengths;
  pl_buffer lengths_buffer;
  pl_array lengths_array;
  strided *wx, *r, *b, *param[PL_PARAMS_MAX], *initial;
  strided *states, *last, *gstates, *glast, *gwx, *gr, *gb, *gparam[PL_PARAMS_MAX], *ginitial;
  double *ostates, *osaves, *olast, *ogwx, *ogr, *ogb, *ogparam, *oginitial; /* in the arrays' logical order */
} problem;

static double rounded(const problem *p, double x) {
  if (p->set.product == p->set.type) return x;
  return (double)(p->set.product == PL_BF16 ? pl_bf16_to_float(pl_float_to_bf16((float)x))
                                            : pl_f16_to_float(pl_float_to_f16((float)x)));
}

/* States before step t (t = steps: the last): ostates is [S][T+1][B][N][D]. */
static double *state_at(const problem *p, int s, int64_t t, int64_t b, int64_t n, int64_t d) {
  const setting *q = &p->set;
  return &p->ostates[(((s * (q->steps + 1) + t) * q->batch + b) * q->heads + n) * q->dim + d];
}

static double weight(const problem *p, int g, int64_t n, int64_t d, int64_t k) {
  return rounded(p, value(p->r, g, n, d, k, 0));
}

static bool past(const problem *p, int64_t b, int64_t t) { return p->lengths && t >= p->lengths[b]; }

static void oracle_forward(problem *p) {
  const setting *q = &p->set;
  const pl_cell *cell = p->cell;
  int64_t elements = q->batch * q->heads * q->dim;
  p->ostates = allocate(sizeof(double) * (size_t)(cell->states * (q->steps + 1) * elements));
  p->osaves = allocate(sizeof(double) * (size_t)(q->steps * elements * (cell->saves + 1)));
  for (int64_t t = -1; t < q->steps; t++)
    for (int64_t b = 0; b < q->batch; b++)
      for (int64_t n = 0; n < q->heads; n++)
        for (int64_t d = 0; d < q->dim; d++) {
          double in[64], out[64];
          for (int s = 0; s < cell->states && t < 0; s++)
            *state_at(p, s, 0, b, n, d) = p->initial ? value(p->initial, s, b, 0, n, d) : cell->initial[s];
          if (t < 0) continue;
          int w = 0, r = 0, c = 0, i = 0;
          for (int g = 0; g < cell->gates; g++) {
            double sum = 0;
            if (cell->has_input[g]) sum += value(p->wx, b, t, w++, n, d);
            if (cell->has_bias[g]) sum += value(p->b, c++, n, d, 0, 0);
            for (int64_t k = 0; k < q->dim && cell->has_recurrent[g]; k++)
              sum += weight(p, r, n, d, k) * rounded(p, *state_at(p, 0, t, b, n, k));
            r += cell->has_recurrent[g];
            in[i++] = sum;
          }
          for (int s = 0; s < cell->states; s++) in[i++] = *state_at(p, s, t, b, n, d);
          for (int k = 0; k < cell->params; k++) in[i++] = value(p->param[k], n, d, 0, 0, 0);
          interpret(&cell->forward, in, out);
          for (int s = 0; s < cell->states; s++)
            *state_at(p, s, t + 1, b, n, d) = past(p, b, t) ? *state_at(p, s, t, b, n, d) : out[s];
          double *saves = p->osaves + (((t * q->batch + b) * q->heads + n) * q->dim + d) * cell->saves;
          for (int v = 0; v < cell->saves; v++) saves[v] = out[cell->states + v];
        }
}

static void oracle_backward(problem *p) {
  const setting *q = &p->set;
  const pl_cell *cell = p->cell;
  int gw = pl_cell_inputs(cell), gr = pl_cell_recurrents(cell), gb = pl_cell_biases(cell);
  int64_t units = q->heads * q->dim, elements = q->batch * units;
  p->ogwx = allocate(sizeof(double) * (size_t)(elements * q->steps * gw));
  p->ogr = allocate(sizeof(double) * (size_t)(gr * units * q->dim));
  p->ogb = allocate(sizeof(double) * (size_t)(gb * units));
  p->ogparam = allocate(sizeof(double) * (size_t)(cell->params * units));
  p->oginitial = allocate(sizeof(double) * (size_t)(cell->states * elements));
  double *g = p->oginitial; /* of the states around the step, [S][B][N][D] */
  double *through = allocate(sizeof(double) * (size_t)elements);
  for (int64_t t = q->steps; t >= 0; t--) {
    memset(through, 0, sizeof(double) * (size_t)elements);
    for (int64_t b = 0; b < q->batch; b++)
      for (int64_t n = 0; n < q->heads; n++)
        for (int64_t d = 0; d < q->dim; d++) {
          double in[64], out[64];
          int64_t at = (b * q->heads + n) * q->dim + d;
          if (t == q->steps) {
            for (int s = 0; s < cell->states && p->glast; s++) g[s * elements + at] += value(p->glast, s, b, 0, n, d);
            continue;
          }
          for (int s = 0; p->gstates && s < p->gstates->array.size[0]; s++)
            g[s * elements + at] += value(p->gstates, s, b, t, n, d);
          if (past(p, b, t)) continue;
          int i = 0;
          for (int v = 0; v < cell->saves; v++)
            in[i++] = p->osaves[(((t * q->batch + b) * q->heads + n) * q->dim + d) * cell->saves + v];
          for (int s = 0; s < cell->states; s++) in[i++] = *state_at(p, s, t, b, n, d);
          for (int s = 0; s < cell->states; s++) in[i++] = *state_at(p, s, t + 1, b, n, d);
          for (int k = 0; k < cell->params; k++) in[i++] = value(p->param[k], n, d, 0, 0, 0);
          for (int s = 0; s < cell->states; s++) in[i++] = g[s * elements + at];
          interpret(&cell->backward, in, out);
          int w = 0, r = 0, c = 0;
          for (int k = 0; k < cell->gates; k++) {
            if (cell->has_input[k]) p->ogwx[((((b * q->steps + t) * gw + w++) * q->heads + n) * q->dim + d)] = out[k];
            if (cell->has_bias[k]) p->ogb[(c++ * q->heads + n) * q->dim + d] += out[k];
            for (int64_t j = 0; j < q->dim && cell->has_recurrent[k]; j++) {
              p->ogr[((r * q->heads + n) * q->dim + d) * q->dim + j] +=
                  out[k] * rounded(p, *state_at(p, 0, t, b, n, j));
              through[(b * q->heads + n) * q->dim + j] += out[k] * weight(p, r, n, d, j);
            }
            r += cell->has_recurrent[k];
          }
          for (int s = 0; s < cell->states; s++) g[s * elements + at] = out[cell->gates + s];
          for (int k = 0; k < cell->params; k++)
            p->ogparam[k * units + n * q->dim + d] += out[cell->gates + cell->states + k];
        }
    for (int64_t i = 0; i < elements && !q->cut; i++) {
      double x = through[i], v = q->clip;
      g[i] += v > 0 ? (x < -v ? -v : x > v ? v : x) : x;
    }
  }
  free(through);
}

/* ---- comparison ---- */

static int failures;

static void compare(const problem *p, const char *what, const strided *got, const double *expected) {
  if (!got) return;
  const pl_array *a = &got->array;
  int64_t elements = 1;
  for (int d = 0; d < a->rank; d++) elements *= a->size[d];
  double worst = 0, largest = 1e-3;
  for (int64_t e = 0; e < elements; e++) {
    int64_t at = a->offset, rest = e;
    for (int d = a->rank - 1; d >= 0; d--) at += rest % a->size[d] * a->stride[d], rest /= a->size[d];
    double error = fabs(get(got, at) - expected[e]);
    if (!(error <= worst)) worst = error;
    if (fabs(expected[e]) > largest) largest = fabs(expected[e]);
  }
  bool gaps = true;
  for (int64_t i = 0; i < got->count; i++) gaps = gaps && (got->used[i] || get(got, i) == GAP);
  const setting *q = &p->set;
  double limit = q->product != q->type ? 2e-2 : q->type == PL_F64 ? 1e-12 : 5e-5;
  if (worst <= limit * largest && gaps) return;
  failures++;
  fprintf(stderr, "%s: %s%g of %g, B %ld T %ld N %ld D %ld cell %d %s/%s lengths %d cut %d clip %g\n", what,
          gaps ? "" : "wrote between elements, ", worst, largest, (long)q->batch, (long)q->steps, (long)q->heads,
          (long)q->dim, q->kind, pl_dtype_name(q->type), pl_dtype_name(q->product), q->lengths, q->cut, q->clip);
}

static void compare_states(const problem *p) {
  const setting *q = &p->set;
  int64_t size = p->cell->states * q->batch * q->steps * q->heads * q->dim, i = 0, j = 0;
  double *all = allocate(sizeof(double) * (size_t)size), *last = allocate(sizeof(double) * (size_t)size + 4096 * 64);
  for (int s = 0; s < p->cell->states; s++)
    for (int64_t b = 0; b < q->batch; b++) {
      for (int64_t t = 0; t < q->steps; t++)
        for (int64_t n = 0; n < q->heads; n++)
          for (int64_t d = 0; d < q->dim; d++) {
            double x = *state_at(p, s, t + 1, b, n, d);
            all[i++] = s == 0 ? rounded(p, x) : x;
          }
      for (int64_t n = 0; n < q->heads; n++)
        for (int64_t d = 0; d < q->dim; d++) last[j++] = *state_at(p, s, q->steps, b, n, d);
    }
  compare(p, "states", p->states, all);
  compare(p, "last", p->last, last);
  free(all);
  free(last);
}

/* ---- one problem ---- */

#define SIZE(...)                                                                                                      \
  (int64_t[]) { __VA_ARGS__ }

static void problem_begin(problem *p, setting q) {
  pl_cell *(*const make[])(void) = {lstm, gru, plain};
  *p = (problem){.set = q, .cell = make[q.kind]()};
  const pl_cell *cell = p->cell;
  int gw = pl_cell_inputs(cell), gr = pl_cell_recurrents(cell), gb = pl_cell_biases(cell), S = cell->states;
  bool k = q.packed;
  pl_dtype t = q.type;
  const int64_t B = q.batch, T = q.steps, N = q.heads, D = q.dim, Z = q.first_only ? 1 : S;
  double scale = 1.5 / sqrt((double)D);
  p->wx = strided_new(t, k, 1, 5, SIZE(B, T, gw, N, D)), p->gwx = strided_new(t, k, 0, 5, SIZE(B, T, gw, N, D));
  if (gr) p->r = strided_new(t, k, scale, 4, SIZE(gr, N, D, D)), p->gr = strided_new(t, k, 0, 4, SIZE(gr, N, D, D));
  if (gb) p->b = strided_new(t, k, 1, 3, SIZE(gb, N, D)), p->gb = strided_new(t, k, 0, 3, SIZE(gb, N, D));
  for (int i = 0; i < cell->params; i++)
    p->param[i] = strided_new(t, k, 1, 2, SIZE(N, D)), p->gparam[i] = strided_new(t, k, 0, 2, SIZE(N, D));
  if (q.initial) p->initial = strided_new(t, k, 1, 5, SIZE(S, B, 1, N, D));
  p->ginitial = strided_new(t, k, 0, 5, SIZE(S, B, 1, N, D));
  p->states = strided_new(t, k, 0, 5, SIZE(Z, B, T, N, D)), p->last = strided_new(t, k, 0, 5, SIZE(S, B, 1, N, D));
  p->gstates = strided_new(t, k, 1, 5, SIZE(Z, B, T, N, D)), p->glast = strided_new(t, k, 1, 5, SIZE(S, B, 1, N, D));
  if (q.lengths) {
    p->lengths = allocate(sizeof(int64_t) * (size_t)B);
    for (int64_t b = 0; b < B; b++) p->lengths[b] = random_below((int)T + 1);
    p->lengths_buffer = (pl_buffer){.count = 1, .data = p->lengths};
    p->lengths_array = (pl_array){.buffer = &p->lengths_buffer, .dtype = PL_I64, .rank = 1, .size = {B}, .stride = {1}};
  }
  if (!q.some_missing) return;
  strided **optional[] = {&p->gwx, &p->gr, &p->gb, &p->ginitial, &p->gstates, &p->glast, &p->gparam[0], &p->states};
  strided **drop = optional[random_below((int)(sizeof optional / sizeof *optional))];
  strided_free(*drop);
  *drop = NULL;
}

static void problem_end(problem *p) {
  strided *all[] = {p->wx,      p->r,     p->b,   p->param[0], p->initial, p->states,    p->last,
                    p->gstates, p->glast, p->gwx, p->gr,       p->gb,      p->gparam[0], p->ginitial};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) strided_free(all[i]);
  double *oracle[] = {p->ostates, p->osaves, p->olast, p->ogwx, p->ogr, p->ogb, p->ogparam, p->oginitial};
  for (size_t i = 0; i < sizeof oracle / sizeof *oracle; i++) free(oracle[i]);
  free(p->lengths);
  pl_cell_release(p->cell);
}

#define ARRAY(s) ((s) ? &(s)->array : NULL)

static pl_recurrence question(const problem *p) {
  const setting *q = &p->set;
  return (pl_recurrence){.cell = p->cell,
                         .batch = q->batch,
                         .steps = q->steps,
                         .heads = q->heads,
                         .dim = q->dim,
                         .type = q->type,
                         .product = q->product,
                         .input = ARRAY(p->wx),
                         .recurrent = ARRAY(p->r),
                         .bias = ARRAY(p->b),
                         .param = {ARRAY(p->param[0])},
                         .initial = ARRAY(p->initial),
                         .lengths = p->lengths ? &p->lengths_array : NULL,
                         .cut = q->cut,
                         .clip = q->clip};
}

static void require(pl_status status, const char *what) {
  if (status == PL_OK) return;
  fprintf(stderr, "%s failed: %s\n", what, pl_message());
  exit(1);
}

/* `threads_after`: what the backward way finds, which must not matter. */
static void check(setting q, int threads, int threads_after) {
  problem p;
  size_t bytes = 0;
  problem_begin(&p, q);
  pl_recurrence ask = question(&p);
  omp_set_num_threads(threads);
  oracle_forward(&p);
  require(pl_cpu_recurrence_forward(NULL, &ask, &(pl_recurrence_result){ARRAY(p.states), ARRAY(p.last), NULL}),
          "forward");
  compare_states(&p);
  require(pl_cpu_recurrence_workspace(NULL, &ask, &bytes), "workspace");
  void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!workspace) exit(2);
  memset(workspace, 0xFF, bytes);
  require(pl_cpu_recurrence_forward(NULL, &ask, &(pl_recurrence_result){ARRAY(p.states), ARRAY(p.last), workspace}),
          "forward with workspace");
  compare_states(&p);
  oracle_backward(&p);
  omp_set_num_threads(threads_after);
  pl_recurrence_gradient gradient = {.states = ARRAY(p.gstates),
                                     .last = ARRAY(p.glast),
                                     .input = ARRAY(p.gwx),
                                     .recurrent = ARRAY(p.gr),
                                     .bias = ARRAY(p.gb),
                                     .param = {ARRAY(p.gparam[0])},
                                     .initial = ARRAY(p.ginitial),
                                     .workspace = workspace};
  require(pl_cpu_recurrence_backward(NULL, &ask, &gradient), "backward");
  free(workspace);
  compare(&p, "dWx", p.gwx, p.ogwx);
  compare(&p, "dR", p.gr, p.ogr);
  compare(&p, "db", p.gb, p.ogb);
  compare(&p, "dparam", p.gparam[0], p.ogparam);
  compare(&p, "dinitial", p.ginitial, p.oginitial);
  problem_end(&p);
}

/* An interrupt ends both ways with its status. */
static void check_interrupt(void) {
  problem p;
  problem_begin(&p, (setting){.batch = 2, .steps = 5, .heads = 1, .dim = 40, .type = PL_F32, .product = PL_F32});
  pl_recurrence ask = question(&p);
  pl_interrupt_set(1);
  pl_status status =
      pl_cpu_recurrence_forward(NULL, &ask, &(pl_recurrence_result){ARRAY(p.states), ARRAY(p.last), NULL});
  pl_interrupt_set(0);
  if (status != PL_INTERRUPTED) failures++, fprintf(stderr, "an interrupt gave status %d\n", (int)status);
  problem_end(&p);
}

/* For one number of threads the results are the same to the last bit, whoever runs first. */
static void check_repeats(int64_t batch, int threads) {
  problem p;
  size_t bytes = 0;
  problem_begin(&p, (setting){.batch = batch, .steps = 150, .heads = 2, .dim = 40, .type = PL_F32, .product = PL_F32});
  pl_recurrence ask = question(&p);
  omp_set_num_threads(threads);
  require(pl_cpu_recurrence_workspace(NULL, &ask, &bytes), "workspace");
  void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
  float *first = NULL;
  if (!workspace) exit(2);
  for (int run = 0; run < 5; run++) {
    pl_recurrence_gradient gradient = {
        .states = ARRAY(p.gstates), .recurrent = ARRAY(p.gr), .bias = ARRAY(p.gb), .workspace = workspace};
    require(pl_cpu_recurrence_forward(NULL, &ask, &(pl_recurrence_result){NULL, ARRAY(p.last), workspace}), "forward");
    require(pl_cpu_recurrence_backward(NULL, &ask, &gradient), "backward");
    size_t size = (size_t)p.gr->count * sizeof(float);
    if (!first) first = memcpy(allocate(size), p.gr->buffer.data, size);
    if (memcmp(first, p.gr->buffer.data, size) != 0)
      failures++, fprintf(stderr, "dR differs between runs, B %ld, %d threads\n", (long)batch, threads);
  }
  free(first);
  free(workspace);
  problem_end(&p);
}

int main(void) {
  static const int64_t batches[] = {1, 3, 8, 20}, lengths[] = {0, 1, 2, 17}, heads[] = {1, 3},
                       dims[] = {1, 5, 16, 33, 130};
  int runs = 0;
  for (int kind = 0; kind < 3; kind++)
    for (size_t b = 0; b < 4; b++)
      for (size_t t = 0; t < 4; t++)
        for (size_t n = 0; n < 2; n++)
          for (size_t d = 0; d < 5; d++) {
            setting q = {.batch = batches[b], .steps = lengths[t], .heads = heads[n], .dim = dims[d], .kind = kind};
            q.type = random_below(2) ? PL_F64 : PL_F32, q.product = q.type;
            if (q.type == PL_F32 && random_below(4) == 0) q.product = random_below(2) ? PL_BF16 : PL_F16;
            q.cut = random_below(4) == 0, q.lengths = random_below(3) == 0, q.initial = random_below(2);
            q.packed = random_below(2), q.first_only = random_below(3) == 0, q.some_missing = random_below(3) == 0;
            q.clip = random_below(3) == 0 ? 0.3 : 0;
            if (q.dim > 100 && q.batch * q.heads > 20) continue; /* the oracle is slow */
            check(q, 1 + runs % 5, 1 + runs % 3);
            runs++;
          }
  /* Many steps: several products for dR. */
  for (int threads = 1; threads < 4; threads++) {
    check((setting){1, 600, 1, 33, .type = PL_F64, .product = PL_F64}, threads, threads);
    check((setting){4, 150, 2, 20, 1, .type = PL_F64, .product = PL_F64, .lengths = true}, threads, 1);
  }
  check_repeats(9, 3);
  check_repeats(1, 2);
  check_interrupt();
  printf("recurrence: %d problems, %d differences\n", runs, failures);
  return failures != 0;
}
