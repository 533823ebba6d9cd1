/* Reading connection files. */
#include "host/jupyter/connection.h"
#include "host/base/file.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const char *const pl_port_fields[PL_CHANNELS] = {"shell_port", "control_port", "stdin_port", "iopub_port", "hb_port"};

static const char *string_field(const json_t *file, const char *name, const char *otherwise) {
  const char *value = json_string_value(json_object_get(file, name));
  return value ? value : otherwise;
}

static pl_status read_port(const json_t *file, const char *path, const char *name, long *port) {
  const json_t *value = json_object_get(file, name);
  PL_REQUIRE(json_is_integer(value) || json_is_string(value), "connection file '%s' has no %s", path, name);
  *port = json_is_integer(value) ? (long)json_integer_value(value) : strtol(json_string_value(value), NULL, 10);
  PL_REQUIRE(*port > 0 && *port < 65536, "connection file '%s': %s is %ld, not a port number", path, name, *port);
  return PL_OK;
}

static pl_status take_fields(const json_t *file, const char *path, pl_connection *connection) {
  PL_REQUIRE(json_is_object(file), "connection file '%s' does not hold a JSON object", path);
  const char *transport = string_field(file, "transport", "tcp"), *ip = string_field(file, "ip", "127.0.0.1");
  const char *scheme = string_field(file, "signature_scheme", "hmac-sha256");
  bool ipc = strcmp(transport, "ipc") == 0;
  PL_REQUIRE(ipc || strcmp(transport, "tcp") == 0, "connection file '%s': transport '%s' is neither tcp nor ipc", path,
             transport);
  connection->key = pl_duplicate(string_field(file, "key", ""));
  PL_REQUIRE(!*connection->key || strcmp(scheme, "hmac-sha256") == 0,
             "connection file '%s': signature_scheme '%s' is not hmac-sha256", path, scheme);
  for (int i = 0; i < PL_CHANNELS; i++) {
    long port = 0;
    PL_TRY(read_port(file, path, pl_port_fields[i], &port));
    connection->port[i] = port;
    pl_text address = {0};
    pl_text_print(&address, ipc ? "ipc://%s-%ld" : "tcp://%s:%ld", ip, port);
    connection->address[i] = address.data;
  }
  return PL_OK;
}

pl_status pl_connection_read(const char *path, pl_connection *connection) {
  *connection = (pl_connection){0};
  pl_text text = {0};
  pl_status status = pl_file_read(path, &text);
  if (status == PL_OK) {
    json_error_t error;
    json_t *file = json_loadb(text.data, text.length, 0, &error);
    status = file ? take_fields(file, path, connection)
                  : PL_FAIL("connection file '%s' is not JSON: line %d: %s", path, error.line, error.text);
    json_decref(file);
  }
  pl_text_release(&text);
  if (status != PL_OK) pl_connection_release(connection);
  return status;
}

void pl_connection_release(pl_connection *connection) {
  for (int i = 0; i < PL_CHANNELS; i++) free(connection->address[i]);
  free(connection->key);
  *connection = (pl_connection){0};
}
