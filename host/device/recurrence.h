/* A cell and one recurrence as every device sees them: what lua/perilune/cell compiles to, and the arguments of the
 * recurrence primitives. No device knows a cell by name. */
#ifndef PL_DEVICE_RECURRENCE_H
#define PL_DEVICE_RECURRENCE_H

#include "host/device/array.h"
#include "host/device/pointwise.h"

enum { PL_GATES_MAX = 16, PL_STATES_MAX = 8, PL_PARAMS_MAX = 16, PL_SAVES_MAX = 32, PL_REGISTERS_MAX = 255 };

/* register[target] = op(register[a], register[b], register[c]); operands past the arity repeat a. */
typedef struct {
  uint8_t op; /* pl_op */
  uint8_t target, a, b, c;
} pl_instruction;

/* Straight-line code over registers of one element each; a machine runs it over blocks of elements. Registers: first
 * the inputs, then the constants, then temporaries (reused once dead). No instruction writes an input or a constant. */
typedef struct {
  int inputs, constants, registers;
  double *constant; /* [constants] */
  int count;
  pl_instruction *code; /* [count] */
  int outputs;
  int16_t *output; /* [outputs] the register of each output (an input or a constant, too); -1: identically zero */
} pl_program;

/* Forward:  inputs  gates [G] (sum of the parts each has), previous states [S], params [P]
 *           outputs new states [S], saves [V]
 * Backward: inputs  saves [V], previous states [S], new states [S], params [P], gradients of the new states [S]
 *           outputs gradients of gates [G], of previous states [S] (without the way through R), of params [P]
 * New states are after the forward clip. Counted; immutable once made. */
typedef struct {
  int count;
  char *key; /* content: equal keys are the same cell with the same options */
  int gates, states, params, saves;
  bool has_input[PL_GATES_MAX], has_recurrent[PL_GATES_MAX], has_bias[PL_GATES_MAX];
  double initial[PL_STATES_MAX];
  pl_program forward, backward;
} pl_cell;

void pl_cell_retain(pl_cell *cell);
void pl_cell_release(pl_cell *cell);
/* Gates that have the part: Gw, Gr, Gb. */
int pl_cell_inputs(const pl_cell *cell);
int pl_cell_recurrents(const pl_cell *cell);
int pl_cell_biases(const pl_cell *cell);
/* Whether the backward program reads input i. */
bool pl_program_reads(const pl_program *program, int input);

/* How one persistent launch for all time steps is cut (`fused`). rows == 0: there is none, and the steps are launched
 * one by one, by a pl_step_cut each way. */
typedef enum { PL_SCOPE_BLOCK, PL_SCOPE_CLUSTER, PL_SCOPE_GRID } pl_fused_scope;

typedef struct {
  pl_fused_scope scope; /* how far h travels in a step */
  int rows;             /* of the batch, of a block: 4, 8 or, in the grid scope, 16 */
  int blocks;           /* that share a head: 1; 2, 4, 8 or 16 of a cluster; an even number of a grid */
  int parts;            /* of these blocks that share the sums of gradients of h: a divisor of blocks */
  bool clustered;       /* grid scope: these are a cluster, which adds up faster than through memory */
  int groups;           /* of 8 units of a team of warps */
  int splits;           /* warps of a team, which share what a sum runs over */
  int writers[2];       /* warps that move data, forward and backward; 0: those that multiply do it themselves */
  int ring;             /* steps of input on their way: 4 or 8 */
  int registers[2]; /* fragments of R that a thread holds in registers, forward and backward; others: shared memory */
  int resident;     /* blocks that one multiprocessor is to run at once */
} pl_fused_plan;

/* Where the product of a step comes from: no gate has one; the step's kernel, on tensor cores; cuBLAS, in front of it.
 */
typedef enum { PL_PRODUCT_NONE, PL_PRODUCT_INSIDE, PL_PRODUCT_BLAS } pl_step_product;

/* How the kernel of one step, one way, is cut (`alternating`). rows == 0: there is no cut. What is not the product
 * counts for PL_PRODUCT_INSIDE only, where the elements of a block, 128 rows unit_tiles, have a thread each. */
typedef struct {
  pl_step_product product;
  int warps;      /* of a block, which share what a sum runs over */
  int rows;       /* tiles of 16 batch rows, of a block */
  int unit_tiles; /* tiles of 8 units of a head, of a block */
} pl_step_cut;

/* What a GPU has for the blocks of a recurrence. */
typedef struct {
  int architecture; /* 90 for compute capability 9.0; 0: not planned for */
  int multiprocessors;
  int64_t shared_bytes; /* that one block can have */
} pl_fused_chip;

/* A plan worked out, for a recurrence with all states given out and all gradients wanted. Bytes are of a block. */
typedef struct {
  int warps, threads; /* of a block: those that multiply, and with those that move data */
  int padded;         /* units of a head, with those that fill up */
  int64_t blocks, launches;
  struct {
    int64_t register_bytes, weight_bytes; /* of R: held in registers, and in shared memory */
    int64_t shared_bytes;                 /* in all */
    int64_t exchanged_bytes;              /* sent to other blocks in a step */
  } way[2];                               /* forward, backward */
  int64_t moved_bytes;                    /* between all blocks and the GPU's memory in a forward step */
  int64_t products;                       /* multiplications of R and h in a step */
} pl_fused_details;

/* One recurrence: B batch rows, T steps, N heads, D units. Arrays may have any strides; their type is `type` unless
 * said, and a gradient's is that of what it belongs to. Axes are in the order given. NULL marks what is absent. */
typedef struct {
  const pl_cell *cell;
  int64_t batch, steps, heads, dim;
  pl_dtype type;    /* of the arithmetic: PL_F32 or PL_F64 */
  pl_dtype storage; /* of input and of the states given out; not `type` only where the device says so */
  pl_dtype product; /* h (and R) are rounded to this type before the product and in the output; == type: no rounding */
  const pl_array *input;                /* Wx [B,T,Gw,N,D] */
  const pl_array *recurrent;            /* R [Gr,N,D,D], gate[d] += sum_p R[g,n,d,p] h[p]; any type where storage may */
  const pl_array *bias;                 /* [Gb,N,D] */
  const pl_array *param[PL_PARAMS_MAX]; /* each [N,D] */
  const pl_array *initial;              /* [S,B,1,N,D]; NULL: cell->initial everywhere */
  /* [B] int64; NULL: all T. Beyond its length a row's states repeat. Those in host memory are within 0..T; a device
   * with memory of its own reports others at its next synchronisation, and takes the nearest. */
  const pl_array *lengths;
  pl_fused_plan plan;
  pl_step_cut step[2]; /* forward and backward; a GPU needs them where there is no plan */
  bool cut;            /* recurrent_grad_cut: no gradient of h through R; dR is still computed */
  double clip;         /* recurrent_grad_clip: gradient of h arriving through R clamped to +-clip; 0: none */
} pl_recurrence;

/* Results of the forward way. `states` holds S states or only the first, by its size[0]. */
typedef struct {
  const pl_array *states; /* [S or 1,B,T,N,D] or NULL */
  const pl_array *last;   /* [S,B,1,N,D] */
  void *workspace;        /* what backward needs, in the device's own layout; NULL: no backward will follow */
} pl_recurrence_result;

/* Gradients: what arrives (NULL: zero) and what is wanted (NULL: not wanted; else overwritten entirely). */
typedef struct {
  const pl_array *states, *last; /* arriving: as in pl_recurrence_result */
  const pl_array *input, *recurrent, *bias, *param[PL_PARAMS_MAX], *initial;
  void *workspace; /* as the forward way left it; may be used as scratch: it is read for the last time */
} pl_recurrence_gradient;

#endif
