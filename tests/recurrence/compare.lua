-- Runs a recurrence with random arguments and a random loss, and compares two runs: results and all gradients.

local pl = require "perilune"

local compare = {}

--- Random arguments for `cell` in float64: { Wx =, R =, b =, states =, params = { name = } }. Shapes as in pl.rnn.
function compare.arguments(cell, shape)
  local B, T, N, D = shape.B, shape.T, shape.N, shape.D
  local function normal(sizes, scale)
    sizes.dtype = "float64"
    return pl.randn(sizes) * scale
  end
  local given = { params = {} }
  given.Wx = normal({ B, T, cell:count "input", N, D }, 1)
  if cell:count "recurrent" > 0 then given.R = normal({ cell:count "recurrent", N, D, D }, 1 / math.sqrt(D)) end
  if cell:count "bias" > 0 then given.b = normal({ cell:count "bias", N, D }, 0.5) end
  given.states = pl.rand { #cell.states, B, 1, N, D, dtype = "float64" } + 0.25
  for _, name in ipairs(cell.params) do given.params[name] = normal({ N, D }, 1) end
  return given
end

--- A new table with the fields of `options` and those of `more`, which count where both have one.
function compare.with(options, more)
  local all = {}
  for key, value in pairs(options) do all[key] = value end
  for key, value in pairs(more) do all[key] = value end
  return all
end

local function leaf(t) return t and t:detach():clone():requires_grad() end

local function weighted(t, weights) return t and (t * weights):sum() or 0 end

--- Runs and differentiates: the loss is a weighted sum of what comes back. `weights` = { states =, last = } are made on
-- the first call. Returns { name = tensor } of results and gradients ("d Wx", ...).
function compare.run(cell, given, options, weights, from_default)
  local Wx, R, b = leaf(given.Wx), leaf(given.R), leaf(given.b)
  local states = not from_default and leaf(given.states) or nil
  local params, call = {}, { cell = cell, states = states }
  for name, t in pairs(given.params) do params[name] = leaf(t) end
  if next(params) then call.params = params end
  for key, value in pairs(options) do call[key] = value end
  local all, last = pl.rnn(Wx, R, b, call)
  weights.states = weights.states or all and pl.randn_like(all)
  weights.last = weights.last or pl.randn_like(last)
  local loss = weighted(last, weights.last) + weighted(all, weights.states)
  loss:backward()
  local leaves = { Wx = Wx, R = R, b = b, states = states }
  for name, t in pairs(params) do leaves[name] = t end
  for name, t in pairs(leaves) do assert(t.grad, ("no gradient of %s came from %s"):format(name, call.backend)) end
  local found = {
    states = all, last = last, ["d Wx"] = Wx.grad, ["d R"] = R and R.grad, ["d b"] = b and b.grad,
    ["d states"] = states and states.grad,
  }
  for name, t in pairs(params) do found["d " .. name] = t.grad end
  return found
end

local function largest(t) return t:abs():max():item() end

--- The largest difference between two runs, relative to the largest element of each tensor, and the tensor's name. What
-- only one of them has differs without bound.
function compare.difference(one, other)
  local worst, where, names = 0, "nothing", {}
  for name in pairs(one) do names[name] = true end
  for name in pairs(other) do names[name] = true end
  for name in pairs(names) do
    local a, b = one[name], other[name]
    if not a or not b then return math.huge, name end
    local off = largest(a - b) / math.max(largest(b), 1e-3)
    if off ~= off then return math.huge, name end
    if off > worst then worst, where = off, name end
  end
  return worst, where
end

--- Asserts that the way `backend` agrees with vanilla to `tolerance`.
function compare.with_vanilla(backend, cell, shape, options, tolerance, from_default)
  local _ <close> = pl.scope()
  local given, weights = compare.arguments(cell, shape), {}
  local function run(way)
    return compare.run(cell, given, compare.with({ backend = way }, options), weights, from_default)
  end
  local expected = run "vanilla"
  local off, where = compare.difference(run(backend), expected)
  assert(off <= tolerance, ("%s of %s differs by %g at B=%d T=%d N=%d D=%d"):format(where, cell.name, off, shape.B,
                                                                                shape.T, shape.N, shape.D))
end

return compare
