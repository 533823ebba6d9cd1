-- Settings of luacheck: Lua 5.4, and the globals that busted gives to tests.
std = "lua54"
max_line_length = 120
files["tests"] = { std = "+busted" }
