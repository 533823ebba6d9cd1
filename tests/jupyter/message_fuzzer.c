/* A libFuzzer target: bytes as messages to a kernel in this process. Not part of the build, for only clang has
 * libFuzzer; what it watches is compiled with it, the rest comes from the release build:
 *
 *   F="-I. -D_GNU_SOURCE -DPERILUNE_VERSION=\"fuzz\" -DPERILUNE_SOURCE=\"$PWD\" -DPERILUNE_INSTALLED=\"/nowhere\""
 *   P="lua5.4 libzmq jansson libsodium libedit"
 *   J=host/jupyter B=host/bind
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined $F $(pkg-config --cflags $P) tests/jupyter/message_fuzzer.c \
 *     $J/{requests,kernel,control,wire,publisher,history,usage,connection,thread}.c host/base/{text,json,file}.c \
 *     $B/{source,comm,json,session,evaluate}.c build/libhost.a $(pkg-config --libs $P) -lgomp -lmvec -lm \
 *     -o message_fuzzer
 *   ./message_fuzzer -detect_leaks=0 -close_fd_mask=2 -max_len=2000 -max_total_time=300 corpus
 *
 * -close_fd_mask=2 has it write to another copy of standard error, for the kernel captures the one that is there.
 */
#include "tests/jupyter/front_end.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static front_end f;
static bool opened;

static const char *const types[] = {
    "kernel_info_request", "connect_request",   "execute_request",   "is_complete_request", "complete_request",
    "inspect_request",     "history_request",   "comm_info_request", "comm_open",           "comm_msg",
    "comm_close",          "interrupt_request", "usage_request",     "debug_request",       "create_subshell_request",
};
enum { TYPES = sizeof types / sizeof *types, SEPARATOR = 0xFE };

static void open_once(void) {
  if (opened && !atomic_load(&f.kernel.stopping)) return;
  if (opened) front_end_close(&f); /* the fuzzer found the word for it */
  front_end_open(&f, KEY);
  opened = true;
  send_request(&f, PL_SHELL, "execute_request",
               "{\"code\": \"require 'perilune.comm'.register_target('t', function(c, ...) c:on_message(function(...) "
               "c:send(...) end) c:send(...) end)\"}");
  pl_kernel_step(&f.kernel, WAIT_MS);
}

/* Splits the bytes at separators into at most `most` texts, appended to those of `frames` from `count` on. */
static int split(const uint8_t *data, size_t size, pl_text *frames, int count, int most) {
  for (size_t start = 0, at = 0; at <= size; at++) {
    if (at < size && data[at] != SEPARATOR) continue;
    if (count == most) break;
    pl_text_append(&frames[count++], (const char *)data + start, at - start);
    start = at + 1;
  }
  return count;
}

/* Code that runs could run for ever. */
static void tame(const char *type, pl_text *content) {
  if (strcmp(type, "execute_request") != 0) return;
  json_t *object = json_loadb(content->data, content->length, JSON_ALLOW_NUL, NULL);
  if (json_is_object(object)) {
    if (json_object_get(object, "code")) json_object_set_new(object, "code", json_string("1 + 1"));
    json_object_del(object, "user_expressions");
    char *text = json_dumps(object, 0);
    pl_text_clear(content);
    pl_text_print(content, "%s", text);
    free(text);
  }
  json_decref(object);
}

static void make_code(pl_text *content, const uint8_t *data, size_t size, uint8_t cursor) {
  pl_text code = {0};
  pl_text_append_utf8(&code, (const char *)data, size);
  json_t *object = json_pack("{s:s%, s:i, s:i}", "code", code.data ? code.data : "", code.length, "cursor_pos",
                             (int)cursor, "detail_level", cursor & 1);
  char *text = json_dumps(object, 0);
  pl_text_clear(content);
  pl_text_print(content, "%s", text);
  free(text);
  json_decref(object);
  pl_text_release(&code);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  enum { RAW, SIGNED, TYPED, CODE, MODES };
  static const char *const asks[] = {"is_complete_request", "complete_request", "inspect_request"};
  if (size < 3) return -1;
  open_once();
  pl_text frames[FRAMES_MAX] = {{0}};
  int count = REQUEST_FRAMES, mode = data[0] % MODES;
  const char *type = mode == CODE ? asks[data[1] % 3] : types[data[1] % TYPES];
  pl_channel channel = data[0] & 128 ? PL_CONTROL : PL_SHELL;
  if (mode == RAW)
    count = split(data + 2, size - 2, frames, 0, FRAMES_MAX);
  else {
    make_request(&f, type, "", frames);
    if (mode == SIGNED) {
      for (int i = HEADER; i <= CONTENT; i++) pl_text_clear(&frames[i]);
      split(data + 2, size - 2, frames, HEADER, REQUEST_FRAMES);
      if (frames[HEADER].data && strstr(frames[HEADER].data, "execute")) pl_text_clear(&frames[HEADER]);
    } else if (mode == TYPED) {
      pl_text_clear(&frames[CONTENT]);
      count = split(data + 2, size - 2, frames, CONTENT, FRAMES_MAX);
      tame(type, &frames[CONTENT]);
    } else
      make_code(&frames[CONTENT], data + 3, size - 3, data[2]);
    pl_text_clear(&frames[SIGNATURE]);
    sign_frames(&frames[HEADER], &frames[SIGNATURE]);
  }
  send_frames(&f, channel, frames, count);
  release_frames(frames, FRAMES_MAX);
  if (channel == PL_SHELL) pl_kernel_step(&f.kernel, 0);
  message m;
  for (int i = 0; i < PL_HEARTBEAT; i++)
    while (receive(&f, (pl_channel)i, 0, &m)) message_release(&m);
  return 0;
}
