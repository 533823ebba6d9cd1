/* Children: programs that run at the same time, each a process group of its own with its output in a file. None
 * outlives the process that started it, however that one ends. A lock may be handed to a child, and is then held until
 * both are gone, so that nobody else takes it while either still writes. */
#include "host/bind/process.h"
#include "host/base/clock.h"
#include "host/base/home.h"
#include "host/bind/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char CHILDREN[] = "perilune.children", LOCK[] = "perilune.lock";

/* ---- locks ---- */

/* A file descriptor; -1 once it is given back. The lock belongs to the open file, not to the process: children that
 * inherit the descriptor hold it, too. */
typedef struct {
  int file;
} lock;

static int close_lock(lua_State *L) {
  lock *held = luaL_checkudata(L, 1, LOCK);
  if (held->file >= 0) close(held->file);
  held->file = -1;
  return 0;
}

/* lock(path) -> a lock, which its method close gives back, or nil while somebody else holds it */
static int take_lock(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  lock *held = lua_newuserdatauv(L, sizeof *held, 0);
  held->file = -1;
  luaL_setmetatable(L, LOCK);
  held->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (held->file < 0) return pl_error(L, "lock: cannot open '%s': %s", path, strerror(errno));
  if (fcntl(held->file, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK}) == 0) return 1;
  if (errno != EAGAIN && errno != EACCES) return pl_error(L, "lock: cannot lock '%s': %s", path, strerror(errno));
  lua_pushnil(L);
  return 1;
}

/* locked(path) -> whether somebody holds the lock; asking takes it from nobody */
static int is_locked(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct flock found = {.l_type = F_WRLCK};
  int file = open(path, O_RDONLY | O_CLOEXEC), asked = -1;
  bool missing = file < 0 && errno == ENOENT;
  if (file >= 0) asked = fcntl(file, F_OFD_GETLK, &found);
  int error = errno;
  if (file >= 0) close(file);
  if (asked < 0 && !missing) return pl_error(L, "locked: cannot ask for '%s': %s", path, strerror(error));
  lua_pushboolean(L, !missing && found.l_type != F_UNLCK);
  return 1;
}

/* ---- children ---- */

typedef struct {
  int most, count;
  pid_t list[]; /* those that nobody has waited for yet */
} children;

/* children(most) -> children, of whom at most so many run at once; when they are closed, or collected, those that run
 * are ended */
static int new_children(lua_State *L) {
  lua_Integer most = luaL_checkinteger(L, 1);
  if (most < 1 || most > 4096) return pl_error(L, "children: most: expected 1..4096, got %I", most);
  children *made = lua_newuserdatauv(L, sizeof *made + (size_t)most * sizeof made->list[0], 0);
  made->most = (int)most;
  made->count = 0;
  luaL_setmetatable(L, CHILDREN);
  return 1;
}

typedef struct {
  const char *folder, *output;
  int file, lock; /* of the output; of the lock, or -1 */
  char **words;
} beginning;

/* In the child: nothing but calls that are allowed between fork and exec. */
static void become(const beginning *b, pid_t parent) {
  static const char complaint[] = "cannot enter the folder, or run the program\n";
  sigset_t none;
  sigemptyset(&none);
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127); /* it ended before it could be watched */
  signal(SIGPIPE, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  int nothing = open("/dev/null", O_RDONLY);
  bool ready = nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 && dup2(b->file, STDOUT_FILENO) >= 0 &&
               dup2(b->file, STDERR_FILENO) >= 0 && chdir(b->folder) == 0;
  if (b->lock >= 0) fcntl(b->lock, F_SETFD, 0);
  if (ready) execv(b->words[0], b->words);
  ssize_t put = write(STDERR_FILENO, complaint, sizeof complaint - 1);
  (void)put;
  _exit(127);
}

/* The words of the table at 2, and NULL behind them, in a userdata left on the stack; the table keeps the texts. */
static char **check_words(lua_State *L) {
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_Integer count = luaL_len(L, 2);
  char **words = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *words, 0);
  for (lua_Integer i = 0; i < count; i++) {
    if (lua_geti(L, 2, i + 1) != LUA_TSTRING)
      pl_error(L, "start: words: expected strings, got %s", luaL_typename(L, -1));
    words[i] = (char *)lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  if (count == 0) pl_error(L, "start: words: expected a program and its arguments, got an empty table");
  words[count] = NULL;
  return words;
}

/* children:start(words, folder, output [, lock]) -> process number: runs the program words[1] with its arguments in a
 * folder, without input, what it prints being put at the end of the file `output`; it holds the lock, too */
static int start(lua_State *L) {
  children *all = luaL_checkudata(L, 1, CHILDREN);
  lock *held = lua_isnoneornil(L, 5) ? NULL : luaL_checkudata(L, 5, LOCK);
  beginning b = {.folder = luaL_checkstring(L, 3), .output = luaL_checkstring(L, 4)};
  b.lock = held ? held->file : -1;
  b.words = check_words(L);
  if (all->count == all->most) return pl_error(L, "start: %d children run, and no more are allowed", all->count);
  b.file = open(b.output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (b.file < 0) return pl_error(L, "start: cannot open '%s': %s", b.output, strerror(errno));
  pid_t parent = getpid(), child = fork();
  int error = errno;
  if (child == 0) become(&b, parent);
  close(b.file);
  if (child < 0) return pl_error(L, "start: cannot start '%s': %s", b.words[0], strerror(error));
  setpgid(child, child); /* whichever of the two comes first */
  all->list[all->count++] = child;
  lua_pushinteger(L, child);
  return 1;
}

/* The status of a child that has ended, which is then forgotten, and its number; 0 when none has. */
static pid_t next_ended(children *all, int *status) {
  for (int i = 0; i < all->count; i++) {
    pid_t child = all->list[i];
    if (waitpid(child, status, WNOHANG) != child) continue;
    all->list[i] = all->list[--all->count];
    return child;
  }
  return 0;
}

/* children:ended() -> process number, "exit", its status, or process number, "signal", the signal's number; nil when
 * none has ended since the last call. Does not wait. */
static int ended(lua_State *L) {
  int status;
  pid_t child = next_ended(luaL_checkudata(L, 1, CHILDREN), &status);
  if (!child) return 0;
  bool killed = WIFSIGNALED(status);
  lua_pushinteger(L, child);
  lua_pushstring(L, killed ? "signal" : "exit");
  lua_pushinteger(L, killed ? WTERMSIG(status) : WEXITSTATUS(status));
  return 3;
}

static void signal_all(const children *all, int number) {
  for (int i = 0; i < all->count; i++) kill(-all->list[i], number);
}

/* An interrupt first, so that they can clean up behind themselves. */
static int close_children(lua_State *L) {
  enum { GRACE_MS = 2000, NAP_NS = 5000000 };
  children *all = luaL_checkudata(L, 1, CHILDREN);
  int status;
  signal_all(all, SIGINT);
  for (double until = pl_now_ms() + GRACE_MS; all->count > 0 && pl_now_ms() < until;)
    if (!next_ended(all, &status)) nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
  signal_all(all, SIGKILL);
  while (all->count > 0)
    if (!next_ended(all, &status)) nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
  return 0;
}

/* ---- places ---- */

/* program() -> absolute path of this program */
static int program(lua_State *L) {
  pl_text path = {0};
  pl_status status = pl_home_program(&path);
  if (status == PL_OK) lua_pushstring(L, path.data);
  pl_text_release(&path);
  pl_raise_unless_ok(L, status);
  return 1;
}

/* working_directory() -> its absolute path */
static int working_directory(lua_State *L) {
  char path[4096];
  if (!getcwd(path, sizeof path)) return pl_error(L, "working_directory: %s", strerror(errno));
  lua_pushstring(L, path);
  return 1;
}

static void new_kind(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction end) {
  luaL_newmetatable(L, name);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, end);
  lua_setfield(L, -2, "__gc");
  lua_pushcfunction(L, end);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
}

void pl_register_process(lua_State *L) {
  static const luaL_Reg of_lock[] = {{"close", close_lock}, {0}};
  static const luaL_Reg of_children[] = {{"start", start}, {"ended", ended}, {0}};
  static const luaL_Reg functions[] = {{"children", new_children},
                                       {"lock", take_lock},
                                       {"locked", is_locked},
                                       {"program", program},
                                       {"working_directory", working_directory},
                                       {0}};
  new_kind(L, LOCK, of_lock, close_lock);
  new_kind(L, CHILDREN, of_children, close_children);
  luaL_setfuncs(L, functions, 0);
}
