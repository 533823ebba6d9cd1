/* The loops of host/cpu/kernels/recurrence.h for the level PL_LEVEL, written on the compiler's vector types. */
#include "host/cpu/kernels/recurrence.h"

#include <string.h>

/* A tile keeps its sums in registers: 6 x 4 of 32 registers, or 6 x 2 of 16. */
#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, VECTORS = 4 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, VECTORS = 2 };
#else
enum { VECTOR_BYTES = 16, VECTORS = 2 };
#endif
enum { TILE = 6, PACK_DEPTH = 16 };

#define INLINE static inline __attribute__((always_inline))

/* C has no other way to say one loop for two types: everything that adds is in this one definition. */
#define DEFINE_LOOPS(real)                                                                                             \
  enum { LANES_##real = VECTOR_BYTES / sizeof(real) };                                                                 \
  typedef real vector_##real __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));             \
  INLINE void tile_##real(int rows, int vectors, const pl_panel_product *p, const real *a, const real *b, real *out,   \
                          const long *offset) {                                                                        \
    vector_##real sum[TILE][VECTORS];                                                                                  \
    _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++) _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++)   \
        sum[r][v] = (vector_##real){0};                                                                                \
    long depth = p->depth, a_row = p->a_row, a_depth = p->a_depth;                                                     \
    for (long k = 0; k < depth; k++, a += a_depth, b += vectors * LANES_##real) {                                      \
      vector_##real panel[VECTORS];                                                                                    \
      _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++) panel[v] = ((const vector_##real *)b)[v];              \
      _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++) {                                                         \
        real value = a[r * a_row];                                                                                     \
        _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++) sum[r][v] += panel[v] * value;                       \
      }                                                                                                                \
    }                                                                                                                  \
    _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++) _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++) * \
        (vector_##real *)(out + r * p->out_row + offset[v]) += sum[r][v];                                              \
  }                                                                                                                    \
  /* Rows are short: a call of memcpy for each would cost as much as the copy. */                                      \
  INLINE void move_##real(long count, real *to, const real *from) {                                                    \
    long u = 0;                                                                                                        \
    for (; u + LANES_##real <= count; u += LANES_##real) {                                                             \
      vector_##real value = *(const vector_##real *)(from + u);                                                        \
      *(vector_##real *)(to + u) = value;                                                                              \
    }                                                                                                                  \
    for (; u < count; u++) to[u] = from[u];                                                                            \
  }                                                                                                                    \
  static void gather_##real(long rows, long count, void *out, long out_row, pl_rows in, pl_rows addend) {              \
    for (long r = 0; r < rows; r++) {                                                                                  \
      real *to = (real *)out + r * out_row;                                                                            \
      const real *from = (const real *)in.data + (in.data ? r * in.row : 0);                                           \
      const real *plus = (const real *)addend.data + (addend.data ? r * addend.row : 0);                               \
      if (!from && !plus)                                                                                              \
        memset(to, 0, (size_t)count * sizeof(real));                                                                   \
      else if (!from)                                                                                                  \
        move_##real(count, to, plus);                                                                                  \
      else if (!plus && in.step == 1)                                                                                  \
        move_##real(count, to, from);                                                                                  \
      else if (!plus)                                                                                                  \
        for (long u = 0; u < count; u++) to[u] = from[u * in.step];                                                    \
      else if (in.step == 1)                                                                                           \
        _Pragma("GCC ivdep") for (long u = 0; u < count; u++) to[u] = from[u] + plus[u];                               \
      else                                                                                                             \
        for (long u = 0; u < count; u++) to[u] = from[u * in.step] + plus[u];                                          \
    }                                                                                                                  \
  }                                                                                                                    \
  static void scatter_##real(long rows, long count, void *out, long out_row, long out_step, const void *in,            \
                             long in_row) {                                                                            \
    for (long r = 0; r < rows; r++) {                                                                                  \
      real *to = (real *)out + r * out_row;                                                                            \
      const real *from = (const real *)in + r * in_row;                                                                \
      if (out_step == 1)                                                                                               \
        move_##real(count, to, from);                                                                                  \
      else                                                                                                             \
        for (long u = 0; u < count; u++) to[u * out_step] = from[u];                                                   \
    }                                                                                                                  \
  }                                                                                                                    \
  /* Whole vectors and whole strips of a tile: by far the most, and their length is known here. */                     \
  INLINE void copy_##real(long depth, long lanes, real *out, long out_depth, const real *in, long in_depth) {          \
    for (long k = 0; k < depth; k++) memcpy(out + k * out_depth, in + k * in_depth, (size_t)lanes * sizeof(real));     \
  }                                                                                                                    \
  static void pack_##real(long depth, long lanes, long valid, void *out, long out_depth, const void *in,               \
                          long in_depth, long in_lane) {                                                               \
    real *to = out;                                                                                                    \
    const real *from = in;                                                                                             \
    if (in_lane == 1 && valid == LANES_##real && lanes == LANES_##real) {                                              \
      copy_##real(depth, LANES_##real, to, out_depth, from, in_depth);                                                 \
      return;                                                                                                          \
    }                                                                                                                  \
    if (in_lane == 1 && valid == TILE && lanes == TILE) {                                                              \
      copy_##real(depth, TILE, to, out_depth, from, in_depth);                                                         \
      return;                                                                                                          \
    }                                                                                                                  \
    /* In short pieces of the depth, so that a piece of all lanes stays in the nearest cache. */                       \
    for (long first = 0; first < depth; first += PACK_DEPTH) {                                                         \
      long end = first + PACK_DEPTH < depth ? first + PACK_DEPTH : depth;                                              \
      for (long l = 0; l < lanes; l++)                                                                                 \
        for (long k = first; k < end; k++) to[k * out_depth + l] = l < valid ? from[k * in_depth + l * in_lane] : 0;   \
    }                                                                                                                  \
  }                                                                                                                    \
  static void add_clamped_##real(long count, void *out, const void *in, double limit) {                                \
    const real *from = in;                                                                                             \
    real *to = out, top = (real)limit;                                                                                 \
    for (long i = 0; i < count; i++) to[i] += from[i] < -top ? -top : from[i] > top ? top : from[i];                   \
  }

DEFINE_LOOPS(float)
DEFINE_LOOPS(double)

/* Every size of tile, so that its loops unroll: tiles_TYPE[rows - 1][vectors - 1]. */
#define TILE_SIZE(real, rows, vectors)                                                                                 \
  static void tile_##real##_##rows##_##vectors(const pl_panel_product *p, const real *a, const real *b, real *out,     \
                                               const long *offset) {                                                   \
    tile_##real(rows, vectors, p, a, b, out, offset);                                                                  \
  }
#if defined(__AVX512F__)
#define TILE_ROW(real, rows)                                                                                           \
  TILE_SIZE(real, rows, 1) TILE_SIZE(real, rows, 2) TILE_SIZE(real, rows, 3) TILE_SIZE(real, rows, 4)
#define TILE_LINE(real, rows)                                                                                          \
  { tile_##real##_##rows##_1, tile_##real##_##rows##_2, tile_##real##_##rows##_3, tile_##real##_##rows##_4 }
#else
#define TILE_ROW(real, rows) TILE_SIZE(real, rows, 1) TILE_SIZE(real, rows, 2)
#define TILE_LINE(real, rows)                                                                                          \
  { tile_##real##_##rows##_1, tile_##real##_##rows##_2 }
#endif
#define DEFINE_PRODUCT(real)                                                                                           \
  TILE_ROW(real, 1)                                                                                                    \
  TILE_ROW(real, 2)                                                                                                    \
  TILE_ROW(real, 3)                                                                                                    \
  TILE_ROW(real, 4)                                                                                                    \
  TILE_ROW(real, 5)                                                                                                    \
  TILE_ROW(real, 6)                                                                                                    \
  typedef void (*tile_of_##real)(const pl_panel_product *, const real *, const real *, real *, const long *);          \
  static const tile_of_##real tiles_##real[TILE][VECTORS] = {TILE_LINE(real, 1), TILE_LINE(real, 2),                   \
                                                             TILE_LINE(real, 3), TILE_LINE(real, 4),                   \
                                                             TILE_LINE(real, 5), TILE_LINE(real, 6)};                  \
  static void product_##real(const pl_panel_product *p) {                                                              \
    for (long v = 0; v < p->vectors; v += VECTORS) {                                                                   \
      long vectors = p->vectors - v < VECTORS ? p->vectors - v : VECTORS;                                              \
      const real *b = (const real *)p->b + v * LANES_##real * p->depth;                                                \
      for (long r = 0; r < p->rows; r += p->tile) {                                                                    \
        long rows = p->rows - r < p->tile ? p->rows - r : p->tile;                                                     \
        const real *a = (const real *)p->a + r / p->tile * p->a_tile;                                                  \
        tiles_##real[rows - 1][vectors - 1](p, a, b, (real *)p->out + r * p->out_row, p->offset + v);                  \
      }                                                                                                                \
    }                                                                                                                  \
  }

DEFINE_PRODUCT(float)
DEFINE_PRODUCT(double)

static void round_rows(pl_dtype type, long rows, long count, float *data, long row) {
  for (long r = 0; r < rows; r++, data += row) {
    if (type == PL_BF16)
      for (long u = 0; u < count; u++) data[u] = pl_bf16_to_float(pl_float_to_bf16(data[u]));
    else if (type == PL_F16)
      for (long u = 0; u < count; u++) data[u] = pl_f16_to_float(pl_float_to_f16(data[u]));
  }
}

#define LOOPS(real)                                                                                                    \
  { LANES_##real, VECTORS, TILE, product_##real, gather_##real, scatter_##real, pack_##real, add_clamped_##real }
#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)

const pl_recurrence_kernels JOIN(pl_recurrence_kernels_, PL_LEVEL) = {LOOPS(float), LOOPS(double), round_rows};
