-- Command-line options of experiments and commands: declared once with type, default and help, read from `arg`, listed
-- by --help.
--
--   local option = require("perilune.options").read {
--     usage = "perilune experiments/parity.lua [OPTIONS]", about = "Trains a cell on parity.",
--     { "steps", "integer", default = 2000, minimum = 1, help = "most training steps" },
--     { "cell", "list", default = { "gru" }, choices = { "gru", "lstm" }, help = "cells to train" },
--     { "quiet", "flag", help = "no progress display" },
--   }
--
-- Options are written `--name value`, `--name=value`, and `--name` alone for a flag. A name with a hyphen has an
-- underscore in the result. An option without a default is nil when it is not given, but a flag is false, unless it is
-- `optional`.
-- With `words = "files"` in the declaration, words that are no options, `-` among them, make the list `files`, nil
-- where there are none.
local options = {}

local function one_of(choices)
  return "one of " .. table.concat(choices, ", ")
end

local function chosen(choices, value)
  for _, choice in ipairs(choices) do
    if choice == value then return true end
  end
  return false
end

local function number_within(row, value)
  if row.minimum and value < row.minimum then return nil, "a number of at least " .. row.minimum end
  if row.maximum and value > row.maximum then return nil, "a number of at most " .. row.maximum end
  return value
end

local function split(text)
  local items = {}
  for item in (text .. ","):gmatch("([^,]*),") do items[#items + 1] = item end
  return items
end

-- What each type makes of an argument's text: the value, or nil and what was expected.
local types = {
  string = function(row, text)
    if row.choices and not chosen(row.choices, text) then return nil, one_of(row.choices) end
    return text
  end,
  number = function(row, text)
    local value = tonumber(text)
    if not value or value ~= value then return nil, "a number" end
    return number_within(row, value)
  end,
  integer = function(row, text)
    local value = math.tointeger(tonumber(text))
    if not value then return nil, "an integer" end
    return number_within(row, value)
  end,
  list = function(row, text)
    local items = split(text)
    for _, item in ipairs(items) do
      if item == "" then return nil, "words separated by commas" end
      if row.choices and not chosen(row.choices, item) then return nil, one_of(row.choices) .. ", with commas" end
    end
    return items
  end,
  integers = function(row, text)
    local items = split(text)
    for i, item in ipairs(items) do
      local value, expected = math.tointeger(tonumber(item)), "integers"
      if value then
        value, expected = number_within(row, value)
      end
      if not value then return nil, expected .. " separated by commas" end
      items[i] = value
    end
    return items
  end,
  flag = function(_, text)
    if text == "true" then return true end
    if text == "false" then return false end
    return nil, "true or false (or nothing)"
  end,
}

local function shown(value)
  if type(value) == "table" then return table.concat(value, ",") end
  return tostring(value)
end

--- The names in a table, in order, for an option's choices.
function options.names(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- The text of --help.
function options.help(declaration)
  local rows, width = {}, 0
  for _, row in ipairs(declaration) do
    local left = "--" .. row[1] .. (row[2] == "flag" and "" or " " .. string.upper(row[2]))
    local right = row.help or ""
    if row.choices then right = right .. " (" .. one_of(row.choices) .. ")" end
    if row.default ~= nil and row[2] ~= "flag" then right = right .. " [" .. shown(row.default) .. "]" end
    rows[#rows + 1] = { left, right }
    width = math.max(width, #left)
  end
  rows[#rows + 1] = { "--help", "shows this list" }
  local lines = { "usage: " .. (declaration.usage or "perilune SCRIPT.lua [OPTIONS]") }
  if declaration.about then lines[#lines + 1] = declaration.about end
  lines[#lines + 1] = ""
  for _, row in ipairs(rows) do
    lines[#lines + 1] = ("  %s%s  %s"):format(row[1], (" "):rep(math.max(width, 6) - #row[1]), row[2])
  end
  return table.concat(lines, "\n") .. "\n"
end

local function by_name(declaration)
  local rows = {}
  for _, row in ipairs(declaration) do
    assert(types[row[2]], "options: the declaration of --" .. tostring(row[1]) .. " names the unknown type "
      .. tostring(row[2]))
    rows[row[1]] = row
  end
  return rows
end

local function defaults(declaration)
  local values = {}
  for _, row in ipairs(declaration) do
    local value = row.default
    if type(value) == "table" then value = table.move(value, 1, #value, 1, {}) end
    if row[2] == "flag" and value == nil and not row.optional then value = false end
    values[(row[1]:gsub("-", "_"))] = value
  end
  return values
end

-- Reads the option at arguments[i] into values. Returns the index of its last word, or nil and what was wrong.
local function read_option(rows, values, arguments, i)
  local argument = arguments[i]
  local name, text = argument:match("^%-%-([^=]+)=(.*)$")
  if not name then name = argument:match("^%-%-(.+)$") end
  local row = name and rows[name]
  if not row then
    return nil, ("unknown %s '%s'; --help lists the options"):format(name and "option" or "argument", argument)
  end
  if not text and row[2] == "flag" then text = "true" end
  if not text then
    i = i + 1
    text = arguments[i]
    if not text then return nil, ("option --%s needs a value (%s)"):format(name, row[2]) end
  end
  local value, expected = types[row[2]](row, text)
  if value == nil then return nil, ("option --%s: expected %s, got '%s'"):format(name, expected, text) end
  values[(name:gsub("-", "_"))] = value
  return i
end

--- Reads a list of arguments. Returns the table of values, or nil and what was wrong; with --help among the
-- arguments returns nil, nil.
function options.parse(declaration, arguments)
  local rows, values, words = by_name(declaration), defaults(declaration), {}
  local i = 1
  while i <= #arguments do
    local argument = arguments[i]
    if argument == "--help" or argument == "-h" then return nil end
    if declaration.words and not argument:match("^%-.") then
      words[#words + 1] = argument
    else
      local last, message = read_option(rows, values, arguments, i)
      if not last then return nil, message end
      i = last
    end
    i = i + 1
  end
  if #words > 0 then values[declaration.words] = words end
  return values
end

--- Leaves the script with status 1 and one line on standard error.
function options.fail(message, ...)
  io.stderr:write(message:format(...), "\n")
  os.exit(1, true)
end

--- An error's message without places in files and without the names of the functions and arguments it begins with,
-- which mean nothing to whoever typed an option.
function options.reason(message)
  local reason = tostring(message):match("^[^\n]*"):gsub("^[^:]*%.lua:%d+: ", "")
  reason = reason:gsub(" %b()", function(text) return text:match "%.c:%d+%)$" and "" end)
  while reason:match("^[%w_.]+: ") do reason = reason:gsub("^[%w_.]+: ", "") end
  return reason
end

--- f(...) for the value of an option; when it raises an error, says so as that option's and leaves with status 1.
function options.attempt(name, f, ...)
  local results = table.pack(pcall(f, ...))
  if not results[1] then options.fail("option --%s: %s", name, options.reason(results[2])) end
  return table.unpack(results, 2, results.n)
end

--- Reads the options of the running script or command from `arguments` (default: the global `arg`). Prints --help and
-- leaves with status 0; says on standard error what was wrong and leaves with status 1.
function options.read(declaration, arguments)
  local values, message = options.parse(declaration, arguments or arg or {})
  if values then return values end
  if message then options.fail("%s", message) end
  io.stdout:write(options.help(declaration))
  os.exit(0, true)
end

return options
