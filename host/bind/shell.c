/* Child processes of Lua code. */
#include "host/bind/shell.h"
#include "host/base/clock.h"
#include "host/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { IN, OUT, ERR, STREAMS };
enum { INHERITED = -1, LOOK_MS = 20 }; /* an interrupt that just missed a wait is seen after LOOK_MS */

/* ---- starting and ending ---- */

/* ends are what the command takes for its standard streams; in place of an INHERITED input it has none. */
static int spawn(const char *text, const int ends[STREAMS], pid_t *process) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE); /* ignored in a kernel, but not in what it starts */
  posix_spawn_file_actions_init(&files);
  if (ends[IN] == INHERITED) posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  for (int i = 0; i < STREAMS; i++)
    if (ends[i] != INHERITED) posix_spawn_file_actions_adddup2(&files, ends[i], i);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  char *words[] = {"sh", "-c", (char *)text, NULL};
  int error = posix_spawn(process, "/bin/sh", &files, &attributes, words, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

/* The signals that end a command, each this long after the first. */
static const struct {
  double after_ms;
  int number;
} urgency[] = {{0, SIGINT}, {25, SIGTERM}, {50, SIGKILL}};

/* How far the ending of a command has come. */
typedef struct {
  double since_ms;
  size_t sent;
} ending;

static void press(pid_t process, ending *e) {
  if (e->sent == 0) e->since_ms = pl_now_ms();
  while (e->sent < sizeof urgency / sizeof *urgency && pl_now_ms() - e->since_ms >= urgency[e->sent].after_ms)
    kill(-process, urgency[e->sent++].number);
}

/* Waits for the process itself, not for what it leaves running in the background. `now`, or an interrupt, ends it with
 * its group. Returns its status as waitpid tells it, -1 with errno when there is none. */
static int await(pid_t process, bool now) {
  enum { NAP_NS_MIN = 50000, NAP_NS_MAX = 10000000 };
  struct timespec nap = {.tv_nsec = NAP_NS_MIN};
  ending e = {0};
  for (;;) {
    int status;
    pid_t ended = waitpid(process, &status, WNOHANG);
    if (ended == process) return status;
    if (ended < 0 && errno != EINTR) return -1;
    if (now || pl_interrupt_pending()) press(process, &e);
    nanosleep(&nap, NULL);
    if (nap.tv_nsec < NAP_NS_MAX) nap.tv_nsec *= 2;
  }
}

static void close_end(int *end) {
  if (*end >= 0) close(*end);
  *end = -1;
}

/* What os.execute and the closing of a popened file return. */
static int push_status(lua_State *L, int status) {
  if (status == -1) return luaL_fileresult(L, 0, NULL);
  errno = 0; /* Lua takes any other value for a failure of its own */
  return luaL_execresult(L, status);
}

int pl_shell_execute(lua_State *L) {
  const char *text = luaL_optstring(L, 1, NULL);
  if (!text) {
    lua_pushboolean(L, access("/bin/sh", X_OK) == 0);
    return 1;
  }
  pid_t process;
  int error = spawn(text, (int[]){INHERITED, INHERITED, INHERITED}, &process);
  errno = error;
  return push_status(L, error ? -1 : await(process, false));
}

/* ---- io.popen ---- */

/* A file of Lua's own kind, with the command behind it. The C stream reads and writes through functions that look at
 * the interrupt flag. */
typedef struct popened {
  luaL_Stream stream; /* first: Lua knows no more */
  pid_t process;      /* 0 once it has ended, with `status` */
  int end, status;
  struct popened *next;
} popened;

static popened *all_popened;

static void finish(popened *p, bool now) {
  if (!p->process) return;
  p->status = await(p->process, now);
  p->process = 0;
}

/* Whether reading or writing is to be tried again; if not, errno says why. */
static bool try_again(popened *p, short events) {
  if (errno != EAGAIN && errno != EINTR) return false;
  if (pl_interrupt_pending()) {
    finish(p, true);
    errno = EINTR;
    return false;
  }
  poll(&(struct pollfd){.fd = p->end, .events = events}, 1, LOOK_MS);
  return true;
}

static ssize_t read_end(void *cookie, char *data, size_t size) {
  popened *p = cookie;
  ssize_t got;
  do got = read(p->end, data, size);
  while (got < 0 && try_again(p, POLLIN));
  return got;
}

static ssize_t write_end(void *cookie, const char *data, size_t size) {
  popened *p = cookie;
  size_t done = 0;
  while (done < size) {
    ssize_t put = send(p->end, data + done, size - done, MSG_NOSIGNAL);
    if (put < 0 && !try_again(p, POLLOUT)) break;
    if (put > 0) done += (size_t)put;
  }
  return (ssize_t)done;
}

static int close_stream(void *cookie) {
  popened *p = cookie;
  close_end(&p->end);
  return 0;
}

static int close_popened(lua_State *L) {
  popened *p = luaL_checkudata(L, 1, LUA_FILEHANDLE), **at = &all_popened;
  fclose(p->stream.f);
  while (*at != p) at = &(*at)->next;
  *at = p->next;
  finish(p, false);
  return push_status(L, p->status);
}

/* Fills in everything but the C stream; an error number, or 0. */
static int start_popened(popened *p, const char *text, bool reads) {
  int ends[2]; /* a socket, since writing to a pipe that nobody reads any more would raise SIGPIPE */
  int made = reads ? pipe2(ends, O_CLOEXEC) : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
  if (made != 0) return errno;
  int theirs[STREAMS] = {reads ? INHERITED : ends[1], reads ? ends[1] : INHERITED, INHERITED};
  int error = spawn(text, theirs, &p->process);
  close(ends[1]);
  p->end = ends[0];
  fcntl(p->end, F_SETFL, O_NONBLOCK);
  if (error) p->process = 0;
  return error;
}

int pl_shell_popen(lua_State *L) {
  const char *text = luaL_checkstring(L, 1), *mode = luaL_optstring(L, 2, "r");
  bool reads = strcmp(mode, "r") == 0;
  luaL_argcheck(L, reads || strcmp(mode, "w") == 0, 2, "invalid mode");
  popened *p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = (popened){.end = -1}; /* a closed file */
  luaL_setmetatable(L, LUA_FILEHANDLE);
  int error = start_popened(p, text, reads);
  cookie_io_functions_t functions = {.read = read_end, .write = write_end, .close = close_stream};
  if (!error && !(p->stream.f = fopencookie(p, mode, functions))) error = errno;
  if (error) {
    finish(p, true);
    close_end(&p->end);
    errno = error;
    return luaL_fileresult(L, 0, text);
  }
  p->stream.closef = close_popened;
  p->next = all_popened;
  all_popened = p;
  return 1;
}

void pl_shell_end_all(void) {
  for (popened *p = all_popened; p; p = p->next) finish(p, true);
}

/* ---- filter ---- */

typedef struct {
  pid_t process;
  int ends[STREAMS]; /* ours; -1 once closed */
  const char *input;
  size_t length;
  pl_text said[STREAMS]; /* of OUT and ERR */
} filter;

static int start_filter(filter *f, const char *text) {
  int pairs[STREAMS][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, error = 0;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[IN]) != 0 || pipe2(pairs[OUT], O_CLOEXEC) != 0 ||
      pipe2(pairs[ERR], O_CLOEXEC) != 0)
    error = errno;
  if (!error) error = spawn(text, (int[]){pairs[IN][1], pairs[OUT][1], pairs[ERR][1]}, &f->process);
  for (int i = 0; i < STREAMS; i++) {
    close_end(&pairs[i][1]);
    f->ends[i] = pairs[i][0];
    if (error)
      close_end(&f->ends[i]);
    else
      fcntl(f->ends[i], F_SETFL, O_NONBLOCK);
  }
  return error;
}

static void feed(filter *f) {
  ssize_t put = 0;
  while (f->ends[IN] >= 0 && f->length > 0 && (put = send(f->ends[IN], f->input, f->length, MSG_NOSIGNAL)) > 0) {
    f->input += put;
    f->length -= (size_t)put;
  }
  bool refused = put < 0 && errno != EAGAIN && errno != EINTR;
  if (f->length == 0 || refused) close_end(&f->ends[IN]);
}

static void hear(filter *f, int stream) {
  char block[1 << 14];
  ssize_t got = -1;
  while (f->ends[stream] >= 0 && (got = read(f->ends[stream], block, sizeof block)) > 0)
    pl_text_append(&f->said[stream], block, (size_t)got);
  if (got == 0) close_end(&f->ends[stream]);
}

/* Feeds and hears the command until it has ended, and returns its status. */
static int follow(filter *f) {
  ending e = {0};
  int status = 0;
  pid_t ended = 0;
  while (ended == 0 || (ended < 0 && errno == EINTR)) {
    struct pollfd ends[STREAMS];
    for (int i = 0; i < STREAMS; i++) ends[i] = (struct pollfd){f->ends[i], i == IN ? POLLOUT : POLLIN, 0};
    bool deaf = f->ends[OUT] < 0 && f->ends[ERR] < 0;
    if (deaf && !pl_interrupt_pending()) return await(f->process, false);
    poll(ends, STREAMS, LOOK_MS);
    feed(f);
    ended = waitpid(f->process, &status, WNOHANG); /* before the last look at what it said */
    hear(f, OUT);
    hear(f, ERR);
    if (ended == 0 && pl_interrupt_pending()) press(f->process, &e);
  }
  return ended < 0 ? -1 : status;
}

/* Pushes output and errors of the filter at 1. */
static int push_said(lua_State *L) {
  const filter *f = lua_touserdata(L, 1);
  for (int i = OUT; i <= ERR; i++) lua_pushlstring(L, f->said[i].length ? f->said[i].data : "", f->said[i].length);
  return 2;
}

/* filter(command, input) -> output, errors, and what os.execute returns */
static int run_filter(lua_State *L) {
  const char *text = luaL_checkstring(L, 1);
  filter f = {.ends = {-1, -1, -1}};
  f.input = luaL_checklstring(L, 2, &f.length);
  int error = start_filter(&f, text), status = -1;
  if (!error) {
    status = follow(&f);
    error = errno;
  }
  for (int i = 0; i < STREAMS; i++) close_end(&f.ends[i]);
  lua_pushcfunction(L, push_said);
  lua_pushlightuserdata(L, &f);
  int copied = lua_pcall(L, 1, 2, 0); /* copying may fail, and the texts must be released even then */
  for (int i = 0; i < STREAMS; i++) pl_text_release(&f.said[i]);
  if (copied != LUA_OK) return lua_error(L);
  if (pl_interrupt_pending()) return luaL_error(L, "interrupted");
  errno = error;
  return 2 + push_status(L, status);
}

void pl_register_shell(lua_State *L) {
  lua_pushcfunction(L, run_filter);
  lua_setfield(L, -2, "filter");
}
