/* Finding values in JSON text, and what is no JSON. */
#include "host/base/json_text.h"
#include "tests/check.h"

#include <string.h>

static pl_status check(const char *json, size_t length, pl_json_span *value) {
  pl_text text = {0};
  pl_text_append(&text, json, length);
  pl_status status = pl_json_text_check(&text, value);
  pl_text_release(&text);
  return status;
}

static void test_check(void) {
  static const char *const whole[] = {
      "{}", " [ ] ", "\"\\u00e9\\\\\\\"\"", "-0.5e+10",         "[1,2 , {\"a\":null}]",
      "0",  "NaN",   "[-Infinity,true]",    "{\"\":{\"\":[]}}", "123456789012345678901234567890"};
  static const char *const broken[][2] = {{"", "line 1, column 1: the text ends too early"},
                                          {"[1,", "ends too early"},
                                          {"{\"a\" 1}", "column 6: ':' is expected"},
                                          {"[1 2]", "',' or ']' is expected"},
                                          {"{\"a\":1]", "',' or '}' is expected"},
                                          {"[01]", "',' or ']' is expected"},
                                          {"[1,]", "a value is expected"},
                                          {"{1:2}", "a string is expected"},
                                          {"[1]\n x", "line 2, column 2: the text goes on"},
                                          {"\"\\x\"", "an unknown escape"},
                                          {"\"\\u12g4\"", "\\u needs four hexadecimal digits"},
                                          {"\"a\nb\"", "a control character"},
                                          {"[1.]", "a digit is expected"},
                                          {"\"open", "ends too early"},
                                          {"nul", "a value is expected"},
                                          {"[-]", "a digit is expected"}};
  pl_json_span value;
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) CHECK(check(whole[i], strlen(whole[i]), &value) == PL_OK);
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
    CHECK(check(broken[i][0], strlen(broken[i][0]), &value) == PL_ERROR);
    CHECK(says(broken[i][1]));
  }
  CHECK(check("[\"a\0b\"]", 7, &value) == PL_ERROR);
  CHECK(check("1\0", 2, &value) == PL_ERROR);
}

static void test_depth(void) {
  pl_text deep = {0};
  for (int i = 0; i < 100000; i++) pl_text_append(&deep, "[", 1);
  pl_json_span value;
  CHECK(pl_json_text_check(&deep, &value) == PL_ERROR);
  CHECK(says("nested too deeply"));
  pl_text_release(&deep);
}

static bool equals(const pl_text *text, pl_json_span span, const char *with) {
  return span.end - span.begin == strlen(with) && memcmp(text->data + span.begin, with, strlen(with)) == 0;
}

static void test_find(void) {
  pl_text text = {0};
  pl_text_print(&text, " { \"a\" : [1 , {\"b\":[]}] ,\"ab\":2,\"b\":\"x\", \"b\" : \"]\" } ");
  pl_json_span object, value;
  CHECK(pl_json_text_check(&text, &object) == PL_OK);
  CHECK(pl_json_find(&text, object, "ab", &value) && equals(&text, value, "2"));
  CHECK(pl_json_find(&text, object, "b", &value) && equals(&text, value, "\"]\""));
  CHECK(!pl_json_find(&text, object, "", &value));
  CHECK(pl_json_find(&text, object, "a", &value) && equals(&text, value, "[1 , {\"b\":[]}]"));
  CHECK(!pl_json_find(&text, value, "b", &object));
  static const char *const items[] = {"1", "{\"b\":[]}"};
  size_t count = 0;
  for (pl_json_walk w = pl_json_walk_in(&text, value); pl_json_walk_next(&w); count++)
    CHECK(count < 2 && w.key.begin == w.key.end && equals(&text, w.value, items[count]));
  CHECK(count == 2);
  pl_text_release(&text);
}

int main(void) {
  test_check();
  test_depth();
  test_find();
  return finished("JSON text");
}
