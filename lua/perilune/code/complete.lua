-- Completion: the names that may stand at the cursor. Runs no user code and bounds its work, whatever the tables hold.
local core = require "perilune.core"
local declared = require "perilune.code.declared"
local document = require "perilune.code.document"
local expression = require "perilune.code.expression"
local find_lines = require "perilune.magic.lines"
local magics = require "perilune.magic.commands"
local paths = require "perilune.code.paths"
local peek = require "perilune.code.peek"
local text = require "perilune.code.text"

-- Cells may give other values to these names.
local type, next, ipairs, setmetatable, loaded = type, next, ipairs, setmetatable, package.loaded
local sub, find, match, sort = string.sub, string.find, string.match, table.sort

local complete = {}

local MATCHES_MAX <const> = 1000

local keywords <const> = {}
for _, word in ipairs(core.keywords) do keywords[word] = true end

-- Matches ----------------------------------------------------------------------------------------------------------

-- What is offered, in this order: the options of a call, locals, then all else; names with an underscore last.
local RANK <const> = { option = 1, ["local"] = 2, other = 3 }

local Matches = {}
Matches.__index = Matches

local function new_matches(prefix)
  return setmetatable({ prefix = prefix, list = {}, seen = {} }, Matches)
end

-- Adds a name, unless it does not begin with the prefix or is there already.
function Matches:add(name, kind, signature, rank)
  local prefix, list = self.prefix, self.list
  if self.seen[name] or #list >= MATCHES_MAX or sub(name, 1, #prefix) ~= prefix then return end
  self.seen[name] = true
  list[#list + 1] = { text = name, type = kind, signature = signature, rank = RANK[rank or "other"] }
end

-- Whether a name is worth a description: cheap tests before anything is looked up.
function Matches:wants(name)
  return sub(name, 1, #self.prefix) == self.prefix and not self.seen[name] and find(name, "^[%a_][%w_]*$") ~= nil
    and not keywords[name] and (self.prefix ~= "" or sub(name, 1, 1) ~= "_")
end

function Matches:sorted()
  sort(self.list, function(a, b)
    if a.rank ~= b.rank then return a.rank < b.rank end
    local private_a, private_b = sub(a.text, 1, 1) == "_", sub(b.text, 1, 1) == "_"
    if private_a ~= private_b then return private_b end
    return a.text < b.text
  end)
  for _, one in ipairs(self.list) do one.rank = nil end
  return self.list
end

-- The kinds that JupyterLab has icons for. `otherwise` is that of a plain value.
local function kind_of(value, modules, otherwise)
  if type(value) == "function" then return "function" end
  if modules[value] then return "module" end
  return document.is_class(value) and "class" or otherwise
end

local function loaded_modules()
  local modules, count = {}, 0
  for _, module in next, loaded do
    count = count + 1
    if type(module) == "table" and count < 10000 then modules[module] = true end
  end
  return modules
end

-- Adds the fields of a thing; after a ':' only what can be called.
local function add_fields(matches, thing, method, otherwise)
  local modules, found = loaded_modules(), {}
  peek.each(thing, function(name, value, kind)
    if #found < MATCHES_MAX and matches:wants(name) then found[#found + 1] = { name, value, kind } end
  end)
  for _, one in ipairs(found) do -- described afterwards, for that may load modules into the very table
    local name, value, kind = one[1], one[2], one[3]
    local signature = document.parameters(value, method)
    if not method or signature or type(value) == "function" or kind == "function" then
      matches:add(name, kind or kind_of(value, modules, otherwise), signature)
    end
  end
end

-- Places --------------------------------------------------------------------------------------------------------------

-- The fields that the code itself sets or uses of the variable at token `base`, and those in the table that a local was
-- given.
local function add_written_fields(matches, code, base)
  if code.kind[base] ~= "name" or code:word(base - 1) == "." or code:word(base - 1) == ":" then return end
  local name = code:word(base)
  local one = code:visible(name, base)
  local function add(i)
    local touched = i == code.count and code.last[i] == #code.source -- what is being typed
    if not touched and matches:wants(code:word(i)) then matches:add(code:word(i), "property") end
  end
  local value = one and one.value
  if value and code:word(value[1]) == "{" then
    for _, key in ipairs(code:keys(value[1], value[2])) do add(key) end
  end
  for i = 3, code.count do
    local before = code.kind[i] == "name" and code:word(i - 1)
    if (before == "." or before == ":") and code:word(i - 2) == name then add(i) end
  end
end

-- Names of options, where the cursor is at a key of a table that is given to a call: f{ .., | or f(.., { .., |
local function add_options(matches, code, last)
  local open = code:enclosing(last)
  local before = code:word(last)
  if not open or code:word(open) ~= "{" or before ~= "{" and before ~= "," and before ~= ";" then return end
  local callee, bracket = expression.callee(code, open)
  if bracket ~= open and (bracket ~= code:enclosing(open - 1) or code:word(bracket) ~= "(") then return end
  local thing = callee and expression.value(code, callee)
  if not thing then return end
  local given = {}
  for _, key in ipairs(code:keys(open, last)) do given[code:word(key)] = true end
  for _, name in ipairs(declared.options_of(thing.value)) do
    if not given[name] and find(name, "^[%a_][%w_]*$") then matches:add(name, "param", nil, "option") end
  end
end

local local_kinds <const> = {
  ["local"] = "instance", parameter = "param", loop = "instance", ["function"] = "function",
}

-- The parameters of a local function as they are written.
local function written_parameters(code, one)
  local range = one.parameters
  return range and code.first[range[1]] and sub(code.source, code.first[range[1]], code.last[range[2]] or -1) or nil
end

-- Names that stand alone: locals that are visible behind token `last`, globals, keywords.
local function add_names(matches, code, last)
  local found, assigned = code:locals()
  local modules = loaded_modules()
  for i = #found, 1, -1 do
    local one = found[i]
    if one.from <= last + 1 and last + 1 < one.to and matches:wants(one.name) then
      local thing = one.value and expression.start(code, one.value[2]) == one.value[1]
        and expression.value(code, one.value[2])
      local kind = local_kinds[one.kind]
      if thing and thing.value ~= nil then kind = kind_of(thing.value, modules, kind) end
      matches:add(one.name, kind, written_parameters(code, one), "local")
    end
  end
  add_fields(matches, peek.globals, false, "instance")
  for name in next, assigned do
    if matches:wants(name) then matches:add(name, "instance") end
  end
  for _, word in ipairs(core.keywords) do matches:add(word, "keyword") end
end

-- Names at a cursor that is not in a string or comment; `last` is the last token before the prefix.
local function add_code(matches, code, last)
  local before = code.kind[last] == "symbol" and code:word(last)
  if before == "." or before == ":" then
    local thing = expression.value(code, last - 1)
    if thing then add_fields(matches, thing, before == ":", "property") end
    if not thing or type(thing.value) == "table" then add_written_fields(matches, code, last - 1) end
    return
  end
  add_options(matches, code, last)
  add_names(matches, code, last)
end

-- Strings: names of modules after require, keys of a table in t["..., else files. Returns the matches and where what
-- they replace begins.
local function in_string(code)
  local token = code.count
  local word = code:word(token)
  local content = match(word, "^%[=*%[()") or 2
  local start, typed = code.first[token] + content - 1, sub(word, content)
  if find(typed, "[\\%c]") then return {}, start end
  local before = code:word(token - 1)
  local callee = before == "(" and token - 2 or token - 1
  local thing = code:ends_operand(callee) and expression.value(code, callee)
  local matches
  if thing and peek.is_require(thing.value) then
    matches = new_matches(typed)
    paths.modules(typed, function(name, kind) matches:add(name, kind) end)
  elseif before == "[" and code:ends_operand(token - 2) then
    matches = new_matches(typed)
    thing = expression.value(code, token - 2)
    if thing then
      peek.each(thing, function(name)
        if not find(name, "[%c\"'\\]") then matches:add(name, "property") end
      end)
    end
  else
    local folder = match(typed, "^(.*/)") or ""
    matches = new_matches(sub(typed, #folder + 1))
    paths.files(typed, function(name, kind) matches:add(name, kind) end)
    start = start + #folder
  end
  return matches:sorted(), start
end

local any_name <const> = setmetatable({}, { __index = function() return true end })

-- Lines that are no Lua: names of magics, and files where a command takes them. Returns what in_string does; nothing
-- where the code does not end in such a line, or in one whose rest is Lua.
local function in_magic(code)
  local lines = find_lines(code, any_name)
  local line = lines[#lines]
  if not line or line.last < #code then return nil end
  local written = sub(code, line.first)
  local name = match(written, "^%?*%s*(%%+[%w_]*)$")
  if name then
    local matches = new_matches(name)
    for _, one in ipairs(magics.magics()) do matches:add("%" .. one, "magic") end
    return matches:sorted(), #code - #name + 1
  end
  local row = magics.rows[match(written, "^!") or match(written, "^%%(%%?[%w_]+)%s")]
  if not row or not row.files then return nil end
  local path = match(written, "[^!%s\"']*$")
  local folder = match(path, "^(.*/)") or ""
  local matches = new_matches(sub(path, #folder + 1))
  paths.files(path, function(entry, kind) matches:add(entry, kind) end)
  return matches:sorted(), #code - #path + #folder + 1
end

--- The names that may stand at the cursor, which lies behind byte `cursor` of the code: a list of { text =, type =,
-- signature = } in which signature may be nil, and the place of the first byte that they replace, up to the cursor.
function complete.at(code, cursor)
  local up_to = sub(code, 1, cursor)
  local list, start = in_magic(up_to)
  if list then return list, start end
  local before = text.read(up_to)
  local count = before.count
  if before.open == "comment" then return {}, cursor + 1 end
  if before.open == "string" then return in_string(before) end
  local touches = count > 0 and before.last[count] == cursor
  if touches and before.kind[count] == "number" then return {}, cursor + 1 end
  local typing = touches and (before.kind[count] == "name" or before.kind[count] == "keyword")
  if not typing then
    local matches = new_matches ""
    add_code(matches, before, count)
    return matches:sorted(), cursor + 1
  end
  before.kind[count] = "name" -- a keyword may be the beginning of a name
  local matches = new_matches(before:word(count))
  add_code(matches, before, count - 1)
  return matches:sorted(), before.first[count]
end

return complete
