/* Copies with conversion, and the elementwise formulas over strided, broadcast operands. */
#include "host/cpu/blocks.h"
#include "host/device/operands.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

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
  pl_operands work;
  PL_TRY(pl_operands_arrange(to, in, &work));
  int64_t count = pl_array_count(to), each = share(count);
  if (count == 0) return PL_OK;
  if (from->buffer && from->dtype == to->dtype) return copy_raw(&work.view[0], &work.view[1]);
  pl_compute compute = from->buffer ? pl_compute_of(from->dtype) : pl_compute_of(to->dtype);
#pragma omp parallel for if (each < count)
  for (int64_t first = 0; first < count; first += each) {
    _Alignas(64) char room[PL_BLOCK_BYTES];
    for (int64_t start = first; start < first + each && start < count; start += PL_BLOCK) {
      int64_t n = count - start < PL_BLOCK ? count - start : PL_BLOCK;
      pl_blocks_write(&work.view[0], compute, start, n, pl_blocks_read(&work.view[1], compute, start, n, room));
    }
  }
  return PL_OK;
}

static bool divides_by_zero(const int64_t *divisor, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (divisor[i] == 0) return true;
  return false;
}

pl_status pl_cpu_pointwise(pl_device *device, pl_op op, pl_formula formula, const pl_array *out,
                           const pl_array *const in[PL_OPERANDS]) {
  (void)device;
  pl_operands work;
  PL_TRY(pl_operands_arrange(out, in, &work));
  pl_compute compute = pl_compute_of(pl_operands_type(op, in));
  int64_t count = pl_array_count(out), each = share(count);
  if (count == 0) return PL_OK;
  pl_loop loop = pl_cpu_kernels()->pointwise[compute][op][formula];
  PL_REQUIRE(loop, "%s is not defined on %s", pl_pointwise_table[op].name, pl_dtype_name(out->dtype));
  /* What is changed in place is changed as a whole. */
  bool in_place = false;
  for (int i = 0; i < PL_OPERANDS; i++) in_place |= in[i] && in[i]->buffer && in[i]->buffer == out->buffer;
  bool whole_division = op == PL_OP_remainder && compute == PL_COMPUTE_I64, by_zero = false;
#pragma omp parallel for if (each < count) reduction(|| : by_zero)
  for (int64_t first = 0; first < count; first += each) {
    _Alignas(64) char rooms[PL_OPERANDS][PL_BLOCK_BYTES], result[PL_BLOCK_BYTES];
    const void *operand[PL_OPERANDS];
    for (int64_t start = first; start < first + each && start < count; start += PL_BLOCK) {
      if (!in_place && pl_interrupt_pending()) break;
      int64_t n = count - start < PL_BLOCK ? count - start : PL_BLOCK;
      const void *any = rooms[0];
      for (int i = 0; i < PL_OPERANDS; i++) {
        operand[i] = NULL;
        if (!work.given[i + 1]) continue;
        bool filled = !work.view[i + 1].buffer && start > first; /* a number's block stays filled */
        operand[i] = filled ? rooms[i] : pl_blocks_read(&work.view[i + 1], compute, start, n, rooms[i]);
        any = operand[i];
      }
      for (int i = 0; i < PL_OPERANDS; i++)
        if (!operand[i]) operand[i] = any;
      if (whole_division && divides_by_zero(operand[PL_OPERAND_B], n)) by_zero = true;
      void *target = pl_blocks_target(&work.view[0], compute, start, result);
      loop(n, target, operand);
      pl_blocks_write(&work.view[0], compute, start, n, target);
    }
  }
  PL_REQUIRE(!by_zero, "remainder: integer division by zero");
  return in_place ? PL_OK : pl_check_interrupt();
}

/* Each by itself: here it is the formulas that take the time. */
pl_status pl_cpu_pointwise_gradients(pl_device *device, pl_op op, const pl_array *a, const pl_array *b,
                                     const pl_array *const in[PL_OPERANDS]) {
  PL_TRY(pl_cpu_pointwise(device, op, PL_GRADIENT_A, a, in));
  return pl_cpu_pointwise(device, op, PL_GRADIENT_B, b, in);
}
