/* Thread-local failure message and the process-wide interrupt flag. */
#include "host/base/status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[2048], message_text[1601];
static atomic_int interrupt_flag;

const char *pl_message(void) { return message; }
const char *pl_message_text(void) { return message_text; }

pl_status pl_fail_at(pl_status status, const char *expression, const char *file, int line, const char *format, ...) {
  /* Formatted aside first: an argument may be the current message itself. */
  char text[sizeof message];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  snprintf(message_text, sizeof message_text, "%.1600s", text);
  const char *slash = strstr(file, "/host/");
  if (slash) file = slash + 1;
  if (expression)
    snprintf(message, sizeof message, "%.1600s (%.200s, %s:%d)", text, expression, file, line);
  else
    snprintf(message, sizeof message, "%.1600s (%s:%d)", text, file, line);
  return status;
}

void pl_interrupt_set(int on) { atomic_store_explicit(&interrupt_flag, on, memory_order_relaxed); }
int pl_interrupt_pending(void) { return atomic_load_explicit(&interrupt_flag, memory_order_relaxed); }

pl_status pl_check_interrupt(void) {
  if (!pl_interrupt_pending()) return PL_OK;
  return pl_fail_at(PL_INTERRUPTED, 0, __FILE__, __LINE__, "interrupted");
}
