-- The least time that a recurrence can take on a device: its operations at the rate of large products, its bytes at the
-- rate of a copy, its steps one after the other. What the device can do is measured, once in a process.
--
-- Operations are those of products alone, 2 B T N G D^2 of the recurrent one forward and three times that both ways,
-- with the same for the linear layer where there is one. Bytes are what must go to and from memory even if R stays on
-- the chip for all steps: Wx, h or all states, what the cell's backward program has to find again, gradients, R and the
-- linear layer's weight once per use. The planner's model of a GPU (perilune.rnn.model) says how long a step takes that
-- does nothing but hand h on; how h is handed on is up to the fused plan that the model thinks best. Where other
-- programs take their share of a CPU while its rates are measured, these are too low, and the least time too long.
local core = require "perilune.core"
local fused = require "perilune.rnn.fused"
local model = require "perilune.rnn.model"
local pl = require "perilune"
local sizes = require "perilune.rnn.sizes"
local tune = require "perilune.rnn.tune"

local floor = {}

-- ---- what the device can do -----------------------------------------------------------------------------------------

local TRIES <const> = 12

-- The fewest ms that f takes.
local function best_ms(f, device)
  local best, timer = math.huge, pl.timer(device)
  for _ = 1, TRIES do
    local _ <close> = pl.scope()
    timer:start()
    f()
    best = math.min(best, timer:stop())
  end
  return best
end

-- Operations per second, in 1e9, of products n x n x n.
local function rate_of_products(n, device, dtype)
  local _ <close> = pl.scope()
  local form = { n, n, dtype = dtype, device = device }
  local a, b = pl.randn(form), pl.randn(form)
  return 2 * n ^ 3 / best_ms(function() a:matmul(b) end, device) / 1e6
end

local function measured_peaks(device, dtype)
  local _ <close> = pl.scope()
  local sizes_tried, megabytes = { 8192 }, 512
  if device == "cpu" then
    sizes_tried, megabytes = { 512, 1536 }, 64 -- the small one ends before other programs have their turn
  end
  local peaks = { gflops = 0 }
  for _, n in ipairs(sizes_tried) do
    local gflops = rate_of_products(n, device, dtype)
    if gflops > peaks.gflops then peaks.gflops, peaks.n = gflops, n end
  end
  local source = pl.zeros { megabytes << 18, device = device } -- of 4 bytes each
  peaks.gbytes_per_s = 2 * (megabytes << 20) / best_ms(function() source:clone() end, device) / 1e6
  return peaks
end

local seen = {}

--- What the device does at most, of what was tried: { gflops = (of products n x n x n of that type), n =,
-- gbytes_per_s = (of a copy in memory, read and written) }. Measured at the first call for a device, a type and a
-- number of threads.
function floor.peaks(device, dtype)
  local key = ("%s %s %d"):format(device, dtype, pl.threads())
  seen[key] = seen[key] or pl.no_grad(measured_peaks, device, dtype)
  return seen[key]
end

-- ---- what a setting must do -----------------------------------------------------------------------------------------

-- perilune.speed's setting s, with its plan, as perilune.rnn's modules take it.
local function problem_of(s)
  local plan = s.plan
  return { cell = s.cell, batch = s.batch, heads = s.heads, head_dim = s.head_dim, dtype = s.dtype,
           product = plan.product, device = plan.device }
end

local function operations_of(s, q)
  local width = s.heads * s.head_dim
  local products = q.recurrents * s.head_dim + (s.with_input and q.inputs * width or 0)
  return 2 * s.batch * s.steps * width * products * (s.pass == "f+b" and 3 or 1)
end

-- Values of one unit in one step that go to or from memory in each pass: of the recurrence, and of the linear layer.
local values <const> = {
  inf = { function(q) return q.inputs + 1 end, function(q) return 1 + q.inputs end },
  fwd = { function(q, saves) return q.inputs + q.states + saves end, function(q) return 1 + q.inputs end },
  ["f+b"] = { function(q) return 2 * (q.inputs + q.saved + 1) end, function(q) return 3 + 2 * q.inputs end },
}

local function bytes_of(s, q)
  local width, of = s.heads * s.head_dim, values[s.pass]
  local each = of[1](q, s.cell:spec().saves)
  local weights = q.recurrents * s.heads * s.head_dim ^ 2
  if s.with_input then
    each = each + of[2](q)
    weights = weights + q.inputs * width ^ 2
  end
  return q.stored * (s.batch * s.steps * width * each + weights * (s.pass == "f+b" and 3 or 1))
end

--- The least us that the model gives to one step of a pass of that problem on a chip (perilune.rnn.fused has both), or
-- 0 where no plan fits, as the model then has nothing to say.
function floor.step_us(problem, chip, pass)
  local ranked = fused.ranked(problem, chip, 1)
  if not ranked then return 0 end
  local scope = ranked[1].plan.scope
  local forward_us, backward_us = model.least_us(scope)
  return (chip.scale and chip.scale[scope] or 1) * (forward_us + (pass == "f+b" and backward_us or 0))
end

--- What a completed setting of perilune.speed takes at least, with what floor.peaks returned: { operations =, bytes =,
-- ms =, by = "products", "memory" or "steps" (which of them leaves no less) }.
function floor.of(s, peaks)
  local problem = problem_of(s)
  local q = sizes.problem(problem)
  local least, step_us = { operations = operations_of(s, q), bytes = bytes_of(s, q), ms = 0 }, 0
  if s.device ~= "cpu" then step_us = floor.step_us(problem, tune.scaled(core.fused_chip(problem.device)), s.pass) end
  for _, limit in ipairs {
    { "products", least.operations / peaks.gflops / 1e6 }, { "memory", least.bytes / peaks.gbytes_per_s / 1e6 },
    { "steps", s.steps * step_us / 1000 },
  } do
    if limit[2] > least.ms then least.by, least.ms = limit[1], limit[2] end
  end
  return least
end

return floor
