/* Bytes as base64 (RFC 4648). */
#include "host/base/base64.h"

void pl_base64_append(pl_text *text, const void *bytes, size_t length) {
  const unsigned char *data = bytes;
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  char block[4];
  for (size_t i = 0; i < length; i += 3) {
    size_t left = length - i;
    unsigned bits =
        (unsigned)data[i] << 16 | (left > 1 ? (unsigned)data[i + 1] << 8 : 0) | (left > 2 ? data[i + 2] : 0);
    for (int k = 0; k < 4; k++) block[k] = digits[bits >> (18 - 6 * k) & 63];
    if (left < 3) block[3] = '=';
    if (left < 2) block[2] = '=';
    pl_text_append(text, block, 4);
  }
}
