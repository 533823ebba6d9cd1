/* Compiles the kernels of kernels/ for every supported architecture through NVRTC: each formula of the elementwise
 * table, and each variant that the primitives choose from. Needs no GPU; skips itself where NVRTC is missing. */
#include "host/cuda/attention.h"
#include "host/cuda/index.h"
#include "host/cuda/lists.h"
#include "host/cuda/nvrtc.h"
#include "host/cuda/pointwise.h"
#include "host/cuda/reduce.h"
#include "host/cuda/rows.h"
#include "host/cuda/transpose.h"
#include "tests/check.h"
#include "tests/cuda/share.h"

static const int architectures[] = {80, 86, 89, 90, 100, 120};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };
enum { COMPILED, FAILED, COUNTS };
static int counts[COUNTS];

static void compile_for(const char *file, const char *prelude, int architecture) {
  pl_text source = {0}, cubin = {0};
  if (prelude) pl_text_print(&source, "%s", prelude);
  pl_status status = pl_kernel_source(file, &source);
  if (status == PL_OK) status = pl_nvrtc_compile(file, source.data, "", architecture, &cubin, NULL);
  counts[COMPILED]++;
  if (status != PL_OK || cubin.length < 4 || memcmp(cubin.data, "\177ELF", 4) != 0) {
    counts[FAILED]++;
    fprintf(stderr, "FAILED: %s\n%s\n", status == PL_OK ? "not an ELF file" : pl_message(), prelude);
  }
  pl_text_release(&source);
  pl_text_release(&cubin);
}

/* Every kernel compiles for all architectures; formulas, further types, ranks and widths of what does take turns, for a
 * text compiles for one architecture as for another unless it uses what one of them lacks. */
static void compile(const char *file, pl_text *prelude, bool everywhere) {
  static int turn;
  for (int i = 0; i < ARCHITECTURES; i++)
    if ((everywhere || i == turn % ARCHITECTURES) && share_mine()) compile_for(file, prelude->data, architectures[i]);
  turn++;
  pl_text_clear(prelude);
}

/* ---- elementwise ---- */

static pl_dtype storage_of(pl_work work) {
  return work == PL_WORK_F64 ? PL_F64 : work == PL_WORK_I64 ? PL_I64 : PL_F32;
}

static pl_pointwise_variant formula(pl_op op, pl_formula which, pl_work work, pl_text *prelude) {
  pl_pointwise_variant v = {.op = (int)op, .formula = which, .work = work, .rank = 1, .vector = 2, .small = true};
  unsigned reads = pl_pointwise_reads(op, which);
  bool test = pl_pointwise_table[op].domain == PL_DOMAIN_TEST && which == PL_VALUE;
  v.type[0] = test ? PL_BOOL : storage_of(work);
  v.form[0] = PL_FORM_DENSE;
  for (int i = 0; i < PL_OPERANDS; i++) {
    v.type[i + 1] = storage_of(work);
    v.form[i + 1] = reads >> i & 1 ? PL_FORM_DENSE : PL_FORM_ABSENT;
  }
  pl_pointwise_prelude(&v, prelude);
  return v;
}

/* Both gradients of an operation at once. */
static void pair(pl_op op, pl_dtype type, pl_text *prelude) {
  unsigned reads = pl_pointwise_reads(op, PL_GRADIENT_A) | pl_pointwise_reads(op, PL_GRADIENT_B);
  pl_pointwise_variant v = {.op = (int)op, .formula = PL_GRADIENT_A, .pair = true, .work = pl_work_of(type), .rank = 1};
  v.vector = 16 / (int)pl_dtype_size(type), v.small = true;
  v.type[0] = type, v.form[0] = PL_FORM_DENSE;
  for (int i = 0; i < PL_OPERANDS; i++) {
    v.type[i + 1] = type;
    v.form[i + 1] = reads >> i & 1 ? PL_FORM_DENSE : PL_FORM_ABSENT;
  }
  pl_pointwise_prelude(&v, prelude);
}

static void all_formulas(void) {
  pl_text prelude = {0};
  for (int op = 0; op < PL_OPS; op++)
    for (int which = 0; which < PL_FORMULAS; which++) {
      if (strcmp(pl_pointwise_table[op].text[which], "0") == 0) continue;
      for (int work = PL_WORK_F32; work <= PL_WORK_I64; work++) {
        if (work == PL_WORK_I64 && (which != PL_VALUE || pl_pointwise_table[op].domain == PL_DOMAIN_REAL)) continue;
        formula((pl_op)op, (pl_formula)which, (pl_work)work, &prelude);
        compile("pointwise.cu", &prelude, false);
      }
    }
  for (int op = 0; op < PL_OPS; op++) {
    const pl_pointwise *row = &pl_pointwise_table[op];
    if (row->arity != 2 || strcmp(row->text[PL_GRADIENT_A], "0") == 0 || strcmp(row->text[PL_GRADIENT_B], "0") == 0)
      continue;
    for (int type = PL_F16; type <= PL_F64; type++) {
      pair((pl_op)op, (pl_dtype)type, &prelude);
      compile("pointwise.cu", &prelude, false);
    }
  }
  pl_text_release(&prelude);
}

/* Conversions between all types, and every form, rank and width. */
static void all_copies(void) {
  pl_text prelude = {0};
  pl_pointwise_variant v = {.op = PL_POINTWISE_COPY, .rank = 1, .vector = 2, .small = true};
  v.form[0] = v.form[1] = PL_FORM_DENSE;
  for (int to = 0; to < PL_DTYPES; to++)
    for (int from = 0; from < PL_DTYPES; from++) {
      v.type[0] = (pl_dtype)to, v.type[1] = (pl_dtype)from;
      v.work = to == from ? PL_WORK_RAW : pl_work_of((pl_dtype)from);
      pl_pointwise_prelude(&v, &prelude);
      compile("pointwise.cu", &prelude, to == PL_BF16 || from == PL_BF16);
      pl_transpose_variant t = {v.type[0],
                                v.type[1],
                                v.work,
                                (to + from) % 3,
                                to % 2 == 0,
                                from % 3 == 0,
                                pl_transpose_edge((pl_dtype)to, (pl_dtype)from, from % 2 == 0)};
      pl_transpose_prelude(&t, &prelude);
      compile("transpose.cu", &prelude, to == PL_BF16 || from == PL_BF16);
    }
  v.type[0] = v.type[1] = PL_F32;
  v.work = PL_WORK_F32;
  for (int form = PL_FORM_NUMBER; form <= PL_FORM_STRIDED; form++)
    for (int rank = 0; rank <= PL_RANK_MAX; rank++)
      for (int small = 0; small < 2; small++) {
        v.form[1] = (pl_form)form, v.rank = rank, v.small = small, v.vector = 1 << (rank + form) % 4;
        pl_pointwise_prelude(&v, &prelude);
        compile("pointwise.cu", &prelude, false);
      }
  pl_text_release(&prelude);
}

/* ---- the others ---- */

static void reduction(pl_reduction kind, pl_dtype type, int width, bool partial_in, bool partial_out, bool everywhere) {
  pl_text prelude = {0};
  bool position = kind == PL_ARGMAX || kind == PL_ARGMIN;
  pl_reduce_variant v = {.kind = kind,
                         .work = pl_work_of(type),
                         .in = type,
                         .out = position ? PL_I64 : type,
                         .kept = width == 32 ? 2 : 1,
                         .reduced = width == 1 ? 2 : 1,
                         .vector = position || partial_in ? 1 : 2,
                         .width = width,
                         .lanes = 1 << (int)kind % 6,
                         .small = width != 1,
                         .partial_in = (position || kind > PL_ARGMIN) && partial_in,
                         .partial_out = partial_out};
  pl_reduce_prelude(&v, &prelude);
  compile("reduce.cu", &prelude, everywhere);
  pl_text_release(&prelude);
}

static void all_reductions(void) {
  static const int widths[] = {0, 1, 4, 16, 32, 256};
  for (int kind = PL_SUM; kind <= PL_DEVIATIONS; kind++)
    for (int type = 0; type < PL_DTYPES; type++)
      for (int w = 0; w < 6; w++)
        for (int part = 0; part < 3; part++)
          if ((part == 0 || type == PL_F32 || type == PL_I64) &&
              (kind <= PL_ARGMIN || pl_dtype_is_float((pl_dtype)type)))
            reduction((pl_reduction)kind, (pl_dtype)type, widths[w], part == 1, part == 2, type == PL_BF16);
}

static void all_indices(void) {
  static const pl_dtype index[] = {PL_U8, PL_I32, PL_I64}, sums[] = {PL_F32, PL_F64, PL_I64, PL_BF16, PL_F16};
  pl_text prelude = {0};
  for (int i = 0; i < 3; i++)
    for (int rank = 0; rank < 4; rank++) {
      for (size_t bytes = 1; bytes <= 8; bytes *= 2) {
        pl_gather_variant v = {bytes, index[i], rank, rank > 1 ? (int)(16 / bytes) : 1, rank % 2 == 0};
        pl_gather_prelude(&v, &prelude);
        compile("gather.cu", &prelude, bytes == 4 && rank == 2);
      }
      for (int s = 0; s < 5; s++) {
        pl_scatter_variant v = {sums[s], index[i], rank, rank % 2 ? 16 / (int)pl_dtype_size(sums[s]) : 1};
        pl_scatter_prelude(&v, &prelude);
        compile("scatter.cu", &prelude, s == 0 && rank == 1);
      }
    }
  pl_text_release(&prelude);
}

static void softmax(pl_dtype type, int way, pl_rows_shape shape, bool across, int part) {
  pl_text prelude = {0};
  pl_softmax_variant v = {.kind = (pl_softmax_kind)(way & 1),
                          .gradient = way > 1,
                          .out = type,
                          .in = type,
                          .y = type,
                          .rank = 1,
                          .shape = shape,
                          .across = across,
                          .part = part};
  pl_softmax_prelude(&v, &prelude);
  compile("softmax.cu", &prelude, type == PL_BF16);
  pl_text_release(&prelude);
}

static void norm(pl_dtype type, pl_norm_step step, int way, pl_rows_shape shape) {
  pl_text prelude = {0};
  pl_norm_variant v = {.step = step,
                       .centred = way & 1,
                       .weighted = way & 2,
                       .biased = (way & 3) == 3,
                       .adding = step == PL_NORM_INPUT && way % 3 == 0,
                       .y = type,
                       .x = type,
                       .weight = type,
                       .bias = type,
                       .shape = shape};
  pl_norm_prelude(&v, &prelude);
  compile("norm.cu", &prelude, type == PL_BF16);
  pl_text_release(&prelude);
}

static void cross_entropy(pl_dtype type, bool gradient, int way, pl_rows_shape shape) {
  static const pl_dtype labels[] = {PL_U8, PL_I32, PL_I64};
  pl_text prelude = {0};
  pl_cross_entropy_variant v = {gradient, way & 1, type, labels[way % 3], shape};
  pl_cross_entropy_prelude(&v, &prelude);
  compile("cross_entropy.cu", &prelude, type == PL_BF16);
  pl_text_release(&prelude);
}

/* Rows of every number of threads, in registers and too long for them, in vectors and one by one. */
static void all_rows(void) {
  static const int64_t vectors[] = {2, 8, 32, 64, 128, 256, 512, 1024, 2048, 3072, 7168, 9000};
  for (int type = PL_F16; type <= PL_F64; type++)
    for (int i = 0; i < 12; i++) {
      pl_dtype of = (pl_dtype)type;
      int vector = i % 3 == 2 ? 1 : 16 / (int)pl_dtype_size(of);
      int64_t length = vectors[i] * vector;
      pl_rows_shape once = pl_rows_shape_of(length, vector, 0), one = pl_rows_shape_of(length, vector, 1),
                    two = pl_rows_shape_of(length, vector, 2);
      softmax(of, i & 1, one, false, 0);
      softmax(of, 2 + (i & 1), two, false, 0);
      norm(of, PL_NORM_FORWARD, i, one);
      norm(of, PL_NORM_INPUT, i + 1, two);
      cross_entropy(of, false, i, once);
      cross_entropy(of, true, i + 1, once);
    }
  for (int type = PL_F16; type <= PL_F64; type++)
    for (int way = 0; way < 4; way++)
      for (int part = 0; part < 3; part++) {
        int vector = 16 / (int)pl_dtype_size((pl_dtype)type);
        softmax((pl_dtype)type, way, (pl_rows_shape){256, part == 0 ? 1 : vector, 0}, false, part);
        softmax((pl_dtype)type, way, (pl_rows_shape){1, part == 0 ? vector : 1, 0}, true, part);
        norm((pl_dtype)type, PL_NORM_WEIGHT, way & 1, (pl_rows_shape){1, part == 0 ? vector : 1, 0});
      }
}

/* Every number of features of a head, in both types; causal or not in turn. */
static void all_attention(void) {
  pl_text prelude = {0};
  for (int features = 1; features <= 256; features++)
    for (int type = 0; type < PL_DTYPES; type++)
      for (int pass = PL_ATTENTION_FORWARD; pass <= PL_ATTENTION_SUMS; pass++) {
        if (!pl_attention_compiles((pl_dtype)type, features)) continue;
        bool causal = (features / 16 + type) % 2 == 1;
        pl_attention_variant v = {(pl_attention_pass)pass, (pl_dtype)type, features, causal};
        pl_attention_prelude(&v, &prelude);
        compile("attention.cu", &prelude, causal && features % 64 == 0);
      }
  pl_text_release(&prelude);
}

static void all_lists(void) {
  pl_text prelude = {0};
  for (int kind = PL_UNIFORM; kind <= PL_INTEGER; kind++)
    for (int type = 0; type < PL_DTYPES; type++) {
      pl_random_prelude((pl_distribution)kind, (pl_dtype)type, 1 + type % 3, &prelude);
      compile("random.cu", &prelude, type == PL_F32);
    }
  for (int type = PL_F16; type <= PL_F64; type++) {
    pl_list_prelude((pl_dtype)type, &prelude);
    compile("squares.cu", &prelude, true);
    pl_list_prelude((pl_dtype)type, &prelude);
    compile("scale.cu", &prelude, true);
  }
  for (int type = PL_F16; type <= PL_F64; type++) {
    pl_adam_prelude((pl_dtype)type, &prelude);
    compile("adam.cu", &prelude, true);
  }
  pl_text_release(&prelude);
}

int main(void) {
  if (pl_nvrtc_open() != PL_OK) return skipped();
  share_begin();
  all_formulas();
  all_copies();
  all_reductions();
  all_indices();
  all_rows();
  all_attention();
  all_lists();
  share_end(counts, COUNTS);
  printf("%d compilations with NVRTC %s, %d failed\n", counts[COMPILED], pl_nvrtc_version(), counts[FAILED]);
  return counts[FAILED] > 0;
}
