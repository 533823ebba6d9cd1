/* Random identifiers from the kernel's generator. */
#include "host/base/uuid.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>

void pl_uuid(char text[PL_UUID_BYTES]) {
  uint8_t bytes[16];
  for (size_t got = 0; got < sizeof bytes;) {
    ssize_t more = getrandom(bytes + got, sizeof bytes - got, 0);
    if (more > 0) got += (size_t)more; /* otherwise a signal came between */
  }
  bytes[6] = (uint8_t)((bytes[6] & 0x0F) | 0x40);
  bytes[8] = (uint8_t)((bytes[8] & 0x3F) | 0x80);
  char *at = text;
  for (int i = 0; i < 16; i++) at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", bytes[i]);
}
