/* Device text to machine code: NVRTC, loaded at run time, behind the cache of the cubins that it made before. */
#ifndef PL_CUDA_NVRTC_H
#define PL_CUDA_NVRTC_H

#include "host/base/text.h"
#include "host/device/device.h"

/* Loads NVRTC, once; later calls repeat the first one's result. */
pl_status pl_nvrtc_open(void);
/* "13.0"; "" when it could not be loaded. */
const char *pl_nvrtc_version(void);

/* The text of HOME/kernels/FILE with its `#include "X"` lines replaced by kernels/X (each once), appended to *source.
 */
pl_status pl_kernel_source(const char *file, pl_text *source);

/* Compiles `source` for `architecture` (90 for sm_90). `options` are separated by spaces ("-DV=4 --maxrregcount=64") or
 * "". `name` stands for the text in messages. The cubin comes from the cache on disk when the same source, options,
 * architecture and NVRTC version were compiled before. A failure carries the compiler's log; *log (may be NULL) gets
 * the log of a success, for instance what --ptxas-options=-v says, and compiles anew to have one. */
pl_status pl_nvrtc_compile(const char *name, const char *source, const char *options, int architecture, pl_text *cubin,
                           pl_text *log);

/* What pl_nvrtc_compile has done in this process. */
pl_compilations pl_nvrtc_compilations(void);

#endif
