/* A cell's programs as CUDA text: straight-line code over registers, put before the recurrence's kernels. */
#ifndef PL_CUDA_CELL_TEXT_H
#define PL_CUDA_CELL_TEXT_H

#include "host/base/text.h"
#include "host/device/recurrence.h"

/* Appends, after kernels/formulas.cuh and a definition of T (the type of the arithmetic):
 *   the sizes GATES STATES PARAMS SAVES INPUTS RECURRENTS BIASES,
 *   the sets (bit i for gate or state i) HAS_INPUT HAS_RECURRENT HAS_BIAS and KEPT (states that backward reads),
 *   cell_forward(in, out) and cell_backward(in, out) with inputs and outputs in the order of pl_cell. */
void pl_cell_text(const pl_cell *cell, pl_text *text);
/* The same with the approximations of kernels/fast.cuh, after that file. */
void pl_cell_text_approximate(const pl_cell *cell, pl_text *text);

/* Bit s: the backward program reads state s before or after the step. */
unsigned pl_cell_kept(const pl_cell *cell);

#endif
