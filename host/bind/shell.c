/* Running shell commands under a front end. */
#include "host/bind/shell.h"
#include "host/bind/display.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { OUT, ERR, STREAMS };
enum { WAIT_MS = 20, PATIENCE_MS = 1000 }; /* between looks at the command; from SIGINT to SIGKILL */

typedef struct {
  pid_t process;
  int pipes[STREAMS]; /* ends to read from; -1 once the other end is closed */
} command;

static int spawn(command *c, const char *text, const int ends[STREAMS]) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE); /* ignored in a kernel, but not in what it starts */
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, ends[OUT], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, ends[ERR], STDERR_FILENO);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  char *words[] = {"sh", "-c", (char *)text, NULL};
  int error = posix_spawn(&c->process, "/bin/sh", &files, &attributes, words, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

static void close_end(int *end) {
  if (*end >= 0) close(*end);
  *end = -1;
}

/* Hands on everything that can be read now. */
static void drain(command *c, const pl_frontend *frontend) {
  static const char *const names[STREAMS] = {"stdout", "stderr"};
  char block[1 << 14];
  for (int i = 0; i < STREAMS; i++) {
    ssize_t got = -1;
    while (c->pipes[i] >= 0 && (got = read(c->pipes[i], block, sizeof block)) != 0) {
      if (got > 0)
        frontend->stream(frontend->context, names[i], block, (size_t)got);
      else if (errno != EINTR)
        break;
    }
    if (c->pipes[i] >= 0 && got == 0) close_end(&c->pipes[i]);
  }
}

/* Waits for the command, not for what it leaves running in the background. Returns its status as waitpid tells it. */
static int follow(command *c, const pl_frontend *frontend) {
  int status = 0, interrupted_ms = 0;
  pid_t ended = 0;
  while (ended == 0 || (ended < 0 && errno == EINTR)) {
    struct pollfd pipes[] = {{.fd = c->pipes[OUT], .events = POLLIN}, {.fd = c->pipes[ERR], .events = POLLIN}};
    poll(pipes, STREAMS, WAIT_MS);
    drain(c, frontend);
    ended = waitpid(c->process, &status, WNOHANG);
    if (ended != 0 || !pl_interrupt_pending()) continue;
    if (interrupted_ms == 0) kill(-c->process, SIGINT);
    if (interrupted_ms >= PATIENCE_MS) kill(-c->process, SIGKILL);
    interrupted_ms += WAIT_MS;
  }
  drain(c, frontend);
  return ended < 0 ? -1 : status;
}

int pl_shell_execute(lua_State *L) {
  const char *text = luaL_optstring(L, 1, NULL);
  const pl_frontend *frontend = pl_display_frontend(L);
  if (!text) {
    lua_pushboolean(L, access("/bin/sh", X_OK) == 0);
    return 1;
  }
  command c = {.pipes = {-1, -1}};
  int out[2] = {-1, -1}, err[2] = {-1, -1}, error = 0, status = -1;
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) error = errno;
  if (!error) error = spawn(&c, text, (int[]){out[1], err[1]});
  close_end(&out[1]);
  close_end(&err[1]);
  c.pipes[OUT] = out[0];
  c.pipes[ERR] = err[0];
  if (!error) {
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    status = follow(&c, frontend);
    error = status == -1 ? errno : 0; /* Lua takes any other value for a failure of its own */
  }
  close_end(&c.pipes[OUT]);
  close_end(&c.pipes[ERR]);
  errno = error;
  return status == -1 ? luaL_fileresult(L, 0, NULL) : luaL_execresult(L, status);
}
