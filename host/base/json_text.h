/* Finding values in the text of a JSON document, so that a file can be changed in some places while every other byte
 * stays: jansson's trees lose the form of numbers, escapes and blanks. */
#ifndef PL_BASE_JSON_TEXT_H
#define PL_BASE_JSON_TEXT_H

#include "host/base/text.h"
#include <stdbool.h>

/* The bytes begin..end-1 of the text. */
typedef struct {
  size_t begin, end;
} pl_json_span;

/* Whether the text is one JSON value; if not, the message says where and what. NaN and Infinity pass, which Python
 * writes. The functions below rely on it. */
pl_status pl_json_text_check(const pl_text *text, pl_json_span *value);

/* The members of an object, or the items of an array (then `key` is empty):
 *   pl_json_walk w = pl_json_walk_in(text, span);
 *   while (pl_json_walk_next(&w)) ... w.key with its quotes, w.value ... */
typedef struct {
  const char *text;
  size_t at;
  pl_json_span key, value;
} pl_json_walk;
pl_json_walk pl_json_walk_in(const pl_text *text, pl_json_span container);
bool pl_json_walk_next(pl_json_walk *walk);

/* The value of a member, of several with that name the last, as parsers take it. `object` may be of any type. Keys are
 * compared as they are written. */
bool pl_json_find(const pl_text *text, pl_json_span object, const char *key, pl_json_span *value);

#endif
