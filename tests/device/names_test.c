/* What asking for a device says when it is not there: why its kind was not found or this one was left out, and one
 * place in C. */
#include "host/device/device.h"
#include "tests/check.h"

static int places(const char *message) {
  int count = 0;
  for (; (message = strstr(message, ".c:")); message++) count++;
  return count;
}

static void describe_nothing(pl_text *text) { (void)text; }

static pl_status find_none(void) {
  const char *found = NULL;
  PL_REQUIRE(found, "none: nothing of the kind");
  return PL_OK;
}

static const char *left_out_nothing(void) { return NULL; }

/* A kind whose first device is too old and whose second is fine. */
static pl_device second = {.name = "some:1"};

static pl_status find_second(void) {
  pl_device_register(&second);
  return PL_OK;
}

static const char *left_out_first(void) { return "some: number 0 is too old"; }

static void print_states(const pl_cell *cell, pl_text *text) { pl_text_print(text, "%d states\n", cell->states); }

static void second_only(void) {
  static const pl_device_family some = {"some", find_second, describe_nothing, left_out_first, print_states, NULL};
  pl_device *device = NULL;
  pl_device_family_register(&some);
  CHECK(pl_device_named("some:1", &device) == PL_OK && device == &second);
  CHECK(pl_device_named("some", &device) != PL_OK);
  CHECK(says("there is no 'some' here; expected one of 'some:1'") && says("some: number 0 is too old"));
  CHECK(pl_device_named("some:0", &device) != PL_OK && says("some: number 0 is too old"));
  CHECK(pl_device_named("other", &device) != PL_OK && !says("too old"));
  pl_text text = {0};
  pl_device_cell_text(&(pl_cell){.states = 3}, &text);
  CHECK(strcmp(text.data, "text compiled for some\n3 states\n") == 0);
  pl_text_release(&text);
}

int main(void) {
  static const pl_device_family none = {"none", find_none, describe_nothing, left_out_nothing, NULL, NULL};
  pl_device *device = NULL;
  pl_text text = {0};
  pl_device_family_register(&none);
  for (int turn = 0; turn < 2; turn++) {
    CHECK(pl_device_named("none", &device) != PL_OK);
    CHECK(says("there is no 'none' here: none: nothing of the kind") && !says("found,"));
    CHECK(places(pl_message()) == 1);
  }
  CHECK(pl_device_named("none:1", &device) != PL_OK && says("'none:1' here: none: nothing of the kind"));
  CHECK(pl_device_named("other", &device) != PL_OK && says("there is no 'other' here; expected one of none"));
  pl_device_describe_all(&text);
  CHECK(strcmp(text.data, "none: nothing of the kind\n") == 0);
  pl_text_release(&text);
  second_only();
  return finished("names of devices");
}
