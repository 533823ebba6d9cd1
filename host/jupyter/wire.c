/* Frames, signatures, headers. */
#include "host/jupyter/wire.h"
#include "host/base/json.h"
#include "host/base/uuid.h"

#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

struct pl_wire {
  bool signs;
  crypto_auth_hmacsha256_state keyed; /* the key already taken in; each signature starts from a copy */
  char session[PL_UUID_BYTES];
  atomic_ulong messages;
};

enum { SIGNATURE_BYTES = 2 * crypto_auth_hmacsha256_BYTES };
static const char delimiter[] = "<IDS|MSG>";

pl_wire *pl_wire_new(const char *key) {
  pl_wire *wire = pl_allocate(sizeof *wire);
  wire->signs = *key != 0;
  crypto_auth_hmacsha256_init(&wire->keyed, (const unsigned char *)key, strlen(key));
  pl_uuid(wire->session);
  return wire;
}

void pl_wire_free(pl_wire *wire) { free(wire); }

/* The lower-case hexadecimal HMAC of four frames; an empty text without a key. */
static void sign(const pl_wire *wire, const pl_text frames[4], pl_text *signature) {
  pl_text_append(signature, "", 0);
  if (!wire->signs) return;
  crypto_auth_hmacsha256_state state = wire->keyed;
  for (int i = 0; i < 4; i++)
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)frames[i].data, frames[i].length);
  unsigned char digest[crypto_auth_hmacsha256_BYTES];
  crypto_auth_hmacsha256_final(&state, digest);
  for (size_t i = 0; i < sizeof digest; i++) pl_text_print(signature, "%02x", digest[i]);
}

/* ---- receiving ---- */

typedef struct {
  pl_text *list;
  size_t count;
} frames;

static void release_frames(frames *f) {
  for (size_t i = 0; i < f->count; i++) pl_text_release(&f->list[i]);
  free(f->list);
  *f = (frames){0};
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

static bool is_signed(const pl_wire *wire, const pl_text *signature, const pl_text signed_frames[4]) {
  if (!wire->signs) return true;
  pl_text expected = {0};
  sign(wire, signed_frames, &expected);
  bool same =
      signature->length == SIGNATURE_BYTES && sodium_memcmp(signature->data, expected.data, SIGNATURE_BYTES) == 0;
  pl_text_release(&expected);
  return same;
}

static json_t *load_object(const pl_text *text) {
  json_t *value = json_loadb(text->data, text->length, JSON_ALLOW_NUL, NULL);
  if (json_is_object(value)) return value;
  json_decref(value);
  return NULL;
}

/* Moves what the frames say into the request; false when they are not a message. */
static bool parse(const pl_wire *wire, frames *f, pl_request *request) {
  size_t at = 0;
  while (at < f->count && !(f->list[at].length == strlen(delimiter) && strcmp(f->list[at].data, delimiter) == 0)) at++;
  if (f->count < at + 6) return false;
  pl_text *signature = &f->list[at + 1], *header = signature + 1;
  if (!is_signed(wire, signature, header)) return false;
  request->header = load_object(header);
  request->content = load_object(header + 3);
  request->type = json_string_value(json_object_get(request->header, "msg_type"));
  if (!request->header || !request->content || !request->type) return false;
  request->header_bytes = *header;
  *header = (pl_text){0};
  request->identity_count = at;
  request->identities = pl_allocate(at * sizeof *request->identities);
  for (size_t i = 0; i < at; i++) {
    request->identities[i] = f->list[i];
    f->list[i] = (pl_text){0};
  }
  return true;
}

pl_reception pl_wire_receive(pl_wire *wire, void *socket, pl_request *request) {
  frames f = {0};
  *request = (pl_request){0};
  bool got = take_frames(socket, &f);
  bool valid = got && parse(wire, &f, request);
  release_frames(&f);
  if (!valid) pl_request_release(request);
  return valid ? PL_RECEIVED : got ? PL_DROPPED : PL_NOTHING;
}

void pl_request_release(pl_request *request) {
  for (size_t i = 0; i < request->identity_count; i++) pl_text_release(&request->identities[i]);
  free(request->identities);
  pl_text_release(&request->header_bytes);
  json_decref(request->header);
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

void pl_wire_compose(pl_wire *wire, const char *type, const pl_text *parent, const json_t *content, pl_packet *packet) {
  *packet = (pl_packet){0};
  write_header(wire, type, &packet->frames[PL_HEADER]);
  if (parent && parent->length)
    pl_text_append(&packet->frames[PL_PARENT], parent->data, parent->length);
  else
    pl_text_print(&packet->frames[PL_PARENT], "{}");
  pl_text_print(&packet->frames[PL_METADATA], "{}");
  pl_json_write(content, 0, &packet->frames[PL_CONTENT]);
  sign(wire, &packet->frames[PL_HEADER], &packet->frames[PL_SIGNATURE]);
}

void pl_packet_release(pl_packet *packet) {
  for (int i = 0; i < PL_FRAMES; i++) pl_text_release(&packet->frames[i]);
}

static bool send_frame(void *socket, const char *data, size_t length, int flags) {
  int sent;
  do sent = zmq_send(socket, data, length, flags);
  while (sent < 0 && errno == EINTR);
  return sent >= 0 || errno != EAGAIN;
}

/* Whether there is room is decided by the first frame. */
bool pl_wire_send(void *socket, const pl_text *prefix, size_t prefix_count, const pl_packet *packet) {
  for (size_t i = 0; i < prefix_count; i++)
    if (!send_frame(socket, prefix[i].data, prefix[i].length, ZMQ_SNDMORE | (i == 0 ? ZMQ_DONTWAIT : 0))) return false;
  send_frame(socket, delimiter, strlen(delimiter), ZMQ_SNDMORE);
  for (int i = 0; i < PL_FRAMES; i++)
    send_frame(socket, packet->frames[i].data, packet->frames[i].length, i + 1 < PL_FRAMES ? ZMQ_SNDMORE : 0);
  return true;
}

void pl_wire_reply(pl_wire *wire, void *socket, const pl_request *request, const char *type, const json_t *content) {
  pl_packet packet;
  pl_wire_compose(wire, type, &request->header_bytes, content, &packet);
  pl_wire_send(socket, request->identities, request->identity_count, &packet);
  pl_packet_release(&packet);
}
