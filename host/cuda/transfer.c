/* Copies between host and device by way of pinned memory: the driver's own way from pageable memory is slower and
 * waits. And copies from one GPU to another, which do not wait either. */
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
  PL_TRY(pl_cuda_refuse_recorded(cuda, "a copy from the host"));
  /* The driver takes a small copy over before it returns. */
  if (bytes <= SMALL) return PL_CUDA(pl_cu.MemcpyHtoDAsync(target, host, bytes, cuda->stream));
  PL_TRY(staging_of(cuda, true, &s));
  int turn = 0;
  for (size_t start = 0; start < bytes; start += PIECE, turn ^= 1) {
    size_t length = piece_of(bytes, start);
    PL_TRY(pl_cuda_wait(cuda, s->done[turn])); /* an event never recorded is done */
    memcpy(s->piece[turn], (const char *)host + start, length);
    PL_CUDA_TRY(pl_cu.MemcpyHtoDAsync(target + start, s->piece[turn], length, cuda->stream));
    PL_CUDA_TRY(pl_cu.EventRecord(s->done[turn], cuda->stream));
  }
  return PL_OK;
}

/* Puts the copy of one piece on the stream. */
static pl_status fetch(pl_cuda *cuda, struct pl_cuda_staging *s, int turn, pl_cu_pointer from, size_t length) {
  PL_TRY(pl_cuda_wait(cuda, s->done[turn]));
  PL_CUDA_TRY(pl_cu.MemcpyDtoHAsync(s->piece[turn], from, length, cuda->stream));
  return PL_CUDA(pl_cu.EventRecord(s->done[turn], cuda->stream));
}

pl_status pl_cuda_download(pl_device *device, void *host, const void *from, size_t bytes) {
  pl_cuda *cuda;
  struct pl_cuda_staging *s;
  pl_cu_pointer source = (pl_cu_pointer)(uintptr_t)from;
  PL_TRY(pl_cuda_enter(device, &cuda));
  PL_TRY(pl_cuda_refuse_recorded(cuda, "a copy to the host"));
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
    PL_TRY(pl_cuda_wait(cuda, s->done[turn]));
    memcpy((char *)host + start, s->piece[turn], piece_of(bytes, start));
  }
  return pl_cuda_synchronize(device);
}

/* ---- between GPUs ---- */

/* What comes on the second stream from now on waits for what is on the first. */
static pl_status follow(pl_cuda *first, pl_cuda *second) {
  PL_TRY(pl_cuda_enter(&first->device, &first));
  if (!first->ready) PL_CUDA_TRY(pl_cu.EventCreate(&first->ready, PL_CU_EVENT_DISABLE_TIMING));
  PL_CUDA_TRY(pl_cu.EventRecord(first->ready, first->stream));
  return PL_CUDA(pl_cu.StreamWaitEvent(second->stream, first->ready, 0));
}

/* Lets `reader`, whose context is current, read the other's memory over their own link, where they have one and the
 * reader has no more links than it can; else the driver copies by way of the host. */
static pl_status open_link(pl_cuda *reader, const pl_cuda *other) {
  int can = 0;
  if (reader->peers >> other->ordinal & 1) return PL_OK;
  PL_CUDA_TRY(pl_cu.DeviceCanAccessPeer(&can, reader->handle, other->handle));
  pl_cu_result result = can ? pl_cu.CtxEnablePeerAccess(other->context, 0) : 0;
  if (result != PL_CU_PEER_ACCESS_ALREADY_ENABLED && result != PL_CU_TOO_MANY_PEERS)
    PL_TRY(pl_cuda_check(result, "pl_cu.CtxEnablePeerAccess(other->context, 0)", __FILE__, __LINE__));
  reader->peers |= (uint64_t)1 << other->ordinal;
  return PL_OK;
}

pl_status pl_cuda_transfer(pl_device *to_device, void *to, pl_device *from_device, const void *from, size_t bytes) {
  pl_cuda *target, *source;
  PL_TRY(pl_cuda_enter(from_device, &source));
  PL_TRY(pl_cuda_enter(to_device, &target));
  if (bytes == 0) return PL_OK;
  PL_TRY(pl_cuda_refuse_recorded(source, "a copy to another GPU"));
  PL_TRY(pl_cuda_refuse_recorded(target, "a copy from another GPU"));
  PL_TRY(open_link(target, source));
  PL_TRY(follow(source, target));
  PL_TRY(pl_cuda_enter(to_device, &target));
  PL_CUDA_TRY(pl_cu.MemcpyPeerAsync((pl_cu_pointer)(uintptr_t)to, target->context, (pl_cu_pointer)(uintptr_t)from,
                                    source->context, bytes, target->stream));
  return follow(target, source); /* whoever has the source's memory next comes after the copy */
}
