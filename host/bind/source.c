/* Finds where the last expression of a chunk begins. A light tokenizer proposes places; the compiler decides. The same
 * tokens are what completion and inspection read code by. */
#include "host/bind/source.h"
#include "host/base/text.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

static const char *const keywords[] = {"and",      "break",  "do",   "else", "elseif", "end",   "false", "for",
                                       "function", "goto",   "if",   "in",   "local",  "nil",   "not",   "or",
                                       "repeat",   "return", "then", "true", "until",  "while", NULL};

static const char TOKENS[] = "perilune.tokens"; /* an array of them that the collector frees */

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
  const char *open; /* "string" or "comment" that the text ends inside of, else NULL */
} scanner;

/* ---- tokens ---- */

/* The level of a long bracket that opens at `at`, -1 when there is none. */
static int long_bracket(const scanner *s, size_t at) {
  if (at >= s->length || s->code[at] != '[') return -1;
  int level = 0;
  for (at++; at < s->length && s->code[at] == '='; at++) level++;
  return at < s->length && s->code[at] == '[' ? level : -1;
}

/* `what` is a "string" or a "comment". Returns whether the closing bracket is there. */
static bool skip_long(scanner *s, int level, const char *what) {
  for (s->at += (size_t)level + 2; s->at < s->length; s->at++) {
    if (s->code[s->at] != ']') continue;
    size_t equals = 0;
    while (s->at + 1 + equals < s->length && s->code[s->at + 1 + equals] == '=') equals++;
    size_t close = s->at + 1 + equals;
    if (equals == (size_t)level && close < s->length && s->code[close] == ']') {
      s->at = close + 1;
      return true;
    }
  }
  s->at = s->length;
  s->open = what;
  return false;
}

static void skip_blank(scanner *s) {
  while (s->at < s->length) {
    if (isspace((unsigned char)s->code[s->at]))
      s->at++;
    else if (s->length - s->at >= 2 && memcmp(s->code + s->at, "--", 2) == 0) {
      int level = long_bracket(s, s->at + 2);
      s->at += 2;
      if (level >= 0)
        skip_long(s, level, "comment");
      else {
        while (s->at < s->length && s->code[s->at] != '\n') s->at++;
        if (s->at == s->length) s->open = "comment";
      }
    } else
      return;
  }
}

/* A string that lacks its closing quote ends with its line; "\\z" passes over white space, line ends included. */
static void skip_string(scanner *s) {
  char quote = s->code[s->at++];
  while (s->at < s->length && s->code[s->at] != quote && s->code[s->at] != '\n') {
    bool blanks = s->length - s->at >= 2 && memcmp(s->code + s->at, "\\z", 2) == 0;
    s->at += s->code[s->at] == '\\' ? 2 : 1;
    while (blanks && s->at < s->length && isspace((unsigned char)s->code[s->at])) s->at++;
  }
  if (s->at >= s->length) {
    s->at = s->length;
    s->open = "string";
  } else if (s->code[s->at] == quote)
    s->at++;
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

static const char *const opening[] = {"function", "do", "if", "repeat", "(", "[", "{", NULL};
static const char *const closing[] = {"end", "until", ")", "]", "}", NULL};

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
    skip_long(s, level, "string");
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
  skip_blank(s);
  if (s->at >= s->length) return false;
  token t = {.start = s->at, .depth = s->depth};
  t.kind = skip_token(s);
  t.length = s->at - t.start;
  if (t.kind == NAME && is_one_of(s, &t, keywords)) t.kind = KEYWORD;
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
    if (compile(L, s->code, s->length, name, t->start, give_back) == LUA_OK) {
      source->result = t->start;
      return true;
    }
    source->incomplete |= ended_early(L);
    lua_pop(L, 1);
  }
  return false;
}

int pl_source_load(lua_State *L, const char *code, size_t length, const char *name, pl_source *source) {
  scanner s = {.code = code, .length = length};
  while (next_token(&s)) continue;
  *source = (pl_source){.silent = s.count > 0 && is(&s, &s.tokens[s.count - 1], ";"), .result = PL_NO_RESULT};
  for (size_t i = 0; i < s.count; i++) source->functions |= is(&s, &s.tokens[i], "function");
  int status = pl_source_load_expression(L, code, length, name);
  if (status == LUA_OK && s.count > 0) source->result = s.tokens[0].start;
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

/* ---- the indent of the next line ---- */

/* The blanks that the line of a token begins with. */
static pl_text blanks(const scanner *s, const token *t) {
  size_t start = t->start, length = 0;
  while (start > 0 && s->code[start - 1] != '\n') start--;
  while (s->code[start + length] == ' ' || s->code[start + length] == '\t') length++;
  return (pl_text){.data = (char *)s->code + start, .length = length};
}

/* Looks at nothing but blanks: code may be one line of a million tokens. */
static bool begins_line(const scanner *s, size_t i) {
  size_t at = s->tokens[i].start;
  while (at > 0 && (s->code[at - 1] == ' ' || s->code[at - 1] == '\t')) at--;
  return at == 0 || s->code[at - 1] == '\n';
}

/* Whether the statement that token i stands in goes on behind it. */
static bool wants_more(const scanner *s, size_t i) {
  static const char *const unfinished[] = {
      "+",  "-", "*", "/", "//", "%", "^", "#",  "&",  "~",   "|",   "<<",  ">>",    "..",    "==",    "~=", "<=",
      ">=", "<", ">", "=", ",",  ".", ":", "in", "or", "and", "not", "for", "local", "until", "while", NULL};
  return is_one_of(s, &s->tokens[i], unfinished);
}

/* Whether token i begins a line that goes on with the statement of the line before. */
static bool continues(const scanner *s, size_t i) { return i > 0 && begins_line(s, i) && wants_more(s, i - 1); }

/* What the first line that is indented deeper than the one before has more than it. */
static pl_text step(const scanner *s) {
  pl_text last = {0};
  for (size_t i = 0; i < s->count; i++) {
    if (!begins_line(s, i)) continue;
    pl_text here = blanks(s, &s->tokens[i]);
    if (here.length > last.length && i > 0)
      return (pl_text){.data = here.data + last.length, .length = here.length - last.length};
    last = here;
  }
  return (pl_text){.data = (char *)"  ", .length = 2};
}

/* Whether the last token is a long string without its end. */
static bool ends_in_long_string(const scanner *s) {
  const token *t = &s->tokens[s->count - 1];
  int level = t->kind == STRING ? long_bracket(s, t->start) : -1;
  scanner rest = {.code = s->code, .length = s->length, .at = t->start};
  return level >= 0 && !skip_long(&rest, level, "string");
}

static void append(pl_text *indent, pl_text blank) { pl_text_append(indent, blank.data, blank.length); }

static void append_indent(const scanner *s, pl_text *indent) {
  static const char *const brackets[] = {"(", "[", "{", NULL}, *const branches[] = {"else", "elseif", NULL};
  size_t opener = s->count, neighbour = s->count, line = s->count - 1; /* s->count: there is none */
  bool in_condition = false;
  for (size_t i = 0; i < s->count; i++) {
    const token *t = &s->tokens[i];
    if (t->depth == s->depth - 1 && is_one_of(s, t, opening)) {
      opener = i, neighbour = s->count;
      in_condition = is(s, t, "if");
    } else if (t->depth == s->depth && is_one_of(s, t, branches))
      in_condition = is(s, t, "elseif");
    else if (t->depth == s->depth && is(s, t, "then"))
      in_condition = false;
    else if (t->depth == s->depth && begins_line(s, i) && !continues(s, i))
      neighbour = i;
  }
  while (line > 0 && !begins_line(s, line)) line--;
  bool in_block = opener == s->count || !is_one_of(s, &s->tokens[opener], brackets);
  bool goes_on = in_block && !in_condition && (opener == s->count || wants_more(s, s->count - 1));
  if (goes_on && continues(s, line)) { /* as the line before it, which goes on, too */
    append(indent, blanks(s, &s->tokens[line]));
    return;
  }
  size_t model = neighbour < s->count ? neighbour : opener < s->count ? opener : line;
  append(indent, blanks(s, &s->tokens[model]));
  if (model == opener) append(indent, step(s));
  if (goes_on) append(indent, step(s));
}

void pl_source_indent(const char *code, size_t length, pl_text *indent) {
  scanner s = {.code = code, .length = length};
  while (next_token(&s)) continue;
  pl_text_append(indent, "", 0);
  if (s.count > 0 && !ends_in_long_string(&s)) append_indent(&s, indent);
  free(s.tokens);
}

/* ---- tokens for Lua ---- */

/* tokens(code) -> kinds, firsts, lasts, open: per token its kind ("name", "keyword", "number", "string", "symbol") and
 * the places of its first and last byte; open is "string" or "comment" when the text ends inside one. */
static int tokens(lua_State *L) {
  static const char *const names[] = {"name", "keyword", "number", "string", "symbol"};
  scanner s = {.code = luaL_checklstring(L, 1, &s.length)};
  token **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, TOKENS);
  while (next_token(&s)) *box = s.tokens;
  for (int table = 0; table < 3; table++) lua_createtable(L, (int)s.count, 0);
  for (size_t i = 0; i < s.count; i++) {
    const token *t = &s.tokens[i];
    lua_pushstring(L, names[t->kind]), lua_rawseti(L, -4, (lua_Integer)i + 1);
    lua_pushinteger(L, (lua_Integer)t->start + 1), lua_rawseti(L, -3, (lua_Integer)i + 1);
    lua_pushinteger(L, (lua_Integer)(t->start + t->length)), lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_pushstring(L, s.open);
  return 4;
}

static int free_tokens(lua_State *L) {
  free(*(token **)lua_touserdata(L, 1));
  return 0;
}

void pl_register_source(lua_State *L) {
  lua_pushcfunction(L, tokens);
  lua_setfield(L, -2, "tokens");
  lua_newtable(L);
  for (int i = 0; keywords[i]; i++) lua_pushstring(L, keywords[i]), lua_seti(L, -2, i + 1);
  lua_setfield(L, -2, "keywords");
  luaL_newmetatable(L, TOKENS);
  lua_pushcfunction(L, free_tokens);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
