-- Modules against plain loops over the same numbers in float64: values, and gradients by central differences of the
-- loops.
local pl = require "perilune"
local near = require("tests.tensor.check").near

-- The sum of a nested table's numbers, each times the one of `weights`.
local function weighted(y, weights)
  if type(y) == "number" then return y * weights end
  local total = 0
  for i, part in ipairs(y) do total = total + weighted(part, weights[i]) end
  return total
end

-- Places in a nested table as lists of indices, `most` of them, spread evenly.
local function places_of(shape, most)
  local count, places = 1, {}
  for _, size in ipairs(shape) do count = count * size end
  for k = 1, math.min(most, count) do
    local at, place = (k - 1) * count // math.min(most, count), {}
    for axis = #shape, 1, -1 do
      place[axis] = at % shape[axis] + 1
      at = at // shape[axis]
    end
    places[k] = place
  end
  return places
end

local function element(t, place)
  for i = 1, #place - 1 do t = t[place[i]] end
  return t, place[#place]
end

local against = {}

-- Fails unless y, made of the leaves { name = tensor }, is what loops({ name = nested table }) gives, and the gradients
-- of a weighted sum agree, at up to 20 elements of each leaf.
local function compare(y, leaves, loops)
  local tables = {}
  for name, leaf in pairs(leaves) do tables[name] = leaf:totable() end
  near(loops(tables), y:totable(), 1e-9)
  local seed = pl.randn_like(y:detach())
  y:backward(seed)
  local weights, step <const> = seed:totable(), 1e-5
  for name, leaf in pairs(leaves) do
    local gradient = assert(leaf.grad, name .. " has a gradient"):totable()
    for _, place in ipairs(places_of(leaf.shape, 20)) do
      local where, last = element(tables[name], place)
      local x = where[last]
      local function at(value)
        where[last] = value
        return weighted(loops(tables), weights)
      end
      local difference = (at(x + step) - at(x - step)) / (2 * step)
      where[last] = x
      local got, slot = element(gradient, place)
      near(difference, got[slot], 1e-6, ("gradient of %s at %s"):format(name, table.concat(place, ",")))
    end
  end
end

--- A function of a table of tensors against loops over the same table of nested tables.
function against.f(call, inputs, loops)
  local leaves = {}
  for name, t in pairs(inputs) do leaves[name] = t:to("float64"):detach():clone():requires_grad() end
  compare(call(leaves), leaves, loops)
end

--- m, or call(m, x) where given, against loops, which receive x and the module's parameters by name.
function against.module(m, x, loops, call)
  local leaves = { x = x:to("float64"):detach():clone():requires_grad() }
  for _, parameter in ipairs(m:to("float64"):named_parameters()) do leaves[parameter[1]] = parameter[2] end
  local y = call and call(m, leaves.x) or m(leaves.x)
  compare(y, leaves, loops)
end

--- W x + b for one vector.
function against.linear(weight, bias, x)
  local y = {}
  for o, row in ipairs(weight) do
    y[o] = bias and bias[o] or 0
    for i, w in ipairs(row) do y[o] = y[o] + w * x[i] end
  end
  return y
end

return against
