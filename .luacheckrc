-- Settings of luacheck: Lua 5.4, and the globals that busted gives to tests.
std = "lua54"
max_line_length = 120
ignore = { "211/scope" } -- `local scope <close> = pl.scope()` is used by being closed
files["tests"] = { std = "+busted" }
