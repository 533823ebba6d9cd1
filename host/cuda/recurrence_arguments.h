/* What the kernels of the recurrence are given: one definition for C and, as text, for the kernels. */
#ifndef PL_CUDA_RECURRENCE_ARGUMENTS_H
#define PL_CUDA_RECURRENCE_ARGUMENTS_H

#include "host/device/recurrence.h"

/* A view is an array's first element and its strides in elements; data NULL: absent. T is the type of the arithmetic,
 * S that of Wx and of the states given out, P that of the products.
 *
 * Both ways have one structure; `first` is the time of step 0 of those launched together, the others follow it forward
 * or backward in time.
 *   row, across        elements of h, and of the gate gradients, of one head; at least D and Gr D, zeros behind
 *   mask[s], h_mask, gates_mask   a place in time t is taken modulo mask + 1 (-1: all steps are kept)
 *   input, bias, initial, states, last   forward the arrays themselves; backward the gradients, of which states and
 *                                        last arrive; recurrent and param_gradient: gradients only
 *   given_lengths      [B] int64 as the user gave them; lengths: [B] within 0..T, NULL without them
 *   complaint, lock    where a length out of 0..T is reported
 *   packed             R of type P
 *   product            T [B][N][Gr D] forward, [B][N][D] backward, where the product is not part of the step
 *   h                  P [T+1][B][N][row]     before each step, and after the last
 *   carried[s]         T [T+1][B][N][D]       state s, alike
 *   saves              T [T][SAVES][B][N][D]  NULL: no backward will follow
 *   gates              P [T][B][N][across]    gradients of gates that R feeds
 *   leaving            T [STATES][B][N][D]    gradients of the states between two steps
 *   sums               T [BIASES+PARAMS][B][N][D]
 *   weights            T [N][Gr D][D]         dR before it is brought to its view
 *   h_current, gates_current   a copy of the newest step where the product finds it; NULL where it reads h and gates
 */
// clang-format off
#define PL_RECURRENCE_ARGUMENTS                                                                                        \
  typedef struct {                                                                                                     \
    char *data;                                                                                                        \
    long long stride[5];                                                                                               \
  } pl_view;                                                                                                           \
  typedef struct {                                                                                                     \
    int batch, steps, heads, dim, first, row, across, states_count, h_mask, gates_mask, through, recurrent_type;       \
    int mask[PL_STATES_MAX];                                                                                           \
    char *h, *h_current, *gates, *gates_current, *saves, *packed, *product, *leaving, *sums, *weights;                 \
    char *carried[PL_STATES_MAX];                                                                                      \
    int *lengths, *lock;                                                                                               \
    void *complaint;                                                                                                   \
    double clip, initial_value[PL_STATES_MAX];                                                                         \
    pl_view input, bias, initial, states, last, recurrent, given_lengths;                                              \
    pl_view param[PL_PARAMS_MAX], param_gradient[PL_PARAMS_MAX];                                                       \
  } pl_step_arguments;                                                                                                 \
  typedef struct {                                                                                                     \
    pl_view recurrent;                                                                                                 \
    int type, gates, heads, dim, layout, chunks, tiles, unused;                                                        \
    char *packed;                                                                                                      \
  } pl_pack_arguments;
// clang-format on

PL_RECURRENCE_ARGUMENTS

/* Layouts of a packed R. Plain: [N][Gr][D][D]. The others are in the order in which the tensor cores take them, units
 * in tiles of 8 and what is summed over in chunks of K = 64 bytes, with zeros behind: forward
 * [N][tile][Gr][chunk][8][K] of unit and previous unit, backward [N][tile][chunk][8][K] of previous unit and (gate,
 * unit). */
enum { PL_PACK_PLAIN, PL_PACK_FORWARD, PL_PACK_BACKWARD };
enum { PL_TILE_UNITS = 8, PL_CHUNK_BYTES = 64, PL_STEP_THREADS = 256 };
enum { PL_SUM_UNITS = 32 }; /* that a block of `sum_rows` takes */

#endif
