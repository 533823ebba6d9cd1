/* The operations on tensors: the calls that C code makes, and the table from which bindings and tests follow. Each
 * result is a new count. Shapes are in comments; errors name the operation, what came and what was expected. */
#ifndef PL_TENSOR_OPERATIONS_H
#define PL_TENSOR_OPERATIONS_H

#include "host/tensor/tensor.h"

enum { PL_CALL_TENSORS = 4, PL_CALL_INTEGERS = 4, PL_CALL_NUMBERS = 2 };

/* The arguments of an operation of the table, as its signature orders them. */
typedef struct {
  pl_tensor *tensor[PL_CALL_TENSORS]; /* NULL: an optional one that is absent */
  pl_tensor **list;                   /* for operations over a list of tensors */
  int listed;
  int64_t integer[PL_CALL_INTEGERS]; /* dimensions (0-based), integers and booleans, in the order of the signature */
  double number[PL_CALL_NUMBERS];
  int rank; /* of a shape or an order of axes */
  int64_t shape[PL_RANK_MAX];
  unsigned axes; /* bit i: axis i; all when none was given */
} pl_call;

typedef pl_status pl_operation_run(const pl_call *call, pl_tensor *out[]);

/* One operation. The signature lists the arguments, "name:code" separated by blanks, a "?" behind an optional one:
 *   t tensor   l list of tensors   d dimension of the first tensor   D dimensions
 *   i integer   x number   b boolean   s shape (a table or integers)   S permutation of dimensions (likewise)
 *   a nothing: receives whether the D argument was given
 * An optional argument may have a default: "?=0.1". Dimensions count from 1, or from the end when negative. */
typedef struct {
  const char *name, *signature;
  int outputs;
  pl_operation_run *run;
} pl_operation;

extern const pl_operation pl_operations[];
extern const int pl_operation_count;

/* ---- calls for C code ---- */

/* An elementwise operation of the table in host/device/pointwise.h; operands beyond its arity are NULL, and may be
 * numbers. */
pl_status pl_pointwise_run(pl_op op, pl_tensor *const operand[3], pl_tensor **out);
pl_status pl_add(pl_tensor *a, pl_tensor *b, pl_tensor **out);
pl_status pl_mul(pl_tensor *a, pl_tensor *b, pl_tensor **out);
pl_status pl_clone(pl_tensor *a, pl_tensor **out);
/* Another type or device; the same tensor when it has both already. */
pl_status pl_convert_to(pl_tensor *a, pl_dtype dtype, pl_device *device, pl_tensor **out);
pl_status pl_contiguous(pl_tensor *a, pl_tensor **out); /* the same tensor when it is already */
/* Elements seen in a new shape; a view when the strides allow, else a copy. One size may be -1. */
pl_status pl_reshape(pl_tensor *a, int rank, const int64_t *size, pl_tensor **out);
pl_status pl_transpose(pl_tensor *a, int i, int j, pl_tensor **out);
pl_status pl_narrow(pl_tensor *a, int axis, int64_t start, int64_t length, pl_tensor **out); /* start from 0 */
/* Sums over the axes of the mask; keep leaves them with size 1. */
pl_status pl_sum(pl_tensor *a, unsigned axes, bool keep, pl_tensor **out);
/* g summed down to a shape that broadcasts to g's, in that shape's type. */
pl_status pl_sum_to(pl_tensor *g, const pl_array *shape, pl_tensor **out);
/* [.., m, k] [.., k, n] -> [.., m, n]; vectors as in PyTorch. */
pl_status pl_matmul(pl_tensor *a, pl_tensor *b, pl_tensor **out);
/* g added into a zero tensor of that shape and type at the places of the index: the gradient of picking by index. Sums
 * are taken in float32 or wider. */
pl_status pl_scattered(pl_tensor *g, const pl_array *shape, int axis, pl_tensor *index, pl_tensor **out);
/* New tensor filled with one number. */
pl_status pl_filled(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, double number, pl_tensor **out);
/* to = from in place (broadcast, converted); `operation` names the caller in errors. */
pl_status pl_assign(pl_tensor *to, const pl_tensor *from, const char *operation);
/* The operand, or a copy of it when it is another view of the memory that is about to change. */
pl_status pl_apart(pl_tensor *operand, const pl_tensor *target, pl_tensor **out);

/* Random tensors advance one process-wide counter. */
void pl_seed(uint64_t seed);
/* The seed, and how many blocks of numbers were drawn since. */
void pl_random_state(uint64_t state[2]);
void pl_set_random_state(const uint64_t state[2]);
pl_status pl_random(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, pl_distribution kind, double p0,
                    double p1, pl_tensor **out);

/* The type to which products of float32 round their operands, PL_F32 unless somebody asks for PL_BF16 or PL_F16. They
 * add up in float32 and results and gradients stay float32, so parameters keep all their digits. */
pl_dtype pl_autocast(void);
void pl_set_autocast(pl_dtype type);

/* [] = the sum of the squares of all elements of `count` floating-point tensors on one device, outside the graph;
 * float64 for float64 tensors, else float32. They have one type. */
pl_status pl_sum_of_squares(pl_tensor *const list[], int count, pl_tensor **out);

/* Multiplies the elements of floating-point tensors of any types and devices by a number, in place. */
pl_status pl_scale_all(pl_tensor *const list[], int count, double factor);

/* One Adam step over `count` parameters; those without a gradient are left alone. Checks first that shapes, types and
 * devices agree. master[i] is NULL unless parameter i has 16 bits. */
pl_status pl_adam_step(pl_tensor *const parameter[], pl_tensor *const first[], pl_tensor *const second[],
                       pl_tensor *const master[], int count, const pl_adam *factors);

/* The whole recurrence as one node. `r` carries cell, product, cut and clip; its arrays and sizes are filled in here.
 * recurrent, bias, initial, lengths may be NULL; parameters [cell->params]; lengths [B] int64. outputs: 'a' all states,
 * 'h' only the first, 'l' last only (then *states is NULL). */
pl_status pl_recur(pl_recurrence r, pl_tensor *input, pl_tensor *recurrent, pl_tensor *bias,
                   pl_tensor *const *parameters, pl_tensor *initial, pl_tensor *lengths, char outputs,
                   pl_tensor **states, pl_tensor **last);

/* ---- what the table lists, by family: views.c, pieces.c, reduce.c, matmul.c, normalise.c,
 * attention.c, losses.c, linear_cross_entropy.c, index.c ---- */
extern pl_operation_run pl_op_reshape, pl_op_transpose, pl_op_permute, pl_op_narrow, pl_op_select, pl_op_unsqueeze,
    pl_op_squeeze, pl_op_expand, pl_op_contiguous, pl_op_clone, pl_op_detach, pl_op_cat, pl_op_stack, pl_op_pieces;
extern pl_operation_run pl_op_sum, pl_op_mean, pl_op_var, pl_op_max, pl_op_min, pl_op_argmax, pl_op_argmin, pl_op_norm,
    pl_op_cumsum;
extern pl_operation_run pl_op_matmul;
extern pl_operation_run pl_op_softmax, pl_op_log_softmax, pl_op_logsumexp, pl_op_layer_norm, pl_op_rms_norm,
    pl_op_dropout, pl_op_attention, pl_op_cross_entropy, pl_op_linear_cross_entropy;
extern pl_operation_run pl_op_gather, pl_op_index_select, pl_op_scatter_add, pl_op_embedding, pl_op_one_hot;

#endif
