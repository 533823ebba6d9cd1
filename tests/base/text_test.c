/* Growing texts, UTF-8 repair and counting, long failure messages, and files written whole or not at all. Exits with 1
 * when anything differs.
 */
#include "host/base/file.h"
#include "host/base/text.h"
#include "tests/check.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A failure's message is whole up to 16 KiB; cut, it says so and stays UTF-8. */
static void test_long_message(void) {
  pl_text text = {0};
  for (int i = 0; i < 4000; i++) pl_text_print(&text, "%s", "€");
  CHECK(PL_FAIL("%s", text.data) == PL_ERROR && strcmp(pl_message_text(), text.data) == 0);
  CHECK(strncmp(pl_message(), text.data, text.length) == 0 && strstr(pl_message(), "text_test.c"));
  for (int i = 0; i < 4000; i++) pl_text_print(&text, "%s", "€");
  CHECK(PL_FAIL("a%s", text.data) == PL_ERROR);
  size_t length = strlen(pl_message_text());
  CHECK(length > 16000 && strcmp(pl_message_text() + length - 3, "...") == 0);
  CHECK(pl_utf8_unfinished(pl_message_text(), length - 3) == 0 && strstr(pl_message(), "... ("));
  pl_text_release(&text);
}

static void test_text(void) {
  pl_text text = {0};
  pl_text_append(&text, "", 0);
  CHECK(text.length == 0 && text.data && text.data[0] == 0);
  for (int i = 0; i < 1000; i++) pl_text_print(&text, "%d,", i);
  CHECK(text.length == 3890 && strlen(text.data) == 3890 && text.capacity > text.length);
  CHECK(strncmp(text.data, "0,1,2,3,", 8) == 0 && strcmp(text.data + 3886, "999,") == 0);
  pl_text_append(&text, "a\0b", 3);
  CHECK(text.length == 3893 && memcmp(text.data + 3890, "a\0b", 4) == 0);
  size_t capacity = text.capacity;
  pl_text_clear(&text);
  CHECK(text.length == 0 && text.data[0] == 0 && text.capacity == capacity);
  pl_text_print(&text, "%s", "");
  CHECK(text.length == 0);
  pl_text_release(&text);
  CHECK(!text.data && text.length == 0 && text.capacity == 0);
  pl_text_clear(&text);
  pl_text_release(&text);
  char *copy = pl_duplicate("word");
  CHECK(strcmp(copy, "word") == 0);
  free(copy);
  char *zeroed = pl_allocate(64);
  for (int i = 0; i < 64; i++) CHECK(zeroed[i] == 0);
  free(zeroed);
}

#define BAD "\xEF\xBF\xBD"

static void test_utf8(void) {
  /* What comes, what it becomes, and how many code points (or invalid bytes) that is. */
  static const struct {
    const char *given, *repaired;
    size_t count, unfinished;
  } cases[] = {
      {"", "", 0, 0},
      {"plain", "plain", 5, 0},
      {"\xC3\xA9", "\xC3\xA9", 1, 0},
      {"\xE2\x82\xAC!", "\xE2\x82\xAC!", 2, 0},
      {"\xF0\x9F\x8C\x99", "\xF0\x9F\x8C\x99", 1, 0},
      {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF", 1, 0},                 /* U+10FFFF */
      {"\xED\x9F\xBF\xEE\x80\x80", "\xED\x9F\xBF\xEE\x80\x80", 2, 0}, /* beside the surrogates */
      {"a\x80z", "a" BAD "z", 3, 0},                                  /* a lone continuation */
      {"\xFF\xFE", BAD BAD, 2, 0},
      {"\xC0\x80", BAD BAD, 2, 0},                 /* overlong */
      {"\xC1\xBF", BAD BAD, 2, 0},                 /* overlong */
      {"\xE0\x9F\xBF", BAD BAD BAD, 3, 0},         /* overlong */
      {"\xF0\x8F\xBF\xBF", BAD BAD BAD BAD, 4, 0}, /* overlong */
      {"\xED\xA0\x80", BAD BAD BAD, 3, 0},         /* a surrogate */
      {"\xF4\x90\x80\x80", BAD BAD BAD BAD, 4, 0}, /* past U+10FFFF */
      {"\xF5\x80\x80\x80", BAD BAD BAD BAD, 4, 0},
      {"x\xC3", "x" BAD, 2, 1},
      {"x\xE2", "x" BAD, 2, 1},
      {"x\xE2\x82", "x" BAD BAD, 3, 2},
      {"x\xF0\x9F\x8C", "x" BAD BAD BAD, 4, 3},
      {"x\xE2\x28", "x" BAD "(", 3, 0},
      {"\xE2\x82\xC3\xA9", BAD BAD "\xC3\xA9", 3, 0}, /* cut off by another */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    pl_text text = {0};
    size_t length = strlen(cases[i].given);
    pl_text_append_utf8(&text, cases[i].given, length);
    pl_text_append(&text, "", 0);
    bool same = strcmp(text.data, cases[i].repaired) == 0;
    same = same && pl_utf8_count(cases[i].given, length) == cases[i].count &&
           pl_utf8_count(text.data, text.length) == cases[i].count &&
           pl_utf8_unfinished(cases[i].given, length) == cases[i].unfinished;
    /* Amid text that is passed over by words. */
    pl_text amid = {0}, repaired = {0};
    pl_text_print(&amid, "seventeen letters%sand after it", cases[i].given);
    pl_text_print(&repaired, "seventeen letters%sand after it", cases[i].repaired);
    pl_text_clear(&text);
    pl_text_append_utf8(&text, amid.data, amid.length);
    same = same && strcmp(text.data, repaired.data) == 0;
    pl_text_release(&amid);
    pl_text_release(&repaired);
    if (!same) failures++, fprintf(stderr, "UTF-8 case %zu differs\n", i);
    pl_text_release(&text);
  }
  const char *mixed = "a\xC3\xA9\xF0\x9F\x8C\x99z";
  static const size_t offsets[] = {0, 1, 3, 7, 8, 8, 8};
  for (size_t i = 0; i < 7; i++) CHECK(pl_utf8_offset(mixed, 8, i) == offsets[i]);
  CHECK(pl_utf8_offset(mixed, 8, SIZE_MAX) == 8);
  pl_text text = {0};
  pl_text_append_utf8(&text, "a\0b", 3);
  CHECK(text.length == 3 && memcmp(text.data, "a\0b", 3) == 0);
  pl_text_release(&text);
}

static void test_files(void) {
  char folder[] = "/tmp/perilune-test-XXXXXX", path[128], deep[128];
  if (!mkdtemp(folder)) exit(2);
  snprintf(path, sizeof path, "%s/file", folder);
  snprintf(deep, sizeof deep, "%s/a/b/c", folder);
  pl_text text = {0};
  CHECK(pl_file_read(path, &text) == PL_ERROR && strstr(pl_message(), "cannot open") && strstr(pl_message(), path));
  CHECK(pl_file_write(path, (pl_piece[]){{"one\0", 4}, {NULL, 0}, {"two", 3}}, 3) == PL_OK);
  CHECK(pl_file_read(path, &text) == PL_OK && text.length == 7 && memcmp(text.data, "one\0two", 8) == 0);
  CHECK(chmod(path, 0640) == 0);
  CHECK(pl_file_write(path, NULL, 0) == PL_OK);
  CHECK(pl_file_read(path, &text) == PL_OK && text.length == 0 && text.data[0] == 0);
  struct stat state;
  CHECK(stat(path, &state) == 0 && (state.st_mode & 07777) == 0640); /* a replaced file keeps its mode */
  CHECK(pl_file_read(folder, &text) == PL_ERROR && strstr(pl_message(), "cannot read"));
  CHECK(pl_file_write(folder, &(pl_piece){"x", 1}, 1) == PL_ERROR && strstr(pl_message(), "cannot rename"));
  CHECK(pl_directory_create(deep) == PL_OK && pl_directory_create(deep) == PL_OK);
  CHECK(stat(deep, &state) == 0 && S_ISDIR(state.st_mode));
  snprintf(deep, sizeof deep, "%s/file/below", folder);
  CHECK(pl_directory_create(deep) == PL_ERROR && strstr(pl_message(), "cannot create the directory"));
  CHECK(pl_file_write(deep, &(pl_piece){"x", 1}, 1) == PL_ERROR && strstr(pl_message(), "cannot create a file beside"));
  size_t big = 3 << 20;
  char *bytes = pl_allocate(big);
  for (size_t i = 0; i < big; i++) bytes[i] = (char)(i * 7 >> 3);
  CHECK(pl_file_write(path, &(pl_piece){bytes, big}, 1) == PL_OK);
  CHECK(pl_file_read(path, &text) == PL_OK && text.length == big && memcmp(text.data, bytes, big) == 0);
  free(bytes);
  pl_text_release(&text);
  unlink(path);
  static const char *const folders[] = {"/a/b/c", "/a/b", "/a", ""};
  for (int i = 0; i < 4; i++) { /* fails when a temporary file was left */
    snprintf(path, sizeof path, "%s%s", folder, folders[i]);
    CHECK(rmdir(path) == 0);
  }
}

static pl_status fails(int level) {
  PL_REQUIRE(level < 2, "level: expected less than 2, got %d", level);
  return PL_FAIL("%s again", pl_message());
}

static void test_status(void) {
  CHECK(fails(2) == PL_ERROR && strstr(pl_message(), "level: expected less than 2, got 2 (level < 2, tests/") == NULL);
  CHECK(strstr(pl_message(), "level: expected less than 2, got 2 (level < 2, ") == pl_message());
  CHECK(fails(1) == PL_ERROR && strstr(pl_message(), "got 2 (level < 2") && strstr(pl_message(), " again ("));
  for (int i = 0; i < 1500; i++) fails(0); /* a message in a message, longer and longer: cut, never past the end */
  CHECK(strlen(pl_message()) < (16 << 10) + 512);
  CHECK(pl_check_interrupt() == PL_OK);
  pl_interrupt_set(1);
  CHECK(pl_interrupt_pending() && pl_check_interrupt() == PL_INTERRUPTED);
  pl_interrupt_set(0);
  CHECK(pl_check_interrupt() == PL_OK);
}

/* A link and a device stay what they are. */
static void test_special_files(void) {
  char folder[] = "/tmp/perilune_XXXXXX";
  CHECK(mkdtemp(folder));
  pl_text link = {0}, target = {0}, content = {0};
  pl_text_print(&link, "%s/link", folder);
  pl_text_print(&target, "%s/target", folder);
  pl_piece piece = {"new", 3};
  struct stat found;
  CHECK(pl_file_write(target.data, &piece, 0) == PL_OK && symlink("target", link.data) == 0);
  CHECK(pl_file_write(link.data, &piece, 1) == PL_OK);
  CHECK(lstat(link.data, &found) == 0 && S_ISLNK(found.st_mode));
  CHECK(pl_file_read(target.data, &content) == PL_OK && strcmp(content.data, "new") == 0);
  CHECK(pl_file_write("/dev/full", &piece, 1) == PL_ERROR && says("No space left"));
  CHECK(stat("/dev/full", &found) == 0 && S_ISCHR(found.st_mode));
  CHECK(pl_file_write(folder, &piece, 1) == PL_ERROR);
  unlink(link.data);
  unlink(target.data);
  CHECK(rmdir(folder) == 0);
  pl_text_release(&link);
  pl_text_release(&target);
  pl_text_release(&content);
}

int main(void) {
  test_text();
  test_long_message();
  test_utf8();
  test_files();
  test_special_files();
  test_status();
  return finished("texts");
}
