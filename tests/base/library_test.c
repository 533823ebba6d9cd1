/* Loading of libraries: the first name that opens, symbols all or none, and what a failure says. */
#include "host/base/library.h"
#include "tests/check.h"

static int works;
static double (*cosine)(double), (*other)(double);

static pl_status load(const char *const names[2], const char *folder, const char *second) {
  const pl_symbol symbols[] = {{"cos", &cosine}, {second, &other}};
  cosine = other = NULL;
  return pl_library_load(&(pl_library){.what = "test: the library of cosines",
                                       .advice = "install libm",
                                       .names = names,
                                       .name_count = 2,
                                       .folder = folder,
                                       .symbols = symbols,
                                       .symbol_count = 2});
}

static pl_status fail(void) {
  works++;
  return PL_FAIL("no luck");
}

static pl_status succeed(void) {
  works++;
  return PL_OK;
}

int main(void) {
  static const char *const second_is_there[] = {"libno-such.so.1", "libm.so.6"};
  static const char *const none[] = {"libno-such.so.1", "libno-such.so.0"};
  CHECK(load(second_is_there, NULL, "sin") == PL_OK && cosine && other && cosine(0) == 1 && other(0) == 0);
  CHECK(load(second_is_there, NULL, "no_such_function") == PL_ERROR && !cosine && !other);
  CHECK(says("the library of cosines lacks no_such_function: install libm"));
  CHECK(load(none, "/no/folder", "sin") == PL_ERROR && !cosine && !other);
  CHECK(says("the library of cosines cannot be loaded: install libm (libno-such.so.1: "));
  CHECK(says("/no/folder/libno-such.so.1: ") && says("; /no/folder/libno-such.so.0: "));

  static pl_attempt first, second;
  for (int turn = 0; turn < 2; turn++) {
    CHECK(pl_attempt_once(&first, fail) == PL_ERROR && says("no luck"));
    CHECK(pl_attempt_once(&second, succeed) == PL_OK);
  }
  CHECK(works == 2);
  return finished("libraries");
}
