/* A front end in the process of the kernel: messages travel through ZeroMQ's queues in memory, no socket of the system
 * is opened. Frames are put together and taken apart here, not by host/jupyter/wire.c, so that each checks the other.
 */
#ifndef TESTS_JUPYTER_FRONT_END_H
#define TESTS_JUPYTER_FRONT_END_H

#include "host/cpu/cpu.h"
#include "host/jupyter/kernel.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { FRAMES_MAX = 64, WAIT_MS = 60000 };
#define KEY "a key"

typedef struct {
  pl_kernel kernel;
  void *sockets[PL_CHANNELS]; /* ours, by channel */
  long sent;
} front_end;

/* A received message: its frames from the delimiter's next on, and what they say. */
typedef struct {
  pl_text frames[FRAMES_MAX];
  int count;
  json_t *header, *parent, *metadata, *content;
} message;

static inline const char *text_of(const json_t *object, const char *name) {
  const char *text = json_string_value(json_object_get(object, name));
  return text ? text : "";
}

static inline void front_end_open(front_end *f, const char *key) {
  static const int types[PL_CHANNELS] = {ZMQ_DEALER, ZMQ_DEALER, ZMQ_DEALER, ZMQ_SUB, ZMQ_REQ};
  *f = (front_end){0};
  setenv("PERILUNE_HISTORY", "0", 1);
  f->kernel.connection.key = pl_duplicate(key);
  for (int i = 0; i < PL_CHANNELS; i++) {
    pl_text address = {0};
    pl_text_print(&address, "inproc://channel-%d", i);
    f->kernel.connection.address[i] = address.data;
    f->kernel.connection.port[i] = 1000 + i;
  }
  if (pl_device_count() == 0) pl_cpu_open();
  if (pl_kernel_open(&f->kernel) != PL_OK) {
    fprintf(stderr, "the kernel does not open: %s\n", pl_message());
    exit(1);
  }
  for (int i = 0; i < PL_CHANNELS; i++) {
    f->sockets[i] = zmq_socket(f->kernel.context, types[i]);
    int unlimited = 0;
    zmq_setsockopt(f->sockets[i], ZMQ_RCVHWM, &unlimited, sizeof unlimited);
    if (i == PL_IOPUB)
      zmq_setsockopt(f->sockets[i], ZMQ_SUBSCRIBE, "", 0);
    else if (i != PL_HEARTBEAT)
      zmq_setsockopt(f->sockets[i], ZMQ_IDENTITY, "front end", 9);
    zmq_connect(f->sockets[i], f->kernel.connection.address[i]);
  }
}

static inline void front_end_close(front_end *f) {
  for (int i = 0; i < PL_CHANNELS; i++) zmq_close(f->sockets[i]);
  pl_kernel_close(&f->kernel);
}

static inline void sign_frames(const pl_text frames[4], pl_text *signature) {
  crypto_auth_hmacsha256_state state;
  unsigned char digest[crypto_auth_hmacsha256_BYTES];
  char hexadecimal[2 * sizeof digest + 1];
  crypto_auth_hmacsha256_init(&state, (const unsigned char *)KEY, strlen(KEY));
  for (int i = 0; i < 4; i++)
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)frames[i].data, frames[i].length);
  crypto_auth_hmacsha256_final(&state, digest);
  sodium_bin2hex(hexadecimal, sizeof hexadecimal, digest, sizeof digest);
  pl_text_print(signature, "%s", hexadecimal);
}

static inline void send_frames(front_end *f, pl_channel channel, const pl_text *frames, int count) {
  for (int i = 0; i < count; i++)
    zmq_send(f->sockets[channel], frames[i].length ? frames[i].data : "", frames[i].length,
             i + 1 < count ? ZMQ_SNDMORE : 0);
}

/* Fills in the frames of a signed request: delimiter, signature, header, parent, metadata, content. */
enum { DELIMITER, SIGNATURE, HEADER, PARENT, METADATA, CONTENT, REQUEST_FRAMES };
static inline void make_request(front_end *f, const char *type, const char *content, pl_text frames[REQUEST_FRAMES]) {
  for (int i = 0; i < REQUEST_FRAMES; i++) frames[i] = (pl_text){0};
  pl_text_print(&frames[DELIMITER], "<IDS|MSG>");
  pl_text_print(&frames[HEADER],
                "{\"msg_id\": \"%ld\", \"session\": \"s\", \"username\": \"u\", \"date\": \"2026-01-01T00:00:00Z\", "
                "\"msg_type\": \"%s\", \"version\": \"5.3\", \"exact\": 9007199254740993}",
                ++f->sent, type);
  pl_text_print(&frames[PARENT], "{}");
  pl_text_print(&frames[METADATA], "{\"m\": 1}");
  pl_text_print(&frames[CONTENT], "%s", content);
  sign_frames(&frames[HEADER], &frames[SIGNATURE]);
}

static inline void release_frames(pl_text *frames, int count) {
  for (int i = 0; i < count; i++) pl_text_release(&frames[i]);
}

static inline void send_request(front_end *f, pl_channel channel, const char *type, const char *content) {
  pl_text frames[REQUEST_FRAMES];
  make_request(f, type, content, frames);
  send_frames(f, channel, frames, REQUEST_FRAMES);
  release_frames(frames, REQUEST_FRAMES);
}

static inline void message_release(message *m) {
  release_frames(m->frames, m->count);
  json_decref(m->header), json_decref(m->parent), json_decref(m->metadata), json_decref(m->content);
  *m = (message){0};
}

/* Takes the next message; false when none comes in time. Anything that is no signed, valid message of the protocol ends
 * the test. */
static inline bool receive(front_end *f, pl_channel channel, int patience_ms, message *m) {
  *m = (message){0};
  zmq_pollitem_t item = {.socket = f->sockets[channel], .events = ZMQ_POLLIN};
  int ready;
  do ready = zmq_poll(&item, 1, patience_ms);
  while (ready < 0 && errno == EINTR); /* the signal of an interrupt */
  if (ready <= 0) return false;
  bool delimited = false, more = true;
  while (more) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    zmq_msg_recv(&part, f->sockets[channel], 0);
    more = zmq_msg_more(&part);
    if (delimited && m->count < FRAMES_MAX)
      pl_text_append(&m->frames[m->count++], zmq_msg_data(&part), zmq_msg_size(&part));
    delimited |= zmq_msg_size(&part) == 9 && memcmp(zmq_msg_data(&part), "<IDS|MSG>", 9) == 0;
    zmq_msg_close(&part);
  }
  pl_text signature = {0};
  json_t **const parts[] = {&m->header, &m->parent, &m->metadata, &m->content};
  bool valid = m->count >= 5;
  for (int i = 0; valid && i < 4; i++) {
    *parts[i] = json_loadb(m->frames[1 + i].data, m->frames[1 + i].length, JSON_ALLOW_NUL, NULL);
    valid = json_is_object(*parts[i]);
  }
  if (valid && *f->kernel.connection.key) sign_frames(&m->frames[1], &signature);
  valid = valid && pl_text_equal(&signature, &m->frames[0]) && strcmp(text_of(m->header, "version"), "5.5") == 0;
  if (!valid) {
    fprintf(stderr, "the kernel sent something that is no message\n");
    abort();
  }
  pl_text_release(&signature);
  return true;
}

/* Appends the types of what is published up to the next idle, with blanks between them, and for errors, results and
 * streams in brackets what they say. */
static inline bool read_published(front_end *f, pl_text *types) {
  message m;
  for (bool idle = false; !idle;) {
    if (!receive(f, PL_IOPUB, WAIT_MS, &m)) return false;
    const char *state = text_of(m.content, "execution_state"), *type = text_of(m.header, "msg_type");
    idle = strcmp(state, "idle") == 0;
    if (strcmp(type, "iopub_welcome") != 0 && strcmp(state, "starting") != 0) {
      const char *said = text_of(m.content, strcmp(type, "error") == 0 ? "evalue" : "text");
      if (strcmp(type, "execute_result") == 0) said = text_of(json_object_get(m.content, "data"), "text/plain");
      pl_text_print(types, *said ? "%s%s[%s]" : "%s%s", types->length ? " " : "", *state ? state : type, said);
    }
    message_release(&m);
  }
  return true;
}

#endif
