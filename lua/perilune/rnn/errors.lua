-- How far a recurrence is from the exact one: the same rounded numbers run in some type and in float64, and relative
-- errors of states and gradients, of whole tensors and of every time step.

local core = require "perilune.core"
local rnn = require "perilune.rnn"

local errors = {}

-- Gives the bias of one gate, in a bias of shape [Gb,N,D], the same value in all units.
local function set_bias(cell, b, gate, value)
  local slot = 0 -- on b's gate axis, which holds the gates that have a bias
  for i, name in ipairs(cell.gates) do
    if cell.parts[i].bias then
      slot = slot + 1
      if name == gate then
        b:select(1, slot):fill_(value)
        return
      end
    end
  end
  error(("gate: %s has no gate '%s' with a bias"):format(cell.name, tostring(gate)), 0)
end

--- Random numbers in float64 for `cell`, shape = { batch =, steps =, heads =, head_dim = }: { Wx = N(0,1), R = N(0,1) /
-- sqrt(head_dim), b = N(0,1) / 2, states = from 0.25 to 1.25, seed [B,T,N,D] = N(0,1), the gradient of h }. What a cell
-- has no part of is nil. With bias = { gate =, value = } that gate's bias is the value in all units.
function errors.problem(cell, shape, device, bias)
  local B, T, N, D = shape.batch, shape.steps, shape.heads, shape.head_dim
  local function drawn(draw, ...) return draw { dtype = "float64", device = device, ... } end
  local function weight(part, scale, ...)
    return cell:count(part) > 0 and drawn(core.randn, cell:count(part), ...) * scale or nil
  end
  local made = {
    Wx = drawn(core.randn, B, T, cell:count "input", N, D), R = weight("recurrent", D ^ -0.5, N, D, D),
    b = weight("bias", 0.5, N, D), states = drawn(core.rand, #cell.states, B, 1, N, D) + 0.25,
    seed = drawn(core.randn, B, T, N, D),
  }
  if bias then set_bias(cell, made.b, bias.gate, bias.value) end
  return made
end

--- The tensors of a problem rounded to dtype, and these in float64: what both sides of a comparison get.
function errors.rounded(problem, dtype)
  local rounded, exact = {}, {}
  for name, t in pairs(problem) do
    rounded[name] = t:to(dtype)
    exact[name] = rounded[name]:to "float64"
  end
  return rounded, exact
end

--- Runs the first `steps` of a problem: opts = { backend = or plan =, gradients = (whether to go back) }. Returns
-- { states = { by name, [B,T,N,D] }, last = { by name, [B,N,D], as they are carried on }, gradients = { Wx =, R =, b =,
-- states = } of the sum of h times the seed, or nil }.
function errors.run(cell, problem, steps, opts)
  local leaves = {}
  for _, name in ipairs { "Wx", "R", "b", "states" } do
    local t = problem[name]
    if t and name == "Wx" then t = t:narrow(2, 1, steps):contiguous() end
    leaves[name] = t and t:detach():requires_grad(opts.gradients or false)
  end
  local all, last = rnn.rnn(leaves.Wx, leaves.R, leaves.b,
    { cell = cell, states = leaves.states, backend = opts.backend, plan = opts.plan })
  local found = { states = {}, last = {} }
  for s, name in ipairs(cell.states) do
    found.states[name], found.last[name] = all:select(1, s):detach(), last:select(1, s):select(2, 1):detach()
  end
  if opts.gradients then
    all:select(1, 1):backward(problem.seed:narrow(2, 1, steps))
    found.gradients = {}
    for name, leaf in pairs(leaves) do found.gradients[name] = leaf.grad end
  end
  return found
end

local function ratio(off, size)
  if off == 0 then return 0.0 end
  return off == off and size > 0 and math.sqrt(off / size) or math.huge
end

local function squares(found, exact)
  local off = found:to "float64" - exact
  return off * off, exact * exact
end

--- The relative L2 error of a tensor; infinite where it is not finite.
function errors.relative(found, exact)
  local off, size = squares(found, exact)
  return ratio(off:sum():item(), size:sum():item())
end

--- The relative L2 error of each time step, for tensors [B,T,...]: a list of T numbers.
function errors.per_step(found, exact)
  local off, size = squares(found, exact)
  local function of_steps(t) return t:transpose(1, 2):reshape { t.shape[2], -1 }:sum(2):totable() end
  local list, sizes = of_steps(off), of_steps(size)
  for t, value in ipairs(list) do list[t] = ratio(value, sizes[t]) end
  return list
end

return errors
