/* Operands of an elementwise formula made ready for a device's loop: broadcast, merged, and the type to compute in. */
#ifndef PL_DEVICE_OPERANDS_H
#define PL_DEVICE_OPERANDS_H

#include "host/device/array.h"
#include "host/device/pointwise.h"

typedef struct {
  pl_array view[PL_OPERANDS + 1]; /* the result, then the operands: views of its shape with merged axes, or numbers */
  bool given[PL_OPERANDS + 1];    /* the others are not read by the formula */
} pl_operands;

/* Fails where an operand does not broadcast to out. in[i] may be NULL. */
pl_status pl_operands_arrange(const pl_array *out, const pl_array *const in[PL_OPERANDS], pl_operands *made);
/* The promoted type of the arrays; float64 where whole numbers meet a float number or a float formula. */
pl_dtype pl_operands_type(pl_op op, const pl_array *const in[PL_OPERANDS]);

#endif
