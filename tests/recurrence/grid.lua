-- One problem of a recurrence run by any backend on any device, against `reference` in float64 with the same rounded
-- inputs: the limits that a correct backend meets, and the cells, sizes and types on which to hold it to them.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"

local grid = {}

-- The largest relative L2 error over the whole sequence { of results, of gradients }, by forget bias. tf32 is float32
-- with rounded products.
local sixteen <const> = { [0] = { 4e-3, 8e-3 }, [3] = { 1.5e-2, 8e-2 } }
local function part(limits, divisor)
  local made = {}
  for bias, pair in pairs(limits) do made[bias] = { pair[1] / divisor, pair[2] / divisor } end
  return made
end
local function both(results, gradients) return { [0] = { results, gradients }, [3] = { results, gradients } } end
grid.limits = {
  float64 = both(1e-12, 1e-11), float32 = both(2e-6, 2e-5), tf32 = both(1e-3, 5e-3), bfloat16 = sixteen,
  float16 = part(sixteen, 5),
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Which cases

grid.axes = { T = { 1, 2, 33, 257 }, N = { 1, 2, 12 }, D = { 8, 24, 64, 100, 256, 768 }, B = { 1, 3, 8, 16, 64 } }

-- Units x rows x steps of an everyday case: its float64 oracle takes well under a second.
local EVERYDAY_ELEMENTS <const> = 2 ^ 18
-- Past this the oracle is `alternating` in float64, which the float64 cases hold against `reference`.
local REFERENCE_ELEMENTS <const> = 2 ^ 22

function grid.elements(case) return case.B * case.T * case.N * case.D end

--- All combinations of one value of each axis: a list of { axis = value }, the order the same in every run.
function grid.product(axes)
  local names, list = {}, { {} }
  for name in pairs(axes) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local longer = {}
    for _, case in ipairs(list) do
      for _, value in ipairs(axes[name]) do
        local made = { [name] = value }
        for key, other in pairs(case) do made[key] = other end
        longer[#longer + 1] = made
      end
    end
    list = longer
  end
  return list
end

-- In an order that looks random and never changes: what pl.seed and math.randomseed say has no part in it.
local function shuffled(list)
  local x = 12345
  for i = #list, 2, -1 do
    x = (x * 1103515245 + 12345) % 2 ^ 31 // 1
    local j = (x >> 8) % i + 1
    list[i], list[j] = list[j], list[i]
  end
  return list
end

-- What a case covers, as texts: its values, or its pairs of values.
local function covered(case, pairwise)
  local values, list = {}, {}
  for name, value in pairs(case) do values[#values + 1] = name .. "=" .. value end
  if not pairwise then return values end
  table.sort(values)
  for i = 1, #values do
    for j = i + 1, #values do list[#list + 1] = values[i] .. " " .. values[j] end
  end
  return list
end

--- Few cases of everyday size that have every value of every axis between them, or with `pairwise` every pair of values
-- of two axes: always the case next that has most of what is missing.
function grid.cover(axes, pairwise)
  local candidates, missing, count, chosen = {}, {}, 0, {}
  for _, case in ipairs(shuffled(grid.product(axes))) do
    local list = covered(case, pairwise)
    for _, one in ipairs(list) do
      if not missing[one] then missing[one], count = true, count + 1 end
    end
    if grid.elements(case) <= EVERYDAY_ELEMENTS then candidates[#candidates + 1] = { case = case, list = list } end
  end
  while count > 0 do
    local best, most = nil, 0
    for _, candidate in ipairs(candidates) do
      local new = 0
      for _, one in ipairs(candidate.list) do new = missing[one] and new + 1 or new end
      if new > most then best, most = candidate, new end
    end
    assert(best, "no case of everyday size has what is missing: " .. tostring(next(missing)))
    for _, one in ipairs(best.list) do missing[one] = nil end
    chosen[#chosen + 1], count = best.case, count - most
  end
  return chosen
end

--- The axes with types, and with both forget biases for a cell that has a biased gate "f" and no params: with random
-- ones such a gate may stay open for good, and gradients grow past what float32 can tell. An exponential one grows past
-- any type when it is open, and without that in many steps.
function grid.axes_of(cell, types)
  local axes = { type = types, bias = { 0 } }
  for name, values in pairs(grid.axes) do axes[name] = values end
  if cell == pl.cells.exponential_lstm then
    axes.T = { 1, 2, 33 }
    return axes
  end
  for i, gate in ipairs(cell.gates) do
    if #cell.params == 0 and gate == "f" and cell.parts[i].bias then axes.bias = { 0, 3 } end
  end
  return axes
end

function grid.name(cell, case)
  return ("%s in %s, forget bias %d, B=%d T=%d N=%d D=%d"):format(cell.name, case.type, case.bias, case.B, case.T,
                                                                case.N, case.D)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Running a case

--- Fills freed memory of all sizes up to `bytes` with NaN, so that what a kernel forgets to write shows.
function grid.poison(device, bytes)
  local _ <close> = pl.scope()
  local size, small = 512, 8 * 2 ^ 20
  while size <= bytes do
    for eighth = 8, 15 do
      for _ = 1, size <= small and 3 or 1 do pl.full({ size * eighth // 32 | 0 }, 0 / 0, { device = device }) end
    end
    size = size * 2
  end
end

--- The arguments of compare.arguments, or weights, with `visit` called on each tensor.
function grid.each(given, visit)
  local made = { params = {} }
  for name, t in pairs(given) do
    if name ~= "params" then made[name] = visit(t) end
  end
  for name, t in pairs(given.params or {}) do made.params[name] = visit(t) end
  return made
end

-- Params of size 1 make some cells feed back so much that no type but float64 tells their gradients.
local PARAM_SIZE <const> = 0.25

local function add_to_forget_bias(cell, b, more)
  local slot = 0 -- on b's gate axis, which holds the gates that have a bias
  for i, gate in ipairs(cell.gates) do
    if cell.parts[i].bias then
      slot = slot + 1
      if gate == "f" then b[slot] = b[slot] + more end
    end
  end
end

--- The same numbers twice, rounded to dtype: in float64 on the CPU, and in dtype on the device. Each is { given =,
-- weights = } as compare.run takes them.
function grid.problem(cell, shape, dtype, forget_bias, device)
  local given = compare.arguments(cell, shape)
  for name, t in pairs(given.params) do given.params[name] = t * PARAM_SIZE end
  if forget_bias ~= 0 then add_to_forget_bias(cell, given.b, forget_bias) end
  local sizes = { #cell.states, shape.B, shape.T, shape.N, shape.D, dtype = "float64" }
  local weights = { states = pl.randn(sizes) }
  sizes[3] = 1
  weights.last = pl.randn(sizes)
  local function exact(t) return t:to(dtype):to("float64") end
  local function there(t) return t:to(dtype):to(device) end
  local weights_there = { states = there(weights.states), last = there(weights.last) }
  if dtype:match "16$" then weights_there.last = weights_there.last:float() end
  return { given = grid.each(given, exact), weights = { states = exact(weights.states), last = exact(weights.last) } },
    { given = grid.each(given, there), weights = weights_there }
end

--- Results and gradients of a problem, as compare.run returns them.
function grid.run(problem, cell, options, from_default)
  return compare.run(cell, problem.given, options, problem.weights, from_default)
end

--- What grid.run found, on the CPU in float64.
function grid.back(found)
  local made = {}
  for name, t in pairs(found) do made[name] = t:to("cpu"):to("float64") end
  return made
end

function grid.norm(t) return math.sqrt((t * t):sum():item()) end

-- Half the distance of the numbers of float16 next to 0: rounding takes as much from any element, however small.
local SMALLEST_HALF <const> = 2 ^ -25

--- The largest relative L2 errors { of results, of gradients }, and the names of the tensors that have them. With
-- dtype = "float16" without what rounding to it takes from numbers that it has no digits for.
function grid.errors(found, expected, dtype)
  local worst, where = { 0, 0 }, {}
  for name, t in pairs(expected) do
    local kind, size = name:match "^d " and 2 or 1, grid.norm(t)
    local off = found[name] and grid.norm(found[name] - t) or math.huge
    if dtype == "float16" then off = math.max(0, off - SMALLEST_HALF * grid.norm(pl.ones(t.shape))) end
    off = off / (size > 0 and size or 1)
    if off ~= off then off = math.huge end
    if off >= worst[kind] then worst[kind], where[kind] = off, name end
  end
  return worst, where
end

-- 1 where t is NaN or infinite.
local function not_finite(t) return pl.ne(t - t, 0) end
local function count(t) return t:sum():item() end

--- Fails unless what was found, on the CPU, is NaN or infinite where the expected is, and nowhere else. Returns at how
-- many places that is, and both with zeros there.
function grid.finite_alike(found, expected)
  local touched, finite, finite_expected = 0, {}, {}
  for name, t in pairs(expected) do
    local bad, got = not_finite(t), not_finite(found[name])
    touched = touched + count(bad)
    assert(count(bad * got) == count(bad), name .. " is finite where reference has NaN or infinity")
    assert(count(got) == count(bad), name .. " has NaN or infinity where reference is finite")
    finite[name], finite_expected[name] = pl.where(got, 0, found[name]), pl.where(bad, 0, t)
  end
  return touched, finite, finite_expected
end

local function with_tf32(allowed, f, ...)
  local before = pl.tf32(allowed)
  local results = table.pack(pcall(f, ...))
  pl.tf32(before)
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

local function same_bits(one, other)
  for name, t in pairs(one) do
    assert(grid.norm(t - other[name]) == 0, name .. " differs at the second or third run")
  end
end

-- Largest parts of the limits, by cell, type, bias and kind.
local measured = {}

local function oracle(exact, cell, case, device)
  if grid.elements(case) <= REFERENCE_ELEMENTS or case.type == "float64" then
    return grid.run(exact, cell, { backend = "reference" })
  end
  local function there(t) return t:to(device) end
  local moved = { given = grid.each(exact.given, there), weights = grid.each(exact.weights, there) }
  return grid.back(grid.run(moved, cell, { backend = "alternating" }))
end

-- The sLSTM's n is clamped at 1 and its m the greater of two: near either kink a rounding of the gates decides which
-- way a gradient goes, and in tf32 the few elements that this meets outweigh the limit. Fused keeps what the gradient
-- needs of a step in 16 bits, and rg_lru has 8 times that in an exponent.
local function limits_of(cell, case, backend)
  local limit = grid.limits[case.type][case.bias]
  if cell.name == "slstm" and case.type == "tf32" then return { limit[1], 4 * limit[2] } end
  if cell.name == "rg_lru" and case.type:match "16$" and backend == "fused" then return { limit[1], 2 * limit[2] } end
  return limit
end

--- A plan for a problem of `shape` whose fused fields are forced to be those of `forced`.
function grid.plan(cell, shape, dtype, device, forced)
  return pl.rnn_plan { cell = cell, batch = shape.B, heads = shape.N, head_dim = shape.D, dtype = dtype,
                       device = device, plan = forced }
end

--- Holds `backend` on `device` to the limits: case = { B =, T =, N =, D =, type =, bias = }. Three runs give the same
-- bits; before each, free memory is NaN. case.plan forces fields of a fused plan.
function grid.check(cell, case, backend, device)
  local _ <close> = pl.scope()
  pl.seed(case.B + 100 * case.T + 10000 * case.N + case.D)
  local dtype = case.type == "tf32" and "float32" or case.type
  local exact, there = grid.problem(cell, case, dtype, case.bias, device)
  local expected = oracle(exact, cell, case, device)
  local bytes, found = math.max(2 ^ 20, 32 * #cell.gates * grid.elements(case)), nil
  local options = case.plan and { plan = grid.plan(cell, case, dtype, device, case.plan) } or { backend = backend }
  for _ = 1, 3 do
    grid.poison(device, math.min(bytes, 2 ^ 27))
    local again = grid.back(with_tf32(case.type == "tf32", grid.run, there, cell, options))
    if found then same_bits(found, again) end
    found = again
  end
  local worst, where = grid.errors(found, expected, case.type)
  local limit = limits_of(cell, case, backend)
  for kind = 1, 2 do
    local of = kind == 1 and "results" or "gradients"
    local key = ("%-18s %-8s bias %d %s"):format(cell.name, case.type, case.bias, of)
    measured[key] = math.max(measured[key] or 0, worst[kind] / limit[kind])
  end
  for kind = 1, 2 do
    assert(worst[kind] <= limit[kind], ("%s: error %g, limit %g"):format(where[kind], worst[kind], limit[kind]))
  end
end

--- The largest errors so far as parts of the limits, a line for each cell, type and bias.
function grid.report()
  local lines = {}
  for key, share in pairs(measured) do lines[#lines + 1] = ("%s: %.3f of the limit"):format(key, share) end
  table.sort(lines)
  return table.concat(lines, "\n")
end

return grid
