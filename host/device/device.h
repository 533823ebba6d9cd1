/* What a device can do: one struct of primitives. host/cpu and host/cuda fill it in; everyone else reaches them only
 * through it. Arrays given to a primitive live on that device, have the shapes written beside it, and any strides;
 * results do not overlap operands unless they are the same view. Primitives return a status and leave operands as they
 * were. */
#ifndef PL_DEVICE_DEVICE_H
#define PL_DEVICE_DEVICE_H

#include "host/base/text.h"
#include "host/device/array.h"
#include "host/device/pointwise.h"
#include "host/device/recurrence.h"

/* PL_EUCLIDEAN: the root of the sum of squares; PL_DEVIATIONS: the sum of the squared deviations from the mean. */
typedef enum { PL_SUM, PL_MAX, PL_MIN, PL_ARGMAX, PL_ARGMIN, PL_EUCLIDEAN, PL_DEVIATIONS } pl_reduction;
typedef enum { PL_UNIFORM, PL_NORMAL, PL_BERNOULLI, PL_INTEGER } pl_distribution;
typedef enum { PL_SOFTMAX, PL_LOG_SOFTMAX } pl_softmax_kind;

typedef struct {
  size_t live, cached, peak; /* bytes: held by buffers, kept for reuse, most ever live; cached stays within a bound */
  size_t buffers;            /* live buffers */
} pl_memory;

typedef struct {
  size_t compiled, cached;  /* kernels that were compiled, and that came from the cache on disk */
  double total_ms, most_ms; /* spent compiling: all of them, the slowest */
} pl_compilations;

/* One step of Adam or AdamW over one parameter; all arrays contiguous, same shape; first and second have the
 * type in which the step is computed: float64 for float64, else float32. A parameter of 16 bits has a master of that
 * type, too, which takes the step and which the parameter then is, rounded; where it is not before the step, because
 * somebody set it, the master starts again from the parameter. correction1 = 1 - beta1^t, correction2 = 1 - beta2^t. */
typedef struct {
  const pl_array *parameter, *master, *gradient, *first, *second; /* master: NULL unless the parameter has 16 bits */
  double rate, beta1, beta2, epsilon, decay, correction1, correction2;
  bool decoupled; /* AdamW: decay multiplies the parameter instead of joining the gradient */
} pl_adam;

/* Layer norm (centred) or RMS norm of rows. x [rows, length] has stride 1 along its rows; weight and bias [length] are
 * contiguous, or NULL. What is computed has the promoted type of the three: y = (x - mean) scale weight + bias, with
 * scale = 1 / sqrt(mean((x - mean)^2) + epsilon), and without mean where not centred. */
typedef struct {
  const pl_array *x, *weight, *bias;
  double epsilon;
  bool centred;
  bool adding; /* the gradient of x is added to what is in gx */
} pl_norm;

/* Cross-entropy of logits [rows, classes], with stride 1 along the rows, against labels [rows], contiguous integers
 * 1..classes. A share `smoothing` of the target is spread evenly over the classes. */
typedef struct {
  const pl_array *logits, *labels;
  bool ignoring; /* rows whose label is `ignored` have loss and gradient 0 */
  int64_t ignored;
  double smoothing;
  int64_t first; /* what a complaint about a label adds to the number of its row */
} pl_cross_entropy;

/* Attention: out = softmax(scale q k^T) v for each of the B H heads, with q and out [B,H,T,D], k and v [B,H,S,D], S >
 * 0, of one floating-point type; T <= S where causal, and then query t sees the keys up to S - T + t only. Features
 * have stride 1, and where D of them are a multiple of 16 bytes, so are all starts of rows, also of the gradients. The
 * logarithm of each query's sum of exponentials is [B,H,T], contiguous float32, or float64 for float64. */
typedef struct {
  const pl_array *q, *k, *v;
  double scale;
  bool causal;
} pl_attention;

typedef struct pl_group pl_group; /* host/device/group.h */
typedef struct pl_peers pl_peers; /* host/base/peers.h */

struct pl_device {
  char name[16]; /* "cpu", "cuda:0" */
  void *state;   /* the device's own */

  pl_status (*allocate)(pl_device *device, size_t bytes, void **data);
  void (*release)(pl_device *device, void *data, size_t bytes);
  /* Releases the buffers of one thing that the device keeps only so that a later call is quicker; false when nothing is
   * left. pl_buffer_new calls it before it gives up. NULL where a device keeps nothing. */
  bool (*shed)(pl_device *device);
  /* Between contiguous host memory and device memory. */
  pl_status (*upload)(pl_device *device, void *to, const void *host, size_t bytes);
  pl_status (*download)(pl_device *device, void *host, const void *from, size_t bytes);
  /* Between two devices that have this function in common; NULL where such copies go by way of the host. */
  pl_status (*transfer)(pl_device *to_device, void *to, pl_device *from_device, const void *from, size_t bytes);
  /* to = from, converting types; from broadcasts, and may be a number (so this fills, too). */
  pl_status (*copy)(pl_device *device, const pl_array *to, const pl_array *from);
  /* out = formula of op; in[PL_OPERANDS], NULL where the formula does not read it. Operands broadcast to out and may be
   * numbers. Computed in the promoted type of the operands that are arrays. */
  pl_status (*pointwise)(pl_device *device, pl_op op, pl_formula formula, const pl_array *out,
                         const pl_array *const in[PL_OPERANDS]);
  /* The formulas PL_GRADIENT_A into a and PL_GRADIENT_B into b in one pass; in[] has what either reads. a and b are
   * of one shape and type, have the same strides, and share no element. */
  pl_status (*pointwise_gradients)(pl_device *device, pl_op op, const pl_array *a, const pl_array *b,
                                   const pl_array *const in[PL_OPERANDS]);
  /* out has in's rank with size 1 in every reduced dimension; PL_ARGMAX and PL_ARGMIN reduce exactly one dimension (or
   * all when out has one element) into int64, 1-based, the first of equals. NaN wins max and min. PL_EUCLIDEAN and
   * PL_DEVIATIONS take floating-point types. A sum, of whatever, is multiplied by `factor` before it is rounded to
   * out's type; it is 1 for integers and is not read by the other kinds. */
  pl_status (*reduce)(pl_device *device, pl_reduction kind, double factor, const pl_array *out, const pl_array *in);
  /* out[..., m, n] = a[..., m, k] b[..., k, n] + beta out; equal ranks, leading sizes equal to out's or 1. */
  pl_status (*gemm)(pl_device *device, const pl_array *a, const pl_array *b, double beta, const pl_array *out);
  /* out[.., i, ..] = in[.., index[.., i, ..], ..] along dim; index has out's shape, or rank 1 to pick whole slices. */
  pl_status (*gather)(pl_device *device, const pl_array *out, const pl_array *in, int dim, const pl_array *index);
  /* out[.., index[.., i, ..], ..] += in[.., i, ..] along dim; shapes as in gather with in and out swapped. float32,
   * float64 and int64, and with an index of rank 1 16-bit types, whose sums are taken in float32 and rounded once. */
  pl_status (*scatter)(pl_device *device, const pl_array *out, int dim, const pl_array *index, const pl_array *in);
  /* Element i (row-major) draws Philox(seed, offset + i/4) lane i%4: U[p0,p1), N(p0,p1), 1 with probability p0, or
   * integers p0..p1 inclusive. */
  pl_status (*random)(pl_device *device, pl_distribution kind, uint64_t seed, uint64_t offset, double p0, double p1,
                      const pl_array *out);
  pl_status (*softmax)(pl_device *device, pl_softmax_kind kind, const pl_array *out, const pl_array *in, int dim);
  /* gin = gradient of in, from the result y and the gradient g that arrives at it. */
  pl_status (*softmax_gradient)(pl_device *device, pl_softmax_kind kind, const pl_array *gin, const pl_array *y,
                                const pl_array *g, int dim);
  /* y [rows, length] contiguous, of the promoted type; mean (left alone where not centred) and scale [rows], contiguous
   * float32, or float64 for float64. */
  pl_status (*norm)(pl_device *device, const pl_norm *norm, const pl_array *y, const pl_array *mean,
                    const pl_array *scale);
  /* From g [rows, length], the gradient at y, with stride 1 along the rows: gx contiguous, of x's shape and type, and
   * the gradients of weight and bias [length], contiguous. Each is NULL where not wanted. */
  pl_status (*norm_gradient)(pl_device *device, const pl_norm *norm, const pl_array *mean, const pl_array *scale,
                             const pl_array *g, const pl_array *gx, const pl_array *gweight, const pl_array *gbias);
  /* loss and shift [rows], contiguous float32, or float64 for float64; shift: log(sum(exp(logits))). */
  pl_status (*cross_entropy)(pl_device *device, const pl_cross_entropy *entropy, const pl_array *loss,
                             const pl_array *shift);
  /* From g [rows] of loss's type and any stride, the gradient at loss: `gradient`, contiguous, like logits, and it may
   * be the logits themselves, which are then overwritten. */
  pl_status (*cross_entropy_gradient)(pl_device *device, const pl_cross_entropy *entropy, const pl_array *shift,
                                      const pl_array *g, const pl_array *gradient);
  /* Whether the next two take heads of that type and number of features. */
  bool (*attends)(pl_device *device, pl_dtype type, int64_t features);
  pl_status (*attention)(pl_device *device, const pl_attention *attention, const pl_array *out,
                         const pl_array *logsumexp);
  /* From both results and g, the gradient at out, those of q, k and v; each is NULL where not wanted. */
  pl_status (*attention_gradient)(pl_device *device, const pl_attention *attention, const pl_array *out,
                                  const pl_array *logsumexp, const pl_array *g, const pl_array *gq, const pl_array *gk,
                                  const pl_array *gv);
  /* Steps over `count` parameters of one type that differ in their arrays only. */
  pl_status (*adam)(pl_device *device, const pl_adam *steps, int count);
  bool host_memory; /* what allocate gives is memory that the host reads and writes */
  /* Whether a recurrence's storage (and R) may be of a 16-bit type while it computes in float32. */
  bool half_storage;
  const char *model;  /* of the GPU, in its maker's words; NULL where nobody asks */
  pl_fused_chip chip; /* what recurrences are planned for; of architecture 0 where they are not */
  /* out, of one element, = the sum of the squares of all elements of `count` contiguous arrays of one floating-point
   * type. */
  pl_status (*squares)(pl_device *device, const pl_array *const arrays[], int count, const pl_array *out);
  /* Multiplies all elements of `count` contiguous arrays of one floating-point type by a number, in place. */
  pl_status (*scale)(pl_device *device, const pl_array *const arrays[], int count, double factor);
  /* How many bytes of workspace a recurrence needs for its backward. */
  pl_status (*recurrence_workspace)(pl_device *device, const pl_recurrence *recurrence, size_t *bytes);
  pl_status (*recurrence_forward)(pl_device *device, const pl_recurrence *recurrence,
                                  const pl_recurrence_result *result);
  pl_status (*recurrence_backward)(pl_device *device, const pl_recurrence *recurrence,
                                   const pl_recurrence_gradient *gradient);
  pl_status (*synchronize)(pl_device *device);
  /* Between `record` and `recorded` work is not done but becomes *work (NULL: it is dropped), which `replay` does;
   * `erase` frees it. NULL where a device records nothing. See host/device/recording.h. */
  pl_status (*record)(pl_device *device);
  pl_status (*recorded)(pl_device *device, void **work);
  pl_status (*replay)(pl_device *device, void *work);
  void (*erase)(pl_device *device, void *work);
  /* A moment in the device's work, reached when all that was asked of it before is done. *mark is NULL before its first
   * use; a mark may be set again. */
  pl_status (*mark)(pl_device *device, void **mark);
  /* Milliseconds from one moment to the other by the device's own clock; waits as synchronize does. */
  pl_status (*elapsed)(pl_device *device, void *from, void *to, double *ms);
  void (*unmark)(pl_device *device, void *mark); /* frees; NULL is fine */
  /* Sets how many threads the primitives use, unless it is 0, and says how many they do; NULL where a device has none.
   */
  int (*threads)(pl_device *device, int threads);
  /* The device's own group; NULL where arrays are in host memory, which has one in host/device/group.c. */
  pl_status (*group)(pl_device *device, pl_peers *peers, pl_group **group);
  /* What this process has compiled so far for devices of this kind; NULL where nothing is compiled. */
  pl_compilations (*compilations)(void);
  /* Bytes of memory that are free, and that there are, on a device in use (by any process); from any thread. NULL where
   * it is the host's. */
  pl_status (*capacity)(pl_device *device, size_t *available, size_t *total);
  /* What it is and what it can run, for `perilune devices`. */
  void (*describe)(pl_device *device, pl_text *text);

  /* ---- private to host/device: the cache of freed buffers ---- */
  struct pl_cache *cache;
};

/* The device of that name ("cpu", "cuda:1"; "cuda" is "cuda:0"); an error that lists what there is, or says why a kind
 * of device is missing. Looks for devices of the kind that the name begins with, if nobody has yet. */
pl_status pl_device_named(const char *name, pl_device **device);
/* Devices found so far; "cpu" is the first. From any thread. */
int pl_device_count(void);
pl_device *pl_device_at(int index);
/* Called once per device by its folder's entry point (pl_cpu_open, ...), which main.c calls. */
void pl_device_register(pl_device *device);

/* A kind of device that is costly to look for, so that it is looked for only when somebody asks. */
typedef struct {
  const char *prefix;              /* its devices are PREFIX:0, PREFIX:1, ... */
  pl_status (*find)(void);         /* registers what there is; a failure says why there is nothing */
  void (*describe)(pl_text *text); /* appends lines on the libraries behind these devices; after find */
  const char *(*left_out)(void);   /* lines on what is there and cannot be used, after find; NULL when there is none */
  /* Appends the text that is generated from a cell and compiled for these devices; NULL when none is. Needs no device.
   */
  void (*cell_text)(const pl_cell *cell, pl_text *text);
  /* As pl_device_fused; NULL where there is no fused way. Needs no device. */
  pl_status (*fused)(const pl_recurrence *recurrence, const pl_fused_chip *chip, pl_fused_details *details);
} pl_device_family;
void pl_device_family_register(const pl_device_family *family);
/* Looks for everything that nobody has looked for yet. */
void pl_device_find_all(void);
/* One line and more for each device and for each kind of device: what was found, or why not. */
void pl_device_describe_all(pl_text *text);

/* Appends what is generated from a cell for each kind of device, behind a line that names the kind. */
void pl_device_cell_text(const pl_cell *cell, pl_text *text);

/* Works out recurrence->plan (arrays are not looked at) for a chip, which need not be here; fails, naming the limit
 * that it breaks, where it does not fit. */
pl_status pl_device_fused(const pl_recurrence *recurrence, const pl_fused_chip *chip, pl_fused_details *details);

/* Whether products of float32 may round their operands to tf32 (10 bits of mantissa) where a device has units for that:
 * faster, and a thousand times less exact. Not unless somebody asks. */
void pl_tf32_allow(bool allowed);
bool pl_tf32_allowed(void);

/* From any thread; while another one allocates, the numbers may be of slightly different moments. */
void pl_device_memory(pl_device *device, pl_memory *memory);
/* Live bytes may not pass this: allocation fails with PL_OUT_OF_MEMORY. SIZE_MAX: no limit but the device's own. */
void pl_device_limit(pl_device *device, size_t bytes);
/* From here on the peak is that of live bytes from now. */
void pl_device_reset_peak(pl_device *device);
/* Gives cached memory back to the device. */
void pl_device_trim(pl_device *device);

/* ---- private to host/device: memory of a recording ---- */

typedef struct pl_pool pl_pool;
/* From here to set_back buffers take their memory from an empty pool of their own, or new from the device, and leave it
 * to that pool, which keeps the buffers that are still there then, too. All counts as live until it is given back. */
void pl_device_set_aside(pl_device *device);
pl_pool *pl_device_set_back(pl_device *device);
void pl_device_give_back(pl_device *device, pl_pool *pool);

#endif
