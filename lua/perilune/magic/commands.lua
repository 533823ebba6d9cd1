-- What the lines that are no Lua do, by their names: "?" and "??" (help), "!" (a command of the shell) and the magics,
-- which are written `%name`. A row has `run`; `takes`, what may stand behind the name, by which perilune.magic writes
-- the call; `files` where completion offers files; and for a magic `usage` and `about`, by which it explains itself.
--
-- To add a magic: one row.
local core = require "perilune.core"
local describe = require "perilune.code.help".of
local timing = require "perilune.magic.timing"

-- Cells may give other values to these names, and %reset must work all the same.
local error, pcall, next, require, loadfile, ipairs, tonumber = error, pcall, next, require, loadfile, ipairs, tonumber
local print, rawset, setmetatable, globals = print, rawset, setmetatable, _G
local collectgarbage, open, execute, stdout, stderr = collectgarbage, io.open, os.execute, io.stdout, io.stderr
local match, format, gsub, sub, find = string.match, string.format, string.gsub, string.sub, string.find
local concat, sort, unpack = table.concat, table.sort, table.unpack

local commands = {}
local rows = {}
commands.rows = rows

-- Raises an error at the user's line, from which the function that calls this one was called.
local function fail(message, ...) error(format(message, ...), 3) end

--- The names of the magics in alphabetical order.
function commands.magics()
  local names = {}
  for name, row in next, rows do
    if row.usage then names[#names + 1] = name end
  end
  sort(names)
  return names
end

--- What is to be said of a magic that there is not.
function commands.unknown(text)
  return format("there is no magic '%s'; the magics are %%%s", text, concat(commands.magics(), ", %"))
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Help

local forms <const> = {
  { "?NAME, NAME?", "what is known of a value; with ?? also its source" },
  { "%MAGIC ...", "a magic; %lsmagic lists them, ?%MAGIC explains one" },
  { "!COMMAND", "a command of the shell" },
}

local function list(entries)
  local lines = {}
  for i, entry in ipairs(entries) do lines[i] = format("%-36s  %s", entry[1], entry[2]) end
  return concat(lines, "\n")
end

local function show(bundle) require "perilune.display".bundle(bundle) end

local function help(detail)
  return function(name, value_of)
    if name == "" then return show { ["text/plain"] = list(forms) } end
    local magic = match(name, "^%%(.*)")
    if magic then
      local row = rows[magic]
      if not row then fail("?: %s", commands.unknown(name)) end
      return show { ["text/plain"] = row.usage .. "\n\n" .. row.about }
    end
    local known, value = pcall(value_of)
    if not known or value == nil then fail("?: nothing is known of '%s', which is nil", name) end
    show(describe(value, name, detail))
  end
end

rows["?"] = { takes = "name", run = help(0) }
rows["??"] = { takes = "name", run = help(1) }

rows.lsmagic = {
  takes = "nothing", usage = "%lsmagic", about = "lists the magics",
  run = function()
    local entries = {}
    for i, name in ipairs(commands.magics()) do entries[i] = { rows[name].usage, rows[name].about } end
    print(list(entries))
  end,
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Time

rows.time = {
  takes = "code", usage = "%time CODE",
  about = "runs the code and tells the time that it took; its result is that of the line",
  run = function(f)
    local said, results = timing.once(f)
    print(said)
    return unpack(results, 1, results.n)
  end,
}

rows["%time"] = {
  takes = "cell", usage = "%%time", about = "as the first line of a cell, tells the time that the cell took",
  run = function()
    local told = timing.start()
    return setmetatable({}, { __close = function(_, problem)
      if not problem then print(told()) end
    end })
  end,
}

rows.timeit = {
  takes = "loop", usage = "%timeit [-n LOOPS] [-r RUNS] CODE",
  about = "runs the code in loops, and tells mean and deviation over some runs",
  run = function(options, loop)
    local given = { loops = tonumber(match(options, "%-n%s*(%d+)")), runs = tonumber(match(options, "%-r%s*(%d+)")) }
    if given.loops == 0 then fail "%%timeit: -n: an integer of at least 1 is expected, got 0" end
    if given.runs == 0 then fail "%%timeit: -r: an integer of at least 1 is expected, got 0" end
    print(timing.repeated(loop, given))
  end,
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Files

-- The words of a text; one in quotes may hold blanks.
local function words_of(text)
  local words, at = {}, 1
  while true do
    at = find(text, "%S", at)
    if not at then return words end
    local quote, word, behind = match(text, "^([\"'])(.-)%1()", at)
    if not quote then word, behind = match(text, "^(%S+)()", at) end
    words[#words + 1], at = word, behind
  end
end

rows.load = {
  takes = "text", files = true, usage = "%load FILE",
  about = "puts the text of a file into the cell; in the prompt, prints it",
  run = function(text)
    local words = words_of(text)
    if #words ~= 1 then fail("%%load: one file is expected, got %d", #words) end
    local file <close>, problem = open(words[1], "rb")
    local content
    if file then content, problem = file:read "a" end
    if not content then fail("%%load: cannot read '%s': %s", words[1], (gsub(problem, "^.*: ", ""))) end
    local put = { source = "set_next_input", text = format("-- %%load %s\n%s", text, content), replace = true }
    if not core.payload(put) then stdout:write(content, sub(content, -1) == "\n" and "" or "\n") end
  end,
}

rows.run = {
  takes = "text", files = true, usage = "%run FILE [ARGUMENTS]", about = "runs a script, whose global variables stay",
  run = function(text)
    local words = words_of(text)
    local path = words[1]
    if not path then fail "%%run: a file is expected, got nothing" end
    local script, problem = loadfile(path)
    if not script then fail("%%run: %s", problem) end
    local before = globals.arg
    local _ <close> = setmetatable({}, { __close = function() rawset(globals, "arg", before) end })
    local arguments = { unpack(words, 2) }
    arguments[0] = path
    rawset(globals, "arg", arguments)
    return script(unpack(arguments))
  end,
}

-- ---------------------------------------------------------------------------------------------------------------------
-- The session

local first_globals = {}

--- Remembers the global variables to which %reset goes back.
function commands.remember_globals()
  for name, value in next, globals do first_globals[name] = value end
end

rows.reset = {
  takes = "text", usage = "%reset", about = "removes the global variables of the session and gives Lua's own back",
  run = function(text)
    if text ~= "" and text ~= "-f" then fail("%%reset: nothing or -f is expected behind it, got '%s'", text) end
    for name in next, globals do
      if first_globals[name] == nil then globals[name] = nil end
    end
    for name, value in next, first_globals do rawset(globals, name, value) end
    collectgarbage()
  end,
}

rows["!"] = {
  takes = "text", files = true,
  run = function(command)
    if command == "" then fail "!: a command is expected, got nothing" end
    stdout:flush() -- the command writes behind it
    local ok, how, status = execute(command)
    if not ok then stderr:write(how == "signal" and "ended by signal " or "exit status ", status, "\n") end
  end,
}

return commands
