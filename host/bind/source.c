/* Finds where the last expression of a chunk begins. A light tokenizer proposes places; the compiler decides. */
#include "host/bind/source.h"
#include "host/base/text.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

const char *const pl_source_keywords[] = {"and",      "break",  "do",   "else", "elseif", "end",   "false", "for",
                                          "function", "goto",   "if",   "in",   "local",  "nil",   "not",   "or",
                                          "repeat",   "return", "then", "true", "until",  "while", NULL};

typedef enum { NAME, KEYWORD, NUMBER, STRING, SYMBOL } kind;

/* depth counts the blocks and brackets that are open before the token. */
typedef struct {
  size_t start, length;
  kind kind;
  int depth;
} token;

typedef struct {
  const char *code;
  size_t length, at;
  token *tokens;
  size_t count, capacity;
  int depth;
} scanner;

/* ---- tokens ---- */

/* The level of a long bracket that opens at `at`, -1 when there is none. */
static int long_bracket(const scanner *s, size_t at) {
  if (at >= s->length || s->code[at] != '[') return -1;
  int level = 0;
  for (at++; at < s->length && s->code[at] == '='; at++) level++;
  return at < s->length && s->code[at] == '[' ? level : -1;
}

static void skip_long(scanner *s, int level) {
  for (s->at += (size_t)level + 2; s->at < s->length; s->at++) {
    if (s->code[s->at] != ']') continue;
    size_t equals = 0;
    while (s->at + 1 + equals < s->length && s->code[s->at + 1 + equals] == '=') equals++;
    size_t close = s->at + 1 + equals;
    if (equals == (size_t)level && close < s->length && s->code[close] == ']') {
      s->at = close + 1;
      return;
    }
  }
}

static void skip_blank(scanner *s) {
  while (s->at < s->length) {
    if (isspace((unsigned char)s->code[s->at]))
      s->at++;
    else if (s->length - s->at >= 2 && memcmp(s->code + s->at, "--", 2) == 0) {
      int level = long_bracket(s, s->at + 2);
      s->at += 2;
      if (level >= 0)
        skip_long(s, level);
      else
        while (s->at < s->length && s->code[s->at] != '\n') s->at++;
    } else
      return;
  }
}

static void skip_string(scanner *s) {
  char quote = s->code[s->at++];
  while (s->at < s->length && s->code[s->at] != quote) s->at += s->code[s->at] == '\\' ? 2 : 1;
  s->at = s->at < s->length ? s->at + 1 : s->length;
}

static void skip_symbol(scanner *s) {
  static const char *const longer[] = {"...", "..", "::", "~=", "==", "<=", ">=", "//", "<<", ">>"};
  for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) {
    size_t length = strlen(longer[i]);
    if (s->length - s->at >= length && memcmp(s->code + s->at, longer[i], length) == 0) {
      s->at += length;
      return;
    }
  }
  s->at++;
}

static bool is(const scanner *s, const token *t, const char *text) {
  return t->kind != STRING && strlen(text) == t->length && memcmp(s->code + t->start, text, t->length) == 0;
}

static bool is_one_of(const scanner *s, const token *t, const char *const *texts) {
  for (; *texts; texts++)
    if (is(s, t, *texts)) return true;
  return false;
}

static kind skip_token(scanner *s) {
  unsigned char first = (unsigned char)s->code[s->at];
  unsigned char second = s->at + 1 < s->length ? (unsigned char)s->code[s->at + 1] : 0;
  if (isalpha(first) || first == '_') {
    while (s->at < s->length && (isalnum((unsigned char)s->code[s->at]) || s->code[s->at] == '_')) s->at++;
    return NAME;
  }
  if (isdigit(first) || (first == '.' && isdigit(second))) {
    while (s->at < s->length && (isalnum((unsigned char)s->code[s->at]) || s->code[s->at] == '.' ||
                                 (strchr("+-", s->code[s->at]) && strchr("eEpP", s->code[s->at - 1]))))
      s->at++;
    return NUMBER;
  }
  int level = long_bracket(s, s->at);
  if (level >= 0)
    skip_long(s, level);
  else if (first == '"' || first == '\'')
    skip_string(s);
  else {
    skip_symbol(s);
    return SYMBOL;
  }
  return STRING;
}

/* Appends the next token; false at the end. */
static bool next_token(scanner *s) {
  static const char *const opening[] = {"function", "do", "if", "repeat", "(", "[", "{", NULL};
  static const char *const closing[] = {"end", "until", ")", "]", "}", NULL};
  skip_blank(s);
  if (s->at >= s->length) return false;
  token t = {.start = s->at, .depth = s->depth};
  t.kind = skip_token(s);
  t.length = s->at - t.start;
  if (t.kind == NAME && is_one_of(s, &t, pl_source_keywords)) t.kind = KEYWORD;
  s->depth += is_one_of(s, &t, opening) - is_one_of(s, &t, closing);
  if (s->count == s->capacity) {
    s->capacity = s->capacity ? 2 * s->capacity : 256;
    s->tokens = pl_reallocate(s->tokens, s->capacity * sizeof *s->tokens);
  }
  s->tokens[s->count++] = t;
  return true;
}

/* ---- where a last expression may begin ---- */

static bool ends_expression(const scanner *s, const token *t) {
  static const char *const ends[] = {")", "]", "}", "...", "nil", "true", "false", "end", NULL};
  return t->kind == NAME || t->kind == NUMBER || t->kind == STRING || is_one_of(s, t, ends);
}

static bool starts_expression(const scanner *s, const token *t) {
  static const char *const starts[] = {"(", "{", "-", "#", "~", "...", "nil", "true", "false", "not", "function", NULL};
  return t->kind == NAME || t->kind == NUMBER || t->kind == STRING || is_one_of(s, t, starts);
}

/* Whether a statement may begin at token i, judged by the token before it. */
static bool at_boundary(const scanner *s, size_t i) {
  if (i == 0) return true;
  const token *before = &s->tokens[i - 1];
  if (is(s, before, "::")) return i >= 3 && is(s, &s->tokens[i - 3], "::"); /* after a whole label */
  return is(s, before, ";") || is(s, before, "break") || ends_expression(s, before);
}

/* Whether token i could also go on with the expression before it: `f` newline `(x)` is a call. */
static bool is_ambiguous(const scanner *s, size_t i) {
  static const char *const suffixes[] = {"(", "{", NULL}, *const operators[] = {"-", "~", NULL};
  static const char *const callable[] = {")", "]", "}", NULL};
  if (i == 0 || !ends_expression(s, &s->tokens[i - 1])) return false;
  const token *t = &s->tokens[i], *before = &s->tokens[i - 1];
  if (is_one_of(s, t, operators)) return true;
  bool suffix = t->kind == STRING || is_one_of(s, t, suffixes);
  return suffix && (before->kind == NAME || before->kind == STRING || is_one_of(s, before, callable));
}

/* ---- compiling with a `return` in place ---- */

/* The variable to be closed keeps `return f()` from being a tail call, which would take the cell's own frame out of
 * tracebacks. */
static const char give_back[] = " local result__ <close> = nil return ";

typedef struct {
  const char *piece[3];
  size_t length[3];
  int next;
} pieces;

static const char *read_piece(lua_State *L, void *data, size_t *length) {
  (void)L;
  pieces *p = data;
  while (p->next < 3 && p->length[p->next] == 0) p->next++;
  *length = p->next < 3 ? p->length[p->next] : 0;
  return p->next < 3 ? p->piece[p->next++] : NULL;
}

static int compile(lua_State *L, const char *code, size_t length, const char *name, size_t at, const char *inserted) {
  pieces p = {{code, inserted, code + at}, {at, strlen(inserted), length - at}, 0};
  char chunk[256];
  snprintf(chunk, sizeof chunk, "=%s", name);
  return lua_load(L, read_piece, &p, chunk, "t");
}

/* Whether the message on top of the stack says that the text ended too early. */
static bool ended_early(lua_State *L) {
  size_t length;
  const char *message = lua_tolstring(L, -1, &length);
  return message && length >= 5 && strcmp(message + length - 5, "<eof>") == 0 && !strstr(message, "unfinished string");
}

int pl_source_load_expression(lua_State *L, const char *code, size_t length, const char *name) {
  return compile(L, code, length, name, 0, give_back);
}

/* How many places are tried in code that does not compile as it stands, before its error is believed. */
enum { TRIALS = 16 };

/* Tries `return` at likely places from the end backwards. Pushes the function and returns true, or pushes nothing. */
static bool load_with_return(lua_State *L, const scanner *s, const char *name, bool statement, bool ambiguous,
                             pl_source *source) {
  int trials = statement ? 1 : TRIALS; /* what compiles as it stands has just one last statement */
  for (size_t i = s->count; i-- > 0 && trials > 0;) {
    const token *t = &s->tokens[i];
    bool likely = statement ? t->kind == NAME || is(s, t, "(") : starts_expression(s, t);
    if (t->depth != 0 || !likely || !at_boundary(s, i) || is_ambiguous(s, i) != ambiguous) continue;
    trials--;
    if (compile(L, s->code, s->length, name, t->start, give_back) == LUA_OK) return true;
    source->incomplete |= ended_early(L);
    lua_pop(L, 1);
  }
  return false;
}

int pl_source_load(lua_State *L, const char *code, size_t length, const char *name, pl_source *source) {
  scanner s = {.code = code, .length = length};
  while (next_token(&s)) continue;
  *source = (pl_source){.silent = s.count > 0 && is(&s, &s.tokens[s.count - 1], ";")};
  int status = pl_source_load_expression(L, code, length, name);
  if (status == LUA_ERRSYNTAX) {
    bool early = source->incomplete = ended_early(L);
    if (compile(L, code, length, name, 0, "") == LUA_OK) {
      status = LUA_OK;
      if (load_with_return(L, &s, name, true, false, source)) lua_remove(L, -2);
    } else {
      source->incomplete |= ended_early(L);
      if (load_with_return(L, &s, name, false, false, source) || load_with_return(L, &s, name, false, true, source)) {
        status = LUA_OK;
        lua_remove(L, -2);
      } else if (early) /* as an expression it is only unfinished: that message says more */
        lua_insert(L, -2);
    }
    lua_remove(L, -2);
  }
  if (status == LUA_OK) source->incomplete = false;
  free(s.tokens);
  return status;
}

/* ---- locals ---- */

/* The names of the declaration whose `local` is token i. */
static void take_declared(const scanner *s, size_t i, void (*take)(void *context, const char *name, size_t length),
                          void *context) {
  if (++i < s->count && is(s, &s->tokens[i], "function")) i++;
  while (i < s->count && s->tokens[i].kind == NAME) {
    take(context, s->code + s->tokens[i].start, s->tokens[i].length);
    i++;
    if (i < s->count && is(s, &s->tokens[i], "<")) i += 3; /* an attribute */
    if (i >= s->count || !is(s, &s->tokens[i], ",")) return;
    i++;
  }
}

void pl_source_locals(const char *code, size_t length, void (*take)(void *context, const char *name, size_t length),
                      void *context) {
  scanner s = {.code = code, .length = length};
  while (next_token(&s)) continue;
  for (size_t i = 0; i < s.count; i++)
    if (s.tokens[i].depth == 0 && is(&s, &s.tokens[i], "local")) take_declared(&s, i, take, context);
  free(s.tokens);
}
