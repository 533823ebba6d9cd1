/* Reading and writing strided views in contiguous blocks of a compute type: how every CPU primitive deals with strides,
 * broadcasting and storage types, so that its inner loop need not. */
#ifndef PL_CPU_BLOCKS_H
#define PL_CPU_BLOCKS_H

#include "host/cpu/cpu.h"

enum { PL_BLOCK = 512, PL_BLOCK_BYTES = PL_BLOCK * 8 };

/* Work below this many elements is not worth a second thread. */
enum { PL_PARALLEL_MIN = 1 << 15 };

/* Elements [start, start + n) of `array` in row-major order as compute type, n <= PL_BLOCK: a pointer into the array
 * itself where that needs no work, else `room` (PL_BLOCK_BYTES, 64-byte aligned), filled. Arrays that are numbers fill.
 */
const void *pl_blocks_read(const pl_array *array, pl_compute compute, int64_t start, int64_t n, void *room);

/* Where to compute a block of results: the array itself or `room`; then pl_blocks_write puts `room` into the array. */
void *pl_blocks_target(const pl_array *array, pl_compute compute, int64_t start, void *room);
void pl_blocks_write(const pl_array *array, pl_compute compute, int64_t start, int64_t n, const void *room);

/* Row number `row`, the elements [row n, (row + 1) n) in row-major order, as compute type: in place where that needs no
 * work, else `room` (n elements), filled when `read`. pl_blocks_put_row puts `room` into the array. */
void *pl_blocks_row(const pl_array *array, pl_compute compute, int64_t row, int64_t n, void *room, bool read);
void pl_blocks_put_row(const pl_array *array, pl_compute compute, int64_t row, int64_t n, const void *room);

/* The type in which values of a storage type are computed. */
pl_compute pl_compute_of(pl_dtype type);
size_t pl_compute_size(pl_compute compute);
/* Raw elements [start, start + n) of a strided view to or from contiguous memory, without conversion. */
void pl_blocks_gather(const pl_array *array, int64_t start, int64_t n, void *to);
void pl_blocks_scatter(const pl_array *array, int64_t start, int64_t n, const void *from);

#endif
