/* The GPU's primitives, one function each; what they compute stands in host/device/device.h. All of them only put work
 * on the device's stream. */
#ifndef PL_CUDA_PRIMITIVES_H
#define PL_CUDA_PRIMITIVES_H

#include "host/cuda/cuda.h"

/* pl_complaint.code */
enum { PL_COMPLAINT_INDEX = 1, PL_COMPLAINT_DIVISION, PL_COMPLAINT_LENGTH, PL_COMPLAINT_WAIT };

pl_status pl_cuda_upload(pl_device *device, void *to, const void *host, size_t bytes);
pl_status pl_cuda_download(pl_device *device, void *host, const void *from, size_t bytes);
pl_status pl_cuda_transfer(pl_device *to_device, void *to, pl_device *from_device, const void *from, size_t bytes);
pl_status pl_cuda_copy(pl_device *device, const pl_array *to, const pl_array *from);
pl_status pl_cuda_pointwise_gradients(pl_device *device, pl_op op, const pl_array *a, const pl_array *b,
                                      const pl_array *const in[PL_OPERANDS]);
pl_status pl_cuda_pointwise(pl_device *device, pl_op op, pl_formula formula, const pl_array *out,
                            const pl_array *const in[PL_OPERANDS]);
pl_status pl_cuda_reduce(pl_device *device, pl_reduction kind, double factor, const pl_array *out, const pl_array *in);
pl_status pl_cuda_gemm(pl_device *device, const pl_array *a, const pl_array *b, double beta, const pl_array *out);
pl_status pl_cuda_gather(pl_device *device, const pl_array *out, const pl_array *in, int dim, const pl_array *index);
pl_status pl_cuda_scatter(pl_device *device, const pl_array *out, int dim, const pl_array *index, const pl_array *in);
pl_status pl_cuda_random(pl_device *device, pl_distribution kind, uint64_t seed, uint64_t offset, double p0, double p1,
                         const pl_array *out);
pl_status pl_cuda_softmax(pl_device *device, pl_softmax_kind kind, const pl_array *out, const pl_array *in, int dim);
pl_status pl_cuda_softmax_gradient(pl_device *device, pl_softmax_kind kind, const pl_array *gin, const pl_array *y,
                                   const pl_array *g, int dim);
pl_status pl_cuda_norm(pl_device *device, const pl_norm *norm, const pl_array *y, const pl_array *mean,
                       const pl_array *scale);
pl_status pl_cuda_norm_gradient(pl_device *device, const pl_norm *norm, const pl_array *mean, const pl_array *scale,
                                const pl_array *g, const pl_array *gx, const pl_array *gweight, const pl_array *gbias);
pl_status pl_cuda_cross_entropy(pl_device *device, const pl_cross_entropy *entropy, const pl_array *loss,
                                const pl_array *shift);
pl_status pl_cuda_cross_entropy_gradient(pl_device *device, const pl_cross_entropy *entropy, const pl_array *shift,
                                         const pl_array *g, const pl_array *gradient);
bool pl_cuda_attends(pl_device *device, pl_dtype type, int64_t features);
pl_status pl_cuda_attention(pl_device *device, const pl_attention *attention, const pl_array *out,
                            const pl_array *logsumexp);
pl_status pl_cuda_attention_gradient(pl_device *device, const pl_attention *attention, const pl_array *out,
                                     const pl_array *logsumexp, const pl_array *g, const pl_array *gq,
                                     const pl_array *gk, const pl_array *gv);
pl_status pl_cuda_squares(pl_device *device, const pl_array *const arrays[], int count, const pl_array *out);
pl_status pl_cuda_scale(pl_device *device, const pl_array *const arrays[], int count, double factor);
pl_status pl_cuda_adam(pl_device *device, const pl_adam *steps, int count);
pl_status pl_cuda_mark(pl_device *device, void **mark);
pl_status pl_cuda_elapsed(pl_device *device, void *from, void *to, double *ms);
void pl_cuda_unmark(pl_device *device, void *mark);
pl_status pl_cuda_record(pl_device *device);
pl_status pl_cuda_recorded(pl_device *device, void **work);
pl_status pl_cuda_replay(pl_device *device, void *work);
void pl_cuda_erase(pl_device *device, void *work);

#endif
