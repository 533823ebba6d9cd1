/* A made-up NCCL for tests without GPUs, whose memory is the host's: every rank is taken to have the same float32
 * values as this one, operations must stand between group start and end, and the control file says what fails. */
#include "tests/fakes/control.h"

typedef struct {
  char bytes[128];
} id;
typedef struct ncclComm {
  int world, rank;
} communicator;

enum { INVALID_USAGE = 5, FLOAT = 7, SUM = 0 };

int ncclGetUniqueId(id *made);
int ncclCommInitRank(communicator **made, int world, id name, int rank);
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, communicator *c, void *stream);
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, communicator *c, void *stream);
int ncclGroupStart(void);
int ncclGroupEnd(void);
int ncclCommGetAsyncError(communicator *c, int *result);
int ncclCommAbort(communicator *c);
int ncclCommDestroy(communicator *c);
const char *ncclGetErrorString(int result);
const char *ncclGetLastError(communicator *c);

static int depth; /* of groups */

int ncclGetUniqueId(id *made) {
  snprintf(made->bytes, sizeof made->bytes, "the job's name");
  return (int)fake_setting("ncclGetUniqueId", 0);
}

int ncclCommInitRank(communicator **made, int world, id name, int rank) {
  int result = (int)fake_setting("ncclCommInitRank", 0);
  if (result == 0 && strcmp(name.bytes, "the job's name") != 0) result = INVALID_USAGE;
  if (result) return result;
  *made = malloc(sizeof **made);
  **made = (communicator){world, rank};
  return 0;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, communicator *c, void *stream) {
  int result = (int)fake_setting("ncclAllReduce", 0);
  if (result == 0 && (depth != 1 || type != FLOAT || from != to || !stream)) result = INVALID_USAGE;
  if (result) return result;
  for (size_t i = 0; i < count && op == SUM; i++) ((float *)to)[i] *= (float)c->world;
  return 0;
}

int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, communicator *c, void *stream) {
  (void)count;
  int result = (int)fake_setting("ncclBroadcast", 0);
  if (depth != 1 || type != FLOAT || from != to || !stream || root >= c->world) result = INVALID_USAGE;
  return result;
}

int ncclGroupStart(void) {
  depth++;
  return 0;
}

int ncclGroupEnd(void) {
  depth--;
  return (int)fake_setting("ncclGroupEnd", 0);
}

int ncclCommGetAsyncError(communicator *c, int *result) {
  (void)c;
  *result = (int)fake_setting("background", 0);
  return 0;
}

/* Says so, for nothing else is seen of it. */
int ncclCommAbort(communicator *c) {
  printf("given up\n");
  fflush(stdout);
  free(c);
  return 0;
}

int ncclCommDestroy(communicator *c) {
  printf("destroyed\n");
  fflush(stdout);
  free(c);
  return 0;
}

const char *ncclGetErrorString(int result) { return result == INVALID_USAGE ? "invalid usage" : "remote error"; }

const char *ncclGetLastError(communicator *c) { return c ? "the last words" : "no words"; }
