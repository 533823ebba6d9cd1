-- nn.Mamba and nn.selective_scan: a linear recurrence whose step size, input and output depend on the input (Gu and Dao
-- 2023, "Mamba: Linear-time sequence modeling with selective state spaces"), and its variant with eigenvalues between
-- -1 and 1, which can track state (Grazzi et al. 2025, "Unlocking state-tracking in linear RNNs through negative
-- eigenvalues").
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local convolution = require "perilune.nn.convolution"
local initial = require "perilune.nn.initial"
local linear = require "perilune.nn.linear"
local module = require "perilune.nn.module"

-- The recurrence as a cell, so that all time steps are one node on every device. Its heads are the numbers of a state,
-- its units the features; u is dt x.
local function new_cell(negative)
  local function gate(name) return { name, recurrent = false, bias = false } end
  return pl.cell {
    name = negative and "selective_scan_negative" or "selective_scan",
    states = { "s" },
    gates = { gate "dt", gate "u", gate "b" },
    params = { "a" },
    step = function(g, state, k)
      local kept = pl.exp(g.dt * k.a)
      if negative then kept = 2 * kept - 1 end
      return { s = kept * state.s + g.u * g.b }
    end,
  }
end

local cells <const> = {}

local function scan_cell(negative)
  cells[negative] = cells[negative] or new_cell(negative)
  return cells[negative]
end

--- selective_scan(x, dt, a, b, c [, negative [, state]]) -> y, state: of x and step sizes dt > 0 [B,T,D], a < 0 [N,D],
-- b and c [B,T,N]; y[t] [D] is the sum over n of c[t][n] s[t][n], s[t][n] = exp(dt[t] a[n]) s[t-1][n] +
-- dt[t] x[t] b[t][n] for each of the D features. negative: 2 exp(dt a) - 1 in place of exp(dt a). state: s after the
-- last position, as an earlier call returned it; 0 at first.
local function selective_scan(x, dt, a, b, c, negative, state)
  local batch, steps, features = table.unpack(check.tensor("nn.selective_scan", "x", x, 3).shape)
  check.tensor("nn.selective_scan", "dt", dt, 3, features)
  local numbers = check.tensor("nn.selective_scan", "a", a, 2, features).shape[1]
  check.tensor("nn.selective_scan", "b", b, 3, numbers)
  check.tensor("nn.selective_scan", "c", c, 3, numbers)
  local size = { batch, steps, 1, numbers, features }
  local function of_features(t) return t:reshape({ batch, steps, 1, 1, features }):expand(size) end
  local of_numbers = b:reshape({ batch, steps, 1, numbers, 1 }):expand(size)
  local wx = pl.cat({ of_features(dt), of_features(dt * x), of_numbers }, 3)
  local s, last = pl.rnn(wx, nil, nil,
    { cell = scan_cell(negative == true), params = { a = a }, states = state, outputs = "h" })
  return (s:reshape { batch, steps, numbers, features } * c:unsqueeze(4)):sum(3), last
end

local Mamba = module.class("nn.Mamba")

local mamba_options <const> = declared.options(Mamba, { state = 16, expand = 2, convolution = 4, negative = false })

-- Biases with which softplus gives step sizes between 0.001 and 0.1, evenly spread over their logarithm.
local function dt_bias(size)
  local _ <close> = pl.scope()
  local dt = pl.exp(pl.rand { size } * math.log(100) + math.log(0.001))
  return module.parameter(dt + pl.log(-pl.expm1(-dt)))
end

-- log n for the numbers n = 1 .. N of each feature's state.
local function start_of_a(numbers, size)
  local _ <close> = pl.scope()
  return module.parameter(pl.log(pl.arange(1, numbers, { dtype = "float32" })):unsqueeze(2):expand { numbers, size }
    :contiguous())
end

--- nn.Mamba(size [, { state = 16, expand = 2, convolution = 4, negative = false }]): x [B,T,size] -> [B,T,size]. Of
-- `expand` size features made by `input`, a causal convolution over that many positions and silu give u;
-- nn.selective_scan of u with a state of `state` numbers per feature, a = -exp(a_log) and dt, b, c made of u, plus skip
-- u, is gated with silu of as many further features of `input`, and `output` brings it back. negative: eigenvalues in
-- (-1, 1).
function Mamba:init(size, options)
  local option = check.options("nn.Mamba", options, mamba_options)
  self.size = check.integer("nn.Mamba", "size", size)
  self.state = check.integer("nn.Mamba", "state", option.state)
  self.inner = check.integer("nn.Mamba", "expand", option.expand) * size
  self.rank = (size + 15) // 16 -- of dt before its projection
  self.negative = option.negative
  self.input = linear.Linear(size, 2 * self.inner, { bias = false })
  self.convolution = convolution.CausalConvolution(self.inner, option.convolution)
  self.select = linear.Linear(self.inner, self.rank + 2 * self.state, { bias = false })
  self.dt = linear.Linear(self.rank, self.inner)
  self.dt.bias = dt_bias(self.inner)
  self.a_log = start_of_a(self.state, self.inner)
  self.skip = initial.constant({ self.inner }, 1)
  self.output = linear.Linear(self.inner, size, { bias = false })
end

function Mamba:forward(x)
  return (self:step(x))
end

--- mamba:step(x [, state]) -> y, state: as the call, where the positions of x follow those that led to `state`, which
-- holds what the convolution saw and the scan's state.
function Mamba:step(x, state)
  state = state or {}
  check.tensor("nn.Mamba", "x", x, 3, self.size)
  local u, gate = table.unpack(self.input(x):split(self.inner, 3))
  local next_state = {}
  u, next_state.before = self.convolution:step(u, state.before)
  u = pl.silu(u)
  local dt, b, c = table.unpack(self.select(u):split({ self.rank, self.state, self.state }, 3))
  local y, scan = selective_scan(u, pl.softplus(self.dt(dt)), -pl.exp(self.a_log), b, c, self.negative, state.scan)
  next_state.scan = scan
  return self.output(pl.swiglu(gate, y + u * self.skip)), next_state
end

function Mamba:extra()
  return ("%d, state of %d x %d%s"):format(self.size, self.inner, self.state, self.negative and ", negative" or "")
end

return { Mamba = Mamba, selective_scan = selective_scan }
