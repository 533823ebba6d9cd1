-- Inspection: what is known of a value, or of what stands at the cursor, as a MIME bundle of plain text and Markdown.
-- Runs no user code, whatever metatables say, and bounds its work.
--
--   help.at(code, cursor, detail) -> bundle, or nil when nothing is known of what stands there
--   help.of(value, name, detail)  -> bundle
--
-- `detail` 1 adds the source text of Lua functions.
local core = require "perilune.core"
local declared = require "perilune.code.declared"
local document = require "perilune.code.document"
local expression = require "perilune.code.expression"
local peek = require "perilune.code.peek"
local source = require "perilune.code.source"
local statistics = require "perilune.code.statistics"
local text = require "perilune.code.text"

-- Cells may give other values to these names.
local type, next, rawget, rawlen, tostring, pcall, ipairs, setmetatable, getmetatable = type, next, rawget, rawlen,
  tostring, pcall, ipairs, setmetatable, debug.getmetatable
local math_type, min, max = math.type, math.min, math.max
local byte, sub, find, match, gsub, gmatch, rep, format = string.byte, string.sub, string.find, string.match,
  string.gsub, string.gmatch, string.rep, string.format
local concat, sort = table.concat, table.sort

local help = {}

-- Pages ---------------------------------------------------------------------------------------------------------------

-- Text and Markdown grow side by side.
local Page = {}
Page.__index = Page

local function new_page() return setmetatable({ plain = {}, markdown = {} }, Page) end

function Page:add(plain, markdown)
  self.plain[#self.plain + 1] = plain
  self.markdown[#self.markdown + 1] = markdown
end

-- Lua text, in a fence that is longer than any in it.
function Page:code(lua)
  local fence = "```"
  while find(lua, fence, 1, true) do fence = fence .. "`" end
  self:add(lua, fence .. "lua\n" .. lua .. "\n" .. fence)
end

local function escaped(line) return (gsub(line, "[\\`*_<>#|%[%]]", "\\%0")) end

-- Words of a comment; lines that are indented keep their form.
function Page:words(words)
  local lines, fenced = {}, false
  for line in gmatch(words .. "\n", "(.-)\n") do
    local indented = find(line, "^  ") ~= nil
    if indented ~= fenced then lines[#lines + 1] = fenced and "```\n" or "\n```lua" end
    lines[#lines + 1] = indented and line or escaped(line)
    fenced = indented
  end
  if fenced then lines[#lines + 1] = "```" end
  self:add(words, concat(lines, "\n"))
end

-- Rows of a name and what it is.
function Page:rows(rows)
  local plain, markdown, width = {}, { "| | |", "|---|---|" }, 0
  for _, row in ipairs(rows) do width = max(width, #row[1]) end
  for i, row in ipairs(rows) do
    plain[i] = row[1] .. rep(" ", width - #row[1] + 2) .. row[2]
    markdown[i + 2] = "| " .. escaped(row[1]) .. " | " .. escaped(row[2]) .. " |"
  end
  self:add(concat(plain, "\n"), concat(markdown, "\n"))
end

function Page:bundle()
  return { ["text/plain"] = concat(self.plain, "\n\n"), ["text/markdown"] = concat(self.markdown, "\n\n") }
end

-- Values in a few words -----------------------------------------------------------------------------------------------

local STRING_MAX <const> = 60

local function quoted(value)
  local shown = #value > STRING_MAX and sub(value, 1, STRING_MAX) .. "…" or value
  return '"' .. gsub(shown, '[%c"\\]', function(c) return format("\\x%02X", byte(c)) end) .. '"'
end

local function tensor_line(t)
  if core.dropped(t) then return "tensor (dropped with its scope)" end
  return format("tensor [%s] %s %s", concat(t.shape, ", "), t.dtype, t.device)
end

local function in_words(value)
  local kind = type(value)
  if kind == "string" then return quoted(value) end
  if kind == "number" or kind == "boolean" or value == nil then return tostring(value) end
  if core.is_tensor(value) then return tensor_line(value) end
  local meta = getmetatable(value)
  local name = type(meta) == "table" and rawget(meta, "__name")
  if document.is_class(value) then name = rawget(value, "__name") kind = "class" end
  return type(name) == "string" and kind .. " " .. name or kind
end

-- Tensors -------------------------------------------------------------------------------------------------------------

local function add_tensor(page, t)
  local dropped = core.dropped(t)
  if dropped then return page:words("a tensor that was dropped when its scope " .. dropped) end
  local rows = {
    { "shape", "[" .. concat(t.shape, ", ") .. "]" }, { "dtype", t.dtype }, { "device", t.device },
    { "elements", format("%d", t:numel()) },
  }
  if t:needs_grad() then rows[#rows + 1] = { "gradient", t.grad and tensor_line(t.grad) or "wanted" } end
  local ok, found = pcall(core.no_grad, statistics, t) -- a lost GPU, or memory that ran out, has no numbers to tell
  for _, row in ipairs(ok and found or { { "statistics", "not available: " .. tostring(found) } }) do
    rows[#rows + 1] = row
  end
  page:rows(rows)
end

-- Functions and tables ------------------------------------------------------------------------------------------------

local function add_place(page, place) page:add("Defined in " .. place, "Defined in `" .. place .. "`") end

-- `value` is a function, or a class, which its init speaks for.
local function add_function(page, value, name, detail, method)
  page:code(name .. (document.parameters(value, method) or "(...)"))
  local words = document.words(value)
  if words then page:words(words) end
  local options = declared.options_of(value)
  if #options > 0 then page:words("Options: " .. concat(options, ", ")) end
  local f = document.definition(value)
  local place = f and source.place(f)
  if place then add_place(page, place) end
  local definition = f and detail == 1 and source.definition(f)
  if definition then page:code(definition) end
end

local SHOWN_MAX <const>, COUNT_MAX <const> = 12, 200000

local function before(a, b)
  local kind_a, kind_b = type(a), type(b)
  if kind_a == kind_b and (kind_a == "string" or kind_a == "number") then return a < b end
  return kind_a < kind_b
end

-- The first keys of a table outside its sequence, in order; how many there are; whether that is all.
local function keys_of(t, length)
  local keys, count = {}, 0
  local key, steps = next(t), 0
  while key ~= nil and steps < COUNT_MAX do
    steps = steps + 1
    if not (math_type(key) == "integer" and key >= 1 and key <= length) then
      count = count + 1
      if count <= 10000 then keys[count] = key end
    end
    key = next(t, key)
  end
  sort(keys, before)
  return keys, count, key == nil
end

-- What an object of the program's own is, with the values of its properties; false for what tells none.
local function add_object(page, t)
  local meta = getmetatable(t)
  local class, names = nil, nil
  if type(meta) == "table" then class, names = rawget(meta, "__name"), rawget(meta, "__names") end
  if type(class) ~= "string" or type(names) ~= "table" or not declared.is_safe_index(rawget(meta, "__index")) then
    return false
  end
  local rows, methods = {}, {}
  for name, kind in next, names do
    local list = kind == "function" and methods or rows
    list[#list + 1] = name
  end
  sort(rows)
  sort(methods)
  for i, name in ipairs(rows) do
    local field = peek.field({ value = t }, name)
    rows[i] = { name, in_words(field and field.value) }
  end
  page:words("an object of " .. class)
  page:rows(rows)
  page:words("Methods: " .. concat(methods, ", "))
  return true
end

local function add_table(page, t)
  local length = rawlen(t)
  local keys, count, all = keys_of(t, length)
  local size = {}
  if length > 0 then size[1] = format("a sequence of %d", length) end
  if count > 0 or length == 0 then size[#size + 1] = format("%d %s", count, count == 1 and "key" or "keys") end
  if not all then size[#size + 1] = format("counted over %d entries", COUNT_MAX) end
  page:words(in_words(t) .. ": " .. concat(size, ", "))
  local path, words = source.module(t)
  if words then page:words(words) end
  if path then add_place(page, path) end
  local rows = {}
  for i = 1, min(length, SHOWN_MAX) do rows[i] = { format("[%d]", i), in_words(rawget(t, i)) } end
  for i = 1, min(#keys, SHOWN_MAX) do
    local key = keys[i]
    local name = type(key) == "string" and match(key, "^[%a_][%w_]*$") or "[" .. in_words(key) .. "]"
    rows[#rows + 1] = { name, in_words(rawget(t, key)) }
  end
  local hidden = max(length - SHOWN_MAX, 0) + max(count - SHOWN_MAX, 0)
  if hidden > 0 then rows[#rows + 1] = { "…", format("%d more", hidden) } end
  if #rows > 0 then page:rows(rows) end
end

-- ---------------------------------------------------------------------------------------------------------------------

local function page_of(value, name, detail, method)
  local page = new_page()
  if type(value) == "function" or document.definition(value) then
    add_function(page, value, name, detail, method)
  elseif core.is_tensor(value) then
    add_tensor(page, value)
  elseif type(value) == "table" then
    if not add_object(page, value) then add_table(page, value) end
  elseif type(value) == "string" then
    page:words(format("string of %d bytes: %s", #value, quoted(value)))
  elseif type(value) == "number" or type(value) == "boolean" then
    page:words(type(value) .. " " .. tostring(value))
  else
    page:words(in_words(value))
  end
  return page
end

--- What is known of a value, for which the text says `name`.
function help.of(value, name, detail) return page_of(value, name, detail):bundle() end

-- The expression that ends with token `last`, in one line.
local function written(code, last)
  local first = expression.start(code, last)
  return (gsub(sub(code.source, code.first[first], code.last[last]), "%s+", ""))
end

-- A page on what the expression that ends with token `last` stands for; nil when that is not known.
local function page_at(code, last, detail)
  if last < 1 or code.kind[last] == "keyword" then return nil end
  local thing = expression.value(code, last)
  if thing and thing.value ~= nil then
    return page_of(thing.value, written(code, last), detail, code:word(last - 1) == ":")
  end
  local class = thing and thing.instance
  if class then
    local page = new_page()
    page:words("an object of " .. tostring(rawget(class, "__name")) .. ", which is made when the code runs")
    return page
  end
  local one = code.kind[last] == "name" and code:word(last - 1) ~= "." and code:word(last - 1) ~= ":"
    and code:visible(code:word(last), last)
  if not one or one.kind ~= "function" or not one.parameters then return nil end
  local page, range = new_page(), one.parameters
  page:code(one.name .. sub(code.source, code.first[range[1]], code.last[range[2]]))
  page:words "a local function of this cell"
  return page
end

--- What is known of the name that the cursor, which lies behind byte `cursor` of the code, touches; or, where there is
-- none or it is not known, of the function whose arguments the cursor is among. nil when that is not known either.
function help.at(code, cursor, detail)
  local stop = match(code, "^[%w_]*()", cursor + 1) - 1
  local up_to = text.read(sub(code, 1, stop))
  if up_to.open == "comment" then return nil end
  local last = up_to.count
  local touches = last > 0 and up_to.last[last] == stop and up_to.kind[last] == "name"
  local page = touches and page_at(up_to, last, detail)
  local callee = not page and expression.callee(up_to, touches and last - 1 or last)
  if not page and up_to.open == "string" and not callee then callee = up_to:ends_operand(last - 1) and last - 1 end
  page = page or callee and page_at(up_to, callee, detail)
  return page and page:bundle() or nil
end

return help
