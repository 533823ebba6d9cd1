/* The inputs of cells, kept across sessions in a file that all kernels of a user share: history.jsonl in the user's
 * data folder. A line is [session, line, input]; lines that say anything else are passed over, so that a damaged file
 * costs what is damaged. Where no file can be kept, or PERILUNE_HISTORY is 0, the history is that of this session. */
#ifndef PL_JUPYTER_HISTORY_H
#define PL_JUPYTER_HISTORY_H

#include <jansson.h>
#include <stdbool.h>

typedef struct pl_history pl_history;

/* Touches no file before the first use. */
pl_history *pl_history_new(void);
void pl_history_free(pl_history *history);

/* Keeps what cell `line` of this session was given (a JSON string). What is longer than 1 MiB is not kept; of the whole
 * file the last 4 to 8 MiB are. */
void pl_history_add(pl_history *history, long line, const json_t *input);

typedef enum { PL_HISTORY_TAIL, PL_HISTORY_RANGE, PL_HISTORY_SEARCH } pl_history_kind;

/* As in history_request. */
typedef struct {
  pl_history_kind kind;
  json_int_t n;                    /* tail, search: the last n of them; negative: all */
  json_int_t session, start, stop; /* range: 0 is this session, -1 the one before; lines start..stop-1 */
  const char *pattern;             /* search: '*' stands for any text, '?' for one character */
  bool unique;                     /* search: of equal inputs only the last */
  bool output;                     /* entries hold [input, null] in place of the input: outputs are not kept */
} pl_history_query;

/* A new array of [session, line, input], oldest first. */
json_t *pl_history_find(pl_history *history, const pl_history_query *query);

#endif
