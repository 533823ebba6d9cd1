/* Frames, signatures, headers. */
#include "host/jupyter/wire.h"
#include "host/base/json.h"
#include "host/base/uuid.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdint.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

/* Signatures of the messages that came, to know a replayed one: in each row the latest first. A signature is random, so
 * that it chooses its row and 64 bits of it tell it from all others; one is forgotten after about 65,000 others. */
enum { SEEN_ROWS = 8192, SEEN_COLUMNS = 8 };

struct pl_wire {
  bool signs;
  crypto_auth_hmacsha256_state keyed; /* the key already taken in; each signature starts from a copy */
  char session[PL_UUID_BYTES];
  atomic_ulong messages;
  pthread_mutex_t lock; /* guards `seen` */
  uint64_t seen[SEEN_ROWS][SEEN_COLUMNS];
};

enum { DIGEST_BYTES = crypto_auth_hmacsha256_BYTES, SIGNATURE_BYTES = 2 * DIGEST_BYTES };
static const char delimiter[] = "<IDS|MSG>";

pl_wire *pl_wire_new(const char *key) {
  pl_wire *wire = pl_allocate(sizeof *wire);
  wire->signs = *key != 0;
  crypto_auth_hmacsha256_init(&wire->keyed, (const unsigned char *)key, strlen(key));
  pl_uuid(wire->session);
  pthread_mutex_init(&wire->lock, NULL);
  return wire;
}

void pl_wire_free(pl_wire *wire) {
  if (wire) pthread_mutex_destroy(&wire->lock);
  free(wire);
}

/* The HMAC of four frames, and the lower-case hexadecimal text of it that stands in messages. */
static void digest_of(const pl_wire *wire, const pl_text frames[4], unsigned char digest[DIGEST_BYTES],
                      char signature[SIGNATURE_BYTES + 1]) {
  crypto_auth_hmacsha256_state state = wire->keyed;
  for (int i = 0; i < 4; i++)
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)frames[i].data, frames[i].length);
  crypto_auth_hmacsha256_final(&state, digest);
  sodium_bin2hex(signature, SIGNATURE_BYTES + 1, digest, DIGEST_BYTES);
}

/* ---- receiving ---- */

typedef struct {
  pl_text *list;
  size_t count;
} frames;

static void release_texts(pl_text *texts, size_t count) {
  for (size_t i = 0; i < count; i++) pl_text_release(&texts[i]);
  free(texts);
}

/* All frames of the next message; false when there is none. */
static bool take_frames(void *socket, frames *f) {
  zmq_msg_t part;
  int more = 1;
  while (more) {
    zmq_msg_init(&part);
    int got;
    do got = zmq_msg_recv(&part, socket, ZMQ_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
      zmq_msg_close(&part);
      return false;
    }
    f->list = pl_reallocate(f->list, (f->count + 1) * sizeof *f->list);
    f->list[f->count] = (pl_text){0};
    pl_text_append(&f->list[f->count++], zmq_msg_data(&part), zmq_msg_size(&part));
    more = zmq_msg_more(&part);
    zmq_msg_close(&part);
  }
  return true;
}

/* Whether a message with this digest came before; from now on one has. */
static bool is_replayed(pl_wire *wire, const unsigned char digest[DIGEST_BYTES]) {
  uint64_t row_bits, mark;
  memcpy(&row_bits, digest, sizeof row_bits);
  memcpy(&mark, digest + sizeof row_bits, sizeof mark);
  pthread_mutex_lock(&wire->lock);
  uint64_t *row = wire->seen[row_bits % SEEN_ROWS];
  bool known = false;
  for (int i = 0; i < SEEN_COLUMNS; i++) known |= row[i] == mark;
  if (!known) {
    memmove(row + 1, row, (SEEN_COLUMNS - 1) * sizeof *row);
    row[0] = mark;
  }
  pthread_mutex_unlock(&wire->lock);
  return known;
}

/* Whether the message comes from who has the key, and for the first time. */
static bool is_genuine(pl_wire *wire, const pl_text *signature, const pl_text signed_frames[4]) {
  if (!wire->signs) return true;
  unsigned char digest[DIGEST_BYTES];
  char expected[SIGNATURE_BYTES + 1];
  digest_of(wire, signed_frames, digest, expected);
  return signature->length == SIGNATURE_BYTES && sodium_memcmp(signature->data, expected, SIGNATURE_BYTES) == 0 &&
         !is_replayed(wire, digest);
}

/* Integers are exact, except in a frame with one that needs more than 64 bits: there all become reals. */
static json_t *load_object(const pl_text *text) {
  json_error_t error;
  json_t *value = json_loadb(text->data, text->length, JSON_ALLOW_NUL, &error);
  if (!value && json_error_code(&error) == json_error_numeric_overflow)
    value = json_loadb(text->data, text->length, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
  if (json_is_object(value)) return value;
  json_decref(value);
  return NULL;
}

/* Moves frames out of the list. */
static pl_text *take(frames *f, size_t first, size_t count) {
  pl_text *taken = pl_allocate(count * sizeof *taken);
  for (size_t i = 0; i < count; i++) {
    taken[i] = f->list[first + i];
    f->list[first + i] = (pl_text){0};
  }
  return taken;
}

/* Moves what the frames say into the request; false when they are not a message. */
static bool parse(pl_wire *wire, frames *f, pl_request *request) {
  size_t at = 0;
  while (at < f->count && !(f->list[at].length == strlen(delimiter) && strcmp(f->list[at].data, delimiter) == 0)) at++;
  if (f->count < at + 1 + PL_FRAMES) return false;
  pl_text *packet = &f->list[at + 1];
  if (!is_genuine(wire, &packet[PL_SIGNATURE], &packet[PL_HEADER])) return false;
  request->header = load_object(&packet[PL_HEADER]);
  request->metadata = load_object(&packet[PL_METADATA]);
  request->content = load_object(&packet[PL_CONTENT]);
  request->type = json_string_value(json_object_get(request->header, "msg_type"));
  if (!request->header || !request->content || !request->type) return false;
  if (!request->metadata) request->metadata = json_object(); /* nothing that matters stands in it */
  request->header_bytes = packet[PL_HEADER];
  packet[PL_HEADER] = (pl_text){0};
  request->identity_count = at;
  request->identities = take(f, 0, at);
  at += 1 + PL_FRAMES;
  request->buffer_count = f->count - at;
  request->buffers = take(f, at, request->buffer_count);
  return true;
}

pl_reception pl_wire_receive(pl_wire *wire, void *socket, pl_request *request) {
  frames f = {0};
  *request = (pl_request){0};
  bool got = take_frames(socket, &f);
  bool valid = got && parse(wire, &f, request);
  release_texts(f.list, f.count);
  if (!valid) pl_request_release(request);
  return valid ? PL_RECEIVED : got ? PL_DROPPED : PL_NOTHING;
}

bool pl_wire_wait(void *socket, int wake, int other, long patience_ms) {
  int arrivals;
  size_t size = sizeof arrivals;
  zmq_getsockopt(socket, ZMQ_FD, &arrivals, &size);
  struct pollfd files[] = {
      {.fd = arrivals, .events = POLLIN}, {.fd = wake, .events = POLLIN}, {.fd = other, .events = POLLIN}};
  return poll(files, 3, (int)patience_ms) > 0 && files[1].revents;
}

void pl_request_release(pl_request *request) {
  release_texts(request->identities, request->identity_count);
  release_texts(request->buffers, request->buffer_count);
  pl_text_release(&request->header_bytes);
  json_decref(request->header);
  json_decref(request->metadata);
  json_decref(request->content);
  *request = (pl_request){0};
}

/* ---- sending ---- */

static void write_header(pl_wire *wire, const char *type, pl_text *text) {
  struct timespec now;
  struct tm parts;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &parts);
  char date[32];
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  pl_text_print(text,
                "{\"msg_id\": \"%s_%lu\", \"session\": \"%s\", \"username\": \"kernel\", \"date\": \"%s.%06ldZ\", "
                "\"msg_type\": \"%s\", \"version\": \"" PL_PROTOCOL "\"}",
                wire->session, atomic_fetch_add(&wire->messages, 1) + 1, wire->session, date, now.tv_nsec / 1000, type);
}

static pl_text *copy_texts(const pl_text *texts, size_t count) {
  pl_text *copies = pl_allocate(count * sizeof *copies);
  for (size_t i = 0; i < count; i++)
    if (texts[i].length) pl_text_append(&copies[i], texts[i].data, texts[i].length);
  return copies;
}

void pl_wire_compose(pl_wire *wire, const char *type, const pl_text *parent, const json_t *content,
                     const pl_attachment *attached, pl_packet *packet) {
  *packet = (pl_packet){0};
  write_header(wire, type, &packet->frames[PL_HEADER]);
  if (parent && parent->length)
    pl_text_append(&packet->frames[PL_PARENT], parent->data, parent->length);
  else
    pl_text_print(&packet->frames[PL_PARENT], "{}");
  if (attached && attached->metadata)
    pl_json_write(attached->metadata, 0, &packet->frames[PL_METADATA]);
  else
    pl_text_print(&packet->frames[PL_METADATA], "{}");
  pl_json_write(content, 0, &packet->frames[PL_CONTENT]);
  if (wire->signs) {
    unsigned char digest[DIGEST_BYTES];
    char signature[SIGNATURE_BYTES + 1];
    digest_of(wire, &packet->frames[PL_HEADER], digest, signature);
    pl_text_append(&packet->frames[PL_SIGNATURE], signature, SIGNATURE_BYTES);
  }
  if (!attached) return;
  packet->buffer_count = attached->buffer_count;
  packet->buffers = copy_texts(attached->buffers, attached->buffer_count);
}

void pl_packet_release(pl_packet *packet) {
  for (int i = 0; i < PL_FRAMES; i++) pl_text_release(&packet->frames[i]);
  release_texts(packet->buffers, packet->buffer_count);
}

static bool send_frame(void *socket, const pl_text *frame, int flags) {
  int sent;
  do sent = zmq_send(socket, frame->length ? frame->data : "", frame->length, flags);
  while (sent < 0 && errno == EINTR);
  return sent >= 0 || errno != EAGAIN;
}

/* Whether there is room is decided by the first frame. */
bool pl_wire_send(void *socket, const pl_text *prefix, size_t prefix_count, const pl_packet *packet) {
  const pl_text separator = {.data = (char *)delimiter, .length = strlen(delimiter)};
  for (size_t i = 0; i < prefix_count; i++)
    if (!send_frame(socket, &prefix[i], ZMQ_SNDMORE | (i == 0 ? ZMQ_DONTWAIT : 0))) return false;
  send_frame(socket, &separator, ZMQ_SNDMORE);
  size_t last = PL_FRAMES + packet->buffer_count - 1;
  for (size_t i = 0; i <= last; i++)
    send_frame(socket, i < PL_FRAMES ? &packet->frames[i] : &packet->buffers[i - PL_FRAMES],
               i < last ? ZMQ_SNDMORE : 0);
  return true;
}

void pl_wire_reply(pl_wire *wire, void *socket, const pl_request *request, const char *type, const json_t *content) {
  pl_packet packet;
  pl_wire_compose(wire, type, &request->header_bytes, content, NULL, &packet);
  pl_wire_send(socket, request->identities, request->identity_count, &packet);
  pl_packet_release(&packet);
}
