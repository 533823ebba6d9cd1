/* What kernel_info replies and notebook files say about the language. */
#ifndef PL_JUPYTER_LANGUAGE_H
#define PL_JUPYTER_LANGUAGE_H

#include <jansson.h>

/* A new object, its keys in alphabetical order as files have them. */
json_t *pl_language_info(void);

#endif
