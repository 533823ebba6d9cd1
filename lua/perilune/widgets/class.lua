-- Classes of widgets: what a row of models.lua comes to, and how the values of its traits are checked.
local at_caller = require("perilune.at_caller").of_program

local kinds = require "perilune.widgets.kinds"

local class = {}

-- Later traits of a name take the place of earlier ones.
local function take_traits(c, rows)
  for _, row in ipairs(rows) do
    local trait = { name = row[1], kind = row[2], default = row[3], also = row.also or {}, also_wire = row.also_wire,
      here = row.here }
    local before = c.by_name[trait.name]
    c.by_name[trait.name] = trait
    c.traits[before and before.place or #c.traits + 1] = trait
    trait.place = before and before.place or #c.traits
    c.by_wire[trait.name] = not trait.here and trait or nil
    for _, other in ipairs(trait.also) do
      if not (trait.also_wire and trait.also_wire[other]) then c.by_wire[other] = trait end
    end
  end
end

--- The class of a row: traits in order, by_name, by_wire (which the front end may change), rule, and model, the part of
-- the state by which the front end finds its model and view. One whose `view` is nil is not shown by itself.
function class.new(name, row)
  local view_of = row.view_of or row.of
  local c = { name = name, traits = {}, by_name = {}, by_wire = {}, rule = row.rule }
  c.view = not row.hidden and (row.view or name .. "View") or nil
  c.model = {
    _model_name = name .. "Model", _model_module = row.of.module, _model_module_version = row.of.version,
    _view_name = row.view or name .. "View", _view_module = view_of.module, _view_module_version = view_of.version,
  }
  take_traits(c, row.traits)
  return c
end

--- The names of the traits that users see, in their order.
function class.names(c)
  local names = {}
  for _, trait in ipairs(c.traits) do
    if trait.name:sub(1, 1) ~= "_" then names[#names + 1] = trait.name end
  end
  return names
end

--- A value as one reads it.
function class.shown(value)
  if type(value) == "string" then return (("%q"):format(value):gsub("\\\n", "\\n")) end
  if not kinds.is_plain(value) then return tostring(value) end
  local items = {}
  for i, item in ipairs(value) do items[i] = class.shown(item) end
  return "{" .. table.concat(items, ", ") .. "}"
end

local function refuse(c, name, expected, got)
  at_caller("%s: %s: expected %s, got %s", c.name, name, expected, (class.shown(got)))
end

--- The trait of a name; an error where there is none.
function class.trait(c, name)
  local trait = type(name) == "string" and c.by_name[name]
  if trait then return trait end
  local names = class.names(c)
  table.sort(names)
  at_caller("%s has no trait '%s'; it has %s", c.name, tostring(name), table.concat(names, ", "))
end

--- The values of the named traits (a set) as they are to be kept; an error where one does not fit.
function class.checked(c, names, values)
  local kept = {}
  for _, trait in ipairs(c.traits) do -- in their order, so that the first that is wrong is the one told of
    if names[trait.name] then
      local accepted, value = trait.kind.check(values[trait.name])
      if not accepted then refuse(c, trait.name, trait.kind.expected, values[trait.name]) end
      kept[trait.name] = value
    end
  end
  return kept
end

--- The state that `state` becomes with the kept values of the named traits; an error where they do not go together.
function class.settled(c, state, names, kept)
  local new = {}
  for _, trait in ipairs(c.traits) do
    local name = trait.name
    if names[name] then new[name] = kept[name] else new[name] = state[name] end
  end
  if c.rule then
    local name, expected, got = c.rule(new, names)
    if name then refuse(c, name, expected, got) end
  end
  for _, trait in ipairs(c.traits) do
    if trait.kind.complete then new[trait.name] = trait.kind.complete(new[trait.name]) end
  end
  return new
end

--- The state of a widget for which nothing was given. Lists are empty, and new ones each time.
function class.defaults(c)
  local state = {}
  for _, trait in ipairs(c.traits) do
    local default = trait.default
    state[trait.name] = type(default) == "table" and {} or default
  end
  return state
end

return class
