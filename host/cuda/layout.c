/* Strided arrays as kernels are told of them. */
#include "host/cuda/layout.h"

/* n / d == (high half of n * magic + n) >> shift for all n < 2^31 (Granlund and Montgomery, "Division by invariant
 * integers using multiplication", PLDI 1994). */
static void divisor(uint32_t d, uint32_t *magic, uint32_t *shift) {
  *shift = d > 1 ? 32 - (uint32_t)__builtin_clz(d - 1) : 0;
  *magic = (uint32_t)((((uint64_t)1 << 32) * (((uint64_t)1 << *shift) - d)) / d + 1);
}

pl_axes pl_axes_of(const pl_array *array, int64_t last_divisor) {
  pl_axes axes = {0};
  for (int i = 0; i < array->rank; i++) {
    axes.size[i] = i == array->rank - 1 ? array->size[i] / last_divisor : array->size[i];
    if (axes.size[i] > 0 && axes.size[i] <= INT32_MAX) divisor((uint32_t)axes.size[i], &axes.magic[i], &axes.shift[i]);
  }
  return axes;
}

pl_complaints pl_complaints_of(const pl_cuda *cuda) {
  return (pl_complaints){(uint64_t)(uintptr_t)cuda->complaint, cuda->complaint_lock};
}

bool pl_layout_small(const pl_array *array) {
  int64_t reach = 0, count = 1;
  for (int i = 0; i < array->rank; i++) {
    int64_t step = array->stride[i] < 0 ? -array->stride[i] : array->stride[i];
    if (__builtin_mul_overflow(count, array->size[i], &count)) return false;
    if (array->size[i] > 0) reach += (array->size[i] - 1) * step;
  }
  /* Room for a block's worth of positions past the end. */
  enum { MARGIN = 1 << 16 };
  return reach < INT32_MAX - MARGIN && count < INT32_MAX - MARGIN;
}

bool pl_layout_dense(const pl_array *array, int count) {
  int last = array->rank - 1;
  if (last >= 0 && array->stride[last] != 1) return false;
  for (int i = 0; i < last; i++)
    if (array->stride[i] % count != 0) return false;
  return (uintptr_t)pl_array_data(array) % ((size_t)count * pl_dtype_size(array->dtype)) == 0;
}

const char *pl_layout_type(pl_dtype type) {
  static const char *const names[PL_DTYPES] = {
      [PL_BOOL] = "truth", [PL_U8] = "u8",     [PL_I32] = "i32", [PL_I64] = "i64",
      [PL_F16] = "f16",    [PL_BF16] = "bf16", [PL_F32] = "f32", [PL_F64] = "f64",
  };
  return names[type];
}

const char *pl_layout_raw(size_t bytes) { return bytes == 1 ? "u8" : bytes == 2 ? "u16" : bytes == 4 ? "u32" : "u64"; }
