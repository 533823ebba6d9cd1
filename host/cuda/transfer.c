/* Copies between host and device by way of pinned memory: the driver's own way from pageable memory is slower and
 * waits. */
#include "host/cuda/primitives.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 4 << 20, SMALL = 64 << 10, PIECES = 2 };

/* Two pieces in turn, each with the event of the copy that last used it; and room for small results. */
struct pl_cuda_staging {
  char *piece[PIECES];
  pl_cu_event done[PIECES];
  char *small;
};

static pl_status pinned(size_t bytes, char **memory) {
  void *made;
  PL_CUDA_TRY(pl_cu.MemHostAlloc(&made, bytes, PL_CU_HOST_ALLOC_PORTABLE));
  *memory = made;
  return PL_OK;
}

/* The device's staging memory; the pieces only once a copy is long enough for them. */
static pl_status staging_of(pl_cuda *cuda, bool pieces, struct pl_cuda_staging **staging) {
  if (!cuda->staging) cuda->staging = pl_allocate(sizeof *cuda->staging);
  struct pl_cuda_staging *s = *staging = cuda->staging;
  if (!s->small) PL_TRY(pinned(SMALL, &s->small));
  for (int i = 0; i < PIECES && pieces; i++) {
    if (!s->done[i]) PL_CUDA_TRY(pl_cu.EventCreate(&s->done[i], PL_CU_EVENT_DISABLE_TIMING));
    if (!s->piece[i]) PL_TRY(pinned(PIECE, &s->piece[i]));
  }
  return PL_OK;
}

static size_t piece_of(size_t bytes, size_t start) { return bytes - start < PIECE ? bytes - start : PIECE; }

pl_status pl_cuda_upload(pl_device *device, void *to, const void *host, size_t bytes) {
  pl_cuda *cuda;
  struct pl_cuda_staging *s;
  pl_cu_pointer target = (pl_cu_pointer)(uintptr_t)to;
  PL_TRY(pl_cuda_enter(device, &cuda));
  if (bytes == 0) return PL_OK;
  /* The driver takes a small copy over before it returns. */
  if (bytes <= SMALL) return PL_CUDA(pl_cu.MemcpyHtoDAsync(target, host, bytes, cuda->stream));
  PL_TRY(staging_of(cuda, true, &s));
  int turn = 0;
  for (size_t start = 0; start < bytes; start += PIECE, turn ^= 1) {
    size_t length = piece_of(bytes, start);
    PL_CUDA_TRY(pl_cu.EventSynchronize(s->done[turn])); /* an event never recorded is done */
    memcpy(s->piece[turn], (const char *)host + start, length);
    PL_CUDA_TRY(pl_cu.MemcpyHtoDAsync(target + start, s->piece[turn], length, cuda->stream));
    PL_CUDA_TRY(pl_cu.EventRecord(s->done[turn], cuda->stream));
  }
  return PL_OK;
}

/* Puts the copy of one piece on the stream. */
static pl_status fetch(pl_cuda *cuda, struct pl_cuda_staging *s, int turn, pl_cu_pointer from, size_t length) {
  PL_CUDA_TRY(pl_cu.EventSynchronize(s->done[turn]));
  PL_CUDA_TRY(pl_cu.MemcpyDtoHAsync(s->piece[turn], from, length, cuda->stream));
  return PL_CUDA(pl_cu.EventRecord(s->done[turn], cuda->stream));
}

pl_status pl_cuda_download(pl_device *device, void *host, const void *from, size_t bytes) {
  pl_cuda *cuda;
  struct pl_cuda_staging *s;
  pl_cu_pointer source = (pl_cu_pointer)(uintptr_t)from;
  PL_TRY(pl_cuda_enter(device, &cuda));
  if (bytes == 0) return pl_cuda_synchronize(device);
  PL_TRY(staging_of(cuda, bytes > SMALL, &s));
  if (bytes <= SMALL) {
    PL_CUDA_TRY(pl_cu.MemcpyDtoHAsync(s->small, source, bytes, cuda->stream));
    PL_TRY(pl_cuda_synchronize(device));
    memcpy(host, s->small, bytes);
    return PL_OK;
  }
  /* While one piece arrives the one before is taken out. */
  int turn = 0;
  PL_TRY(fetch(cuda, s, turn, source, piece_of(bytes, 0)));
  for (size_t start = 0; start < bytes; start += PIECE, turn ^= 1) {
    size_t next = start + PIECE;
    if (next < bytes) PL_TRY(fetch(cuda, s, turn ^ 1, source + next, piece_of(bytes, next)));
    PL_CUDA_TRY(pl_cu.EventSynchronize(s->done[turn]));
    memcpy((char *)host + start, s->piece[turn], piece_of(bytes, start));
  }
  return pl_cuda_synchronize(device);
}
