/* The one door through which host/jupyter and the notebook runner evaluate Lua. It hides the lua_State: code goes in,
 * streams, displays and an outcome come out. All calls on one thread, unless they say otherwise. */
#ifndef PL_BIND_SESSION_H
#define PL_BIND_SESSION_H

#include "host/base/text.h"
#include <jansson.h>
#include <stdbool.h>

typedef struct pl_session pl_session;

/* A message of a comm, in either direction; everything is borrowed. */
typedef struct {
  const char *type;       /* "comm_open", "comm_msg" or "comm_close" */
  const json_t *content;  /* comm_id, data, of comm_open also target_name */
  const json_t *metadata; /* NULL: empty */
  const pl_text *buffers; /* binary data behind the content */
  size_t buffer_count;
} pl_comm_message;

/* What a session tells its front end while code runs. Any may be NULL: then output goes to the process's own streams
 * and input comes from its standard input. */
typedef struct {
  void *context;
  /* name is "stdout" or "stderr"; data are the bytes as written, not yet checked for UTF-8. */
  void (*stream)(void *context, const char *name, const char *data, size_t length);
  /* type is "display_data", "update_display_data", "clear_output" or "error"; content is that message's content
   * (borrowed). */
  void (*display)(void *context, const char *type, json_t *content);
  /* Adds to the reply to the running code what the front end is to do next, such as to fill a cell (borrowed). */
  void (*payload)(void *context, json_t *content);
  void (*comm)(void *context, const pl_comm_message *message);
  /* The id of the message whose code runs: output messages name it as their parent. NULL while none runs. */
  const char *(*message_id)(void *context);
  /* Asks the user for one line. */
  pl_status (*input)(void *context, const char *prompt, bool password, pl_text *answer);
  /* Takes an event of the debugger (borrowed); where this is NULL, sessions have none. */
  void (*debug_event)(void *context, const json_t *event);
  /* Answers, by pl_session_debug, what has been asked of the debugger; called between two lines of code that runs or,
   * with `wait`, while it stands still: then it waits a moment for something to answer. */
  void (*attend)(void *context, bool wait);
} pl_frontend;

/* What became of a piece of code. */
typedef struct {
  bool ok;
  json_t *data, *metadata; /* MIME bundle of the result; NULL when there is none */
  json_t *ename, *evalue;  /* strings, when not ok */
  json_t *traceback;       /* array of strings, when not ok */
} pl_outcome;
void pl_outcome_release(pl_outcome *outcome);
/* The content of the message that tells of an outcome that is not ok; the first line of its traceback is red, by a
 * terminal's escape sequences. */
json_t *pl_outcome_error(const pl_outcome *outcome);

/* The version of Lua, "5.4.4". */
const char *pl_session_language_version(void);

pl_status pl_session_new(const pl_frontend *frontend, pl_session **session);
void pl_session_free(pl_session *session);

/* Runs `code` as a chunk named `name` ("In [3]"); the value of its last expression becomes the result. */
void pl_session_execute(pl_session *session, const char *code, size_t length, const char *name, pl_outcome *outcome);
/* Evaluates one expression, for user_expressions. Always fills data when ok. */
void pl_session_evaluate(pl_session *session, const char *expression, size_t length, pl_outcome *outcome);

/* Hands a message to the handlers that Lua code has registered for it, and to no one when there are none. The outcome
 * has no data; it is not ok when a handler failed. A comm_open whose target is unknown is answered by comm_close. */
void pl_session_comm(pl_session *session, const pl_comm_message *message, pl_outcome *outcome);
/* Open comms as comm_info_reply lists them: an object from ids to { target_name }; of one target, or of all for NULL.
 */
json_t *pl_session_comms(pl_session *session, const char *target);

typedef enum { PL_CODE_COMPLETE, PL_CODE_INCOMPLETE, PL_CODE_INVALID } pl_completeness;
/* For incomplete code `indent` gets the blanks that its next line should begin with. */
pl_completeness pl_session_is_complete(pl_session *session, const char *code, size_t length, pl_text *indent);

/* Names that may stand at byte `cursor`: an array of { text, type, signature } (signature may be missing), each to
 * replace code[*start, cursor). Runs no user code. */
json_t *pl_session_complete(pl_session *session, const char *code, size_t length, size_t cursor, size_t *start);
/* A MIME bundle of what is known of the name at byte `cursor`, or of the function whose arguments it is among; with
 * detail 1 also its source. NULL when nothing is known. Runs no user code. */
json_t *pl_session_inspect(pl_session *session, const char *code, size_t length, size_t cursor, int detail);

/* A new response to a request of the Debug Adapter Protocol, or to one of those that Jupyter adds to it. On the thread
 * of the session, while no code runs or within `attend`. */
json_t *pl_session_debug(pl_session *session, const json_t *request);
/* Has running code call `attend` soon; from any thread. C functions that take long delay it: ask again while nothing
 * was answered. */
void pl_session_attend(pl_session *session);

/* The GPUs that this process has used, from any thread: an array of { name, model, live, cached, peak, available, total
 * }, bytes; the last two, of the whole GPU, are missing when it does not answer. */
json_t *pl_session_gpus(void);

/* Stops the running code soon, from any thread or a signal handler: it ends with the error "interrupted". Without
 * running code it does nothing, unless code is awaited: then it ends that. */
void pl_session_interrupt(pl_session *session);
/* Says that code is about to come, or, with false, that none has. What runs it ends the waiting. */
void pl_session_await(pl_session *session, bool on);

#endif
