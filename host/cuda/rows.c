/* How kernels go by rows: the threads that share one, and the text that tells them. */
#include "host/cuda/rows.h"

enum { BLOCK = 256, VECTOR_MAX = 8 };

int pl_rows_vector(const pl_array *const arrays[], int count, int64_t length) {
  size_t widest = 1;
  for (int i = 0; i < count; i++)
    if (pl_dtype_size(arrays[i]->dtype) > widest) widest = pl_dtype_size(arrays[i]->dtype);
  int vector = 16 / (int)widest < VECTOR_MAX ? 16 / (int)widest : VECTOR_MAX;
  for (; vector > 1; vector /= 2) {
    bool fits = length % vector == 0;
    for (int i = 0; i < count && fits; i++) fits = pl_layout_dense(arrays[i], vector);
    if (fits) break;
  }
  return vector;
}

pl_rows_shape pl_rows_shape_of(int64_t length, int vector, int held) {
  /* A thread of the widest block has 64 registers: with two arrays it holds fewer vectors of each. */
  static const struct {
    int width, hold, held_max;
  } choices[] = {{1, 2, 2},   {4, 2, 2},   {8, 4, 2},   {16, 4, 2},   {32, 4, 2},  {32, 8, 2},
                 {256, 2, 2}, {256, 4, 2}, {256, 8, 2}, {1024, 3, 2}, {1024, 7, 1}};
  int64_t vectors = length / vector;
  for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
    if (vectors <= choices[i].width * choices[i].hold && held <= choices[i].held_max)
      return (pl_rows_shape){choices[i].width, vector, held > 0 ? choices[i].hold : 0};
  return (pl_rows_shape){1024, vector, 0};
}

int pl_rows_threads(const pl_rows_shape *shape) { return shape->width > BLOCK ? shape->width : BLOCK; }

int64_t pl_rows_blocks(const pl_rows_shape *shape, int64_t rows) {
  int64_t each = pl_rows_threads(shape) / shape->width;
  return (rows + each - 1) / each;
}

void pl_rows_prelude(const pl_rows_shape *shape, pl_dtype compute, pl_dtype result, pl_text *text) {
  pl_text_print(text, "typedef %s T;\n#define W %d\n#define V %d\n#define HOLD %d\n#define BRIEF %d\n",
                compute == PL_F64 ? "double" : "float", shape->width, shape->vector, shape->hold,
                pl_dtype_size(result) == 2);
}

uint64_t pl_rows_key(const pl_rows_shape *shape) {
  uint64_t width = (uint64_t)__builtin_ctz((unsigned)shape->width);
  uint64_t vector = (uint64_t)__builtin_ctz((unsigned)shape->vector);
  return width << 6 | vector << 4 | (uint64_t)shape->hold;
}
