/* Thread-local failure message and the process-wide interrupt flag. */
#include "host/base/status.h"

#include "host/base/text.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 16 << 10 }; /* a compiler's log may be long */
static _Thread_local char message[TEXT_BYTES + 512], message_text[TEXT_BYTES];
static atomic_int interrupt_flag;

const char *pl_message(void) { return message; }
const char *pl_message_text(void) { return message_text; }

pl_status pl_fail_at(pl_status status, const char *expression, const char *file, int line, const char *format, ...) {
  /* Formatted aside first: an argument may be the current message itself. */
  static const char cut[] = "...";
  char text[TEXT_BYTES];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length >= TEXT_BYTES) {
    size_t end = sizeof text - sizeof cut;
    memcpy(text + end - pl_utf8_unfinished(text, end), cut, sizeof cut);
  }
  memcpy(message_text, text, strlen(text) + 1);
  const char *slash = strstr(file, "/host/");
  if (slash) file = slash + 1;
  if (expression)
    snprintf(message, sizeof message, "%s (%.200s, %.200s:%d)", text, expression, file, line);
  else
    snprintf(message, sizeof message, "%s (%.200s:%d)", text, file, line);
  return status;
}

void pl_interrupt_set(int on) { atomic_store_explicit(&interrupt_flag, on, memory_order_relaxed); }
int pl_interrupt_pending(void) { return atomic_load_explicit(&interrupt_flag, memory_order_relaxed); }

pl_status pl_check_interrupt(void) {
  if (!pl_interrupt_pending()) return PL_OK;
  return pl_fail_at(PL_INTERRUPTED, 0, __FILE__, __LINE__, "interrupted");
}
