-- Looks into values without running any of the user's code: fields through tables, metatables' __index tables and the
-- program's own __index functions, and nothing else.
--
-- What is known of an expression is a "thing": { value = v }, or { instance = metatable } for a result that was not
-- computed, but is sure to have that metatable. nil: nothing is known.
local core = require "perilune.core"
local declared = require "perilune.code.declared"
local document = require "perilune.code.document"

-- Cells may give other values to these names. Only rawequal compares tables without asking __eq.
local next, type, rawget, rawlen, rawequal, pcall, getmetatable = next, type, rawget, rawlen, rawequal, pcall,
  debug.getmetatable
local globals, loaded, find, require = _G, package.loaded, string.find, require

local peek = {}

-- How far a search goes: keys of one table, and tables along __index.
local KEYS_MAX <const>, DEPTH_MAX <const> = 50000, 8

declared.safe_index(core.tensor_metatable.__index)

local function metatable_of(thing)
  local meta = thing.instance
  if meta == nil then meta = getmetatable(thing.value) end
  return type(meta) == "table" and meta or nil
end

-- The thing in which Lua would look next, or nil.
local function behind(thing)
  local meta = metatable_of(thing)
  local index = meta and rawget(meta, "__index")
  if rawequal(meta, core.tensor_metatable) then index = core.methods end
  return type(index) == "table" and { value = index } or nil
end

-- What the program's own __index function says of a field.
local function computed(thing, name)
  local meta = metatable_of(thing)
  local index = meta and rawget(meta, "__index")
  if thing.value == nil or not declared.is_safe_index(index) then return nil end
  local ok, value = pcall(index, thing.value, name)
  if ok then return value end
end

--- The field `name` of a thing.
function peek.field(thing, name)
  for _ = 1, DEPTH_MAX do
    if not thing then return nil end
    local value
    if type(thing.value) == "table" then value = rawget(thing.value, name) end
    if value == nil then value = computed(thing, name) end
    if value ~= nil then return { value = value } end
    thing = behind(thing)
  end
end

local function visit_keys(t, visit, key)
  local value
  for _ = 1, KEYS_MAX do
    key, value = next(t, key)
    if key == nil then return true end
    if type(key) == "string" then visit(key, value) end
  end
end

-- Calls visit(name, value) for the names in a table: for those that KEYS_MAX steps reach, and as many behind a long
-- sequence, which comes first.
local function each_key(t, visit)
  if visit_keys(t, visit) or rawlen(t) == 0 then return end
  visit_keys(t, visit, rawlen(t))
end

--- Calls visit(name, value, kind) for the fields of a thing. A name may come twice. Those that only an __index function
-- knows are in the metatable's __names, a list, or a table with the kind of each; their value is nil here.
function peek.each(thing, visit)
  for _ = 1, DEPTH_MAX do
    if not thing then return end
    if type(thing.value) == "table" then each_key(thing.value, visit) end
    local meta = metatable_of(thing)
    local names = meta and rawget(meta, "__names")
    if type(names) == "table" then
      for key, value in next, names do
        if type(key) == "string" then visit(key, nil, value) elseif type(value) == "string" then visit(value) end
      end
    end
    thing = behind(thing)
  end
end

--- The global `name`.
function peek.global(name) return peek.field({ value = globals }, name) end
peek.globals = { value = globals }

--- A module by its name, when it is loaded or is one of the program's own.
function peek.module(name)
  local value = rawget(loaded, name)
  if value == nil and (name == "perilune" or find(name, "^perilune%.")) then
    local ok, found = pcall(require, name)
    value = ok and found or nil
  end
  return value ~= nil and { value = value } or nil
end

--- Whether a value is Lua's require. (It is no field here, for tracebacks would call it by that name.)
function peek.is_require(value) return rawequal(value, require) end

--- What calling a thing with one literal string (or nil) gives.
function peek.result(thing, argument)
  local callee = thing.value
  if peek.is_require(callee) and argument then return peek.module(argument) end
  if document.is_class(callee) then return { instance = callee } end
  if declared.made_by(callee) then return { instance = declared.made_by(callee) } end
  if document.returns_tensor(callee) then return { instance = core.tensor_metatable } end
end

return peek
