-- The plain way through a recurrence: the step function on tensors, one time step after another, through autograd.
-- Slow and on any device; every other way is compared with it. Shapes: B batch, T steps, N heads, D units.

local core = require "perilune.core"

-- h as the product and the output see it: rounded to the products' type. The rounding is invisible to gradients.
local function rounded(t, x)
  if x.product == x.work then return t end
  local exact = t:detach()
  return t + (exact:to(x.product):to(x.work) - exact)
end

-- h as it goes into the product: what the options do to its gradient happens here.
local function fed_back(h, x)
  if x.cut then h = h:detach() end
  if x.clip then h = core.gradient_clip(h, x.clip) end
  return rounded(h, x)
end

-- A new state as a full tensor [B,N,D]: step may return numbers, and values that are the same for all rows.
local function full(value, x)
  local sizes = { x.batch, x.heads, x.dim }
  if type(value) == "number" then return core.full(sizes, value, { dtype = x.work, device = x.device }) end
  if value.dtype ~= x.work then value = value:to(x.work) end
  return value:expand(sizes)
end

-- Gates [B,N,D] by name at time t: the sum of the parts each has. products [Gr,B,N,D].
local function gate_values(x, t, products)
  local gates, at = {}, { input = 0, recurrent = 0, bias = 0 }
  local now = x.Wx:select(2, t) -- [B,Gw,N,D]
  local part = {
    input = function(i) return now:select(2, i) end,
    recurrent = function(i) return products:select(1, i) end,
    bias = function(i) return x.b:select(1, i) end,
  }
  for i, name in ipairs(x.cell.gates) do
    local sum
    for _, kind in ipairs { "input", "recurrent", "bias" } do
      if x.cell.parts[i][kind] then
        at[kind] = at[kind] + 1
        local value = part[kind](at[kind])
        sum = sum and sum + value or value
      end
    end
    gates[name] = full(sum, x)
  end
  return gates
end

-- 1 where row b still runs at t, [B,1,1]; nil when all do.
local function running(x, t)
  if not x.lengths or t <= x.shortest then return nil end
  return core.ge(x.lengths, t):reshape { x.batch, 1, 1 }
end

local function initial_states(x)
  local states = {}
  for s, name in ipairs(x.cell.states) do
    states[name] = x.initial and x.initial:select(1, s):select(2, 1) or full(x.cell.initial[s], x)
  end
  return states
end

-- Stacks lists of [B,N,D], one list over time per state, to [S,B,T,N,D].
local function stacked(lists)
  local states = {}
  for s, list in ipairs(lists) do states[s] = core.stack(list, 2) end
  return core.stack(states, 1)
end

-- `t`, from which every input of the call can be reached: one that has no part in it (h behind the cut, a param that is
-- only compared) then has a gradient of zeros, as on the other ways. `nothing` is a zero made of all inputs.
local function tied(t, nothing) return nothing and core.where(0, nothing, t) or t end

-- The sum of no element of any input.
local function nothing_of(x)
  if not core.grad_enabled() then return nil end
  local nothing = x.Wx:narrow(1, 1, 0):sum()
  local function add(t) nothing = t and nothing + t:narrow(1, 1, 0):sum() or nothing end
  add(x.R)
  add(x.b)
  add(x.initial)
  for _, param in ipairs(x.params) do add(param) end
  return nothing
end

--- Runs the checked call `x` (see perilune.rnn.arguments). Returns states [S or 1,B,T,N,D] (nil for outputs = "last")
-- and last [S,B,1,N,D], both in the type x.work.
return function(x)
  local cell = x.cell
  local transposed = x.R and rounded(x.R, x):transpose(3, 4) -- [Gr,N,p,d]
  local params = {}
  for i, name in ipairs(cell.params) do params[name] = x.params[i] end
  local h, state = cell.states[1], initial_states(x)
  local kept = x.outputs == "all" and #cell.states or x.outputs == "h" and 1 or 0
  local history = {}
  for s = 1, kept do history[s] = {} end
  for t = 1, x.steps do
    local products = transposed and
      fed_back(state[h], x):transpose(1, 2):unsqueeze(1):matmul(transposed):transpose(2, 3)
    local previous = {}
    for name, value in pairs(state) do previous[name] = value end
    local new = cell:run_step(gate_values(x, t, products), previous, params)
    local mask = running(x, t)
    for _, name in ipairs(cell.states) do
      local value = full(new[name], x)
      if name == h and x.forward_clip then value = core.clamp(value, -x.forward_clip, x.forward_clip) end
      state[name] = mask and core.where(mask, value, state[name]) or value
    end
    for s = 1, kept do
      local value = state[cell.states[s]]
      history[s][t] = s == 1 and rounded(value, x) or value
    end
  end
  local last = {}
  for s, name in ipairs(cell.states) do last[s] = { state[name] } end
  local nothing = nothing_of(x)
  return kept > 0 and tied(stacked(history), nothing) or nil, tied(stacked(last), nothing)
end
