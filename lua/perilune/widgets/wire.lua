-- State of widgets as messages carry it: JSON, and beside it binary buffers with the paths to their places.
local core = require "perilune.core"
local version1 = require "perilune.widgets.version1"

local wire = {}

--- An empty message of state.
function wire.new() return { state = {}, buffers = {}, paths = {} } end

--- Adds the value that the front end gets for a trait, under each of its names.
function wire.add(message, trait, value)
  if trait.kind.binary then
    message.buffers[#message.buffers + 1] = value
    message.paths[#message.paths + 1] = { trait.name }
    return
  end
  message.state[trait.name] = trait.kind.wire(value)
  for _, other in ipairs(trait.also) do
    local form = trait.also_wire and trait.also_wire[other] or trait.kind.wire
    message.state[other] = form(value)
  end
end

--- The state of a class's traits, of all or of those in the set `names`; what says which model it is comes with all.
function wire.of(class, state, names)
  local message = wire.new()
  for name, value in pairs(names and {} or class.model) do message.state[name] = value end
  for _, trait in ipairs(class.traits) do
    if not trait.here and (not names or names[trait.name]) then wire.add(message, trait, state[trait.name]) end
  end
  return version1.is_spoken() and version1.rewrite(class, state, message) or message
end

--- The data of a message with the given method (nil: none), and its buffers.
function wire.data(message, method)
  if version1.is_spoken() then return version1.data(message, method), {} end
  local paths = {}
  for i, path in ipairs(message.paths) do paths[i] = core.json_array(path) end
  return { method = method, state = message.state, buffer_paths = core.json_array(paths) }, message.buffers
end

local function put_buffer(place, path, buffer)
  for j = 1, #path do
    local key = math.type(path[j]) == "integer" and path[j] + 1 or path[j] -- they count from 0
    if type(place) ~= "table" then return end
    if j == #path then place[key] = buffer else place = place[key] end
  end
end

--- Puts buffers into a state where their paths lead; one whose path leads nowhere is left out.
function wire.put_buffers(state, paths, buffers)
  for i, path in ipairs(paths or {}) do
    if type(path) == "table" then put_buffer(state, path, buffers[i]) end
  end
end

return wire
