/* NCCL under our own declarations, loaded when ranks first do something with arrays on GPUs. Its operations run on a
 * stream of their own, beside the device's: they wait for what the device was asked before, and the device waits for
 * them at `join`, the host for neither.
 *
 * NCCL's kernels hold multiprocessors and spin until the other GPUs' kernels have come, and so do the persistent
 * kernels of fused recurrences until all blocks of a head have. The two cannot wait for each other: blocks that spin
 * for one another are of one cluster or of one cooperative launch (host/cuda/fused.c), which a GPU starts as a whole or
 * not at all. Once started, such a kernel has all that it waits for, and ends whatever NCCL's do. Until it starts it
 * holds nothing, and NCCL's kernels wait for nothing on their own GPU but multiprocessors that running kernels give
 * back. Among themselves they come in the same order on every GPU, one at a time on their stream. Nor does a host hang
 * that waits for its GPU meanwhile, as an allocation or the loading of a kernel may make it: it waits for operations
 * that every other host comes to without waiting for any later one. */
#include "host/cuda/nccl.h"

#include "host/cuda/cuda.h"
#include <stdlib.h>

enum { ID_BYTES = 128 };
typedef struct {
  char bytes[ID_BYTES];
} unique_id;
typedef struct ncclComm *communicator;

/* X(member, symbol, parameters) */
#define FUNCTIONS(X)                                                                                                   \
  X(get_unique_id, "ncclGetUniqueId", (unique_id * id))                                                                \
  X(init_rank, "ncclCommInitRank", (communicator * made, int world, unique_id id, int rank))                           \
  X(all_reduce, "ncclAllReduce",                                                                                       \
    (const void *from, void *to, size_t count, int type, int op, communicator c, pl_cu_stream stream))                 \
  X(broadcast, "ncclBroadcast",                                                                                        \
    (const void *from, void *to, size_t count, int type, int root, communicator c, pl_cu_stream stream))               \
  X(group_start, "ncclGroupStart", (void))                                                                             \
  X(group_end, "ncclGroupEnd", (void))                                                                                 \
  X(async_error, "ncclCommGetAsyncError", (communicator c, int *result))                                               \
  X(abort, "ncclCommAbort", (communicator c))                                                                          \
  X(destroy, "ncclCommDestroy", (communicator c))

static struct {
#define MEMBER(name, symbol, parameters) int(*name) parameters;
  FUNCTIONS(MEMBER)
#undef MEMBER
  const char *(*error_text)(int result);
  const char *(*last_error)(communicator c);
} nccl;

static pl_status load(void) {
  static const char *const names[] = {"libnccl.so.2"};
  static const pl_symbol symbols[] = {
#define ENTRY(name, symbol, parameters) {symbol, &nccl.name},
      FUNCTIONS(ENTRY)
#undef ENTRY
          {"ncclGetErrorString", &nccl.error_text},
      {"ncclGetLastError", &nccl.last_error}};
  return pl_library_load(&(pl_library){.what = "distributed: NCCL, which tensors on GPUs need between processes,",
                                       .advice =
                                           "install NVIDIA's package libnccl2 (2.13 or newer), or name the folder "
                                           "of libnccl.so.2 in LD_LIBRARY_PATH",
                                       .names = names,
                                       .name_count = 1,
                                       .symbols = symbols,
                                       .symbol_count = sizeof symbols / sizeof *symbols});
}

static pl_status open_library(void) {
  static pl_attempt attempt;
  return pl_attempt_once(&attempt, load);
}

typedef struct {
  pl_group group;
  pl_cuda *cuda;
  communicator communicator; /* NULL once it was given up */
  pl_cu_stream stream;
  pl_cu_event asked, done;
  bool running; /* something was started since the last join */
} nccl_group;

static pl_status check(nccl_group *g, int result, const char *expression, int line) {
  if (result == 0) return PL_OK;
  PL_TRY(pl_cuda_lost());
  return pl_fail_at(PL_ERROR, expression, __FILE__, line, "NCCL: %s (%s)", nccl.error_text(result),
                    nccl.last_error(g->communicator));
}
#define CHECK(g, call) check((g), (call), #call, __LINE__)

/* What NCCL's own threads met since the last time, such as a network that broke. */
static pl_status check_background(nccl_group *g) {
  int result = 0;
  PL_REQUIRE(g->communicator, "distributed: NCCL was given up after a failure");
  PL_TRY(CHECK(g, nccl.async_error(g->communicator, &result)));
  return check(g, result, "ncclCommGetAsyncError", __LINE__);
}

/* Numbers of NCCL's enumerations. */
static const int types[PL_DTYPES] = {
    [PL_U8] = 1, [PL_I32] = 2, [PL_I64] = 4, [PL_F16] = 6, [PL_F32] = 7, [PL_F64] = 8, [PL_BF16] = 9};
static const int kinds[PL_GROUP_KINDS] = {
    [PL_GROUP_SUM] = 0, [PL_GROUP_MEAN] = 4, [PL_GROUP_MAX] = 2, [PL_GROUP_MIN] = 3};

/* NCCL's stream waits for what the device was asked. */
static pl_status start(nccl_group *g) {
  PL_TRY(pl_cuda_enter(g->group.device, &g->cuda));
  /* A replay would not say to the others that it begins. */
  PL_TRY(pl_cuda_refuse_recorded(g->cuda, "what ranks do together"));
  PL_TRY(pl_peers_begin(g->group.peers));
  PL_TRY(check_background(g));
  PL_CUDA_TRY(pl_cu.EventRecord(g->asked, g->cuda->stream));
  PL_CUDA_TRY(pl_cu.StreamWaitEvent(g->stream, g->asked, 0));
  g->running = true;
  return CHECK(g, nccl.group_start());
}

/* All that began since `start` becomes one launch; it must be ended also where one of its parts failed. */
static pl_status end(nccl_group *g, pl_status status) {
  int result = nccl.group_end();
  PL_TRY(status);
  return check(g, result, "nccl.group_end()", __LINE__);
}

/* One operation on each of the arrays, in one launch; kind PL_GROUP_KINDS is a broadcast from rank `from`. */
static pl_status run(pl_group *group, pl_group_kind kind, int from, const pl_array *const arrays[], int count) {
  nccl_group *g = (nccl_group *)group;
  pl_status status = PL_OK;
  PL_TRY(start(g));
  for (int i = 0; i < count && status == PL_OK; i++) {
    void *data = pl_array_data(arrays[i]);
    size_t elements = (size_t)pl_array_count(arrays[i]);
    int type = types[arrays[i]->dtype];
    if (elements == 0) continue;
    status = kind == PL_GROUP_KINDS
                 ? CHECK(g, nccl.broadcast(data, data, elements, type, from, g->communicator, g->stream))
                 : CHECK(g, nccl.all_reduce(data, data, elements, type, kinds[kind], g->communicator, g->stream));
  }
  return end(g, status);
}

static pl_status all_reduce(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count) {
  return run(group, kind, 0, arrays, count);
}

static pl_status broadcast(pl_group *group, int from, const pl_array *const arrays[], int count) {
  return run(group, PL_GROUP_KINDS, from, arrays, count);
}

static pl_status join(pl_group *group) {
  nccl_group *g = (nccl_group *)group;
  if (!g->running) return PL_OK;
  PL_TRY(pl_cuda_enter(group->device, &g->cuda));
  PL_CUDA_TRY(pl_cu.EventRecord(g->done, g->stream));
  PL_CUDA_TRY(pl_cu.StreamWaitEvent(g->cuda->stream, g->done, 0));
  g->running = false;
  return check_background(g);
}

static void give_up(pl_group *group) {
  nccl_group *g = (nccl_group *)group;
  if (g->communicator) (void)nccl.abort(g->communicator);
  g->communicator = NULL;
}

/* The stream stays: streams are few, and live as long as their context does. */
static void release(pl_group *group) {
  nccl_group *g = (nccl_group *)group;
  if (g->communicator && pl_cuda_enter(group->device, &g->cuda) == PL_OK) (void)nccl.destroy(g->communicator);
  if (g->asked) (void)PL_CUDA(pl_cu.EventDestroy(g->asked));
  if (g->done) (void)PL_CUDA(pl_cu.EventDestroy(g->done));
  free(g);
}

/* Rank 0's name for the group reaches all. */
static pl_status share(pl_peers *peers, unique_id *id) {
  if (pl_peers_rank(peers) != 0) return pl_peers_receive(peers, 0, id, sizeof *id);
  for (int rank = 1; rank < pl_peers_world(peers); rank++) PL_TRY(pl_peers_send(peers, rank, id, sizeof *id));
  return PL_OK;
}

static pl_status connect_all(nccl_group *g, pl_peers *peers) {
  unique_id id = {{0}};
  PL_TRY(pl_cuda_enter(g->group.device, &g->cuda));
  PL_TRY(pl_cuda_refuse_recorded(g->cuda, "what ranks do together"));
  PL_CUDA_TRY(pl_cu.StreamCreate(&g->stream, PL_CU_STREAM_NON_BLOCKING));
  PL_CUDA_TRY(pl_cu.EventCreate(&g->asked, PL_CU_EVENT_DISABLE_TIMING));
  PL_CUDA_TRY(pl_cu.EventCreate(&g->done, PL_CU_EVENT_DISABLE_TIMING));
  PL_TRY(pl_peers_begin(peers));
  if (pl_peers_rank(peers) == 0) PL_TRY(CHECK(g, nccl.get_unique_id(&id)));
  PL_TRY(share(peers, &id));
  return CHECK(g, nccl.init_rank(&g->communicator, pl_peers_world(peers), id, pl_peers_rank(peers)));
}

pl_status pl_nccl_group(pl_device *device, pl_peers *peers, pl_group **made) {
  PL_TRY(open_library());
  nccl_group *g = pl_allocate(sizeof *g);
  g->group = (pl_group){peers, device, all_reduce, broadcast, join, give_up, release};
  pl_status status = connect_all(g, peers);
  if (status == PL_OK)
    *made = &g->group;
  else {
    g->communicator = NULL;
    release(&g->group);
  }
  return status;
}
