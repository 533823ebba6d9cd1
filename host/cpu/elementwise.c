/* Copies with conversion, and the elementwise formulas over strided, broadcast operands. */
#include "host/cpu/blocks.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Broadcast views of up to PL_OPERANDS operands and the result, merged. */
typedef struct {
  pl_array out, operand[PL_OPERANDS];
  bool present[PL_OPERANDS];
  pl_compute compute;
} job;

static pl_status prepare(job *work, const pl_array *out, const pl_array *const in[PL_OPERANDS]) {
  pl_array *views[PL_OPERANDS + 1];
  int count = 0;
  work->out = *out;
  views[count++] = &work->out;
  for (int i = 0; i < PL_OPERANDS; i++) {
    work->present[i] = in[i] != NULL;
    if (!in[i]) continue;
    if (!in[i]->buffer) {
      work->operand[i] = *in[i];
      continue;
    }
    PL_REQUIRE(pl_array_broadcast(in[i], out, &work->operand[i]), "operand of shape %s does not broadcast to %s",
               pl_shape_text(in[i]), pl_shape_text(out));
    views[count++] = &work->operand[i];
  }
  pl_arrays_merge(views, count);
  return PL_OK;
}

/* Elements per thread: whole blocks, or everything when it is little work. */
static int64_t share(int64_t count) {
  int64_t threads = count < PL_PARALLEL_MIN ? 1 : pl_cpu_threads();
  int64_t each = (count + threads - 1) / threads;
  return (each + PL_BLOCK - 1) / PL_BLOCK * PL_BLOCK;
}

static pl_status copy_raw(const pl_array *to, const pl_array *from) {
  pl_array target = *to, source = *from;
  pl_array *views[] = {&target, &source};
  pl_arrays_merge(views, 2);
  size_t size = pl_dtype_size(to->dtype);
  int64_t count = pl_array_count(&target), each = share(count);
#pragma omp parallel for if (each < count)
  for (int64_t first = 0; first < count; first += each) {
    int64_t last = first + each < count ? first + each : count;
    char *to_data = pl_array_data(&target), *from_data = pl_array_data(&source);
    if (pl_array_contiguous(&target) && pl_array_contiguous(&source))
      memmove(to_data + (size_t)first * size, from_data + (size_t)first * size, (size_t)(last - first) * size);
    else if (pl_array_contiguous(&target))
      pl_blocks_gather(&source, first, last - first, to_data + (size_t)first * size);
    else
      for (int64_t start = first; start < last; start += PL_BLOCK) {
        _Alignas(64) char room[PL_BLOCK_BYTES];
        int64_t n = last - start < PL_BLOCK ? last - start : PL_BLOCK;
        pl_blocks_gather(&source, start, n, room);
        pl_blocks_scatter(&target, start, n, room);
      }
  }
  return PL_OK;
}

pl_status pl_cpu_copy(pl_device *device, const pl_array *to, const pl_array *from) {
  (void)device;
  const pl_array *in[PL_OPERANDS] = {from};
  job work;
  PL_TRY(prepare(&work, to, in));
  int64_t count = pl_array_count(to), each = share(count);
  if (count == 0) return PL_OK;
  if (from->buffer && from->dtype == to->dtype) return copy_raw(&work.out, &work.operand[0]);
  pl_compute compute = from->buffer ? pl_compute_of(from->dtype) : pl_compute_of(to->dtype);
#pragma omp parallel for if (each < count)
  for (int64_t first = 0; first < count; first += each) {
    _Alignas(64) char room[PL_BLOCK_BYTES];
    for (int64_t start = first; start < first + each && start < count; start += PL_BLOCK) {
      int64_t n = count - start < PL_BLOCK ? count - start : PL_BLOCK;
      pl_blocks_write(&work.out, compute, start, n, pl_blocks_read(&work.operand[0], compute, start, n, room));
    }
  }
  return PL_OK;
}

/* Promoted type of the arrays; integers that meet a float number or a float formula are computed as doubles. */
static pl_compute compute_type(pl_op op, const pl_array *const in[PL_OPERANDS]) {
  pl_dtype type = PL_BOOL;
  bool real = pl_pointwise_table[op].domain == PL_DOMAIN_REAL;
  for (int i = 0; i < PL_OPERANDS; i++)
    if (in[i] && in[i]->buffer)
      type = pl_dtype_promote(type, in[i]->dtype);
    else if (in[i] && pl_dtype_is_float(in[i]->dtype))
      real = true;
  if (!pl_dtype_is_float(type) && real) return PL_COMPUTE_F64;
  return pl_compute_of(type);
}

static bool divides_by_zero(const int64_t *divisor, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (divisor[i] == 0) return true;
  return false;
}

pl_status pl_cpu_pointwise(pl_device *device, pl_op op, pl_formula formula, const pl_array *out,
                           const pl_array *const in[PL_OPERANDS]) {
  (void)device;
  job work;
  PL_TRY(prepare(&work, out, in));
  int64_t count = pl_array_count(out), each = share(count);
  if (count == 0) return PL_OK;
  work.compute = compute_type(op, in);
  pl_loop loop = pl_cpu_kernels()->pointwise[work.compute][op][formula];
  PL_REQUIRE(loop, "%s is not defined on %s", pl_pointwise_table[op].name, pl_dtype_name(out->dtype));
  bool whole_division = op == PL_OP_remainder && work.compute == PL_COMPUTE_I64, by_zero = false;
#pragma omp parallel for if (each < count) reduction(|| : by_zero)
  for (int64_t first = 0; first < count; first += each) {
    _Alignas(64) char rooms[PL_OPERANDS][PL_BLOCK_BYTES], result[PL_BLOCK_BYTES];
    const void *operand[PL_OPERANDS];
    for (int64_t start = first; start < first + each && start < count; start += PL_BLOCK) {
      int64_t n = count - start < PL_BLOCK ? count - start : PL_BLOCK;
      const void *any = rooms[0];
      for (int i = 0; i < PL_OPERANDS; i++) {
        operand[i] = NULL;
        if (!work.present[i]) continue;
        bool filled = !work.operand[i].buffer && start > first; /* a number's block stays filled */
        operand[i] = filled ? rooms[i] : pl_blocks_read(&work.operand[i], work.compute, start, n, rooms[i]);
        any = operand[i];
      }
      for (int i = 0; i < PL_OPERANDS; i++)
        if (!operand[i]) operand[i] = any;
      if (whole_division && divides_by_zero(operand[PL_OPERAND_B], n)) by_zero = true;
      void *target = pl_blocks_target(&work.out, work.compute, start, result);
      loop(n, target, operand);
      pl_blocks_write(&work.out, work.compute, start, n, target);
    }
  }
  PL_REQUIRE(!by_zero, "remainder: integer division by zero");
  return PL_OK;
}
