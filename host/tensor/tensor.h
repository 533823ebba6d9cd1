/* Tensors: counted handles on strided views, and the autograd graph behind them. */
#ifndef PL_TENSOR_TENSOR_H
#define PL_TENSOR_TENSOR_H

#include "host/device/device.h"

typedef struct pl_tensor pl_tensor;
typedef struct pl_node pl_node;

struct pl_tensor {
  int count;
  pl_array array;      /* holds one count of its buffer; without a buffer it is a number, an operand only */
  bool wants_gradient; /* a leaf whose gradient is collected in `gradient` */
  pl_node *node;       /* what computed it, or NULL */
  int output;          /* which result of that node it is */
  pl_tensor *gradient; /* of a leaf: NULL until one arrived */
  int awaited;         /* private to graph.c: of a leaf, contributions that a watched backward has still to come to */
};

/* New tensors have undefined contents, row-major strides and count 1. */
pl_status pl_tensor_new(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, pl_tensor **tensor);
pl_status pl_tensor_like(const pl_tensor *model, pl_dtype dtype, pl_tensor **tensor);
/* A tensor that shares the buffer of `array`, outside the graph. */
pl_tensor *pl_tensor_alias(const pl_array *array);
pl_tensor *pl_tensor_number(double number);
pl_tensor *pl_tensor_integer(int64_t integer);
static inline pl_tensor *pl_tensor_retain(pl_tensor *tensor) { return tensor->count++, tensor; }
void pl_tensor_release(pl_tensor *tensor); /* NULL is fine */
static inline pl_device *pl_tensor_device(const pl_tensor *tensor) { return tensor->array.buffer->device; }
static inline int64_t pl_tensor_count(const pl_tensor *tensor) { return pl_array_count(&tensor->array); }

/* Whether gradients flow through it: it wants one or was computed from one that does. */
static inline bool pl_tensor_tracked(const pl_tensor *tensor) { return tensor->wants_gradient || tensor->node; }
pl_status pl_tensor_want_gradient(pl_tensor *tensor, bool on);

/* Recording is on unless switched off (pl.no_grad, backward itself). */
bool pl_recording(void);
bool pl_set_recording(bool on); /* returns what it was */

/* Must precede every in-place change: an error when the graph needs the old values or elements share memory, else a new
 * version of the buffer. */
pl_status pl_tensor_mutate(pl_tensor *tensor, const char *operation);

/* Gradients of everything that wants one, added to what is there. seed NULL: the tensor has one element and the seed
 * is 1. Uses the graph up: its saved buffers are given back on the way. */
pl_status pl_backward(pl_tensor *tensor, pl_tensor *seed);

/* Who is told of each leaf as soon as this backward will add nothing more to its gradient (NULL where none arrived). */
typedef struct {
  pl_status (*complete)(void *context, pl_tensor *leaf);
  void *context;
} pl_leaf_watch;
pl_status pl_backward_watched(pl_tensor *tensor, pl_tensor *seed, const pl_leaf_watch *watch);

/* ---- for operations: recording a node ---- */

/* gin[i] is to be set (a new count) for every input i with pl_needs(node, i); gout[k] may be NULL where no gradient
 * arrived at result k (never for nodes of one result). */
typedef pl_status (*pl_backward_rule)(pl_node *node, pl_tensor *const gout[], pl_tensor *gin[]);

enum { PL_NODE_INTEGERS = 4, PL_NODE_OUTPUTS = 4 };

typedef struct {
  pl_node *node;   /* that computed it */
  int output;      /* which result of that node */
  pl_tensor *leaf; /* or the leaf that collects */
} pl_edge;

struct pl_node {
  const char *name;
  pl_backward_rule backward;
  /* For the rule's own use; `note` is freed by `forget`. */
  int64_t integer[PL_NODE_INTEGERS];
  double number[2];
  void *note;
  void (*forget)(void *note);
  int inputs;
  pl_edge *input;     /* [inputs]; neither node nor leaf: no gradient flows */
  pl_array *shape_in; /* [inputs] their views without the buffer */
  pl_array shape_out[PL_NODE_OUTPUTS];
  /* ---- private to graph.c ---- */
  int count, saves;
  uint64_t sequence, visit;
  bool used;
  pl_tensor *gradient[PL_NODE_OUTPUTS];
  pl_array *save;    /* [saves] */
  uint32_t *version; /* [saves] of the buffer when it was saved */
  pl_node *next;
};

/* Makes the results point at a new node when recording is on and an input is tracked; else *node is NULL. Inputs may be
 * NULL. After it, save what the rule needs. */
void pl_record(const char *name, pl_backward_rule backward, pl_tensor *const inputs[], int input_count,
               pl_tensor *const outputs[], int output_count, pl_node **node);
/* The gradient that arrived so far at what an input was computed by, for a rule that adds its own to it in place and
 * then sets gin to it (a new count); contiguous, and nobody else sees it. NULL where there is none such. */
pl_tensor *pl_gradient_so_far(const pl_node *node, int input);
static inline bool pl_needs(const pl_node *node, int input) {
  return node->input[input].node || node->input[input].leaf;
}
/* Saves are numbered in the order they are made. */
void pl_save(pl_node *node, const pl_tensor *tensor);
/* The saved view, outside the graph (a new count). An error when it was changed in place since. */
pl_status pl_saved(const pl_node *node, int index, pl_tensor **tensor);

#endif
