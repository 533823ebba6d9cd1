-- What a cell is tried on: arguments of pl.rnn as a fresh layer would have them, from numbers of their own, so that the
-- caller's random numbers go on as if nothing had been; and a run of a recurrence with all its gradients.
-- Shapes: B batch, T steps, N heads, D units per head.

local pl = require "perilune"

local problem = {}

-- A function that returns numbers uniform in [low, high), the same in every session.
local function uniform_numbers(seed)
  local x = seed
  return function(low, high)
    x = x * 48271 % 2147483647
    return low + (high - low) * (x / 2147483647)
  end
end

local function filled(sizes, draw, low, high)
  local count, list = 1, {}
  for _, size in ipairs(sizes) do count = count * size end
  for i = 1, count do list[i] = draw(low, high) end
  return pl.tensor(list, { dtype = "float64" }):reshape(sizes)
end

-- Where a layer starts a param. A single number is scattered a little, so that units differ.
local function param_range(start, bound)
  if type(start) == "table" then return start[1], start[2] end
  if start then return start - 0.1, start + 0.1 end
  return -bound, bound
end

--- Arguments for `cell` in float64 on the CPU, at size = { B =, T =, N =, D = }: { Wx = (of variance 1), R =, b =,
-- params = { name = } (as nn.RNN starts them), states = nil, weights = { states =, last = } (of the loss) }.
function problem.new(cell, size, seed)
  local draw, bound = uniform_numbers(seed), 1 / math.sqrt(size.D)
  local spread, S = math.sqrt(3), #cell.states
  local function weight(part, sizes)
    table.insert(sizes, 1, cell:count(part))
    return sizes[1] > 0 and filled(sizes, draw, -bound, bound) or nil
  end
  local given = {
    Wx = filled({ size.B, size.T, cell:count "input", size.N, size.D }, draw, -spread, spread),
    R = weight("recurrent", { size.N, size.D, size.D }), b = weight("bias", { size.N, size.D }), params = {},
    weights = {
      states = filled({ S, size.B, size.T, size.N, size.D }, draw, -spread, spread),
      last = filled({ S, size.B, 1, size.N, size.D }, draw, -spread, spread),
    },
  }
  for _, name in ipairs(cell.params) do
    given.params[name] = filled({ size.N, size.D }, draw, param_range(cell.starts[name], bound))
  end
  return given
end

--- `given` with every tensor replaced by visit(tensor).
function problem.map(given, visit)
  local made = { params = {}, weights = {} }
  for _, name in ipairs { "Wx", "R", "b", "states" } do made[name] = given[name] and visit(given[name]) end
  for _, group in ipairs { "params", "weights" } do
    for name, t in pairs(given[group]) do made[group][name] = visit(t) end
  end
  return made
end

--- The inputs that gradients are wanted for, a list of { name =, tensor = } in the order of pl.rnn.
function problem.inputs(cell, given)
  local list = {}
  for _, name in ipairs { "Wx", "R", "b", "states" } do
    if given[name] then list[#list + 1] = { name = name, tensor = given[name] } end
  end
  for _, name in ipairs(cell.params) do list[#list + 1] = { name = "params." .. name, tensor = given.params[name] } end
  return list
end

--- The options of pl.rnn for a problem, `products` the type of its products.
function problem.options(cell, given, backend, products)
  return { cell = cell, states = given.states, params = next(given.params) and given.params, backend = backend,
           dtype = products }
end

--- The sum of all results, each times its weight: what is differentiated.
function problem.loss(given, states, last)
  return (states * given.weights.states):sum() + (last * given.weights.last):sum()
end

--- States and last states of all units after `given`'s steps from the cell's own initial values: where a sequence is
-- when it has run for a while. Nothing when they are not all finite.
function problem.warm_states(cell, given)
  local _, last = pl.rnn(given.Wx, given.R, given.b, problem.options(cell, given, "reference"))
  return (last - last):eq(0):min():item() == 1 and last or nil
end

--- Runs pl.rnn and differentiates: { states =, last =, ["d Wx"] =, ... }.
function problem.run(cell, given, backend, products)
  local leaves = problem.map(given, function(t) return t:detach():clone():requires_grad() end)
  local states, last = pl.rnn(leaves.Wx, leaves.R, leaves.b, problem.options(cell, leaves, backend, products))
  problem.loss(given, states, last):backward()
  local found = { states = states:detach(), last = last:detach() }
  for _, input in ipairs(problem.inputs(cell, leaves)) do found["d " .. input.name] = input.tensor.grad end
  return found
end

return problem
