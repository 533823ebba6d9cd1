/* Matrix products of the CPU against plain loops: every layout of operands and result, types, batches, sizes of zero,
 * and what is already in the result (beta). Exits with 1 on a difference. */
#include "host/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int failures;
static uint64_t random_state = 88172645463325252u;

static double random_small(void) { /* multiples of 1/8 in [-2, 2]: exact in every type */
  random_state ^= random_state >> 12, random_state ^= random_state << 25, random_state ^= random_state >> 27;
  return (double)(random_state * 2685821657736338717u >> 59) / 8 - 2;
}

enum { LAYOUTS = 5, ROOM = 8192 };
static const char *const layouts[LAYOUTS] = {"packed", "turned", "gaps between rows", "gaps between columns",
                                             "expanded"};

/* A view of [batch, rows, columns] in `buffer`, filled at random. */
static pl_array view(pl_buffer *buffer, pl_dtype type, int layout, int64_t batch, int64_t rows, int64_t columns) {
  pl_array array = {.buffer = buffer, .dtype = type, .rank = 3, .size = {batch, rows, columns}, .offset = 3};
  pl_array_pack(&array);
  if (layout == 1) array.stride[1] = 1, array.stride[2] = rows > 0 ? rows : 1;
  if (layout == 2) array.stride[1] = columns + 5, array.stride[0] = (columns + 5) * rows;
  if (layout == 3) array.stride[2] = 2, array.stride[1] = 2 * columns, array.stride[0] = 2 * columns * rows;
  if (layout == 4) array.stride[1] = 0, array.stride[0] = columns;
  for (int64_t i = 0; i < ROOM; i++) {
    double x = random_small();
    if (type == PL_F64)
      ((double *)buffer->data)[i] = x;
    else if (type == PL_F32)
      ((float *)buffer->data)[i] = (float)x;
    else
      ((uint16_t *)buffer->data)[i] = type == PL_F16 ? pl_float_to_f16((float)x) : pl_float_to_bf16((float)x);
  }
  return array;
}

static double at(const pl_array *a, int64_t batch, int64_t i, int64_t j) {
  if (a->size[0] == 1) batch = 0;
  int64_t k = a->offset + batch * a->stride[0] + i * a->stride[1] + j * a->stride[2];
  const void *data = a->buffer->data;
  if (a->dtype == PL_F64) return ((const double *)data)[k];
  if (a->dtype == PL_F32) return (double)((const float *)data)[k];
  uint16_t half = ((const uint16_t *)data)[k];
  return (double)(a->dtype == PL_F16 ? pl_f16_to_float(half) : pl_bf16_to_float(half));
}

static void check(pl_dtype type, int la, int lb, int lc, const int64_t size[3], int batches, double beta) {
  static double memory[4][ROOM];
  pl_buffer buffers[4];
  for (int i = 0; i < 4; i++) buffers[i] = (pl_buffer){.count = 1, .data = memory[i], .bytes = sizeof memory[i]};
  int64_t m = size[0], n = size[1], k = size[2], batch = batches == 0 ? 1 : 3;
  pl_array a = view(&buffers[0], type, la, batches == 1 ? 3 : batches == 2 ? 1 : batch, m, k);
  pl_array b = view(&buffers[1], type, lb, batches == 1 ? 1 : batch, k, n);
  pl_array c = view(&buffers[2], type, lc, batch, m, n), before = c;
  before.buffer = &buffers[3];
  for (int i = 0; i < ROOM; i++) memory[3][i] = memory[2][i];
  if (pl_cpu_gemm(NULL, &a, &b, beta, &c) != PL_OK) {
    failures++, fprintf(stderr, "gemm: %s\n", pl_message());
    return;
  }
  double tolerance = type == PL_F64 ? 1e-12 : type == PL_F32 ? 1e-4 : type == PL_F16 ? 2e-3 : 1e-2;
  for (int64_t q = 0; q < batch; q++)
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < n; j++) {
        double expected = beta == 0 ? 0 : beta * at(&before, q, i, j);
        for (int64_t p = 0; p < k; p++) expected += at(&a, q, i, p) * at(&b, q, p, j);
        if (fabs(expected - at(&c, q, i, j)) <= tolerance * (1 + fabs(expected))) continue;
        if (failures++ < 20)
          fprintf(stderr, "%s, %s x %s -> %s, [%d, %d, %d] + %g, element %d,%d,%d: expected %g, got %g\n",
                  pl_dtype_name(type), layouts[la], layouts[lb], layouts[lc], (int)m, (int)n, (int)k, beta, (int)q,
                  (int)i, (int)j, expected, at(&c, q, i, j));
      }
}

int main(void) {
  static const int64_t sizes[][3] = {{1, 1, 1},    {5, 7, 3}, {16, 1, 9}, {1, 16, 9}, {9, 5, 1},
                                     {33, 20, 17}, {4, 3, 0}, {0, 3, 4},  {3, 0, 4}};
  static const pl_dtype types[] = {PL_F64, PL_F32, PL_F16, PL_BF16};
  static const double betas[] = {0, 1, 0.5};
  for (int t = 0; t < 4; t++)
    for (int s = 0; s < 9; s++)
      for (int la = 0; la < LAYOUTS; la++)
        for (int lb = 0; lb < LAYOUTS; lb++)
          for (int lc = 0; lc < LAYOUTS - 1; lc++) /* a result is never expanded */
            for (int way = 0; way < 3; way++)
              check(types[t], la, lb, lc, sizes[s], (s + la + way) % 4 == 3 ? 0 : (la + lb + way) % 4, betas[way]);
  printf("gemm: %d differences\n", failures);
  return failures != 0;
}
