/* A plan of a fused recurrence worked out: sizes of a block, the map of its shared memory, and the text in front of its
 * kernels. */
#ifndef PL_CUDA_FUSED_PLAN_H
#define PL_CUDA_FUSED_PLAN_H

#include "host/base/text.h"
#include "host/cuda/fused_arguments.h"

/* What of the recurrence's options the kernels are specialised for. */
typedef struct {
  bool backward;
  bool own_instructions; /* of sm_90 and later: registers move between warps */
  bool lengths;
  /* forward */
  bool remember;  /* backward will follow */
  int states_out; /* states given out */
  /* backward */
  int given; /* states whose gradients arrive */
  bool want_input, want_recurrent, want_initial, through, clip;
} pl_fused_variant;

/* Where in the shared memory of a block things are, in bytes; `total` is all of it. */
typedef struct {
  size_t h, own, extra, ring, sums, weights;   /* forward */
  size_t gates, others, records, slots, total; /* backward: with ring and weights */
} pl_fused_map;

enum { PL_FUSED_WRITER_REGISTERS = 56 };

typedef struct {
  int padded, units, warps, threads;
  int columns, elements; /* batch rows, and (unit, row) pairs, of a thread */
  int tiles, depth, fragments, in_registers;
  int record_words;            /* of a thread and step */
  int total_parts;             /* sums over batch rows that one tile gives */
  int more_registers;          /* of a thread that multiplies; 0: all threads have the same */
  int records;                 /* warps of a block that have one */
  int64_t slots_bytes;         /* grid scope: memory of a group of blocks */
  int64_t batch_tiles, blocks; /* of the launch */
  unsigned extra;              /* gates whose gradient dR needs in a place of its own */
  pl_fused_map map;
} pl_fused_shape;

/* What a GPU offers to one block. */
typedef struct {
  int architecture, multiprocessors;
  size_t shared_bytes; /* of one block; of a multiprocessor it is 1 KiB more for each block */
} pl_fused_limits;

/* Whether blocks are launched as clusters. */
bool pl_fused_clustered(const pl_fused_plan *plan);

/* Works out q->plan for one way. Fails, naming the limit, when a block cannot be cut that way. */
pl_status pl_fused_shape_of(const pl_recurrence *q, const pl_fused_variant *v, pl_fused_shape *shape);
pl_status pl_fused_shape_check(const pl_recurrence *q, const pl_fused_shape *shape, const pl_fused_limits *limits);

/* How often a kernel is compiled again for want of registers. What the compiler keeps in memory does not only shrink as
 * R leaves registers: one step may take more of it, and the next one all. */
enum { PL_FUSED_CUTS_MAX = 4 };

/* A kernel of this shape keeps `local_bytes` of a thread in memory: cuts less of R into registers, which nobody but the
 * compiler can count, as far as shared memory holds the rest. False when nothing can be cut, or the plan says how much.
 */
bool pl_fused_cut_registers(const pl_recurrence *q, const pl_fused_variant *v, int local_bytes, size_t shared_bytes,
                            pl_fused_shape *shape);

/* Appends the text in front of the kernels of one way, and of that which packs R for it. */
pl_status pl_fused_text(const pl_recurrence *q, const pl_fused_variant *v, const pl_fused_shape *shape, pl_text *text);

#endif
