/* Buckets of gradients under a made-up group: what is sent, in which order, and while the backward pass still goes on.
 */
#include "host/cpu/cpu.h"
#include "host/tensor/buckets.h"
#include "host/tensor/operations.h"
#include "tests/check.h"

enum { PARAMETERS = 4, SIDE = 2048 }; /* 16 MiB each, but the last: two fill a bucket of 25 MB */

/* A call of all_reduce: how many arrays, the first one's parameter, and how many parameters had a gradient by then. */
typedef struct {
  int count, parameter, complete;
} call;

static pl_tensor *parameter[PARAMETERS];
static call calls[16];
static int call_count, joins;
static pl_status answer;

static pl_status all_reduce(pl_group *group, pl_group_kind kind, const pl_array *const arrays[], int count) {
  (void)group;
  call *now = &calls[call_count++];
  *now = (call){.count = count, .parameter = -1};
  CHECK(kind == PL_GROUP_MEAN);
  for (int i = 0; i < PARAMETERS; i++) {
    const pl_tensor *gradient = parameter[i]->gradient;
    now->complete += gradient != NULL;
    if (gradient && &gradient->array == arrays[0]) now->parameter = i;
    for (int k = 0; k < count && gradient; k++)
      CHECK(&gradient->array != arrays[k] || parameter[i]->awaited == 0); /* nothing more comes to what is sent */
  }
  return answer == PL_OK ? PL_OK : PL_FAIL("the group fails");
}

static pl_status join(pl_group *group) { return (void)group, joins++, PL_OK; }

/* The sum over x w1 w2 w3 + w4, where all but `without` take part; w2 does twice. */
static pl_tensor *loss_of(pl_tensor *x, int without) {
  pl_tensor *y = pl_tensor_retain(x), *next, *sum;
  for (int turn = 0; turn < PARAMETERS; turn++) {
    int i = turn < 3 ? turn : 1;
    if (i == without) continue;
    CHECK(pl_matmul(y, parameter[i], &next) == PL_OK);
    pl_tensor_release(y);
    y = next;
  }
  if (without != 3) {
    CHECK(pl_add(y, parameter[3], &next) == PL_OK);
    pl_tensor_release(y);
    y = next;
  }
  CHECK(pl_sum(y, 3, false, &sum) == PL_OK);
  pl_tensor_release(y);
  return sum;
}

static int run_on(pl_buckets *buckets, pl_tensor *loss, pl_status expected) {
  int missing;
  call_count = joins = 0;
  CHECK(pl_buckets_backward(buckets, loss, NULL, &missing) == expected);
  CHECK(joins == 1); /* whatever happened, memory must not be freed under what was sent */
  pl_tensor_release(loss);
  return missing;
}

static int run(pl_buckets *buckets, pl_tensor *x, int without, pl_status expected) {
  return run_on(buckets, loss_of(x, without), expected);
}

static void forget(void) {
  for (int i = 0; i < PARAMETERS; i++) {
    pl_tensor_release(parameter[i]->gradient);
    parameter[i]->gradient = NULL;
  }
}

int main(void) {
  pl_cpu_open();
  pl_device *cpu = pl_device_at(0);
  pl_group group = {.device = cpu, .all_reduce = all_reduce, .join = join};
  pl_tensor *x;
  pl_buckets *buckets;
  CHECK(pl_filled(cpu, PL_F32, 2, (int64_t[]){1, SIDE}, 1, &x) == PL_OK);
  for (int i = 0; i < PARAMETERS; i++) {
    CHECK(pl_filled(cpu, PL_F32, 2, (int64_t[]){i == 3 ? 1 : SIDE, SIDE}, 1.0 / SIDE, &parameter[i]) == PL_OK);
    CHECK(pl_tensor_want_gradient(parameter[i], true) == PL_OK);
  }
  CHECK(pl_buckets_new(&group, parameter, PARAMETERS, &buckets) == PL_OK);

  /* The first bucket has w4, w3 and w2, and goes before w1's gradient is there; w2's has come in two parts. */
  CHECK(run(buckets, x, -1, PL_OK) == -1);
  CHECK(call_count == 2);
  CHECK(calls[0].count == 3 && calls[0].parameter == 3 && calls[0].complete == 3);
  CHECK(calls[1].count == 1 && calls[1].parameter == 0 && calls[1].complete == 4);

  /* Gradients that are there already are added to, and the same is sent. */
  CHECK(run(buckets, x, -1, PL_OK) == -1);
  CHECK(call_count == 2 && calls[0].count == 3 && calls[1].count == 1);

  /* A parameter that this pass does not come to, but that has a gradient, is sent all the same. */
  CHECK(run(buckets, x, 2, PL_OK) == -1);
  CHECK(call_count == 2 && calls[0].count == 3);

  /* One that has none is named. */
  forget();
  CHECK(run(buckets, x, 2, PL_OK) == 2);
  forget();
  CHECK(run(buckets, x, 3, PL_OK) == 3);
  CHECK(call_count == 0);

  /* One that wants none is left out. */
  forget();
  CHECK(pl_tensor_want_gradient(parameter[2], false) == PL_OK);
  CHECK(run(buckets, x, -1, PL_OK) == -1);
  CHECK(call_count == 2 && calls[0].count == 2);
  CHECK(pl_tensor_want_gradient(parameter[2], true) == PL_OK);

  /* So is one that does no more when the graph is there already; the others of its bucket are waited for. */
  forget();
  pl_tensor *loss = loss_of(x, -1);
  CHECK(pl_tensor_want_gradient(parameter[3], false) == PL_OK);
  CHECK(run_on(buckets, loss, PL_OK) == -1);
  CHECK(call_count == 2 && calls[0].count == 2 && calls[0].parameter == 2 && calls[1].count == 1);
  CHECK(pl_tensor_want_gradient(parameter[3], true) == PL_OK);

  /* A failure of the group ends the pass, and leaves all as before for the next. */
  forget();
  answer = PL_ERROR;
  run(buckets, x, -1, PL_ERROR);
  CHECK(says("the group fails") && call_count == 1);
  answer = PL_OK;
  forget();
  CHECK(run(buckets, x, -1, PL_OK) == -1);
  CHECK(call_count == 2);

  forget();
  pl_buckets_release(buckets);
  for (int i = 0; i < PARAMETERS; i++) {
    CHECK(parameter[i]->count == 1 && parameter[i]->awaited == 0);
    pl_tensor_release(parameter[i]);
  }
  pl_tensor_release(x);
  return finished("buckets");
}
