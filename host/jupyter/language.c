/* The description of Lua. */
#include "host/jupyter/language.h"
#include "host/bind/session.h"

json_t *pl_language_info(void) {
  return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "codemirror_mode", "lua", "file_extension", ".lua", "mimetype",
                   "text/x-lua", "name", "lua", "pygments_lexer", "lua", "version", pl_session_language_version());
}
