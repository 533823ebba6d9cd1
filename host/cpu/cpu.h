/* The processor as a device: the primitives of host/device/device.h in plain C, vectorised and threaded. */
#ifndef PL_CPU_CPU_H
#define PL_CPU_CPU_H

#include "host/cpu/kernels/kernels.h"
#include "host/device/device.h"

/* Registers the device "cpu". */
void pl_cpu_open(void);
/* The widest vector loops that this processor runs. */
const pl_kernels *pl_cpu_kernels(void);
/* Threads that the primitives use: as OpenMP says (OMP_NUM_THREADS, else the cores). */
int pl_cpu_threads(void);

/* ---- private to host/cpu: one function per primitive ---- */
pl_status pl_cpu_copy(pl_device *device, const pl_array *to, const pl_array *from);
pl_status pl_cpu_pointwise_gradients(pl_device *device, pl_op op, const pl_array *a, const pl_array *b,
                                     const pl_array *const in[PL_OPERANDS]);
pl_status pl_cpu_pointwise(pl_device *device, pl_op op, pl_formula formula, const pl_array *out,
                           const pl_array *const in[PL_OPERANDS]);
pl_status pl_cpu_reduce(pl_device *device, pl_reduction kind, double factor, const pl_array *out, const pl_array *in);
pl_status pl_cpu_gemm(pl_device *device, const pl_array *a, const pl_array *b, double beta, const pl_array *out);
pl_status pl_cpu_gather(pl_device *device, const pl_array *out, const pl_array *in, int dim, const pl_array *index);
pl_status pl_cpu_scatter(pl_device *device, const pl_array *out, int dim, const pl_array *index, const pl_array *in);
pl_status pl_cpu_random(pl_device *device, pl_distribution kind, uint64_t seed, uint64_t offset, double p0, double p1,
                        const pl_array *out);
pl_status pl_cpu_softmax(pl_device *device, pl_softmax_kind kind, const pl_array *out, const pl_array *in, int dim);
pl_status pl_cpu_softmax_gradient(pl_device *device, pl_softmax_kind kind, const pl_array *gin, const pl_array *y,
                                  const pl_array *g, int dim);
pl_status pl_cpu_norm(pl_device *device, const pl_norm *norm, const pl_array *y, const pl_array *mean,
                      const pl_array *scale);
pl_status pl_cpu_norm_gradient(pl_device *device, const pl_norm *norm, const pl_array *mean, const pl_array *scale,
                               const pl_array *g, const pl_array *gx, const pl_array *gweight, const pl_array *gbias);
pl_status pl_cpu_cross_entropy(pl_device *device, const pl_cross_entropy *entropy, const pl_array *loss,
                               const pl_array *shift);
pl_status pl_cpu_cross_entropy_gradient(pl_device *device, const pl_cross_entropy *entropy, const pl_array *shift,
                                        const pl_array *g, const pl_array *gradient);
bool pl_cpu_attends(pl_device *device, pl_dtype type, int64_t features);
pl_status pl_cpu_attention(pl_device *device, const pl_attention *attention, const pl_array *out,
                           const pl_array *logsumexp);
pl_status pl_cpu_attention_gradient(pl_device *device, const pl_attention *attention, const pl_array *out,
                                    const pl_array *logsumexp, const pl_array *g, const pl_array *gq,
                                    const pl_array *gk, const pl_array *gv);
pl_status pl_cpu_squares(pl_device *device, const pl_array *const arrays[], int count, const pl_array *out);
pl_status pl_cpu_scale(pl_device *device, const pl_array *const arrays[], int count, double factor);
pl_status pl_cpu_adam(pl_device *device, const pl_adam *steps, int count);

#endif
