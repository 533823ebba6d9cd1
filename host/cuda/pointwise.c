/* Copies with conversion, fills, and the elementwise formulas: the choice of a kernel's variant, and its launch. */
#include "host/cuda/pointwise.h"

#include "host/cuda/layout.h"
#include "host/cuda/primitives.h"
#include "host/cuda/transpose.h"
#include "host/device/operands.h"
#include <string.h>

enum { ARRAYS = PL_OPERANDS + 1, VECTOR_MAX = 8 };

/* As in kernels/pointwise.cu. */
typedef struct {
  void *data[ARRAYS];
  int64_t count;
  pl_axes shape;
  int64_t stride[ARRAYS][PL_RANK_MAX], step[ARRAYS];
  double number[ARRAYS];
  int64_t integer[ARRAYS];
  pl_complaints complaint;
  void *second;
} job;

/* ---- text ---- */

pl_work pl_work_of(pl_dtype type) {
  return !pl_dtype_is_float(type) ? PL_WORK_I64 : type == PL_F64 ? PL_WORK_F64 : PL_WORK_F32;
}

const char *pl_work_name(pl_work work, size_t bytes) {
  static const char *const names[] = {"float", "double", "long long"};
  if (work != PL_WORK_RAW) return names[work];
  return bytes == 1   ? "unsigned char"
         : bytes == 2 ? "unsigned short"
         : bytes == 4 ? "unsigned int"
                      : "unsigned long long";
}

int pl_pointwise_unroll(const pl_pointwise_variant *variant) {
  if (variant->rank > 1) return 1;
  int elements = variant->work == PL_WORK_F32 || variant->work == PL_WORK_RAW ? 16 : 8;
  int vectors = elements / variant->vector;
  return vectors < 1 ? 1 : vectors > 4 ? 4 : vectors;
}

bool pl_pointwise_brief(const pl_pointwise_variant *variant) {
  return variant->work == PL_WORK_F32 && pl_dtype_is_float(variant->type[0]) && pl_dtype_size(variant->type[0]) == 2;
}

const char *pl_pointwise_options(const pl_pointwise_variant *variant) {
  return pl_pointwise_brief(variant) ? "--prec-div=false --prec-sqrt=false" : "";
}

void pl_pointwise_prelude(const pl_pointwise_variant *variant, pl_text *text) {
  static const char *const letters[ARRAYS] = {"OUT", "A", "B", "C", "G", "Y"};
  static const char *const forms[] = {"ABSENT", "NUMBER", "DENSE", "SPREAD", "STRIDED"};
  bool raw = variant->work == PL_WORK_RAW;
  size_t size = pl_dtype_size(variant->type[0]);
  pl_text_print(text, "typedef %s T;\ntypedef %s INDEX;\n#define RANK %d\n#define V %d\n#define U %d\n",
                pl_work_name(variant->work, size), variant->small ? "int" : "long long", variant->rank, variant->vector,
                pl_pointwise_unroll(variant));
  for (int i = 0; i < ARRAYS; i++)
    pl_text_print(text, "#define TYPE_%s %s\n#define FORM_%s %s\n", letters[i],
                  raw ? pl_layout_raw(size) : pl_layout_type(variant->type[i]), letters[i], forms[variant->form[i]]);
  bool copy = variant->op == PL_POINTWISE_COPY;
  pl_text_print(text, "#define BRIEF %d\n#define CHECK_DIVISOR %d\n#define FORMULA %s\n", pl_pointwise_brief(variant),
                variant->op == PL_OP_remainder && variant->formula == PL_VALUE && variant->work == PL_WORK_I64,
                copy ? "a" : pl_pointwise_table[variant->op].text[variant->formula]);
  pl_text_print(text, "#define PAIR %d\n", variant->pair);
  if (variant->pair)
    pl_text_print(text, "#define FORMULA_SECOND %s\n", pl_pointwise_table[variant->op].text[PL_GRADIENT_B]);
}

/* ---- launch ---- */

static uint64_t key_of(const pl_pointwise_variant *variant) {
  _Static_assert(PL_OPS < 64 && PL_DTYPES <= 8, "an operation takes six bits of the key, a type three");
  uint64_t key = PL_FAMILY_POINTWISE;
  key = key << 6 | (uint64_t)variant->op;
  key = key << 2 | variant->formula;
  key = key << 2 | variant->work;
  key = key << 4 | (uint64_t)variant->rank;
  key = key << 2 | (uint64_t)__builtin_ctz((unsigned)variant->vector);
  key = key << 2 | (uint64_t)variant->pair << 1 | variant->small;
  for (int i = 0; i < ARRAYS; i++) key = key << 6 | (uint64_t)variant->type[i] << 3 | variant->form[i];
  return key;
}

static bool is_array(const pl_operands *operands, int i) { return operands->given[i] && operands->view[i].buffer; }

/* The most elements that one 16-byte access of the widest array holds and that divide what must be divided. `second`:
 * as in launch. */
static int vector_of(const pl_operands *operands, const void *second) {
  const pl_array *view = operands->view;
  size_t widest = 1;
  for (int i = 0; i < ARRAYS; i++)
    if (is_array(operands, i) && pl_dtype_size(view[i].dtype) > widest) widest = pl_dtype_size(view[i].dtype);
  int vector = 16 / (int)widest < VECTOR_MAX ? 16 / (int)widest : VECTOR_MAX;
  int rank = view[0].rank;
  for (; vector > 1; vector /= 2) {
    /* A single axis may end within a vector, several axes may not. */
    if (rank > 1 && view[0].size[rank - 1] % vector != 0) continue;
    if (!pl_layout_dense(&view[0], vector)) continue;
    if ((uintptr_t)second % ((size_t)vector * pl_dtype_size(view[0].dtype)) != 0) continue;
    bool all = true;
    for (int i = 1; i < ARRAYS; i++)
      if (is_array(operands, i) && rank > 0 && view[i].stride[rank - 1] == 1 && !pl_layout_dense(&view[i], vector))
        all = false;
    if (all) break;
  }
  return vector;
}

static pl_form form_of(const pl_array *view) {
  if (!view->buffer) return PL_FORM_NUMBER;
  int64_t step = view->rank ? view->stride[view->rank - 1] : 0;
  return view->rank == 0 ? PL_FORM_SPREAD : step == 1 ? PL_FORM_DENSE : step == 0 ? PL_FORM_SPREAD : PL_FORM_STRIDED;
}

/* `second`: where the second result of a pair goes, which has the strides of the first; or NULL. */
static pl_status launch(pl_cuda *cuda, pl_pointwise_variant *variant, const pl_operands *operands, void *second) {
  const pl_array *view = operands->view;
  job j = {.count = pl_array_count(&view[0]), .complaint = pl_complaints_of(cuda), .second = second};
  int vector = vector_of(operands, second), rank = view[0].rank;
  variant->rank = rank;
  variant->vector = vector;
  variant->small = true;
  j.shape = pl_axes_of(&view[0], rank > 1 ? vector : 1);
  for (int i = 0; i < ARRAYS; i++) {
    variant->type[i] = PL_BOOL;
    variant->form[i] = !operands->given[i] ? PL_FORM_ABSENT : i == 0 ? PL_FORM_DENSE : form_of(&view[i]);
    if (variant->form[i] == PL_FORM_ABSENT) continue;
    j.number[i] = view[i].number;
    j.integer[i] = view[i].integer;
    if (variant->form[i] == PL_FORM_NUMBER) continue;
    variant->type[i] = view[i].dtype;
    if (i == 0 && rank > 0 && view[0].stride[rank - 1] != 1) variant->form[0] = PL_FORM_STRIDED;
    variant->small = variant->small && pl_layout_small(&view[i]);
    j.data[i] = pl_array_data(&view[i]);
    for (int axis = 0; axis < rank; axis++) j.stride[i][axis] = view[i].stride[axis] * (axis == rank - 1 ? vector : 1);
    j.step[i] = rank > 0 ? view[i].stride[rank - 1] : 0;
  }
  uint64_t key = key_of(variant);
  pl_cu_function function = pl_cuda_kernel_found(cuda, key);
  if (!function) {
    pl_text prelude = {0};
    pl_pointwise_prelude(variant, &prelude);
    pl_status status = pl_cuda_kernel_load(cuda, key, "pointwise.cu", prelude.data, pl_pointwise_options(variant),
                                           "pointwise", &function);
    pl_text_release(&prelude);
    PL_TRY(status);
  }
  int64_t each = (int64_t)vector * pl_pointwise_unroll(variant) * PL_POINTWISE_THREADS;
  return pl_cuda_launch(cuda, function, (uint64_t)((j.count + each - 1) / each), 1, PL_POINTWISE_THREADS, 0,
                        (void *[]){&j});
}

pl_status pl_cuda_pointwise(pl_device *device, pl_op op, pl_formula formula, const pl_array *out,
                            const pl_array *const in[PL_OPERANDS]) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  pl_operands operands;
  PL_TRY(pl_operands_arrange(out, in, &operands));
  if (pl_array_count(out) == 0) return PL_OK;
  pl_pointwise_variant variant = {.op = op, .formula = formula, .work = pl_work_of(pl_operands_type(op, in))};
  PL_REQUIRE(variant.work != PL_WORK_I64 || (formula == PL_VALUE && pl_pointwise_table[op].domain != PL_DOMAIN_REAL),
             "%s is not defined on %s", pl_pointwise_table[op].name, pl_dtype_name(out->dtype));
  return launch(cuda, &variant, &operands, NULL);
}

pl_status pl_cuda_pointwise_gradients(pl_device *device, pl_op op, const pl_array *a, const pl_array *b,
                                      const pl_array *const in[PL_OPERANDS]) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  pl_operands operands;
  PL_TRY(pl_operands_arrange(a, in, &operands));
  if (pl_array_count(a) == 0) return PL_OK;
  pl_pointwise_variant variant = {
      .op = op, .formula = PL_GRADIENT_A, .pair = true, .work = pl_work_of(pl_operands_type(op, in))};
  return launch(cuda, &variant, &operands, pl_array_data(b));
}

pl_status pl_cuda_copy(pl_device *device, const pl_array *to, const pl_array *from) {
  pl_cuda *cuda;
  PL_TRY(pl_cuda_enter(device, &cuda));
  const pl_array *in[PL_OPERANDS] = {from};
  pl_operands operands;
  PL_TRY(pl_operands_arrange(to, in, &operands));
  const pl_array *view = operands.view;
  if (pl_array_count(to) == 0) return PL_OK;
  bool same = from->buffer && from->dtype == to->dtype;
  if (same && pl_array_contiguous(&view[0]) && pl_array_contiguous(&view[1]))
    return PL_CUDA(pl_cu.MemcpyDtoDAsync((pl_cu_pointer)(uintptr_t)pl_array_data(to),
                                         (pl_cu_pointer)(uintptr_t)pl_array_data(from),
                                         (size_t)pl_array_count(to) * pl_dtype_size(to->dtype), cuda->stream));
  pl_pointwise_variant variant = {.op = PL_POINTWISE_COPY,
                                  .work = same ? PL_WORK_RAW : pl_work_of(from->buffer ? from->dtype : to->dtype)};
  int axis = from->buffer ? pl_transpose_axis(&view[0], &view[1]) : -1;
  if (axis >= 0) return pl_transpose_copy(cuda, &view[0], &view[1], axis, variant.work);
  return launch(cuda, &variant, &operands, NULL);
}
