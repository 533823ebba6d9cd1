-- Values as the Debug Adapter Protocol tells of them: name, type, a line of text, and a number by which what is inside
-- can be asked for. Types of plain values are called "int", "float", "bool" and "str", by which JupyterLab knows that
-- it can show the value itself. Lists values without running the user's code.
local core = require "perilune.core"
local sorted_keys = require("perilune.inspect").keys
local source = require "perilune.code.source"

-- Cells may give other values to these names.
local type, next, rawlen, rawget, rawset, rawequal, tostring, pcall = type, next, rawlen, rawget, rawset, rawequal,
  tostring, pcall
local setmetatable, getmetatable, ipairs, error = setmetatable, debug.getmetatable, ipairs, error
local getupvalue, setupvalue, getinfo, getlocal = debug.getupvalue, debug.setupvalue, debug.getinfo, debug.getlocal
local getuservalue, status = debug.getuservalue, coroutine.status
local math_type, min, max = math.type, math.min, math.max
local find, sub, gsub, format, byte, concat = string.find, string.sub, string.gsub, string.format, string.byte,
  table.concat
local array, tensor_metatable = core.json_array, core.tensor_metatable
local tensor_field, select, item = tensor_metatable.__index, core.methods.select, core.methods.item

local values = {}

-- Children of one list before the rest is put into another, bytes of a line, items of a table in it.
local PAGE <const>, WIDTH <const>, ITEMS <const> = 500, 120, 8

-- Text --------------------------------------------------------------------------------------------------------------

local escapes <const> = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ['"'] = '\\"', ["\\"] = "\\\\" }

local function quoted(text, width)
  local cut = #text > width
  if cut then text = sub(text, 1, width) end
  text = gsub(text, '[%c"\\\127]', function(c) return escapes[c] or format("\\x%02X", byte(c)) end)
  return '"' .. text .. (cut and '…"' or '"')
end

local function key_text(key)
  if type(key) ~= "string" then return "[" .. values.text(key, 40) .. "]" end
  return find(key, "^[%a_][%w_]*$") and key or "[" .. quoted(key, 200) .. "]"
end

local function class_name(value)
  local meta = getmetatable(value)
  local name = type(meta) == "table" and rawget(meta, "__name")
  return type(name) == "string" and name or nil
end

-- "table: 0x..." whatever __tostring and __name say.
local function address(value) return type(value) .. format(": %p", value) end

local function is_tensor(value) return rawequal(getmetatable(value), tensor_metatable) end

-- A tensor may have been dropped with its scope: then every question to it is an error.
local function tensor_type(value)
  local ok, shape = pcall(tensor_field, value, "shape")
  if not ok then return "dropped tensor" end
  return format("%s[%s] %s", tensor_field(value, "dtype"), concat(shape, ", "), tensor_field(value, "device"))
end

local function table_text(value, width)
  local items, length, key = {}, rawlen(value), nil
  for _ = 1, ITEMS do
    local content
    key, content = next(value, key)
    if key == nil then break end
    local text = type(content) == "table" and (next(content) == nil and "{}" or "{…}") or values.text(content, 30)
    items[#items + 1] = math_type(key) == "integer" and key >= 1 and key <= length and text
      or key_text(key) .. " = " .. text
    if #concat(items, ", ") > width then break end
  end
  if key ~= nil and next(value, key) ~= nil then items[#items + 1] = "…" end
  local name = class_name(value)
  return (name and name .. " " or "") .. "{" .. concat(items, ", ") .. "}"
end

--- One line of text for a value.
function values.text(value, width)
  local kind = type(value)
  width = width or WIDTH
  if kind == "string" then return quoted(value, width) end
  if kind == "table" then return table_text(value, width) end
  if kind == "function" then return "function: " .. (source.place(value) or "builtin") end
  if kind == "thread" then return "coroutine: " .. status(value) end
  if kind == "userdata" then
    if is_tensor(value) then return tensor_type(value) end
    return class_name(value) or address(value)
  end
  return tostring(value)
end

local plain_types <const> = { boolean = "bool", string = "str", thread = "coroutine" }

local function type_of(value)
  local kind = type(value)
  if kind == "number" then return math_type(value) == "integer" and "int" or "float" end
  if kind == "userdata" or kind == "table" then
    return is_tensor(value) and tensor_type(value) or class_name(value) or kind
  end
  return plain_types[kind] or kind
end

-- Numbers of values -------------------------------------------------------------------------------------------------

-- A value keeps its number as long as it lives; that alone keeps nothing alive. While code stands still, so do the
-- things that only the front end knows of: scopes, rests of long lists, results.
local number_of = setmetatable({}, { __mode = "k" })
local value_of = setmetatable({}, { __mode = "v" })
local names = setmetatable({}, { __mode = "k" }) -- value -> an expression for it
local last, held = 0, {}

-- A list of children that is no value of the user's: list(add) adds them, set(name, value) changes one.
local List = {}

local function refer(value, name)
  if not number_of[value] then
    last = last + 1
    number_of[value], value_of[last] = last, value
  end
  names[value] = name
  return number_of[value]
end

--- A number for a list of the debugger's own: `visit(add)` calls add(name, value, expression) for each child.
function values.list(visit, set)
  local list = setmetatable({ visit = visit, set = set }, List)
  held[#held + 1] = list
  return refer(list)
end

--- Keeps a value that nothing else may hold.
function values.hold(value) held[#held + 1] = value end

--- Lets go of lists and results: their numbers mean nothing any more.
function values.release()
  for _, thing in ipairs(held) do
    if rawequal(getmetatable(thing), List) then
      value_of[number_of[thing]] = nil
      number_of[thing] = nil
    end
  end
  held = {}
end

local function has_children(value)
  local kind = type(value)
  return kind == "table" or kind == "function" or kind == "thread" or kind == "userdata"
end

--- A Variable of the protocol; also what responses to evaluate and setVariable are made of.
function values.variable(name, value, expression)
  local variable = { name = name, value = values.text(value), type = type_of(value), evaluateName = expression,
    variablesReference = has_children(value) and refer(value, expression) or 0 }
  if type(value) == "table" and rawlen(value) > PAGE then
    variable.indexedVariables, variable.namedVariables = rawlen(value), 1
  end
  return variable
end

-- What is inside ----------------------------------------------------------------------------------------------------

local function child_expression(name, key)
  if not name then return nil end
  if type(key) == "string" and find(key, "^[%a_][%w_]*$") then return name .. "." .. key end
  return name .. "[" .. (type(key) == "string" and format("%q", key) or values.text(key, 40)) .. "]"
end

-- Children as { name, value, expression }, by a function of their position, and how many there are of the sequence and
-- besides it.
local function children_of_table(value, name)
  local length = rawlen(value)
  local keys, meta = sorted_keys(value, length), getmetatable(value)
  if meta ~= nil then keys[#keys + 1] = meta end
  return function(i)
    local key = i <= length and i or keys[i - length]
    if i > length and meta ~= nil and rawequal(key, meta) then
      return "(metatable)", meta, name and "getmetatable(" .. name .. ")"
    end
    return key_text(key), rawget(value, key), child_expression(name, key)
  end, length, #keys
end

-- Fields, then what an index finds: a tensor of one dimension less, or a number.
local tensor_fields <const> = { "shape", "dtype", "device", "grad" }
local function children_of_tensor(value, name)
  local length = tensor_field(value, "shape")[1] or 0
  return function(i)
    local field, index = tensor_fields[i], i - #tensor_fields
    local found
    if field then
      found = tensor_field(value, field)
    else
      found = select(value, 1, index)
      if #tensor_field(found, "shape") == 0 then found = item(found) end
    end
    values.hold(found)
    if field then return field, found, child_expression(name, field) end
    return format("[%d]", index), found, name and format("%s:select(1, %d)", name, index)
  end, 0, #tensor_fields + length
end

-- The same for children that a function adds one by one.
local function children_of_visit(visit)
  local found = {}
  visit(function(...) found[#found + 1] = { ... } end)
  return function(i) return found[i][1], found[i][2], found[i][3] end, 0, #found
end

local visits = {}

visits["function"] = function(f)
  return function(add)
    local i, name, value = 1, getupvalue(f, 1)
    while name do
      if name ~= "_ENV" then add(name ~= "" and name or "upvalue " .. i, value) end
      i = i + 1
      name, value = getupvalue(f, i)
    end
  end
end

function visits.thread(co)
  return function(add)
    local level, info = 0, getinfo(co, 0, "Sl")
    while info do
      local locals, i, name, value = {}, 1, getlocal(co, level, 1)
      while name do
        if sub(name, 1, 1) ~= "(" then locals[name] = value end
        i = i + 1
        name, value = getlocal(co, level, i)
      end
      values.hold(locals)
      add(info.what == "C" and "[C]" or format("%s:%d", info.short_src, info.currentline), locals)
      level = level + 1
      info = getinfo(co, level, "Sl")
    end
  end
end

function visits.userdata(value)
  return function(add)
    local meta, content = getmetatable(value), getuservalue(value)
    if content ~= nil then add("(user value)", content) end
    if meta ~= nil then add("(metatable)", meta) end
  end
end

local function children_of(value)
  if rawequal(getmetatable(value), List) then return children_of_visit(value.visit) end
  if is_tensor(value) then return children_of_tensor(value, names[value]) end
  if type(value) == "table" then return children_of_table(value, names[value]) end
  return children_of_visit(visits[type(value)](value))
end

-- Variables first..last of a list; where they are too many, the rest as one more that can be opened.
local function page(child, first, final)
  local list, stop = array {}, min(final, first + PAGE - 1)
  for i = first, stop do
    local name, value, expression = child(i)
    list[#list + 1] = values.variable(name, value, expression)
  end
  if stop < final then
    local rest = values.list(nil)
    value_of[rest].page = function() return page(child, stop + 1, final) end
    list[#list + 1] = { name = format("… %d more", final - stop), value = "", type = "", variablesReference = rest }
  end
  return list
end

local function find_value(number)
  local value = value_of[number]
  if value == nil then error(format("variablesReference: %d is none that is known (any more)", number), 0) end
  return value
end

--- The Variables inside the value with a number: `count` of them (nil or 0: all) from `start` (0 is the first);
--- `filter` is "indexed", "named" or nil.
function values.children(number, start, count, filter)
  local value = find_value(number)
  if rawequal(getmetatable(value), List) and value.page then return value.page() end
  local child, indexed, named = children_of(value)
  local first, final = 1, indexed + named
  if filter == "indexed" then final = indexed elseif filter == "named" then first = indexed + 1 end
  first = first + max(start or 0, 0)
  if count and count > 0 then
    local list = array {}
    for i = first, min(final, first + count - 1) do list[#list + 1] = values.variable(child(i)) end
    return list
  end
  return page(child, first, final)
end

-- Changing what is inside -------------------------------------------------------------------------------------------

local function set_field(t, name, new)
  for key in next, t do
    if key_text(key) == name then
      rawset(t, key, new)
      return true
    end
  end
end

local function set_upvalue(f, name, new)
  local i = 1
  while getupvalue(f, i) do
    if getupvalue(f, i) == name then return setupvalue(f, i, new) ~= nil end
    i = i + 1
  end
end

--- Gives the child `name` of the value with a number another value.
function values.set(number, name, new)
  local value, done = find_value(number), false
  if rawequal(getmetatable(value), List) then
    done = value.set and value.set(name, new)
  elseif type(value) == "table" then
    done = set_field(value, name, new)
  elseif type(value) == "function" then
    done = set_upvalue(value, name, new)
  end
  if not done then error(format("setVariable: '%s' cannot be set there", name), 0) end
end

return values
