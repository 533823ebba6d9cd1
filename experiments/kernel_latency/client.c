/* The client of experiments/kernel_latency, on the kernel's own wire layer. */
#include "experiments/kernel_latency/client.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/json.h"
#include "host/base/json_text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

enum { PATIENCE_MS = 30000, QUIET_MS = 300, STOP_MS = 3000 };
#define KEY "a key"

pl_status kernel_spec_read(const char *path, kernel_spec *spec) {
  pl_text text = {0};
  const char *ending = strrchr(path, '.');
  if (ending && strcmp(ending, ".json") == 0) {
    PL_TRY(pl_file_read(path, &text));
    spec->file = json_loadb(text.data, text.length, 0, NULL);
    pl_text_release(&text);
  } else
    spec->file =
        json_pack("{s:[s, s, s, s], s:s, s:s, s:s}", "argv", path, "kernel", "--connection-file", "{connection_file}",
                  "display_name", "perilune", "language", "lua", "interrupt_mode", "message");
  PL_REQUIRE(json_array_size(json_object_get(spec->file, "argv")) > 0, "'%s' is no kernel.json with an argv", path);
  spec->name = json_string_value(json_object_get(spec->file, "display_name"));
  spec->language = json_string_value(json_object_get(spec->file, "language"));
  PL_REQUIRE(spec->name && spec->language, "'%s' lacks display_name or language", path);
  const char *mode = json_string_value(json_object_get(spec->file, "interrupt_mode"));
  spec->by_message = mode && strcmp(mode, "message") == 0;
  return PL_OK;
}

/* ---- start and end ---- */

/* Ports that are free now: all are held at once so that they differ. */
static pl_status find_ports(int ports[PL_CHANNELS]) {
  int sockets[PL_CHANNELS], found = 0;
  for (; found < PL_CHANNELS; found++) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    sockets[found] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sockets[found] < 0) break;
    if (bind(sockets[found], (struct sockaddr *)&address, size) < 0 ||
        getsockname(sockets[found], (struct sockaddr *)&address, &size) < 0) {
      close(sockets[found]);
      break;
    }
    ports[found] = ntohs(address.sin_port);
  }
  for (int i = 0; i < found; i++) close(sockets[i]);
  PL_REQUIRE(found == PL_CHANNELS, "no free ports: %s", strerror(errno));
  return PL_OK;
}

static pl_status write_connection(client *c, pl_text *path) {
  int ports[PL_CHANNELS];
  PL_TRY(find_ports(ports));
  strcpy(c->folder, "/tmp/kernel_latency-XXXXXX");
  PL_REQUIRE(mkdtemp(c->folder), "cannot create a folder in /tmp: %s", strerror(errno));
  json_t *file = json_pack("{s:s, s:s, s:s, s:s}", "transport", "tcp", "ip", "127.0.0.1", "key", KEY,
                           "signature_scheme", "hmac-sha256");
  for (int i = 0; i < PL_CHANNELS; i++) json_object_set_new(file, pl_port_fields[i], json_integer(ports[i]));
  pl_text text = {0};
  pl_json_write(file, 1, &text);
  json_decref(file);
  pl_text_print(path, "%s/connection.json", c->folder);
  pl_status status = pl_file_write(path->data, &(pl_piece){text.data, text.length}, 1);
  pl_text_release(&text);
  if (status == PL_OK) status = pl_connection_read(path->data, &c->connection);
  return status;
}

static void open_sockets(client *c) {
  static const int types[PL_CHANNELS] = {ZMQ_DEALER, ZMQ_DEALER, ZMQ_DEALER, ZMQ_SUB, ZMQ_REQ};
  c->context = zmq_ctx_new();
  c->wire = pl_wire_new(KEY);
  for (int i = 0; i < PL_CHANNELS; i++) {
    int unlimited = 0, again_ms = 1;
    c->sockets[i] = zmq_socket(c->context, types[i]);
    zmq_setsockopt(c->sockets[i], ZMQ_RCVHWM, &unlimited, sizeof unlimited);
    zmq_setsockopt(c->sockets[i], ZMQ_SNDHWM, &unlimited, sizeof unlimited);
    zmq_setsockopt(c->sockets[i], ZMQ_LINGER, &unlimited, sizeof unlimited);
    zmq_setsockopt(c->sockets[i], ZMQ_RECONNECT_IVL, &again_ms, sizeof again_ms); /* the kernel does not listen yet */
    if (i == PL_IOPUB)
      zmq_setsockopt(c->sockets[i], ZMQ_SUBSCRIBE, "", 0);
    else if (i != PL_HEARTBEAT)
      zmq_setsockopt(c->sockets[i], ZMQ_IDENTITY, "kernel_latency", 14);
    zmq_connect(c->sockets[i], c->connection.address[i]);
  }
}

/* In the new process. */
static void become_kernel(const client *c, const char *connection_file) {
  const json_t *words = json_object_get(c->spec->file, "argv");
  size_t count = json_array_size(words);
  char **argv = pl_allocate((count + 1) * sizeof *argv);
  for (size_t i = 0; i < count; i++) {
    const char *word = json_string_value(json_array_get(words, i));
    argv[i] = pl_duplicate(word && strcmp(word, "{connection_file}") == 0 ? connection_file : word ? word : "");
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setenv("HOME", c->folder, 1); /* nobody's history is to hold what is measured */
  setenv("XDG_DATA_HOME", c->folder, 1);
  if (!freopen("/dev/null", "w", stdout)) _exit(1); /* the table's place */
  execvp(argv[0], argv);
  fprintf(stderr, "kernel_latency: cannot start %s: %s\n", argv[0], strerror(errno));
  _exit(1);
}

pl_status client_start(client *c, const kernel_spec *spec, double *ms) {
  pl_text path = {0};
  *c = (client){.spec = spec};
  pl_status status = write_connection(c, &path);
  if (status == PL_OK) {
    open_sockets(c);
    double start = pl_now_ms();
    c->process = fork();
    if (c->process == 0) become_kernel(c, path.data);
    json_t *nothing = json_object();
    client_send(c, PL_SHELL, "kernel_info_request", nothing);
    json_decref(nothing);
    bool answered = c->process > 0 && client_wait(c, PL_SHELL, "kernel_info_reply", NULL, NULL);
    *ms = pl_now_ms() - start;
    if (!answered) status = PL_FAIL("%s does not answer", spec->name);
  }
  pl_text_release(&path);
  if (status == PL_OK) client_drain(c); /* its idle may have come before the subscription */
  return status;
}

static void end_process(client *c) {
  if (c->process <= 0) return;
  json_t *content = json_pack("{s:b}", "restart", 0);
  client_send(c, PL_CONTROL, "shutdown_request", content);
  json_decref(content);
  double start = pl_now_ms();
  while (waitpid(c->process, NULL, WNOHANG) == 0) {
    if (pl_now_ms() - start > STOP_MS) kill(c->process, SIGKILL);
    usleep(1000);
  }
}

void client_stop(client *c) {
  end_process(c);
  for (int i = 0; i < PL_CHANNELS; i++)
    if (c->sockets[i]) zmq_close(c->sockets[i]);
  if (c->context) zmq_ctx_term(c->context);
  if (c->wire) pl_wire_free(c->wire);
  pl_connection_release(&c->connection);
  pl_text_release(&c->header), pl_text_release(&c->content);
  pl_text command = {0};
  pl_text_print(&command, "rm -rf '%s'", c->folder);
  if (*c->folder && system(command.data) != 0) fprintf(stderr, "kernel_latency: '%s' stays behind\n", c->folder);
  pl_text_release(&command);
  *c = (client){0};
}

/* ---- messages ---- */

void client_send(client *c, pl_channel channel, const char *type, const json_t *content) {
  pl_packet packet;
  pl_wire_compose(c->wire, type, NULL, content, NULL, &packet);
  pl_wire_send(c->sockets[channel], NULL, 0, &packet);
  pl_packet_release(&packet);
}

void client_execute(client *c, const char *code) {
  json_t *content = json_pack("{s:s, s:b, s:b, s:{}, s:b, s:b}", "code", code, "silent", 0, "store_history", 1,
                              "user_expressions", "allow_stdin", 0, "stop_on_error", 1);
  client_send(c, PL_SHELL, "execute_request", content);
  json_decref(content);
}

void client_interrupt(client *c) {
  if (!c->spec->by_message) {
    kill(c->process, SIGINT);
    return;
  }
  json_t *nothing = json_object();
  client_send(c, PL_CONTROL, "interrupt_request", nothing);
  json_decref(nothing);
}

/* Whether a socket had a message. */
static bool take_message(client *c, void *socket) {
  enum { SIGNATURE = 1, HEADER, PARENT, METADATA, CONTENT }; /* behind the delimiter */
  int place = 0, more = 1;
  while (more) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) return false;
    const char *data = zmq_msg_data(&part);
    size_t length = zmq_msg_size(&part);
    bool delimits = place == 0 && length == 9 && memcmp(data, "<IDS|MSG>", 9) == 0;
    pl_text *kept = place == HEADER ? &c->header : place == CONTENT ? &c->content : NULL;
    if (kept) pl_text_clear(kept), pl_text_append(kept, data, length);
    place += delimits || place > 0;
    more = zmq_msg_more(&part);
    zmq_msg_close(&part);
  }
  return true;
}

bool client_receive(client *c, pl_channel channel, long patience_ms) {
  zmq_pollitem_t item = {.socket = c->sockets[channel], .events = ZMQ_POLLIN};
  while (!take_message(c, c->sockets[channel]))
    if (zmq_poll(&item, 1, patience_ms) <= 0) return false;
  return true;
}

/* The string that is the member `name` of a JSON object, as it is written there, without its quotes. */
static pl_json_span string_in(const pl_text *object, const char *name) {
  pl_json_span value = {0, 0};
  if (!pl_json_find(object, (pl_json_span){0, object->length}, name, &value)) return (pl_json_span){0, 0};
  return (pl_json_span){value.begin + 1, value.end - 1};
}

static bool says(const pl_text *object, const char *name, const char *word) {
  pl_json_span string = string_in(object, name);
  return string.end - string.begin == strlen(word) && memcmp(object->data + string.begin, word, strlen(word)) == 0;
}

/* Bytes that a string stands for, where each escape is one of a single character, such as \n. */
static size_t count_bytes(const pl_text *object, pl_json_span string) {
  const char *at = object->data + string.begin, *end = object->data + string.end;
  size_t bytes = (size_t)(end - at);
  while (at < end && (at = memchr(at, '\\', (size_t)(end - at)))) bytes--, at += 2;
  return bytes;
}

bool client_wait(client *c, pl_channel channel, const char *type, const char *state, size_t *text_bytes) {
  for (;;) {
    if (!client_receive(c, channel, PATIENCE_MS)) return false;
    if (says(&c->header, "msg_type", type) && (!state || says(&c->content, "execution_state", state))) return true;
    if (text_bytes && says(&c->header, "msg_type", "stream"))
      *text_bytes += count_bytes(&c->content, string_in(&c->content, "text"));
  }
}

void client_drain(client *c) {
  while (client_receive(c, PL_IOPUB, QUIET_MS)) continue;
}

bool client_run(client *c, const char *code) {
  client_execute(c, code);
  return client_wait(c, PL_SHELL, "execute_reply", NULL, NULL) && client_wait(c, PL_IOPUB, "status", "idle", NULL);
}
