/* Every message that the kernel knows, and what it says to each: reply and publications. Exits with 1 when anything
 * differs. */
#include "tests/jupyter/front_end.h"
#include "tests/check.h"

typedef struct {
  const char *type, *content;
  const char *reply;     /* what its content holds; NULL: there is none */
  const char *published; /* as read_published tells it, between busy and idle */
} exchange;

#define CODE(text) "{\"code\": " text "}"

#define COMMAND(name, arguments)                                                                                       \
  "{\"type\": \"request\", \"seq\": 3, \"command\": \"" name "\", \"arguments\": " arguments "}"

/* In this order: counts, history and state go on from one to the next. */
static const exchange shell[] = {
    {"kernel_info_request", "{}",
     "{\"status\": \"ok\", \"protocol_version\": \"5.5\", \"supported_features\": [\"debugger\"], \"debugger\": true}",
     ""},
    {"connect_request", "{}",
     "{\"status\": \"ok\", \"shell_port\": 1000, \"control_port\": 1001, \"stdin_port\": 1002, \"iopub_port\": 1003, "
     "\"hb_port\": 1004}",
     ""},

    {"execute_request", CODE("\"1 + 1\""),
     "{\"status\": \"ok\", \"execution_count\": 1, \"payload\": [], \"user_expressions\": {}}",
     "execute_input execute_result[2]"},
    {"execute_request", CODE("\"print 'a' error('b', 0)\""),
     "{\"status\": \"error\", \"execution_count\": 2, \"ename\": \"Error\", \"evalue\": \"b\"}",
     "execute_input stream[a\n] error[b]"},
    {"execute_request", "{\"code\": \"x = 7\", \"silent\": true, \"user_expressions\": {\"y\": \"x\", \"z\": 5}}",
     "{\"status\": \"ok\", \"execution_count\": 2, \"user_expressions\": {\"y\": {\"status\": \"ok\", \"data\": "
     "{\"text/plain\": \"7\"}, \"metadata\": {}}}}",
     ""},
    {"execute_request", "{\"code\": \"x\", \"store_history\": false}", "{\"status\": \"ok\", \"execution_count\": 2}",
     "execute_input execute_result[7]"},
    {"execute_request", "{\"code\": \"x\", \"silent\": 1, \"store_history\": [], \"user_expressions\": [\"x\"]}",
     "{\"status\": \"ok\", \"execution_count\": 3, \"user_expressions\": {}}", "execute_input execute_result[7]"},
    {"execute_request", "{\"code\": 5}", "{\"status\": \"error\", \"ename\": \"ProtocolError\"}", ""},
    {"execute_request", "{}", "{\"status\": \"error\", \"ename\": \"ProtocolError\"}", ""},
    {"execute_request", CODE("\"io.read()\""), "{\"status\": \"error\", \"execution_count\": 4}", NULL},
    {"execute_request", CODE("\"local d = require 'perilune.display' d.text 'a' d.clear{ wait = true }\""),
     "{\"status\": \"ok\"}", "execute_input display_data clear_output"},

    {"is_complete_request", CODE("\"x = 1\""), "{\"status\": \"complete\"}", ""},
    {"is_complete_request", CODE("\"do\\n  do\""), "{\"status\": \"incomplete\", \"indent\": \"    \"}", ""},
    {"is_complete_request", CODE("\"x = = 1\""), "{\"status\": \"invalid\"}", ""},
    {"is_complete_request", CODE("null"), "{\"status\": \"error\", \"ename\": \"ProtocolError\"}", ""},

    {"complete_request", "{\"code\": \"ü = string.re\", \"cursor_pos\": 13}",
     "{\"status\": \"ok\", \"cursor_start\": 11, \"cursor_end\": 13}", ""},
    {"complete_request", "{\"code\": \"string.re\", \"cursor_pos\": -5}", "{\"status\": \"ok\", \"cursor_end\": 0}",
     ""},
    {"complete_request", "{\"code\": \"string.re\", \"cursor_pos\": \"x\"}", "{\"status\": \"ok\", \"cursor_end\": 9}",
     ""},
    {"complete_request", "{}", "{\"status\": \"error\", \"ename\": \"ProtocolError\"}", ""},

    {"history_request", "{\"hist_access_type\": \"tail\", \"n\": 1, \"output\": true}",
     "{\"status\": \"ok\", \"history\": [[1, 5, [\"local d = require 'perilune.display' d.text 'a' d.clear{ wait = "
     "true "
     "}\", null]]]}",
     ""},
    {"history_request", "{\"hist_access_type\": \"range\", \"session\": 0, \"start\": 1, \"stop\": 2}",
     "{\"history\": [[1, 1, \"1 + 1\"]]}", ""},
    {"history_request", "{\"hist_access_type\": \"search\", \"pattern\": \"io.*\"}",
     "{\"history\": [[1, 4, \"io.read()\"]]}", ""},
    {"history_request", "{\"hist_access_type\": \"search\", \"pattern\": 5, \"n\": \"all\", \"unique\": 0}",
     "{\"status\": \"ok\"}", ""},
    {"history_request", "{\"hist_access_type\": \"none\"}", "{\"status\": \"error\", \"ename\": \"ProtocolError\"}",
     ""},

    {"comm_info_request", "{}", "{\"status\": \"ok\", \"comms\": {}}", ""},
    {"comm_open", "{\"comm_id\": \"a\", \"target_name\": \"t\", \"data\": {}}", NULL, "comm_close"},
    {"comm_open", "{\"comm_id\": 5, \"target_name\": \"t\"}", NULL, ""},
    {"comm_open", "{\"comm_id\": \"a\"}", NULL, "comm_close"},
    {"comm_msg", "{\"comm_id\": \"a\"}", NULL, ""},
    {"comm_close", "{}", NULL, ""},
    {"execute_request",
     CODE("\"require 'perilune.comm'.register_target('t', function(c, d) print(type(d)) c:on_message(function(x) "
          "error(x.why, 0) end) end)\""),
     "{\"status\": \"ok\"}", "execute_input"},
    {"comm_open", "{\"comm_id\": \"a\", \"target_name\": \"t\"}", NULL, "stream[table\n]"},
    {"comm_open", "{\"comm_id\": \"b\", \"target_name\": \"t\", \"data\": [1]}", NULL, "stream[table\n]"},
    {"comm_open", "{\"comm_id\": \"c\", \"target_name\": \"t\", \"data\": 7}", NULL, "stream[number\n]"},
    {"comm_info_request", "{\"target_name\": \"t\"}",
     "{\"comms\": {\"a\": {\"target_name\": \"t\"}, \"b\": {\"target_name\": \"t\"}, \"c\": {\"target_name\": \"t\"}}}",
     ""},
    {"comm_info_request", "{\"target_name\": \"other\"}", "{\"comms\": {}}", ""},
    {"comm_msg", "{\"comm_id\": \"a\", \"data\": {\"why\": \"so\"}}", NULL, "error[so]"},
    {"comm_close", "{\"comm_id\": \"a\", \"data\": null}", NULL, ""},
    {"comm_msg", "{\"comm_id\": \"a\", \"data\": {\"why\": \"so\"}}", NULL, ""},

    {"interrupt_request", "{}", "{\"status\": \"ok\"}", ""},
    {"usage_request", "{}", NULL, ""}, /* of the control channel */
    {"debug_request", "{\"command\": \"debugInfo\"}", NULL, ""},
    {"create_subshell_request", "{}", NULL, ""},
    {"no_such_request", "{\"x\": 1}", NULL, ""},
    {"", "{}", NULL, ""},
};

static const exchange control[] = {
    {"kernel_info_request", "{}", "{\"status\": \"ok\", \"implementation\": \"perilune\"}", ""},
    {"connect_request", "{}", "{\"status\": \"ok\", \"shell_port\": 1000}", ""},
    {"usage_request", "{}", "{\"status\": \"ok\", \"kernel_cpu\": 0.0, \"gpus\": []}", ""},
    {"interrupt_request", "{\"x\": []}", "{\"status\": \"ok\"}", ""},
    {"execute_request", CODE("\"1\""), NULL, ""}, /* of the shell channel */
    {"list_subshell_request", "{}", NULL, ""},
    {"create_subshell_request", "{}", NULL, ""},
    {"delete_subshell_request", "{\"subshell_id\": \"x\"}", NULL, ""},

    {"debug_request", COMMAND("debugInfo", "{}"),
     "{\"type\": \"response\", \"request_seq\": 3, \"success\": true, \"command\": \"debugInfo\", \"body\": "
     "{\"isStarted\": "
     "false, \"hashMethod\": \"Murmur2\", \"breakpoints\": [], \"stoppedThreads\": []}}",
     ""},
    {"debug_request", COMMAND("attach", "{}"),
     "{\"success\": false, \"message\": \"attach: the debugger is not started: send `initialize` first\"}", ""},
    {"debug_request", COMMAND("initialize", "{}"),
     "{\"success\": true, \"body\": {\"supportsConditionalBreakpoints\": true}}", ""},
    {"debug_request", COMMAND("attach", "{}"), "{\"success\": true}", "debug_event debug_event"},
    {"debug_request", COMMAND("threads", "null"),
     "{\"success\": true, \"body\": {\"threads\": [{\"id\": 1, \"name\": \"Lua\"}]}}", ""},
    {"debug_request", COMMAND("evaluate", "{\"expression\": \"1 + 1\"}"),
     "{\"success\": true, \"body\": {\"result\": \"2\", \"type\": \"int\", \"variablesReference\": 0}}", ""},
    {"debug_request", COMMAND("evaluate", "{\"expression\": \"print 'a'\"}"), "{\"success\": true}", "stream[a\n]"},
    {"debug_request", COMMAND("evaluate", "{\"expression\": 5}"),
     "{\"success\": false, \"message\": \"expression: expected a string, got number\"}", ""},
    {"debug_request", COMMAND("next", "{\"threadId\": 1}"),
     "{\"success\": false, \"message\": \"nothing stands still\"}", ""},
    {"debug_request", COMMAND("inspectVariables", "[]"), "{\"success\": true}", ""},
    {"debug_request", COMMAND("goto", "{}"),
     "{\"success\": false, \"message\": \"debug_request: there is no command 'goto'\"}", ""},
    {"debug_request", COMMAND("disconnect", "{}"), "{\"success\": true}", ""},
    {"debug_request", "{}",
     "{\"success\": false, \"command\": \"\", \"message\": \"debug_request: content has no string `command`\"}", ""},
};

/* Whether every member of `wanted` is in `content`, and so on for those that are objects. */
static bool holds_members(const json_t *content, json_t *wanted) {
  json_t *value;
  const char *name;
  if (!json_is_object(wanted) || json_object_size(wanted) == 0) return json_equal(content, wanted);
  json_object_foreach(wanted, name, value) if (!holds_members(json_object_get(content, name), value)) return false;
  return true;
}

static bool holds(const json_t *content, const char *wanted) {
  json_t *members = json_loads(wanted, 0, NULL);
  bool same = members && (json_object_size(members) == 0 || holds_members(content, members));
  json_decref(members);
  return same;
}

static void check_reply(front_end *f, pl_channel channel, const exchange *e, const pl_text *request) {
  message reply;
  bool came = receive(f, channel, e->reply ? WAIT_MS : 0, &reply);
  CHECK(came == (e->reply != NULL));
  if (!came || !e->reply) {
    message_release(&reply);
    return;
  }
  pl_text type = {0};
  pl_text_print(&type, "%.*sreply", (int)(strlen(e->type) - strlen("request")), e->type);
  CHECK(strcmp(text_of(reply.header, "msg_type"), type.data) == 0);
  CHECK(pl_text_equal(&reply.frames[2], request)); /* the parent header: byte by byte */
  CHECK(json_object_size(reply.metadata) == 0 && reply.count == 5);
  if (!holds(reply.content, e->reply)) {
    fprintf(stderr, "%s %s:\n  expected %s\n  got %s\n", e->type, e->content, e->reply, reply.frames[4].data);
    failures++;
  }
  pl_text_release(&type);
  message_release(&reply);
}

static void check_exchange(front_end *f, pl_channel channel, const exchange *e) {
  pl_text frames[REQUEST_FRAMES], published = {0}, wanted = {0};
  make_request(f, e->type, e->content, frames);
  send_frames(f, channel, frames, REQUEST_FRAMES);
  if (channel == PL_SHELL || strcmp(e->type, "debug_request") == 0) pl_kernel_step(&f->kernel, WAIT_MS);
  CHECK(read_published(f, &published)); /* idle comes last: a reply is there by then */
  pl_text_print(&wanted, "busy %s%sidle", e->published ? e->published : "", e->published && *e->published ? " " : "");
  if (e->published && !pl_text_equal(&published, &wanted)) {
    fprintf(stderr, "%s %s: published %s, expected %s\n", e->type, e->content, published.data, wanted.data);
    failures++;
  }
  check_reply(f, channel, e, &frames[HEADER]);
  pl_text_release(&published);
  pl_text_release(&wanted);
  release_frames(frames, REQUEST_FRAMES);
}

/* Requests that were sent before the front end could know of an error. */
static void test_aborted(front_end *f) {
  static const char *const statuses[] = {"error", "aborted", "ok", "aborted"};
  send_request(f, PL_SHELL, "execute_request", CODE("\"error 'x'\""));
  send_request(f, PL_SHELL, "execute_request", CODE("\"must_not_run = true\""));
  send_request(f, PL_SHELL, "kernel_info_request", "{}");
  send_request(f, PL_SHELL, "execute_request", CODE("\"must_not_run = true\""));
  pl_kernel_step(&f->kernel, WAIT_MS);
  pl_text published = {0};
  message m;
  for (int i = 0; i < 4; i++) {
    CHECK(read_published(f, &published) && receive(f, PL_SHELL, WAIT_MS, &m));
    CHECK(strcmp(text_of(m.content, "status"), statuses[i]) == 0);
    message_release(&m);
  }
  pl_text_release(&published);
  check_exchange(f, PL_SHELL,
                 &(exchange){"execute_request", CODE("\"must_not_run\""), "{}", "execute_input execute_result[nil]"});
}

/* A message with buffers reaches the handler with them, and goes back with others. */
static void test_buffers(front_end *f) {
  static const exchange target = {
      "execute_request",
      CODE("\"require 'perilune.comm'.register_target('b', function(c, _, b, m) c:send({ n = #b }, "
           "{ b[2] .. b[1], b[3] }, { got = m.m }) end)\""),
      "{\"status\": \"ok\"}", "execute_input"};
  check_exchange(f, PL_SHELL, &target);
  pl_text frames[REQUEST_FRAMES + 3];
  make_request(f, "comm_open", "{\"comm_id\": \"buffers\", \"target_name\": \"b\", \"data\": {}}", frames);
  frames[REQUEST_FRAMES] = (pl_text){0};
  frames[REQUEST_FRAMES + 1] = frames[REQUEST_FRAMES + 2] = (pl_text){0};
  pl_text_append(&frames[REQUEST_FRAMES], "\0\xff", 2);
  pl_text_append(&frames[REQUEST_FRAMES + 1], "<IDS|MSG>", 9);
  send_frames(f, PL_SHELL, frames, REQUEST_FRAMES + 3);
  pl_kernel_step(&f->kernel, WAIT_MS);
  message m;
  CHECK(receive(f, PL_IOPUB, WAIT_MS, &m) && strcmp(text_of(m.content, "execution_state"), "busy") == 0);
  message_release(&m);
  CHECK(receive(f, PL_IOPUB, WAIT_MS, &m) && strcmp(text_of(m.header, "msg_type"), "comm_msg") == 0);
  CHECK(pl_text_equal(&m.frames[2], &frames[HEADER]));
  CHECK(holds(m.content, "{\"comm_id\": \"buffers\", \"data\": {\"n\": 3}}") && holds(m.metadata, "{\"got\": 1}"));
  CHECK(m.count == 7 && m.frames[5].length == 11 && memcmp(m.frames[5].data, "<IDS|MSG>\0\xff", 11) == 0);
  CHECK(m.frames[6].length == 0);
  message_release(&m);
  CHECK(receive(f, PL_IOPUB, WAIT_MS, &m) && strcmp(text_of(m.content, "execution_state"), "idle") == 0);
  message_release(&m);
  release_frames(frames, REQUEST_FRAMES + 3);
}

/* What is not signed, signed wrongly or sent again vanishes: not even busy is said. */
static void test_dropped(front_end *f) {
  pl_text frames[REQUEST_FRAMES], published = {0};
  make_request(f, "execute_request", CODE("\"runs = (runs or 0) + 1\""), frames);
  for (int i = 0; i < 2; i++) send_frames(f, PL_SHELL, frames, REQUEST_FRAMES);
  frames[SIGNATURE].data[0] ^= 1;
  send_frames(f, PL_SHELL, frames, REQUEST_FRAMES);
  frames[SIGNATURE].length = 10;
  send_frames(f, PL_SHELL, frames, REQUEST_FRAMES);
  for (int i = 0; i < 4; i++) pl_kernel_step(&f->kernel, WAIT_MS);
  CHECK(read_published(f, &published) && strcmp(published.data, "busy execute_input idle") == 0);
  message m;
  CHECK(receive(f, PL_SHELL, WAIT_MS, &m));
  message_release(&m);
  frames[SIGNATURE].length = 64;
  frames[SIGNATURE].data[0] ^= 1; /* right again, but known */
  send_frames(f, PL_CONTROL, frames, REQUEST_FRAMES);
  CHECK(!receive(f, PL_SHELL, 0, &m) && !receive(f, PL_IOPUB, 50, &m));
  check_exchange(f, PL_SHELL,
                 &(exchange){"execute_request", CODE("\"runs\""), "{}", "execute_input execute_result[1]"});
  pl_text_release(&published);
  release_frames(frames, REQUEST_FRAMES);
}

/* The oldest messages are forgotten, but only after tens of thousands. */
static void test_memory_of_signatures(void) {
  pl_wire *wire = pl_wire_new(KEY);
  void *context = zmq_ctx_new(), *in = zmq_socket(context, ZMQ_PAIR), *out = zmq_socket(context, ZMQ_PAIR);
  zmq_bind(in, "inproc://pair");
  zmq_connect(out, "inproc://pair");
  pl_packet packets[2];
  pl_request request;
  json_t *content = json_object();
  for (int i = 0; i < 2; i++) pl_wire_compose(wire, "x", NULL, content, NULL, &packets[i]);
  pl_wire_send(out, NULL, 0, &packets[0]);
  CHECK(pl_wire_receive(wire, in, &request) == PL_RECEIVED);
  pl_request_release(&request);
  for (int i = 0; i < 10000; i++) {
    pl_packet packet;
    pl_wire_compose(wire, "x", NULL, content, NULL, &packet);
    pl_wire_send(out, NULL, 0, &packet);
    pl_packet_release(&packet);
    CHECK(pl_wire_receive(wire, in, &request) == PL_RECEIVED);
    pl_request_release(&request);
  }
  pl_wire_send(out, NULL, 0, &packets[0]);
  CHECK(pl_wire_receive(wire, in, &request) == PL_DROPPED);
  pl_wire_send(out, NULL, 0, &packets[1]);
  CHECK(pl_wire_receive(wire, in, &request) == PL_RECEIVED);
  pl_request_release(&request);
  CHECK(pl_wire_receive(wire, in, &request) == PL_NOTHING);
  for (int i = 0; i < 2; i++) pl_packet_release(&packets[i]);
  json_decref(content);
  zmq_close(in);
  zmq_close(out);
  zmq_ctx_term(context);
  pl_wire_free(wire);
}

/* ---- a cell that stands still: another thread is the front end meanwhile ---- */

/* Asks the debugger; the reply is to be released. */
static message debug(front_end *f, const char *content) {
  message reply;
  send_request(f, PL_CONTROL, "debug_request", content);
  CHECK(receive(f, PL_CONTROL, WAIT_MS, &reply));
  return reply;
}

static void expect(front_end *f, const char *content, const char *wanted) {
  message reply = debug(f, content);
  if (!holds(reply.content, wanted)) {
    fprintf(stderr, "%s:\n  expected %s\n  got %s\n", content, wanted, reply.frames[4].data);
    failures++;
  }
  message_release(&reply);
}

static void *drive_debugger(void *data) {
  front_end *f = data;
  for (bool stopped = false; !stopped;) {
    message reply = debug(f, COMMAND("debugInfo", "{}"));
    json_t *threads = json_object_get(json_object_get(reply.content, "body"), "stoppedThreads");
    stopped = json_array_size(threads) > 0;
    message_release(&reply);
  }
  expect(f, COMMAND("evaluate", "{\"expression\": \"kept\"}"), "{\"body\": {\"result\": \"5\"}}");
  expect(f, COMMAND("evaluate", "{\"expression\": \"kept = 6\"}"), "{\"success\": true}");
  send_request(f, PL_CONTROL, "kernel_info_request", "{}");
  message reply;
  CHECK(receive(f, PL_CONTROL, WAIT_MS, &reply) && holds(reply.content, "{\"status\": \"ok\"}"));
  message_release(&reply);
  expect(f, COMMAND("continue", "{\"threadId\": 1}"), "{\"body\": {\"allThreadsContinued\": true}}");
  expect(f, COMMAND("disconnect", "{}"), "{\"success\": true}");
  return NULL;
}

static void test_standstill(front_end *f) {
  static const exchange before[] = {{"debug_request", COMMAND("initialize", "{}"), "{\"success\": true}", ""},
                                    {"debug_request",
                                     COMMAND("setExceptionBreakpoints", "{\"filters\": [\"uncaught\"]}"),
                                     "{\"success\": true}", ""}};
  for (size_t i = 0; i < sizeof before / sizeof *before; i++) check_exchange(f, PL_CONTROL, &before[i]);
  pthread_t driver;
  send_request(f, PL_SHELL, "execute_request", CODE("\"kept = 5 error 'here'\""));
  CHECK(pthread_create(&driver, NULL, drive_debugger, f) == 0);
  message reply;
  bool answered = false;
  while (!answered) {
    pl_kernel_step(&f->kernel, 20);
    answered = receive(f, PL_SHELL, 0, &reply);
  }
  CHECK(holds(reply.content, "{\"status\": \"error\"}"));
  message_release(&reply);
  while (pthread_tryjoin_np(driver, NULL) != 0) pl_kernel_step(&f->kernel, 20); /* `disconnect` may come last of all */
  pl_text said = {0};
  while (!strstr(said.data ? said.data : "", "error[")) CHECK(read_published(f, &said));
  CHECK(strstr(said.data, "debug_event") && strstr(said.data, "debug_event") < strstr(said.data, "error["));
  pl_text_release(&said);
  while (receive(f, PL_IOPUB, 50, &reply)) message_release(&reply);
  check_exchange(
      f, PL_SHELL,
      &(exchange){"execute_request", CODE("\"kept\""), "{\"status\": \"ok\"}", "execute_input execute_result[6]"});
}

static void test_shutdown(front_end *f) {
  message m;
  send_request(f, PL_SHELL, "shutdown_request", "{\"restart\": true}");
  pl_kernel_step(&f->kernel, WAIT_MS);
  CHECK(receive(f, PL_SHELL, WAIT_MS, &m) && holds(m.content, "{\"status\": \"ok\", \"restart\": true}"));
  message_release(&m);
  pl_text published = {0};
  CHECK(read_published(f, &published) && strcmp(published.data, "busy shutdown_reply idle") == 0);
  CHECK(atomic_load(&f->kernel.stopping));
  pl_text_release(&published);
}

/* Without a key nothing is signed. */
static void test_unsigned(void) {
  front_end f;
  front_end_open(&f, "");
  check_exchange(&f, PL_SHELL, &shell[2]);
  front_end_close(&f);
}

int main(void) {
  front_end f;
  front_end_open(&f, KEY);
  for (size_t i = 0; i < sizeof shell / sizeof *shell; i++) check_exchange(&f, PL_SHELL, &shell[i]);
  for (size_t i = 0; i < sizeof control / sizeof *control; i++) check_exchange(&f, PL_CONTROL, &control[i]);
  test_aborted(&f);
  test_buffers(&f);
  test_dropped(&f);
  test_standstill(&f);
  test_shutdown(&f);
  front_end_close(&f);
  test_unsigned();
  test_memory_of_signatures();
  return finished("messages");
}
