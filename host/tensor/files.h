/* Tensors in files: .safetensors (https://github.com/huggingface/safetensors) and .npy (NumPy's format, version 1). */
#ifndef PL_TENSOR_FILES_H
#define PL_TENSOR_FILES_H

#include "host/tensor/operations.h"

typedef struct {
  char *name;
  pl_tensor *tensor;
} pl_named_tensor;

/* Writes atomically; the values are taken from any device. .npy holds exactly one tensor and knows no bfloat16. */
pl_status pl_save_safetensors(const char *path, const pl_named_tensor *list, int count);
pl_status pl_save_npy(const char *path, pl_tensor *tensor);

/* Reads onto a device. A file that is cut short, or whose header does not fit its data, is an error. The list and its
 * names are freed by pl_named_tensors_release. */
pl_status pl_load_safetensors(const char *path, pl_device *device, pl_named_tensor **list, int *count);
pl_status pl_load_npy(const char *path, pl_device *device, pl_tensor **tensor);
void pl_named_tensors_release(pl_named_tensor *list, int count);

/* The elements, row-major, in host memory of pl_tensor_count * size bytes, and back. */
pl_status pl_tensor_download(pl_tensor *tensor, void *host);
pl_status pl_tensor_upload(pl_device *device, pl_dtype dtype, int rank, const int64_t *size, const void *host,
                           pl_tensor **out);

#endif
