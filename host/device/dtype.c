/* Names, sizes and promotion of element types. */
#include "host/device/dtype.h"

#include <string.h>

static const struct {
  const char *name;
  size_t size;
  bool is_float;
} types[PL_DTYPES] = {
    [PL_BOOL] = {"bool", 1, false},  [PL_U8] = {"uint8", 1, false},   [PL_I32] = {"int32", 4, false},
    [PL_I64] = {"int64", 8, false},  [PL_F16] = {"float16", 2, true}, [PL_BF16] = {"bfloat16", 2, true},
    [PL_F32] = {"float32", 4, true}, [PL_F64] = {"float64", 8, true},
};

const char *pl_dtype_name(pl_dtype type) { return types[type].name; }
size_t pl_dtype_size(pl_dtype type) { return types[type].size; }
bool pl_dtype_is_float(pl_dtype type) { return types[type].is_float; }

pl_dtype pl_dtype_named(const char *name) {
  for (int i = 0; i < PL_DTYPES; i++)
    if (strcmp(types[i].name, name) == 0) return (pl_dtype)i;
  return PL_DTYPES;
}

pl_dtype pl_dtype_promote(pl_dtype a, pl_dtype b) {
  if ((a == PL_F16 && b == PL_BF16) || (a == PL_BF16 && b == PL_F16)) return PL_F32;
  return a > b ? a : b;
}
