-- The kinds of values that traits of widgets hold. Each tells what it expects, which values it accepts and how it keeps
-- them (check), what the front end gets of them (wire) and what comes back from there (read).
local core = require "perilune.core"

local kinds = {}

--- Whether a value is a table that is no object; front ends' lists are such, too.
function kinds.is_plain(value)
  local meta = type(value) == "table" and getmetatable(value)
  return meta == nil or type(meta) == "table" and meta.__name == "perilune.array"
end

local function same(value) return value end

-- check(value) returns whether the value is accepted, and the value as it is kept.
local function new(expected, check, wire, read)
  return { expected = expected, check = check, wire = wire or same, read = read or same }
end

local function of_type(name, expected) return new(expected, function(v) return type(v) == name, v end) end

kinds.boolean = of_type("boolean", "true or false")
kinds.string = of_type("string", "a string")
kinds.any = new("a value", function(v) return v ~= nil and v ~= core.null, v end)

-- Front ends count from 0, Lua from 1.
kinds.integer = new("an integer", function(v)
  local whole = type(v) == "number" and math.tointeger(v)
  return whole ~= nil and whole ~= false, whole
end)
kinds.index = new("the number of an option or page, from 1 on", kinds.integer.check, function(v) return v - 1 end,
  function(v) return math.type(v) == "integer" and v + 1 or v end)

-- Kept as a float, whichever way a front end wrote it.
kinds.number = new("a finite number", function(v)
  local finite = type(v) == "number" and v - v == 0
  return finite, finite and v + 0.0
end)

kinds.size = new("a number of pixels, or a string", function(v)
  return type(v) == "string" or math.type(v) == "integer", tostring(v)
end)

kinds.color = new("a color such as '#ff8800' or 'orange'", function(v)
  if type(v) ~= "string" then return false end
  local digits = v:match "^#(%x+)$"
  return digits and (#digits == 3 or #digits == 4 or #digits == 6 or #digits == 8)
    or v:find "^%a+$" ~= nil or v:find "^%a+%([%w%s.,%%/-]+%)$" ~= nil, v
end)

--- One of some strings.
function kinds.one_of(choices)
  local known, quoted = {}, {}
  for i, choice in ipairs(choices) do
    known[choice] = true
    quoted[i] = ("'%s'"):format(choice)
  end
  return new("one of " .. table.concat(quoted, ", "), function(v) return known[v] == true, v end)
end

--- A value of the kind, or nothing: nil.
function kinds.optional(kind)
  return new(kind.expected .. ", or nil", function(v)
    if v == nil or v == core.null then return true, nil end
    return kind.check(v)
  end, function(v)
    if v == nil then return core.null end
    return kind.wire(v)
  end, function(v)
    if v == core.null then return nil end
    return kind.read(v)
  end)
end

local function map(list, f)
  local mapped = {}
  for i = 1, #list do mapped[i] = f(list[i]) end
  return mapped
end

--- A sequence of values of the kind, of any length or of `length`; `items` says what they are called.
function kinds.list(kind, items, length)
  local expected = length and ("a list of %d %s"):format(length, items) or "a list of " .. items
  return new(expected, function(v)
    if not kinds.is_plain(v) or length and #v ~= length then return false end
    local kept, count = {}, 0
    for _ in pairs(v) do count = count + 1 end
    for i = 1, #v do
      local accepted, item = kind.check(v[i])
      if not accepted then return false end
      kept[i] = item
    end
    return count == #v, kept
  end, function(v) return core.json_array(map(v, kind.wire)) end, function(v)
    return type(v) == "table" and map(v, kind.read) or v
  end)
end

-- Binary data: a string that travels in a buffer of its own, beside the JSON.
kinds.bytes = of_type("string", "a string of bytes")
kinds.bytes.binary = true

-- What an Output widget shows, as messages have it.
kinds.outputs = new("a list of outputs", function(v) return type(v) == "table", v end, core.json_array)

-- Options of a selection: a list of values, of { label, value } pairs, or a table from labels to values, which are then
-- in the order of their labels. Kept as pairs.
kinds.options = new("a list of values or { label, value } pairs, or a table from labels to values", function(v)
  if not kinds.is_plain(v) then return false end
  local pairs_ = {}
  for label, value in pairs(v) do
    if #v == 0 then
      if type(label) ~= "string" then return false end
      pairs_[#pairs_ + 1] = { label, value }
    elseif math.type(label) ~= "integer" or label < 1 or label > #v then
      return false
    end
  end
  table.sort(pairs_, function(a, b) return a[1] < b[1] end)
  for i = 1, #v do
    local item = v[i]
    local is_pair = kinds.is_plain(item) and #item == 2 and type(item[1]) == "string"
    pairs_[i] = is_pair and { item[1], item[2] } or { tostring(item), item }
  end
  return true, pairs_
end)

--- Another widget: one of the class `name`, in whose place the options of a new one may be given, or any that can be
-- shown (name nil). `world` is what widget.lua knows and this file need not: class_of(value) is the class of a widget,
-- id_of(w) its id, find(id) the open widget of that id, make(name, options) a new one for the widget that holds it.
function kinds.reference(name, world)
  local kind = new(name and ("a %s, or a table of its options"):format(name) or "a widget", function(v)
    local class = world.class_of(v)
    if class then -- a closed one is none that a front end knows
      return (class.name == name or not name and class.view ~= nil) and world.find(world.id_of(v)) == v, v
    end
    return name ~= nil and type(v) == "table" and v ~= core.null, v
  end, function(v) return "IPY_MODEL_" .. world.id_of(v) end, function(v)
    return type(v) == "string" and world.find(v:match "^IPY_MODEL_(.+)$") or v
  end)
  -- What is kept when all else is known to be right.
  kind.complete = name and function(v) return world.class_of(v) and v or world.make(name, v) end
  return kind
end

return kinds
