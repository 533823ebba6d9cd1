-- The errors of one cell against float64, in several types, backends and lengths, as the rows that
-- perilune.rnn.error_report takes: what experiments/numerics.lua and notebooks/05-numerics.ipynb measure;
-- numerics.lua says what the numbers are. Plans are the model's where pl.tuning(false) is set.

local pl = require "perilune"
local error_report = require "perilune.rnn.error_report"
local errors = require "perilune.rnn.errors"
local experiment = require "perilune.experiment"

local error_rows = {}

local keeping_gate <const> = { gru = "z", lstm = "f", slstm = "f" } -- raising its bias keeps a state for longer

--- Whether a cell of pl.cells has a gate whose bias says how long it keeps a state.
function error_rows.has_forget_bias(name) return keeping_gate[name] ~= nil end

--- The type in which a row's tensors are: tf32 is float32 whose products a GPU rounds to tf32.
function error_rows.storage_of(dtype) return dtype == "tf32" and "float32" or dtype end

--- The backend whose float64 is taken for exact.
function error_rows.exact_backend(device) return device == "cpu" and "reference" or "alternating" end

local function largest(list)
  local most = 0
  for _, value in ipairs(list) do most = math.max(most, value) end
  return most
end

--- The numbers of a measurement, in float64, for the longest of spec.lengths: the same for the same spec.
function error_rows.problem(spec)
  pl.seed(spec.seed or 1)
  local gate = keeping_gate[spec.cell]
  local shape = { batch = spec.batch, heads = spec.heads, head_dim = spec.head_dim,
                  steps = largest(spec.lengths) }
  return errors.problem(pl.cells[spec.cell], shape, spec.device, gate and { gate = gate, value = spec.forget_bias })
end

-- Time steps whose errors are kept, sqrt(2) apart.
local function kept_steps(count)
  local list, at = {}, 1
  while at <= count + 0.5 do
    local step = math.tointeger(at + 0.5 - (at + 0.5) % 1)
    if step ~= list[#list] then list[#list + 1] = step end
    at = at * 2 ^ 0.5
  end
  if list[#list] ~= count then list[#list + 1] = count end
  return list
end

local function picked(list, steps)
  local made = {}
  for i, step in ipairs(steps) do made[i] = list[step] end
  return made
end

-- Three digits, for files that are kept.
local function rounded(value)
  if type(value) == "table" then
    for i, one in ipairs(value) do value[i] = rounded(one) end
    return value
  end
  return tonumber(("%.3g"):format(value))
end

local function append(list, value) list[#list + 1] = rounded(value) end

-- Runs `steps` in the row's type and backend and adds its errors to the row.
local function add_length(row, plan, problem, steps, exact)
  local before = pl.tf32(row.dtype == "tf32")
  local found = errors.run(plan.cell, problem, steps, { plan = plan, gradients = true })
  pl.tf32(before)
  row.lengths[#row.lengths + 1], row.steps = steps, kept_steps(steps)
  for name, state in pairs(found.states) do
    local of = row.states[name] or { median = {}, largest = {}, last = {} }
    local list = errors.per_step(state, exact.states[name])
    row.states[name], of.per_step = of, rounded(picked(list, row.steps))
    append(of.median, error_report.median(list))
    append(of.largest, largest(list))
    append(of.last, errors.relative(found.last[name], exact.last[name]))
  end
  for _, name in ipairs(error_report.gradients) do
    append(row.gradients[name], errors.relative(found.gradients[name], exact.gradients[name]))
  end
  row.gradients.per_step = rounded(picked(errors.per_step(found.gradients.Wx, exact.gradients.Wx), row.steps))
end

-- Empty rows of the types that are stored as `storage`, and their plans.
local function rows_of(spec, storage)
  local rows, plans = {}, {}
  for _, dtype in ipairs(spec.dtypes) do
    for _, backend in ipairs(error_rows.storage_of(dtype) == storage and spec.backends or {}) do
      local plan = pl.rnn_plan {
        cell = spec.cell, batch = spec.batch, heads = spec.heads, head_dim = spec.head_dim, dtype = storage,
        device = spec.device, backend = backend,
      }
      rows[#rows + 1] = {
        kind = "errors", device = experiment.device_line(spec.device), cell = spec.cell,
        forget_bias = spec.forget_bias, dtype = dtype, backend = backend,
        size = ("%dx%dx%d"):format(spec.batch, spec.heads, spec.head_dim), scope = plan.fused and plan.fused.scope,
        lengths = {}, states = {}, gradients = { Wx = {}, R = {}, b = {}, states = {} },
      }
      plans[#rows] = plan
    end
  end
  return rows, plans
end

-- Measures rows whose types are stored alike, and so share the exact runs.
local function fill(rows, plans, spec, problem, storage)
  local _ <close> = pl.scope()
  local given, exact_given = errors.rounded(problem, storage)
  for _, steps in ipairs(spec.lengths) do
    local _ <close> = pl.scope()
    local exact = errors.run(plans[1].cell, exact_given, steps,
      { backend = error_rows.exact_backend(spec.device), gradients = true })
    for i, row in ipairs(rows) do
      local _ <close> = pl.scope()
      local shortened = row.backend == "vanilla" and steps > (spec.vanilla_most or math.huge)
      if not shortened then add_length(row, plans[i], given, steps, exact) end
    end
  end
end

--- Measures spec = { cell = "lstm" (of pl.cells), forget_bias =, batch =, heads =, head_dim =, lengths = { T, .. } in
-- rising order, dtypes = (of float32, tf32, float16, bfloat16), backends =, device =, vanilla_most = (the longest T of
-- vanilla, the time of whose gradients grows with its square), seed = 1 }, and returns a row for each type and backend.
function error_rows.measure(spec)
  local _ <close> = pl.scope()
  local problem, all, done = error_rows.problem(spec), {}, {}
  for _, dtype in ipairs(spec.dtypes) do
    local storage = error_rows.storage_of(dtype)
    if not done[storage] then
      local rows, plans = rows_of(spec, storage)
      fill(rows, plans, spec, problem, storage)
      table.move(rows, 1, #rows, #all + 1, all)
      done[storage] = true
    end
  end
  return all
end

return error_rows
