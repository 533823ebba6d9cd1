-- nn.MLSTM: the mLSTM, an LSTM whose memory is a matrix per head and whose gates do not see its state (Beck et al.
-- 2024, "xLSTM: Extended long short-term memory").
--
-- With i and log f = logsigmoid of the gates, q, k, v of D features per head, k divided by sqrt(D):
--   C_t = f_t C_{t-1} + exp(i_t) v_t k_t^T    n_t = f_t n_{t-1} + exp(i_t) k_t    h_t = C_t q_t / max(|n_t q_t|, 1)
-- Both forms keep C and n divided by exp(m_t), which bounds the exponentials and cancels in h. It carries no gradient.
local pl = require "perilune"
local check = require "perilune.nn.check"
local heads = require "perilune.nn.heads"
local initial = require "perilune.nn.initial"
local linear = require "perilune.nn.linear"
local module = require "perilune.nn.module"
local norm = require "perilune.nn.norm"

local MLSTM = module.class("nn.MLSTM")

-- The official start: gates that do not depend on the input, forgetting little.
local function gate_bias(count)
  local values = {}
  for i = 1, count do
    values[i] = 0 -- of i
    values[count + i] = count == 1 and 3 or 3 + 3 * (i - 1) / (count - 1) -- of f
  end
  return module.parameter(pl.tensor(values))
end

--- nn.MLSTM(size, heads): x [B,T,size] -> [B,T,size]. Queries, keys and values come of x by `qkv`, the gates i and f,
-- two numbers per head, by `gates`, which starts at weight 0 and bias 0 for i, 3 to 6 for f. What the heads give is
-- normalised head by head, multiplied with sigmoid(gate(x)) and mixed by `out`. The call runs the parallel form, whose
-- work grows with T^2; mlstm:recurrent(x [, state]) goes step by step.
function MLSTM:init(size, count)
  self.size, self.heads, self.dim = size, count, heads.units("nn.MLSTM", size, count)
  self.qkv = linear.Linear(size, 3 * size)
  self.gates = linear.Linear(size, 2 * count)
  self.gates.weight, self.gates.bias = initial.constant({ 2 * count, size }, 0), gate_bias(count)
  self.gate = linear.Linear(size, size)
  self.norm = norm.GroupNorm(count, size, { channels_last = true })
  self.out = linear.Linear(size, size)
end

-- The type of gates and states, whose sums over many positions 16 bits cannot hold.
local function wide(x) return x.dtype == "float64" and "float64" or "float32" end

-- x -> q, k, v [B,H,T,D], i and log f [B,H,T], these two in the type of states.
local function project(self, x)
  check.tensor("nn.MLSTM", "x", x, 3, self.size)
  local q, k, v = table.unpack(self.qkv(x):split(self.size, 3))
  local i, f = table.unpack(self.gates(x):to(wide(x)):transpose(2, 3):split(self.heads, 2))
  return heads.split(q, self.heads), heads.split(k * (1 / math.sqrt(self.dim)), self.heads),
    heads.split(v, self.heads), i, pl.logsigmoid(f)
end

-- What the heads give, [B,H,T,D], on its way out.
local function finish(self, x, h)
  return self.out(self.norm(heads.join(h)) * pl.sigmoid(self.gate(x)))
end

local function read(numerator, denominator, m)
  return numerator / pl.maximum(pl.abs(denominator), pl.exp(-m))
end

-- Position t reads what s <= t wrote with the weight exp(i_s) f_{s+1} .. f_t (k_s q_t).
function MLSTM:forward(x)
  local q, k, v, i, log_f = project(self, x)
  local kept = log_f:cumsum(3)
  local weight = (kept:unsqueeze(4) + (i - kept):unsqueeze(3)):masked_fill(
    heads.future(x.shape[2], x.device), -math.huge)
  local m = weight:detach():max(4, true)
  local scores = q:matmul(k:transpose(3, 4)) * pl.exp(weight - m)
  return finish(self, x, read(scores:to(v.dtype):matmul(v), scores:sum(4, true), m):to(x.dtype))
end

-- One step for q, k, v [B,H,1,D], i, log f [B,H,1,1]: h [B,H,1,D] and the state.
local function step(q, k, v, i, log_f, state)
  local m = pl.maximum(log_f + state.m, i):detach()
  local keep, write = pl.exp(log_f + state.m - m), pl.exp(i - m)
  local c = keep * state.c + (write * k):transpose(3, 4):matmul(v)
  local n = keep * state.n + write * k
  return read(q:matmul(c), (q * n):sum(4, true), m), { c = c, n = n, m = m }
end

--- mlstm:recurrent(x [, state]) -> y [B,T,size], state: as the call, in T steps of work that does not grow. state is
-- { c = [B,H,D,D] (key, value), n = [B,H,1,D], m = [B,H,1,1] }, as an earlier call returned it.
function MLSTM:recurrent(x, state)
  local q, k, v, i, log_f = project(self, x)
  local batch, steps, type = x.shape[1], x.shape[2], wide(x)
  q, k, v = q:to(type), k:to(type), v:to(type)
  local function full(a, b, value)
    return pl.full({ batch, self.heads, a, b }, value, { dtype = type, device = x.device })
  end
  state = state or { c = full(self.dim, self.dim, 0), n = full(1, self.dim, 0), m = full(1, 1, -math.huge) }
  local list = {}
  for t = 1, steps do
    local function at(y) return y:narrow(3, t, 1) end
    list[t], state = step(at(q), at(k), at(v), at(i):unsqueeze(4), at(log_f):unsqueeze(4), state)
  end
  return finish(self, x, pl.cat(list, 3):to(x.dtype)), state
end

--- mlstm:step(x [, state]): as recurrent, under the name that all mixers have for it.
function MLSTM:step(x, state)
  return self:recurrent(x, state)
end

function MLSTM:extra()
  return ("%d, %d heads"):format(self.size, self.heads)
end

return { MLSTM = MLSTM }
