-- Chooses the way a recurrence runs, in one function, and explains the choice.

local core = require "perilune.core"

local plan = {}

-- In order of preference. `device` is the kind of device a way runs on; nil: any. `missing`: why it cannot run yet.
local backends = {
  { name = "fused", device = "cuda", what = "one persistent launch for all time steps",
    missing = "is not in this version" },
  { name = "alternating", device = "cuda", what = "a matrix product, then a pointwise kernel, per time step" },
  { name = "reference", device = "cpu", what = "all time steps in C, the cell's programs over blocks of elements" },
  { name = "vanilla", what = "the step function on tensors, one time step after another, through autograd" },
}

local function names()
  local list = { "auto" }
  for _, backend in ipairs(backends) do list[#list + 1] = backend.name end
  return table.concat(list, ", ")
end

local function kind(device) return device:match("^%a+") end

local function unfit(backend, problem)
  if backend.device and backend.device ~= kind(problem.device) then
    return ("runs on %s only, and the device is %s"):format(backend.device, problem.device)
  end
  return backend.missing
end

--- The way to run `problem` = { device =, ... } when `wanted` ("auto", nil or a name) is asked for. Returns its name
-- and the reason, as text. An unknown name, and a way that cannot run the problem, are errors.
function plan.choose(problem, wanted)
  wanted = wanted == nil and "auto" or wanted
  if wanted == "auto" then
    local passed = {}
    for _, backend in ipairs(backends) do
      local why_not = unfit(backend, problem)
      if not why_not then
        passed[#passed + 1] = ("%s: %s"):format(backend.name, backend.what)
        return backend.name, table.concat(passed, "\n")
      end
      passed[#passed + 1] = ("not %s: it %s"):format(backend.name, why_not)
    end
  end
  for _, backend in ipairs(backends) do
    if backend.name == wanted then
      local why_not = unfit(backend, problem)
      if why_not then error(("backend: '%s' %s"):format(wanted, why_not), 0) end
      return wanted, ("%s: asked for; %s"):format(wanted, backend.what)
    end
  end
  error(("backend: expected one of %s, got %s"):format(names(), type(wanted) == "string" and
    ("'%s'"):format(wanted) or "a " .. type(wanted)), 0)
end

-- ---- plans as objects -------------------------------------------------------------------------------------------

local Plan = { __name = "plan" }
Plan.__index = Plan

function Plan:__tostring()
  local head = ("%s for cell %s, batch %d, heads %d, head_dim %d, %s on %s"):format(self.backend, self.cell.name,
    self.batch, self.heads, self.head_dim, self.dtype, self.device)
  return head .. "\n  " .. self.reason:gsub("\n", "\n  ")
end

function plan.is_plan(x) return getmetatable(x) == Plan end

local defaults = { batch = 1, heads = 1, dtype = "float32", device = "cpu" }
local known = { cell = true, batch = true, heads = true, head_dim = true, dtype = true, device = true, backend = true }

--- Makes a plan of checked fields; given.cell is a cell object here.
function plan.make(given)
  local self = {}
  for key in pairs(given) do
    if not known[key] then
      error(("unknown option '%s'; there are backend, batch, cell, device, dtype, head_dim, heads"):format(
        tostring(key)), 0)
    end
  end
  for key, value in pairs(defaults) do self[key] = value end
  for key, value in pairs(given) do self[key] = value end
  for _, key in ipairs { "batch", "heads", "head_dim" } do
    if math.type(self[key]) ~= "integer" or self[key] < 1 then
      error(("%s: expected an integer of at least 1, got %s"):format(key, tostring(self[key])), 0)
    end
  end
  -- One element tells whether type and device are there, and the device's full name; the complaint when not is core's.
  self.device = core.full({ 1 }, 0, { dtype = self.dtype, device = self.device }).device
  self.backend, self.reason = plan.choose(self, given.backend)
  return setmetatable(self, Plan)
end

--- Complains when a plan was made for another problem than `problem`.
function plan.check_fits(self, problem)
  for _, key in ipairs { "cell", "batch", "heads", "head_dim", "dtype", "device" } do
    if not rawequal(self[key], problem[key]) then
      error(("plan: it was made for %s = %s, but this call has %s"):format(key, tostring(self[key]),
        tostring(problem[key])), 0)
    end
  end
end

return plan
