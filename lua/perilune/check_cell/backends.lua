-- A cell on every backend, device and type, against `reference` in float64 with the same rounded inputs; and for what a
-- backend does not take, why not.

local pl = require "perilune"
local core = require "perilune.core"
local equations = require "perilune.check_cell.equations"
local place = require "perilune.cell.place"
local problem = require "perilune.check_cell.problem"

local backends = {}

-- The largest difference of a tensor, in the norm over all elements and relative to it, that is the rounding of a type.
local types <const> = {
  { name = "float64", limit = 1e-9 }, { name = "float32", limit = 1e-4 }, { name = "bfloat16", limit = 5e-2 },
  { name = "float16", limit = 1e-2 },
}
-- A tensor whose norm is less than this part of the largest one of its kind is measured against that part.
local SMALL <const> = 1e-3

local function norm(t) return math.sqrt((t * t):sum():item()) end

local function is_gradient(name) return name:match "^d " ~= nil end

-- The largest relative error of results and gradients, and the name of the tensor that has it.
local function difference(found, expected)
  local size, worst, where = { [true] = 0, [false] = 0 }, -1, nil
  for name, t in pairs(expected) do size[is_gradient(name)] = math.max(size[is_gradient(name)], norm(t)) end
  for name, t in pairs(expected) do
    local scale = math.max(norm(t), SMALL * size[is_gradient(name)])
    local off = norm(found[name]:to("cpu"):to("float64") - t) / (scale > 0 and scale or 1)
    if off ~= off then off = math.huge end
    if off > worst then worst, where = off, name end
  end
  return worst, where
end

-- The problem with numbers that the type has, in float64 on the CPU, and in the type on the device.
local function rounded(given, dtype, device)
  local exact = problem.map(given, function(t) return t:to(dtype):to("float64") end)
  local there = problem.map(given, function(t) return t:to(dtype):to(device) end)
  if dtype:match "16$" then there.weights.last = there.weights.last:float() end
  return exact, there
end

-- How many steps can be compared in a type, and why not all.
local function steps_of(cell, dtype, steps)
  local rough = dtype:match "16$" and #equations.rough(cell) > 0
  return rough and 1 or steps, rough and "one step: past it a rounding may take another side of "
    .. table.concat(equations.rough(cell), ", ") or ""
end

local function check(cell, size, backend, device, dtype)
  local _ <close> = pl.scope()
  local T, note = steps_of(cell, dtype.name, size.T)
  local given = problem.new(cell, { B = size.B, T = T, N = size.N, D = size.D }, 13)
  given.states = problem.warm_states(cell, problem.new(cell, size, 17))
  local exact, there = rounded(given, dtype.name, device)
  local expected = problem.run(cell, exact, "reference")
  local off, where = difference(problem.run(cell, there, backend, dtype.name), expected)
  if off > dtype.limit then
    note = ("%s is off%s%s"):format(where, note ~= "" and "; " or "", note)
    if off == math.huge then note = "results or gradients are not finite" end
  end
  return {
    name = ("%s on %s in %s"):format(backend, device, dtype.name), error = off, limit = dtype.limit,
    compared = "reference on cpu in float64", ok = off <= dtype.limit,
    note = note,
  }
end

-- Why a backend does not take the problem; nil when it does.
local function refusal(cell, size, backend, dtype, where)
  local given = { cell = cell, batch = size.B, heads = size.N, head_dim = size.D, dtype = dtype, backend = backend }
  given[where.chip and "chip" or "device"] = where.chip or where.device
  local ok, message = pcall(pl.rnn_plan, given)
  return not ok and place.strip(message):gsub("^pl%.rnn_plan: backend: ", "") or nil
end

local on_cpu <const>, on_gpu <const> = { "reference", "vanilla" }, { "fused", "alternating", "vanilla" }

--- The checks on the CPU and on `gpu`, the name of one or nil, at size = { B =, T =, N =, D = }; and which backends
-- take the cell: a list of { backend =, device =, dtype =, takes = true or false, why = }.
function backends.checks(cell, size, gpu)
  local checks, takes = {}, {}
  local function visit(names, device)
    for _, backend in ipairs(names) do
      for _, dtype in ipairs(types) do
        local why = refusal(cell, size, backend, dtype.name, { device = device })
        takes[#takes + 1] = { backend = backend, device = device, dtype = dtype.name, takes = not why, why = why or "" }
        local itself = backend == "reference" and dtype.name == "float64"
        if not why and not itself then checks[#checks + 1] = check(cell, size, backend, device, dtype) end
      end
    end
  end
  visit(on_cpu, "cpu")
  if gpu then visit(on_gpu, gpu) end
  return checks, takes
end

local WIDTHS <const> = { 64, 256, 512, 768, 1024, 2048, 4096 }

--- The largest head_dim that runs fused with one head and 16 rows in bfloat16, on `gpu` or else on an H100 that need
-- not be here, and why the next does not: { where =, largest = or nil, next =, why = }.
function backends.widest(cell, gpu)
  local where = gpu and { device = gpu } or { chip = "H100" }
  local found = { where = gpu or "an H100" }
  for _, width in ipairs(WIDTHS) do
    local why = refusal(cell, { B = 16, N = 1, D = width }, "fused", "bfloat16", where)
    if why then
      found.next, found.why = width, why
      break
    end
    found.largest = width
  end
  return found
end

--- The first GPU, or nil.
function backends.first_gpu()
  for _, device in ipairs(core.devices()) do
    if device.name:match "^cuda" then return device.name end
  end
end

return backends
