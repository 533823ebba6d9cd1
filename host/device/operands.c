/* Operands of elementwise formulas: broadcast, merged, promoted. */
#include "host/device/operands.h"

pl_status pl_operands_arrange(const pl_array *out, const pl_array *const in[PL_OPERANDS], pl_operands *made) {
  pl_array *merged[PL_OPERANDS + 1] = {&made->view[0]};
  int count = 1;
  made->view[0] = *out;
  made->given[0] = true;
  for (int i = 0; i < PL_OPERANDS; i++) {
    pl_array *view = &made->view[i + 1];
    made->given[i + 1] = in[i] != NULL;
    if (!in[i]) continue;
    *view = *in[i];
    if (!in[i]->buffer) continue;
    PL_REQUIRE(pl_array_broadcast(in[i], out, view), "operand of shape %s does not broadcast to %s",
               pl_shape_text(in[i]), pl_shape_text(out));
    merged[count++] = view;
  }
  pl_arrays_merge(merged, count);
  return PL_OK;
}

pl_dtype pl_operands_type(pl_op op, const pl_array *const in[PL_OPERANDS]) {
  pl_dtype type = PL_BOOL;
  bool real = pl_pointwise_table[op].domain == PL_DOMAIN_REAL;
  for (int i = 0; i < PL_OPERANDS; i++)
    if (in[i] && in[i]->buffer)
      type = pl_dtype_promote(type, in[i]->dtype);
    else if (in[i] && pl_dtype_is_float(in[i]->dtype))
      real = true;
  return real && !pl_dtype_is_float(type) ? PL_F64 : type;
}
