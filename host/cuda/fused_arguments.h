/* What the fused kernels of the recurrence are given: one definition for C and, as text, for the kernels. */
#ifndef PL_CUDA_FUSED_ARGUMENTS_H
#define PL_CUDA_FUSED_ARGUMENTS_H

#include "host/cuda/recurrence_arguments.h"

/* Batch B in `tiles` tiles, steps T, heads N, dim D. P is the type of the products, S that of Wx and of the states.
 *   packed    R in the order of kernels/fused_pack.cu
 *   records   [T+1][blocks][warps] of what backward needs, in the threads' own order; the last has states only
 *   h_before  P [B][T][N][D], h before each step; NULL: no backward will follow, or nothing reads h
 *   extra     P [B][T][gates][N][D]: gradients of gates that dR needs and `input` does not hold
 *   totals    float [tiles][parts][biases and params][N][D]
 *   weights   float [Gr][N][D][D]: dR before it is brought to its view
 *   places    char * [3][Gr][N]: addresses for the products that give dR
 *   slots     the grid scope's exchange, zeros at first
 * first_group: of blocks that share a head and tile, where the problem takes several launches.
 *   lengths   int64 [B]; NULL: all T
 * complaint, lock: where a kernel reports what it cannot raise. */
// clang-format off
#define PL_FUSED_ARGUMENTS                                                                                             \
  typedef struct {                                                                                                     \
    int batch, steps, heads, tiles, first_group, unused;                                                                                    \
    pl_view input, bias, initial, states, last, lengths, param[PL_PARAMS_MAX];                                                  \
    double initial_value[PL_STATES_MAX];                                                                               \
    char *packed, *records, *h_before, *slots;                                                                                 \
    char *complaint, *lock;                                                                                            \
  } pl_forward;                                                                                                        \
  typedef struct {                                                                                                     \
    int batch, steps, heads, tiles, first_group, recurrent_type;                                                            \
    double clip;                                                                                                       \
    pl_view states, last, input, bias, initial, recurrent, lengths, param[PL_PARAMS_MAX], param_gradient[PL_PARAMS_MAX];        \
    char *packed, *records, *extra, *totals, *weights, *slots, **places;                                                                 \
    char *complaint, *lock;                                                                                            \
  } pl_backward;                                                                                                       \
  typedef struct {                                                                                                     \
    pl_view recurrent;                                                                                                 \
    int type, heads;                                                                                                   \
    char *packed;                                                                                                      \
  } pl_pack;
// clang-format on

PL_FUSED_ARGUMENTS

#endif
