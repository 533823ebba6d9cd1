-- Chooses the way a recurrence runs, and explains the choice. How a fused one can be cut is perilune.rnn.fused's, and
-- which of these ways it is, perilune.rnn.tune's; how the steps of an alternating one are, perilune.rnn.steps's.

local chips = require "perilune.rnn.chips"
local core = require "perilune.core"
local fused = require "perilune.rnn.fused"
local steps = require "perilune.rnn.steps"
local tune = require "perilune.rnn.tune"

local plan = {}

-- problem.chip: one that need not be here, on which nothing can be measured.
local function fused_plan(problem, given)
  local chip = problem.chip or core.fused_chip(problem.device)
  if given then return tune.forced(problem, chip, given) end
  return tune.choose(problem, chip, not problem.chip and tune.measure)
end

local function fused_explained(made) return ("%s\n%s"):format(tune.explain(made.chosen), fused.explain(made)) end

local function steps_plan(problem)
  return steps.choose(problem, tune.scaled(problem.chip or core.fused_chip(problem.device)))
end

-- In order of preference. `device` is the kind of device a way runs on; nil: any. `plan` makes what the way needs
-- beside its name, or returns nil and why it cannot run a problem; `explain` puts that in words.
local backends = {
  { name = "fused", device = "cuda", what = "one persistent launch for all time steps", plan = fused_plan,
    explain = fused_explained },
  { name = "alternating", device = "cuda", what = "one kernel, or a matrix product and a kernel, per time step",
    plan = steps_plan, explain = steps.explain },
  { name = "reference", device = "cpu", what = "all time steps in C, the cell's programs over blocks of elements" },
  { name = "vanilla", what = "the step function on tensors, one time step after another, through autograd" },
}

local function names()
  local list = { "auto" }
  for _, backend in ipairs(backends) do list[#list + 1] = backend.name end
  return table.concat(list, ", ")
end

local function kind(problem) return problem.chip and "cuda" or problem.device:match("^%a+") end

-- Whether a backend can run a problem: what it needs beside its name, or nil; or false and a function that says why it
-- cannot.
local function fit(backend, problem, given)
  if backend.device and backend.device ~= kind(problem) then
    return false, function()
      return ("runs on %s only, and the device is %s"):format(backend.device, problem.device)
    end
  end
  if not backend.plan then return nil end
  local made, why_not = backend.plan(problem, given)
  return made or false, why_not
end

-- What plan.choose returns. The reason is put together when somebody asks for it, once: it takes far longer than the
-- choice.
local function result(backend, made, in_words)
  local reason
  return {
    backend = backend.name, [backend.name] = made,
    reason = function()
      reason = reason or in_words() .. (made and "\n" .. backend.explain(made) or "")
      return reason
    end,
  }
end

-- Sets the time of a step, both ways, of a way { backend =, made = } that has a plan (us), and how it is known (known).
-- Alternating may have been measured beside fused plans, and these may have failed to run.
local function time(way, fused_way)
  local how = fused_way and fused_way.made.chosen or {}
  local measured = how[way == fused_way and "measured_us" or "alternating_us"]
  way.us = measured or way.made.predicted_us
  way.known = ("%s %.2f us a step"):format(measured and "measured" or "predicted", way.us)
  if way == fused_way and how.failure and how.alternating_us then
    way.us, way.known = math.huge, "measuring failed: " .. tostring(how.failure)
  end
end

-- The first that can run the problem; of those that have plans, which are quicker than others, the quickest.
local function best(problem)
  local refused, ways, quickest = {}, {}, nil
  for _, backend in ipairs(backends) do
    if quickest and not backend.plan then break end
    local made, why_not = fit(backend, problem)
    if made == false then
      refused[#refused + 1] = { backend.name, why_not }
    else
      local way = { backend = backend, made = made }
      ways[#ways + 1] = way
      if made then time(way, ways[1].backend.name == "fused" and ways[1]) end
      if not quickest or way.us < quickest.us then quickest = way end
    end
  end
  return result(quickest.backend, quickest.made, function()
    local lines = {}
    for _, entry in ipairs(refused) do lines[#lines + 1] = ("not %s: it %s"):format(entry[1], entry[2]()) end
    for _, way in ipairs(ways) do
      if way ~= quickest then lines[#lines + 1] = ("not %s: %s"):format(way.backend.name, way.known) end
    end
    lines[#lines + 1] = ("%s: %s%s"):format(quickest.backend.name, quickest.known and quickest.known .. "; " or "",
      quickest.backend.what)
    return table.concat(lines, "\n")
  end)
end

local function asked_for(problem, wanted, given)
  for _, backend in ipairs(backends) do
    if backend.name == wanted then
      local made, why_not = fit(backend, problem, given)
      if made == false then error(("backend: '%s' %s"):format(wanted, why_not()), 0) end
      return result(backend, made, function() return ("%s: asked for; %s"):format(wanted, backend.what) end)
    end
  end
  error(("backend: expected one of %s, got %s"):format(names(), type(wanted) == "string" and
    ("'%s'"):format(wanted) or "a " .. type(wanted)), 0)
end

-- What was chosen, by cell and then by all else: a call of sizes that were there before does not plan again.
local function nothing_remembered() return setmetatable({}, { __mode = "k" }) end
local remembered, count = nothing_remembered(), 0
local REMEMBERED_MAX <const> = 4096

local function key_of(problem, wanted)
  return ("%s %s %s %d %d %d %s %s %s"):format(problem.device, problem.dtype, problem.product, problem.batch,
    problem.heads, problem.head_dim, problem.forward_clip, wanted, tune.tuning())
end

--- The way to run problem = { cell =, batch =, heads =, head_dim =, dtype = (of Wx), product = (type of the products),
-- device =, forward_clip = } when `wanted` ("auto", nil or a name) is asked for; `given` forces fields of a fused plan.
-- Returns { backend = its name, reason = a function that returns a text, fused = (see perilune.rnn.fused) or nil,
-- alternating = (see perilune.rnn.steps) or nil }. An unknown name, and a way that cannot run the problem, are errors.
function plan.choose(problem, wanted, given)
  wanted = wanted == nil and "auto" or wanted
  if given then return asked_for(problem, wanted == "auto" and "fused" or wanted, given) end
  if count >= REMEMBERED_MAX then remembered, count = nothing_remembered(), 0 end
  local of_cell = remembered[problem.cell] or {}
  remembered[problem.cell] = of_cell
  local key = key_of(problem, wanted)
  if not of_cell[key] then
    of_cell[key] = wanted == "auto" and best(problem) or asked_for(problem, wanted)
    count = count + 1
  end
  return of_cell[key]
end

-- ---- plans as objects -------------------------------------------------------------------------------------------

local Plan = { __name = "plan" }

-- The field reason is a text, made when it is asked for.
function Plan:__index(name)
  if name == "reason" then return self.chosen.reason() end
  return Plan[name]
end

function Plan:__tostring()
  local head = ("%s for cell %s, batch %d, heads %d, head_dim %d, %s on %s"):format(self.backend, self.cell.name,
    self.batch, self.heads, self.head_dim, self.dtype, self.device)
  return head .. "\n  " .. self.reason:gsub("\n", "\n  ")
end

function plan.is_plan(x) return getmetatable(x) == Plan end

local defaults = { batch = 1, heads = 1, dtype = "float32", device = "cpu" }
-- The options of pl.rnn_plan.
plan.options = {
  backend = true, batch = true, cell = true, chip = true, device = true, dtype = true, head_dim = true, heads = true,
  plan = true, product = true,
}

local function check_names(given)
  for key in pairs(given) do
    if not plan.options[key] then
      local list = {}
      for name in pairs(plan.options) do list[#list + 1] = name end
      table.sort(list)
      error(("unknown option '%s'; there are %s"):format(tostring(key), table.concat(list, ", ")), 0)
    end
  end
end

--- Makes a plan of checked fields; given.cell is a cell object here, and given.product a type that goes with the dtype.
function plan.make(given)
  local self = {}
  check_names(given)
  for key, value in pairs(defaults) do self[key] = value end
  for key, value in pairs(given) do self[key] = value end
  for _, key in ipairs { "batch", "heads", "head_dim" } do
    if math.type(self[key]) ~= "integer" or self[key] < 1 then
      error(("%s: expected an integer of at least 1, got %s"):format(key, tostring(self[key])), 0)
    end
  end
  if given.plan ~= nil and given.backend ~= nil and given.backend ~= "fused" then
    error(("plan: forces how backend 'fused' runs, but backend is %s"):format(tostring(given.backend)), 0)
  end
  if given.chip ~= nil and given.device ~= nil then error("chip: give either chip or device, not both", 0) end
  local chip = given.chip or chips.known[given.device] and given.device
  self.chip = chip and chips.named(chip)
  -- One element tells whether type and device are there, and the device's full name; the complaint when not is core's.
  self.device = core.full({ 1 }, 0, { dtype = self.dtype, device = not chip and self.device or nil }).device
  if chip then self.device = chip end
  local chosen = plan.choose(self, given.backend, given.plan)
  self.backend = chosen.backend
  self.plan, self.chosen = nil, chosen
  if chosen.fused then
    self.fused, self.details = {}, chosen.fused.details
    for name, value in pairs(chosen.fused.plan) do self.fused[name] = value end -- what is remembered stays as it is
  end
  return setmetatable(self, Plan)
end

--- Complains when a plan was made for another problem than `problem`; returns what plan.choose returned for it.
function plan.check_fits(self, problem)
  for _, key in ipairs { "cell", "batch", "heads", "head_dim", "dtype", "product", "device" } do
    if not rawequal(self[key], problem[key]) then
      error(("plan: it was made for %s = %s, but this call has %s"):format(key, tostring(self[key]),
        tostring(problem[key])), 0)
    end
  end
  return self.chosen
end

return plan
