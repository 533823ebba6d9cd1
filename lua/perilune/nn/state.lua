-- States that models carry from step to step: tensors in nested tables, beside plain values.
local pl = require "perilune"
local check = require "perilune.nn.check"

local state = {}

--- A state of the same form, with f(tensor) in the place of each tensor. The tensors come in an order that depends on
-- their places alone.
function state.map(value, f)
  if pl.is_tensor(value) then return f(value) end
  if type(value) ~= "table" then return value end
  local keys, made = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do made[key] = state.map(value[key], f) end
  return made
end

--- Whether two states differ in nothing but the elements of their tensors.
function state.alike(a, b)
  if pl.is_tensor(a) and pl.is_tensor(b) then
    return a.dtype == b.dtype and check.shape_text(a.shape) == check.shape_text(b.shape)
  end
  if type(a) ~= "table" or type(b) ~= "table" or pl.is_tensor(a) or pl.is_tensor(b) then return a == b end
  for key in pairs(a) do
    if b[key] == nil then return false end
  end
  for key, part in pairs(b) do
    if not state.alike(a[key], part) then return false end
  end
  return true
end

--- Copies the elements of one state's tensors into those of another that is alike.
function state.assign(to, from)
  if pl.is_tensor(to) then return to:copy_(from) end
  if type(to) ~= "table" then return end
  for key, part in pairs(to) do state.assign(part, from[key]) end
end

return state
