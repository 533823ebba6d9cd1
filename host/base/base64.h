/* Binary data in text: base64. */
#ifndef PL_BASE_BASE64_H
#define PL_BASE_BASE64_H

#include "host/base/text.h"

/* Appends the bytes as base64 with padding. */
void pl_base64_append(pl_text *text, const void *bytes, size_t length);

#endif
