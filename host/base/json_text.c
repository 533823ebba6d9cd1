/* A scanner of JSON text. */
#include "host/base/json_text.h"

#include <ctype.h>
#include <string.h>

enum { DEPTH_MAX = 1000 };

typedef struct {
  const char *text; /* ends with NUL, which no token contains */
  size_t at, length;
  const char *problem;
  int depth;
} scanner;

static bool scan_value(scanner *s);

static bool refuse(scanner *s, const char *problem) {
  s->problem = s->at < s->length ? problem : "the text ends too early";
  return false;
}

static void skip_blank(scanner *s) { s->at += strspn(s->text + s->at, " \t\r\n"); }

static bool scan_escape(scanner *s) {
  char letter = s->text[s->at + 1];
  if (letter == 'u') {
    for (int i = 2; i < 6; i++)
      if (!isxdigit((unsigned char)s->text[s->at + i])) return refuse(s, "\\u needs four hexadecimal digits");
    s->at += 6;
    return true;
  }
  if (!letter || !strchr("\"\\/bfnrt", letter)) return refuse(s, "an unknown escape");
  s->at += 2;
  return true;
}

static bool scan_string(scanner *s) {
  if (s->text[s->at] != '"') return refuse(s, "a string is expected");
  for (s->at++; s->text[s->at] != '"';) {
    if ((unsigned char)s->text[s->at] < 0x20) return refuse(s, "a control character in a string");
    if (s->text[s->at] != '\\')
      s->at++;
    else if (!scan_escape(s))
      return false;
  }
  s->at++;
  return true;
}

static bool scan_digits(scanner *s) {
  if (!isdigit((unsigned char)s->text[s->at])) return refuse(s, "a digit is expected");
  while (isdigit((unsigned char)s->text[s->at])) s->at++;
  return true;
}

static bool scan_number(scanner *s) {
  s->at += s->text[s->at] == '-';
  if (s->text[s->at] == '0')
    s->at++;
  else if (!scan_digits(s))
    return false;
  if (s->text[s->at] == '.') {
    s->at++;
    if (!scan_digits(s)) return false;
  }
  if (s->text[s->at] != 'e' && s->text[s->at] != 'E') return true;
  s->at++;
  if (s->text[s->at] == '+' || s->text[s->at] == '-') s->at++;
  return scan_digits(s);
}

static bool scan_word(scanner *s) {
  static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    size_t length = strlen(words[i]);
    if (strncmp(s->text + s->at, words[i], length) != 0) continue;
    s->at += length;
    return true;
  }
  return false;
}

static bool scan_member(scanner *s) {
  if (!scan_string(s)) return false;
  skip_blank(s);
  if (s->text[s->at] != ':') return refuse(s, "':' is expected");
  s->at++;
  skip_blank(s);
  return scan_value(s);
}

/* What stands between two brackets. */
static bool scan_items(scanner *s, char close, bool (*item)(scanner *)) {
  if (++s->depth > DEPTH_MAX) return refuse(s, "it is nested too deeply");
  s->at++;
  skip_blank(s);
  if (s->text[s->at] == close) {
    s->at++;
    s->depth--;
    return true;
  }
  for (;;) {
    if (!item(s)) return false;
    skip_blank(s);
    char separator = s->text[s->at];
    if (separator != ',' && separator != close)
      return refuse(s, close == '}' ? "',' or '}' is expected" : "',' or ']' is expected");
    s->at++;
    if (separator == close) break;
    skip_blank(s);
  }
  s->depth--;
  return true;
}

static bool scan_value(scanner *s) {
  switch (s->text[s->at]) {
  case '{':
    return scan_items(s, '}', scan_member);
  case '[':
    return scan_items(s, ']', scan_value);
  case '"':
    return scan_string(s);
  default:
    if (scan_word(s)) return true;
    if (s->text[s->at] == '-' || isdigit((unsigned char)s->text[s->at])) return scan_number(s);
    return refuse(s, "a value is expected");
  }
}

static pl_status complain(const scanner *s) {
  int line = 1;
  size_t start = 0;
  for (size_t i = 0; i < s->at && i < s->length; i++)
    if (s->text[i] == '\n') line++, start = i + 1;
  return PL_FAIL("line %d, column %zu: %s", line, s->at - start + 1, s->problem);
}

pl_status pl_json_text_check(const pl_text *text, pl_json_span *value) {
  scanner s = {.text = text->data ? text->data : "", .length = text->length};
  skip_blank(&s);
  value->begin = s.at;
  bool whole = scan_value(&s);
  value->end = s.at;
  if (whole) {
    skip_blank(&s);
    if (s.at < s.length) whole = refuse(&s, "the text goes on after its value");
  }
  return whole ? PL_OK : complain(&s);
}

pl_json_walk pl_json_walk_in(const pl_text *text, pl_json_span container) {
  return (pl_json_walk){.text = text->data, .at = container.begin};
}

bool pl_json_walk_next(pl_json_walk *walk) {
  scanner s = {.text = walk->text, .at = walk->at};
  skip_blank(&s);
  if (!strchr("{[,", s.text[s.at])) return false; /* the closing bracket, or no container at all */
  bool first = s.text[s.at] != ',';
  bool object = first ? s.text[s.at] == '{' : walk->key.end > walk->key.begin;
  s.at++;
  skip_blank(&s);
  if (first && strchr("}]", s.text[s.at])) return false;
  walk->key = (pl_json_span){s.at, s.at};
  if (object) {
    scan_string(&s);
    walk->key.end = s.at;
    skip_blank(&s);
    s.at++; /* ':' */
    skip_blank(&s);
  }
  walk->value.begin = s.at;
  scan_value(&s);
  walk->value.end = walk->at = s.at;
  return true;
}

bool pl_json_find(const pl_text *text, pl_json_span object, const char *key, pl_json_span *value) {
  bool found = false;
  size_t length = strlen(key);
  if (text->data[object.begin] != '{') return false;
  for (pl_json_walk w = pl_json_walk_in(text, object); pl_json_walk_next(&w);)
    if (w.key.end - w.key.begin == length + 2 && memcmp(text->data + w.key.begin + 1, key, length) == 0) {
      *value = w.value;
      found = true;
    }
  return found;
}
