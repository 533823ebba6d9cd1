/* What the kernels of the recurrence are given: one definition for C and, as text, for the kernels. */
#ifndef PL_CUDA_RECURRENCE_ARGUMENTS_H
#define PL_CUDA_RECURRENCE_ARGUMENTS_H

#include "host/device/recurrence.h"

/* A view is an array's first element and its strides in elements; data NULL: absent. T is the type of the arithmetic,
 * S that of Wx and of the states given out, P that of the products.
 *
 * Both ways: batch B, steps T, heads N, dim D; row: elements of h of one head, across: elements of the gate gradients
 * of one head (both at least D and Gr D, zeros behind); packed: R of type P; product: T [B][N][Gr D] forward,
 * [B][N][D] backward, where the product is not part of the step; lengths: [B] or NULL.
 * A place in time t is taken modulo mask + 1 (mask -1: all steps are kept).
 *   h            P [T+1][B][N][row]       before each step, and after the last
 *   carried[s]   T [T+1][B][N][D]         state s, alike
 *   saves        T [T][SAVES][B][N][D]    NULL: no backward will follow
 *   gates        P [T][B][N][across]      gradients of gates that R feeds
 *   leaving      T [STATES][B][N][D]      gradients of the states between two steps
 *   sums         T [BIASES+PARAMS][B][N][D]
 *   weights      T [N][Gr D][D]           dR before it is brought to its view
 * h_current and gates_current: a copy of the newest step where the product finds it; NULL where it reads h and gates.
 */
// clang-format off
#define PL_RECURRENCE_ARGUMENTS                                                                                        \
  typedef struct {                                                                                                     \
    char *data;                                                                                                        \
    long long stride[5];                                                                                               \
  } pl_view;                                                                                                           \
  typedef struct {                                                                                                     \
    int batch, steps, heads, dim, row, states_count, h_mask, mask[PL_STATES_MAX];                                      \
    pl_view input, bias, initial, states, last, param[PL_PARAMS_MAX];                                                  \
    double initial_value[PL_STATES_MAX];                                                                               \
    char *h, *h_current, *carried[PL_STATES_MAX], *saves, *packed, *product;                                           \
    const int *lengths;                                                                                                \
  } pl_forward_arguments;                                                                                              \
  typedef struct {                                                                                                     \
    int batch, steps, heads, dim, across, states_count, gates_mask, through;                                           \
    double clip;                                                                                                       \
    pl_view states, last, input, bias, initial, recurrent, param[PL_PARAMS_MAX], param_gradient[PL_PARAMS_MAX];        \
    char *gates, *gates_current, *carried[PL_STATES_MAX], *saves, *packed, *product, *leaving, *sums, *weights;        \
    const int *lengths;                                                                                                \
    int recurrent_type, unused;                                                                                        \
  } pl_backward_arguments;                                                                                             \
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

#endif
