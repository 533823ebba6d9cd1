/* Status codes and the message of the last failure: how every function below host/bind reports what went wrong. */
#ifndef PL_BASE_STATUS_H
#define PL_BASE_STATUS_H

/* PL_LOST: a device can do nothing more before the program is started again. */
typedef enum { PL_OK = 0, PL_ERROR, PL_OUT_OF_MEMORY, PL_INTERRUPTED, PL_LOST } pl_status;

/* The message of the last failure on this thread; valid until the next failure. */
const char *pl_message(void);
/* The same without the expression and the place: what to keep of a failure that is raised again later, or that becomes
 * part of another's message. */
const char *pl_message_text(void);

/* Records a failure. The message should name the argument, what came and what was expected; the expression and the
 * place that noticed are appended to it. What is longer than 16 KiB is cut, and ends in "...". Use the macros below. */
pl_status pl_fail_at(pl_status status, const char *expression, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#define PL_FAIL(...)        pl_fail_at(PL_ERROR, 0, __FILE__, __LINE__, __VA_ARGS__)
#define PL_FAIL_MEMORY(...) pl_fail_at(PL_OUT_OF_MEMORY, 0, __FILE__, __LINE__, __VA_ARGS__)
#define PL_REQUIRE(condition, ...)                                                                                     \
  do {                                                                                                                 \
    if (!(condition)) return pl_fail_at(PL_ERROR, #condition, __FILE__, __LINE__, __VA_ARGS__);                        \
  } while (0)
#define PL_TRY(call)                                                                                                   \
  do {                                                                                                                 \
    pl_status status_of_call_ = (call);                                                                                \
    if (status_of_call_ != PL_OK) return status_of_call_;                                                              \
  } while (0)

/* Set from a signal handler or another thread when the user asks to stop; long loops return PL_INTERRUPTED by way of
 * pl_check_interrupt. The owner of the session clears it. */
void pl_interrupt_set(int on);
int pl_interrupt_pending(void);
pl_status pl_check_interrupt(void);

#endif
