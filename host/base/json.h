/* Writing JSON (on jansson's values): numbers as short as they can be read back, keys in their order, UTF-8 as it is.
 */
#ifndef PL_BASE_JSON_H
#define PL_BASE_JSON_H

#include "host/base/text.h"
#include <jansson.h>

/* Appends `value`. indent 0 writes one line; otherwise each item stands in a line of its own, indented by that many
 * spaces per level, as Python's json module and Jupyter write it. */
void pl_json_write(const json_t *value, int indent, pl_text *text);

/* The same members in the order of their keys, so that one value has one text; takes over `object`. */
json_t *pl_json_sorted(json_t *object);

#endif
