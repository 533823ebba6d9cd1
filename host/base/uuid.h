/* Random identifiers (version 4 UUIDs). */
#ifndef PL_BASE_UUID_H
#define PL_BASE_UUID_H

enum { PL_UUID_BYTES = 37 };
/* Fills in 36 characters and the NUL. */
void pl_uuid(char text[PL_UUID_BYTES]);

#endif
