/* Attention and its gradient on tensor cores. */
#include "host/cuda/attention.h"

#include "host/cuda/layout.h"
#include "host/cuda/primitives.h"

enum { FEATURES_MAX = 128, FEATURES_UNIT = 16, FRAGMENT = 16, LANES = 32 };

bool pl_attention_compiles(pl_dtype type, int64_t features) {
  return (type == PL_F16 || type == PL_BF16) && features > 0 && features <= FEATURES_MAX &&
         features % FEATURES_UNIT == 0;
}

/* How a pass is cut, as in kernels/attention.cu. */
typedef struct {
  int warps, resident, tile, step;
  bool held;
} cut;

/* Fragments, sums and scores fill a thread's registers: wide heads take fewer of the other side at once, and read the
 * own rows of the gradients from shared memory. A block of any of them fits the 99 KiB of the smaller chips. */
static cut cut_of(const pl_attention_variant *v) {
  static const cut narrow[] = {[PL_ATTENTION_FORWARD] = {8, 2, 64, 64, true},
                               [PL_ATTENTION_QUERIES] = {4, 4, 64, 32, true},
                               [PL_ATTENTION_KEYS] = {4, 3, 64, 32, true},
                               [PL_ATTENTION_SUMS] = {8, 4, 16, 16, false}};
  static const cut wide[] = {[PL_ATTENTION_FORWARD] = {4, 2, 64, 64, true},
                             [PL_ATTENTION_QUERIES] = {4, 2, 32, 32, false},
                             [PL_ATTENTION_KEYS] = {4, 2, 32, 32, false},
                             [PL_ATTENTION_SUMS] = {8, 4, 16, 16, false}};
  return v->features <= 64 ? narrow[v->pass] : wide[v->pass];
}

/* Of a block's tiles: its own rows, and two stages of the other side's. */
static unsigned shared_bytes(const pl_attention_variant *v) {
  cut c = cut_of(v);
  if (v->pass == PL_ATTENTION_SUMS) return 0;
  int row = 2 * v->features + 16, own = FRAGMENT * c.warps * (v->pass == PL_ATTENTION_FORWARD ? 1 : 2);
  int numbers = v->pass == PL_ATTENTION_KEYS ? 2 * (int)sizeof(float) * c.tile : 0;
  return (unsigned)(own * row + 2 * (2 * c.tile * row + numbers));
}

void pl_attention_prelude(const pl_attention_variant *v, pl_text *text) {
  static const char *const passes[] = {"FORWARD", "QUERIES", "KEYS", "SUMS"};
  cut c = cut_of(v);
  pl_text_print(text,
                "#define PASS %s\n#define TYPE %s\n#define D %d\n#define CAUSAL %d\n#define WARPS %d\n"
                "#define RESIDENT %d\n#define TILE %d\n#define STEP %d\n#define HELD %d\n",
                passes[v->pass], pl_layout_type(v->type), v->features, v->causal, c.warps, c.resident, c.tile, c.step,
                c.held);
}

static pl_status load(pl_cuda *cuda, const pl_attention_variant *v, pl_cu_function *function) {
  uint64_t key = (uint64_t)PL_FAMILY_ATTENTION << 56;
  key |= (uint64_t)v->features << 8 | (uint64_t)v->type << 4 | (uint64_t)v->pass << 1 | v->causal;
  *function = pl_cuda_kernel_found(cuda, key);
  if (*function) return PL_OK;
  pl_text prelude = {0};
  pl_attention_prelude(v, &prelude);
  pl_status status = pl_cuda_kernel_load(cuda, key, "attention.cu", prelude.data, "", "attention", function);
  pl_text_release(&prelude);
  PL_TRY(status);
  return PL_CUDA(pl_cu.FuncSetAttribute(*function, PL_CU_FUNCTION_DYNAMIC_SHARED_BYTES_MAX, (int)shared_bytes(v)));
}

/* As in kernels/attention.cu; strides in bytes. */
typedef struct {
  void *data;
  int64_t batch, head, row;
} rows;

typedef struct {
  rows q, k, v, out, g, gq, gk, gv;
  void *logsumexp, *sums;
  int64_t batches;
  int32_t heads, queries, keys;
  float scale;
} job;

static rows rows_of(const pl_array *array) {
  int64_t each = (int64_t)pl_dtype_size(array->dtype);
  return (rows){pl_array_data(array), array->stride[0] * each, array->stride[1] * each, array->stride[2] * each};
}

static pl_status job_of(const pl_attention *attention, const pl_array *out, const pl_array *logsumexp, job *j) {
  const int64_t *q = attention->q->size, *k = attention->k->size;
  enum { MARGIN = 1 << 10 }; /* a tile may reach past the end */
  PL_REQUIRE(q[1] <= INT32_MAX && q[2] < INT32_MAX - MARGIN && k[2] < INT32_MAX - MARGIN,
             "attention: sizes past 2^31 are not supported");
  *j = (job){.q = rows_of(attention->q),
             .k = rows_of(attention->k),
             .v = rows_of(attention->v),
             .out = rows_of(out),
             .logsumexp = pl_array_data(logsumexp),
             .batches = q[0],
             .heads = (int32_t)q[1],
             .queries = (int32_t)q[2],
             .keys = (int32_t)k[2],
             .scale = (float)attention->scale};
  return PL_OK;
}

static uint64_t pieces(int64_t whole, int64_t piece) { return (uint64_t)((whole + piece - 1) / piece); }

static uint64_t blocks_of(const pl_attention_variant *v, const job *j) {
  cut c = cut_of(v);
  int64_t heads = j->batches * j->heads;
  if (v->pass == PL_ATTENTION_SUMS) {
    int share = 2; /* lanes of a row, each with 8 features */
    while (share * 8 < v->features) share *= 2;
    return pieces(heads * j->queries * share, LANES * c.warps);
  }
  return (uint64_t)heads * pieces(v->pass == PL_ATTENTION_KEYS ? j->keys : j->queries, FRAGMENT * c.warps);
}

static pl_status launch(pl_cuda *cuda, const pl_attention *attention, pl_attention_pass pass, job *j) {
  pl_attention_variant v = {pass, attention->q->dtype, (int)attention->q->size[3], attention->causal};
  pl_cu_function function;
  PL_TRY(load(cuda, &v, &function));
  return pl_cuda_launch(cuda, function, blocks_of(&v, j), 1, (unsigned)(LANES * cut_of(&v).warps), shared_bytes(&v),
                        (void *[]){j});
}

bool pl_cuda_attends(pl_device *device, pl_dtype type, int64_t features) {
  (void)device;
  return pl_attention_compiles(type, features);
}

pl_status pl_cuda_attention(pl_device *device, const pl_attention *attention, const pl_array *out,
                            const pl_array *logsumexp) {
  pl_cuda *cuda;
  job j;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(job_of(attention, out, logsumexp, &j));
  return launch(cuda, attention, PL_ATTENTION_FORWARD, &j);
}

pl_status pl_cuda_attention_gradient(pl_device *device, const pl_attention *attention, const pl_array *out,
                                     const pl_array *logsumexp, const pl_array *g, const pl_array *gq,
                                     const pl_array *gk, const pl_array *gv) {
  pl_cuda *cuda;
  job j;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(job_of(attention, out, logsumexp, &j));
  pl_buffer *sums = NULL, *unwanted = NULL;
  PL_TRY(pl_buffer_new(device, (size_t)pl_array_count(logsumexp) * sizeof(float), &sums));
  j.g = rows_of(g);
  j.sums = sums->data;
  pl_status status = launch(cuda, attention, PL_ATTENTION_SUMS, &j);
  if (gq && status == PL_OK) {
    j.gq = rows_of(gq);
    status = launch(cuda, attention, PL_ATTENTION_QUERIES, &j);
  }
  if ((gk || gv) && status == PL_OK) {
    /* One pass makes both: what is not wanted goes to memory that nobody reads. */
    if (!gk || !gv) {
      pl_array spare = gk ? *gk : *gv;
      status = pl_buffer_new(device, (size_t)pl_array_count(&spare) * pl_dtype_size(spare.dtype), &unwanted);
      spare.buffer = unwanted, spare.offset = 0;
      pl_array_pack(&spare);
      if (status == PL_OK) j.gk = rows_of(gk ? gk : &spare), j.gv = rows_of(gv ? gv : &spare);
    } else
      j.gk = rows_of(gk), j.gv = rows_of(gv);
    if (status == PL_OK) status = launch(cuda, attention, PL_ATTENTION_KEYS, &j);
  }
  pl_buffer_release(unwanted);
  pl_buffer_release(sums);
  return status;
}
