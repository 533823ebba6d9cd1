/* Redirection of Lua's standard streams to a front end. */
#include "host/bind/output.h"
#include "host/bind/display.h"
#include "host/bind/shell.h"

#include <lauxlib.h>
#include <string.h>

/* ---- output ---- */

static void stream(lua_State *L, const char *name, const char *data, size_t length) {
  const pl_frontend *frontend = pl_display_frontend(L);
  if (length) frontend->stream(frontend->context, name, data, length);
}

static int print(lua_State *L) {
  int count = lua_gettop(L);
  luaL_Buffer text;
  luaL_buffinit(L, &text);
  for (int i = 1; i <= count; i++) {
    if (i > 1) luaL_addchar(&text, '\t');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&text);
  }
  luaL_addchar(&text, '\n');
  luaL_pushresult(&text);
  size_t length;
  const char *data = lua_tolstring(L, -1, &length);
  stream(L, "stdout", data, length);
  return 0;
}

/* Sends the arguments from `first` on, as io.write does. */
static void write_values(lua_State *L, int first, const char *name) {
  int count = lua_gettop(L);
  for (int i = first; i <= count; i++) {
    size_t length;
    const char *data = luaL_checklstring(L, i, &length);
    stream(L, name, data, length);
  }
}

/* Calls the replaced function (upvalue 1) with the same arguments. */
static int call_original(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* The stream of the file at `index`, NULL when it is none of the standard ones (upvalues 2 stdout, 3 stderr, 4 stdin).
 */
static const char *standard_name(lua_State *L, int index) {
  static const char *const names[] = {"stdout", "stderr", "stdin"};
  for (int i = 0; i < 3; i++)
    if (lua_rawequal(L, index, lua_upvalueindex(2 + i))) return names[i];
  return NULL;
}

static int file_write(lua_State *L) {
  const char *name = standard_name(L, 1);
  if (!name || name[3] == 'i') return call_original(L);
  write_values(L, 2, name);
  lua_settop(L, 1);
  return 1;
}

/* Pushes the current default file: io.output or io.input (upvalue 5) without arguments. */
static const char *default_file(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(5));
  lua_call(L, 0, 1);
  return standard_name(L, -1);
}

static int io_write(lua_State *L) {
  int count = lua_gettop(L);
  const char *name = default_file(L);
  lua_pop(L, 1);
  if (!name || name[3] == 'i') return call_original(L);
  lua_settop(L, count);
  write_values(L, 1, name);
  default_file(L);
  return 1;
}

/* ---- input: whole lines from the front end, what is left of one kept in the registry ---- */

static const char rest_key;

/* Pushes the next line with its newline, or nil at the end of input ("\4" is how a front end says so). */
static bool next_line(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &rest_key) == LUA_TSTRING) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &rest_key);
    return true;
  }
  lua_pop(L, 1);
  pl_display_ask(L, "", false);
  if (lua_tostring(L, -1)[0] == 4) {
    lua_pop(L, 1);
    lua_pushnil(L);
    return false;
  }
  lua_pushliteral(L, "\n");
  lua_concat(L, 2);
  return true;
}

static void keep_rest(lua_State *L, const char *data, size_t length) {
  if (length == 0) return;
  lua_pushlstring(L, data, length);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &rest_key);
}

static void read_all(lua_State *L) {
  lua_pushliteral(L, "");
  while (next_line(L)) lua_concat(L, 2);
  lua_pop(L, 1);
}

/* Replaces the line on top of the stack by its first `wanted` bytes. */
static void cut_line(lua_State *L, size_t wanted) {
  size_t length;
  const char *line = lua_tolstring(L, -1, &length);
  if (wanted > length) wanted = length;
  lua_pushlstring(L, line, wanted);
  keep_rest(L, line + wanted, length - wanted);
  lua_remove(L, -2);
}

/* Pushes `wanted` bytes, fewer only at the end of input, and nil when there are none. */
static void read_bytes(lua_State *L, size_t wanted) {
  if (!next_line(L)) return;
  cut_line(L, wanted);
  while (lua_rawlen(L, -1) < wanted) {
    if (!next_line(L)) {
      lua_pop(L, 1);
      return;
    }
    cut_line(L, wanted - lua_rawlen(L, -2));
    lua_concat(L, 2);
  }
}

static const char BLANKS[] = " \t\n\v\f\r";

/* How much of `s` could be a numeral, as Lua takes it from a file. */
static size_t numeral_length(const char *s) {
  const char *at = s + (*s == '-' || *s == '+');
  bool hexadecimal = at[0] == '0' && (at[1] == 'x' || at[1] == 'X');
  if (hexadecimal) at += 2;
  const char *digits = hexadecimal ? "0123456789abcdefABCDEF" : "0123456789";
  size_t count = strspn(at, digits);
  at += count;
  if (*at == '.') {
    size_t more = strspn(++at, digits);
    at += more, count += more;
  }
  if (count > 0 && *at && strchr(hexadecimal ? "pP" : "eE", *at)) {
    at++;
    at += *at == '-' || *at == '+';
    at += strspn(at, "0123456789");
  }
  return (size_t)(at - s);
}

/* Pushes the number that comes next, past blanks and empty lines; nil when something else does. A line of which only
 * blanks are left is done with: the next question is for a new one. */
static void read_number(lua_State *L) {
  size_t length, blanks;
  const char *line;
  do {
    if (!next_line(L)) return;
    line = lua_tolstring(L, -1, &length);
    blanks = strspn(line, BLANKS);
    if (blanks == length) lua_pop(L, 1);
  } while (blanks == length);
  size_t numeral = numeral_length(line + blanks), taken = blanks + numeral;
  lua_pushlstring(L, line + blanks, numeral);
  taken += strspn(line + taken, BLANKS) == length - taken ? length - taken : 0;
  keep_rest(L, line + taken, length - taken);
  if (lua_stringtonumber(L, lua_tostring(L, -1)) == 0) lua_pushnil(L);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

static void drop_newline(lua_State *L) {
  size_t length;
  const char *line = lua_tolstring(L, -1, &length);
  lua_pushlstring(L, line, length - (line[length - 1] == '\n'));
  lua_remove(L, -2);
}

/* Pushes what one format asks for; nil at the end of input. */
static void read_format(lua_State *L, int format) {
  if (lua_type(L, format) == LUA_TNUMBER) {
    lua_Integer wanted = luaL_checkinteger(L, format);
    read_bytes(L, wanted < 0 ? 0 : (size_t)wanted);
    return;
  }
  const char *name = luaL_optstring(L, format, "l");
  char letter = name[0] == '*' ? name[1] : name[0];
  if (!letter || !strchr("lLna", letter)) luaL_argerror(L, format, "invalid format");
  if (letter == 'a')
    read_all(L);
  else if (letter == 'n')
    read_number(L);
  else if (next_line(L) && letter == 'l')
    drop_newline(L);
}

static int read_formats(lua_State *L, int first) {
  int last = lua_gettop(L);
  if (last < first) lua_settop(L, last = first);
  luaL_checkstack(L, last + 8, "too many formats");
  int count = 0;
  for (int format = first; format <= last; format++, count++) {
    read_format(L, format);
    lua_insert(L, last + 1 + count);
    lua_settop(L, last + 1 + count);
    if (lua_isnil(L, -1)) return count + 1;
  }
  return count;
}

static int file_read(lua_State *L) {
  const char *name = standard_name(L, 1);
  return name && name[3] == 'i' ? read_formats(L, 2) : call_original(L);
}

static int io_read(lua_State *L) {
  int count = lua_gettop(L);
  const char *name = default_file(L);
  lua_settop(L, count);
  return name && name[3] == 'i' ? read_formats(L, 1) : call_original(L);
}

/* One step of io.lines(): the formats are the upvalues, their number the first one. */
static int lines_step(lua_State *L) {
  int count = (int)lua_tointeger(L, lua_upvalueindex(1));
  lua_settop(L, 0);
  for (int i = 0; i < count; i++) lua_pushvalue(L, lua_upvalueindex(2 + i));
  return read_formats(L, 1);
}

static int lines_of_input(lua_State *L, int first) {
  int count = lua_gettop(L) >= first ? lua_gettop(L) - first + 1 : 0;
  luaL_argcheck(L, count <= 200, first, "too many formats");
  lua_pushinteger(L, count);
  lua_insert(L, -(count + 1));
  lua_pushcclosure(L, lines_step, count + 1);
  return 1;
}

static int file_lines(lua_State *L) {
  const char *name = standard_name(L, 1);
  return name && name[3] == 'i' ? lines_of_input(L, 2) : call_original(L);
}

static int io_lines(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) return call_original(L);
  lua_settop(L, lua_gettop(L) ? lua_gettop(L) : 1);
  int count = lua_gettop(L);
  const char *name = default_file(L);
  lua_settop(L, count);
  return name && name[3] == 'i' ? lines_of_input(L, 2) : call_original(L);
}

/* os.exit would end the process with everything the front end still expects of it. */
static int refuse_exit(lua_State *L) {
  return luaL_error(L, "os.exit: a session ends from its front end (shut down or restart); use error to stop a cell");
}

/* ---- putting them in place ---- */

/* Replaces field `name` of the table at `table` by `f`, which keeps the old one and the standard files as upvalues;
 * `io` is the stack index of the library and `deflt` the function that tells the default file. */
static void replace(lua_State *L, int table, int io, const char *name, lua_CFunction f, const char *deflt) {
  lua_getfield(L, table, name);
  static const char *const files[] = {"stdout", "stderr", "stdin"};
  for (int i = 0; i < 3; i++) lua_getfield(L, io, files[i]);
  lua_getfield(L, io, deflt);
  lua_pushcclosure(L, f, 5);
  lua_setfield(L, table, name);
}

void pl_output_redirect(lua_State *L) {
  const pl_frontend *frontend = pl_display_frontend(L);
  int top = lua_gettop(L);
  lua_getglobal(L, "io");
  luaL_getmetatable(L, LUA_FILEHANDLE);
  lua_getfield(L, -1, "__index");
  int io = top + 1, methods = top + 3;
  if (frontend->stream) {
    lua_pushcfunction(L, print);
    lua_setglobal(L, "print");
    lua_getglobal(L, "os");
    lua_pushcfunction(L, pl_shell_execute);
    lua_setfield(L, -2, "execute");
    lua_pushcfunction(L, refuse_exit);
    lua_setfield(L, -2, "exit");
    lua_pushcfunction(L, pl_shell_popen);
    lua_setfield(L, io, "popen");
    replace(L, io, io, "write", io_write, "output");
    replace(L, methods, io, "write", file_write, "output");
  }
  if (frontend->input) {
    replace(L, io, io, "read", io_read, "input");
    replace(L, io, io, "lines", io_lines, "input");
    replace(L, methods, io, "read", file_read, "input");
    replace(L, methods, io, "lines", file_lines, "input");
  }
  lua_settop(L, top);
}
