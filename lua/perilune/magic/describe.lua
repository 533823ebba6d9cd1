-- What is known of a value, for `?name`: its kind, how a function is called, the comment above its definition, and with
-- detail 1 its source text.
local inspect = require "perilune.inspect"

-- Cells may give other values to these names.
local type, getinfo, getlocal, lines_of, pcall = type, debug.getinfo, debug.getlocal, io.lines, pcall
local match, sub, format, concat, insert = string.match, string.sub, string.format, table.concat, table.insert

local function parameters(f, info)
  local names = {}
  for i = 1, info.nparams do names[i] = getlocal(f, i) end
  if info.isvararg then names[#names + 1] = "..." end
  return "(" .. concat(names, ", ") .. ")"
end

-- The lines of the file a function was defined in; nil when it is not there.
local function file_of(info)
  local lines = {}
  local read = pcall(function()
    for line in lines_of(sub(info.source, 2)) do lines[#lines + 1] = line end
  end)
  return sub(info.source, 1, 1) == "@" and read and lines or nil
end

local function comment_above(lines, place)
  local comment = {}
  for i = place - 1, 1, -1 do
    local words = match(lines[i] or "", "^%s*%-%-+ ?(.*)")
    if not words then break end
    insert(comment, 1, words)
  end
  return concat(comment, "\n")
end

local function of_function(f, name, detail)
  local info = getinfo(f, "Su")
  if info.what == "C" then return { name .. "(...)", "a function in C" } end
  local text = { name .. parameters(f, info), format("%s:%d", info.short_src, info.linedefined) }
  local lines = file_of(info)
  if not lines then return text end
  local comment = comment_above(lines, info.linedefined)
  if comment ~= "" then text[#text + 1] = comment end
  if detail > 0 then text[#text + 1] = concat(lines, "\n", info.linedefined, info.lastlinedefined) end
  return text
end

--- The MIME bundle of what is known of a value, for which the user wrote `name`.
return function(value, name, detail)
  local text = type(value) == "function" and of_function(value, name, detail)
    or { format("%s: %s", name, type(value)), inspect.text(value) }
  return { ["text/plain"] = concat(text, "\n\n") }
end
