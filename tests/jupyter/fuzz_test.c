/* What nobody should send: frames at random, multiparts cut off, signed frames that are no JSON, and the wrong type in
 * every field of every message. A fixed number of each, from a fixed seed; after each batch the kernel must still
 * answer. */
#include "tests/jupyter/front_end.h"
#include "tests/check.h"

#include <stdint.h>

static uint64_t seed = 0x9E3779B97F4A7C15;

/* xorshift64*: the same numbers everywhere */
static uint64_t random_bits(void) {
  seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
  return seed * 0x2545F4914F6CDD1DULL;
}
static size_t below(size_t n) { return (size_t)((random_bits() >> 33) % n); }

/* Requests as front ends send them; all that shutdown would show is in messages_test. No code here waits or takes long.
 */
static const struct {
  const char *type, *content;
} requests[] = {
    {"kernel_info_request", "{}"},
    {"connect_request", "{}"},
    {"execute_request",
     "{\"code\": \"1 + 1\", \"silent\": false, \"store_history\": true, \"user_expressions\": {\"a\": \"1\"}, "
     "\"allow_stdin\": false, \"stop_on_error\": false}"},
    {"inspect_request", "{\"code\": \"print\", \"cursor_pos\": 3, \"detail_level\": 0}"},
    {"complete_request", "{\"code\": \"string.re\", \"cursor_pos\": 9}"},
    {"is_complete_request", "{\"code\": \"for i = 1, 2 do\"}"},
    {"history_request",
     "{\"hist_access_type\": \"tail\", \"output\": false, \"raw\": true, \"n\": 3, \"session\": 0, \"start\": 1, "
     "\"stop\": 5, \"pattern\": \"*\", \"unique\": true}"},
    {"history_request", "{\"hist_access_type\": \"search\", \"pattern\": \"1*\", \"n\": 3, \"unique\": true}"},
    {"history_request", "{\"hist_access_type\": \"range\", \"session\": 0, \"start\": 1, \"stop\": 5}"},
    {"comm_info_request", "{\"target_name\": \"t\"}"},
    {"comm_open", "{\"comm_id\": \"c\", \"target_name\": \"t\", \"data\": {\"x\": 1}}"},
    {"comm_msg", "{\"comm_id\": \"c\", \"data\": {\"x\": 1}}"},
    {"comm_close", "{\"comm_id\": \"c\", \"data\": {}}"},
    {"usage_request", "{}"},
    {"interrupt_request", "{}"},
    {"debug_request", "{\"type\": \"request\", \"seq\": 1, \"command\": \"debugInfo\", \"arguments\": {}}"},
    {"debug_request", "{\"seq\": 2, \"command\": \"initialize\", \"arguments\": {}}"},
    {"debug_request",
     "{\"seq\": 3, \"command\": \"setBreakpoints\", \"arguments\": {\"source\": {\"path\": \"/tmp/x.lua\"}, "
     "\"breakpoints\": [{\"line\": 1}]}}"},
    {"debug_request", "{\"seq\": 4, \"command\": \"evaluate\", \"arguments\": {\"expression\": \"1 + 1\"}}"},
    {"input_reply", "{\"value\": \"x\", \"status\": \"ok\"}"},
    {"create_subshell_request", "{}"},
};
enum { REQUESTS = sizeof requests / sizeof *requests };

/* Values of every type, and of no type. */
static const char *const values[] = {
    "null",   "true",          "0",    "-1",           "9223372036854775807",        "-9223372036854775808",
    "1e308",  "0.5",           "\"\"", "\"\\u0000\"",  "\"\\ud83d\\ude00\xc3\xbc\"", "[]",
    "[null]", "[[[[[[1]]]]]]", "{}",   "{\"\": null}", "{\"a\": {\"b\": [\"c\"]}}"};
enum { VALUES = sizeof values / sizeof *values };

/* Reads away what the kernel said; receive() ends the test when it is no message. */
static void drain(front_end *f) {
  message m;
  for (int channel = 0; channel < PL_HEARTBEAT; channel++)
    while (receive(f, (pl_channel)channel, 0, &m)) message_release(&m);
}

/* The kernel takes what came, and says what it knows of itself on both channels. */
static void check_alive(front_end *f) {
  static const pl_channel channels[] = {PL_SHELL, PL_CONTROL};
  pl_text ids[2] = {{0}, {0}};
  for (int i = 0; i < 2; i++) {
    send_request(f, channels[i], "kernel_info_request", "{}");
    pl_text_print(&ids[i], "%ld", f->sent);
  }
  for (int i = 0; i < 2; i++) {
    bool answered = false;
    while (!answered) {
      message m;
      if (channels[i] == PL_SHELL) pl_kernel_step(&f->kernel, 0);
      if (!receive(f, channels[i], channels[i] == PL_SHELL ? 0 : WAIT_MS, &m)) {
        if (channels[i] == PL_SHELL) continue;
        break;
      }
      answered = strcmp(text_of(m.parent, "msg_id"), ids[i].data) == 0 &&
                 strcmp(text_of(m.content, "protocol_version"), "5.5") == 0;
      message_release(&m);
    }
    CHECK(answered);
    pl_text_release(&ids[i]);
  }
  drain(f);
}

static void send_both(front_end *f, const pl_text *frames, int count) {
  send_frames(f, PL_SHELL, frames, count);
  if (below(4) == 0) send_frames(f, PL_CONTROL, frames, count);
  if (below(8) == 0) send_frames(f, PL_STDIN, frames, count);
}

static void random_text(pl_text *text, size_t length) {
  for (size_t i = 0; i < length; i++) {
    char byte = (char)random_bits();
    pl_text_append(text, &byte, 1);
  }
}

static void fuzz_frames(front_end *f, int times) {
  for (int i = 0; i < times; i++) {
    pl_text frames[12] = {{0}};
    int count = 1 + (int)below(12);
    for (int k = 0; k < count; k++)
      if (below(4) == 0)
        pl_text_print(&frames[k], "<IDS|MSG>");
      else
        random_text(&frames[k], below(4) == 0 ? below(5000) : below(20));
    send_both(f, frames, count);
    release_frames(frames, count);
    if (i % 500 == 0) check_alive(f);
  }
}

static void fuzz_truncation(front_end *f, int times) {
  for (int i = 0; i < times; i++) {
    pl_text frames[REQUEST_FRAMES];
    size_t chosen = below(REQUESTS);
    make_request(f, requests[chosen].type, requests[chosen].content, frames);
    int first = below(3) == 0 ? (int)below(REQUEST_FRAMES) : 0;
    send_both(f, frames + first, 1 + (int)below((size_t)(REQUEST_FRAMES - first)));
    release_frames(frames, REQUEST_FRAMES);
    if (i % 500 == 0) check_alive(f);
  }
}

/* Bytes changed, left out or put in, in any signed frame, which is then signed. */
static void fuzz_signed_bytes(front_end *f, int times) {
  static const char interesting[] = "{}[]\",:\\0\xff\x80 nulltrue-1e9u";
  for (int i = 0; i < times; i++) {
    pl_text frames[REQUEST_FRAMES];
    size_t chosen = below(REQUESTS);
    make_request(f, requests[chosen].type, requests[chosen].content, frames);
    pl_text *frame = &frames[HEADER + below(4)];
    for (size_t changes = 1 + below(4); changes > 0; changes--) {
      char byte = below(2) ? interesting[below(sizeof interesting)] : (char)random_bits();
      size_t at = frame->length ? below(frame->length) : 0;
      if (below(3) == 0)
        pl_text_append(frame, &byte, 1);
      else if (frame->length && below(2))
        frame->data[at] = byte;
      else
        frame->length = at;
    }
    pl_text_clear(&frames[SIGNATURE]);
    sign_frames(&frames[HEADER], &frames[SIGNATURE]);
    send_both(f, frames, REQUEST_FRAMES);
    release_frames(frames, REQUEST_FRAMES);
    if (i % 500 == 0) check_alive(f);
  }
}

/* Sends one request whose object in one frame has another value for `name`. */
static void send_changed(front_end *f, size_t chosen, int which, const char *name, const char *value) {
  pl_text frames[REQUEST_FRAMES];
  make_request(f, requests[chosen].type, requests[chosen].content, frames);
  json_t *object = json_loadb(frames[which].data, frames[which].length, 0, NULL);
  json_object_set_new(object, name, json_loads(value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
  char *text = json_dumps(object, 0);
  pl_text_clear(&frames[which]);
  pl_text_print(&frames[which], "%s", text);
  pl_text_clear(&frames[SIGNATURE]);
  sign_frames(&frames[HEADER], &frames[SIGNATURE]);
  send_frames(f, PL_SHELL, frames, REQUEST_FRAMES);
  send_frames(f, PL_CONTROL, frames,
              REQUEST_FRAMES); /* dropped there when it came here first, and the other way round */
  free(text);
  json_decref(object);
  release_frames(frames, REQUEST_FRAMES);
}

/* Every field of every message with a value of every type; also a whole frame that is that value. */
static void fuzz_types(front_end *f) {
  for (size_t r = 0; r < REQUESTS; r++)
    for (size_t v = 0; v < VALUES; v++) {
      static const char *const header_fields[] = {"msg_id",   "session", "username",   "date",
                                                  "msg_type", "version", "subshell_id"};
      json_t *content = json_loads(requests[r].content, 0, NULL), *ignored;
      const char *name;
      json_object_foreach(content, name, ignored) send_changed(f, r, CONTENT, name, values[v]);
      for (size_t i = 0; i < sizeof header_fields / sizeof *header_fields; i++)
        send_changed(f, r, HEADER, header_fields[i], values[v]);
      json_decref(content);
      for (int which = HEADER; which <= CONTENT; which++) {
        pl_text frames[REQUEST_FRAMES];
        make_request(f, requests[r].type, requests[r].content, frames);
        pl_text_clear(&frames[which]);
        pl_text_print(&frames[which], "%s", values[v]);
        pl_text_clear(&frames[SIGNATURE]);
        sign_frames(&frames[HEADER], &frames[SIGNATURE]);
        send_both(f, frames, REQUEST_FRAMES);
        release_frames(frames, REQUEST_FRAMES);
      }
      check_alive(f);
    }
}

static void fuzz_large(front_end *f) {
  static const char *const openings[] = {"[", "{\"a\":", "\"", "1"};
  for (size_t o = 0; o < sizeof openings / sizeof *openings; o++) {
    pl_text value = {0};
    for (int i = 0; i < 300000; i++) pl_text_print(&value, "%s", openings[o]);
    for (int which = HEADER; which <= CONTENT; which++) {
      pl_text frames[REQUEST_FRAMES];
      make_request(f, "execute_request", "{\"code\": \"1\"}", frames);
      pl_text_clear(&frames[which]);
      pl_text_print(&frames[which], "{\"code\": %s", value.data);
      pl_text_clear(&frames[SIGNATURE]);
      sign_frames(&frames[HEADER], &frames[SIGNATURE]);
      send_frames(f, PL_SHELL, frames, REQUEST_FRAMES);
      release_frames(frames, REQUEST_FRAMES);
    }
    pl_text code = {0};
    for (int i = 0; i < 100000; i++) pl_text_print(&code, "%s", o == 2 ? "do " : o == 1 ? "{" : o == 0 ? "[" : "1");
    json_t *content = json_pack("{s:s}", "code", code.data);
    char *text = json_dumps(content, 0);
    for (size_t r = 2; r < 6; r++) send_request(f, PL_SHELL, requests[r].type, text);
    free(text);
    json_decref(content);
    pl_text_release(&code);
    pl_text_release(&value);
    check_alive(f);
  }
}

int main(void) {
  front_end f;
  front_end_open(&f, KEY);
  send_request(&f, PL_SHELL, "execute_request",
               "{\"code\": \"require 'perilune.comm'.register_target('t', function(c, ...) c:on_message(function(...) "
               "c:send(...) end) c:send(...) end)\"}");
  check_alive(&f);
  fuzz_frames(&f, 5000);
  check_alive(&f);
  fuzz_truncation(&f, 5000);
  check_alive(&f);
  fuzz_signed_bytes(&f, 10000);
  check_alive(&f);
  fuzz_types(&f);
  fuzz_large(&f);
  CHECK(!atomic_load(&f.kernel.stopping));
  front_end_close(&f);
  return finished("fuzz");
}
