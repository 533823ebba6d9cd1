-- Checks what pl.rnn was given against the cell, and brings it to the type of the arithmetic. Every complaint names the
-- argument, what came and what was expected.

local cells = require "perilune.cells"
local cell_module = require "perilune.cell"
local core = require "perilune.core"
local place = require "perilune.cell.place"
local plan = require "perilune.rnn.plan"

local arguments = {}

-- The options of pl.rnn.
arguments.options = {
  cell = true, states = true, backend = true, dtype = true, lengths = true, outputs = true, plan = true, params = true,
  recurrent_grad_cut = true, recurrent_grad_clip = true, forward_clip = true,
}

-- Ways that read Wx and R, and write states, in 16 bits; the others get them in the type of the arithmetic.
local takes_halves = { fused = true, alternating = true }

-- The type of the arithmetic for each type of Wx, and the types that its products may have.
local work_types = { float64 = "float64", float32 = "float32", float16 = "float32", bfloat16 = "float32" }
local product_types = { float64 = { "float64" }, float32 = { "float32", "bfloat16", "float16" } }

local function fail(...) error(string.format(...), 0) end

local function got(x)
  if core.is_tensor(x) then return ("[%s] %s"):format(table.concat(x.shape, ", "), x.dtype) end
  if type(x) == "string" then return ("'%s'"):format(x) end
  if type(x) == "number" or type(x) == "boolean" or x == nil then return tostring(x) end
  return "a " .. type(x)
end

--- The cell object for opts.cell.
function arguments.cell(given)
  if cell_module.is_cell(given) then return given end
  if type(given) == "string" then
    local ok, found = pcall(function() return cells[given] end)
    if not ok then fail("cell: %s", place.strip(found)) end
    return found
  end
  fail("cell: expected a name or an object made by pl.cell, got %s", got(given))
end

local function check_options(opts)
  if type(opts) ~= "table" then fail("options: expected a table { cell = ... }, got %s", got(opts)) end
  for key in pairs(opts) do
    if not arguments.options[key] then
      local list = {}
      for name in pairs(arguments.options) do list[#list + 1] = name end
      table.sort(list)
      fail("unknown option '%s'; there are %s", tostring(key), table.concat(list, ", "))
    end
  end
end

-- Checks a tensor's shape against { { "Gr", 4 }, { "N", 2 }, ... }; without a size, anything from 1 will do.
local function check_shape(name, t, axes)
  local expected, fits = {}, core.is_tensor(t) and #t.shape == #axes
  for i, axis in ipairs(axes) do
    local symbol, size = axis[1], axis[2]
    expected[i] = size and symbol ~= tostring(size) and ("%s=%d"):format(symbol, size) or symbol
    if fits then fits = size and t.shape[i] == size or not size and t.shape[i] >= 1 end
  end
  if fits then return end
  local empty = core.is_tensor(t) and t:numel() == 0 and " with sizes from 1" or ""
  fail("%s: expected [%s]%s, got %s", name, table.concat(expected, ", "), empty, got(t))
end

-- A tensor that goes with Wx: on its device, of a type that loses nothing by conversion to the arithmetic's. With
-- `half` it stays in 16 bits.
local function belonging(x, name, t, axes, half)
  check_shape(name, t, axes)
  if t.device ~= x.device then fail("%s: expected it on %s (where Wx is), got %s", name, x.device, t.device) end
  if t.dtype ~= x.dtype and t.dtype ~= x.work and t.dtype ~= x.product then
    fail("%s: expected type %s (Wx has %s), got %s", name, x.work, x.dtype, t.dtype)
  end
  return (half or t.dtype == x.work) and t or t:to(x.work)
end

-- A weight that the cell may not have: nil exactly when it has no gate with that part.
local function weight(x, name, t, part, axes)
  local count = x.cell:count(part)
  if count == 0 then
    if t ~= nil then
      fail("%s: expected nil (no gate of %s has a %s part), got %s", name, x.cell.owner, part, got(t))
    end
    return nil
  end
  table.insert(axes, 1, { name == "R" and "Gr" or "Gb", count })
  return belonging(x, name, t, axes, name == "R" and takes_halves[x.backend])
end

-- Lengths as an int64 tensor on x's device, and the shortest one. Those that are on a GPU already stay there, so that
-- nobody waits for them: what is out of 0..T counts as the nearest, and is an error at the next synchronisation. The
-- shortest is then not known, and 0.
local function check_lengths(x, lengths)
  if lengths == nil then return nil end
  if core.is_tensor(lengths) then
    if not lengths.dtype:match("^u?int") then fail("lengths: expected integers, got %s", got(lengths)) end
    check_shape("lengths", lengths, { { "B", x.batch } })
    if x.device ~= "cpu" and lengths.device == x.device then
      return lengths.dtype == "int64" and lengths or lengths:to "int64", 0
    end
    lengths = lengths:totable()
  end
  if type(lengths) ~= "table" then fail("lengths: expected a table or an integer tensor, got %s", got(lengths)) end
  if #lengths ~= x.batch then fail("lengths: expected B=%d numbers, got %d", x.batch, #lengths) end
  local list, shortest = {}, x.steps
  for i, length in ipairs(lengths) do
    local integer = math.tointeger(length)
    if type(length) ~= "number" or not integer or integer < 0 or integer > x.steps then
      fail("lengths[%d]: expected an integer from 0 to T=%d, got %s", i, x.steps, got(length))
    end
    list[i], shortest = integer, math.min(shortest, integer)
  end
  return core.tensor(list, { dtype = "int64", device = x.device }), shortest
end

local function check_params(x, given)
  local params, declared = {}, {}
  if given == nil then given = {} end
  if type(given) ~= "table" then fail("params: expected a table of tensors by name, got %s", got(given)) end
  for i, name in ipairs(x.cell.params) do
    declared[name] = true
    if given[name] == nil then fail("params.%s: expected [N=%d, D=%d], got nil", name, x.heads, x.dim) end
    params[i] = belonging(x, "params." .. name, given[name], { { "N", x.heads }, { "D", x.dim } })
  end
  for name in pairs(given) do
    if not declared[name] then
      local there = #x.cell.params > 0 and table.concat(x.cell.params, ", ") or "none"
      fail("params.%s: %s has no such param; it declares %s", tostring(name), x.cell.owner, there)
    end
  end
  return params
end

local function positive(name, value)
  if value == nil or (type(value) == "number" and value > 0) then return value end
  fail("%s: expected a number above 0, got %s", name, got(value))
end

-- The type of the products: what is asked for, or autocast's, or that of Wx.
local function check_product(x, name, dtype)
  if dtype == nil then return x.dtype == "float32" and core.autocast() or x.dtype end
  local allowed = product_types[x.work]
  for _, known in ipairs(allowed) do
    if dtype == known then return dtype end
  end
  fail("%s: expected %s (Wx has %s), got %s", name, table.concat(allowed, ", "), x.dtype, got(dtype))
end

-- How to run: opts.plan's way, opts.backend, or what suits.
local function choose(x, opts)
  local problem = {
    cell = x.cell, batch = x.batch, heads = x.heads, head_dim = x.dim, dtype = x.dtype, product = x.product,
    device = x.device, forward_clip = x.forward_clip,
  }
  if opts.plan == nil then return plan.choose(problem, opts.backend) end
  if not plan.is_plan(opts.plan) then fail("plan: expected an object made by pl.rnn_plan, got %s", got(opts.plan)) end
  if opts.backend ~= nil then fail("plan: give either plan or backend, not both") end
  return plan.check_fits(opts.plan, problem)
end

--- The type of the products for Wx of type `dtype` when `wanted`, or nil, is asked for.
function arguments.product(dtype, wanted)
  local work = work_types[dtype]
  if not work then
    fail("dtype: expected float32, float64, bfloat16 or float16, got %s",
      type(dtype) == "string" and dtype or got(dtype))
  end
  return check_product({ dtype = dtype, work = work }, "product", wanted)
end

local outputs = { all = true, h = true, last = true }

--- Everything about one call, checked:
-- { cell, batch, steps, heads, dim, device, dtype (of Wx), work (type of the arithmetic), product (type of the
--   products), Wx, R, b, params (list, declared order), initial or nil, lengths (int64 [B]) or nil, shortest (all
--   lengths are at least that), outputs, cut, clip, forward_clip, backend, fused and alternating (core.recurrence's, of
--   the backend) or nil }
-- with all tensors in the type `work`, but Wx and R as they came where the way takes 16 bits.
function arguments.check(Wx, R, b, opts)
  if Wx == nil then fail("Wx: expected a tensor [B, T, Gw, N, D], got %s", got(Wx)) end
  check_options(opts)
  local x = { cell = arguments.cell(opts.cell) }
  check_shape("Wx", Wx, { { "B" }, { "T" }, { "Gw", x.cell:count("input") }, { "N" }, { "D" } })
  x.batch, x.steps, x.heads, x.dim = Wx.shape[1], Wx.shape[2], Wx.shape[4], Wx.shape[5]
  x.device, x.dtype, x.work = Wx.device, Wx.dtype, work_types[Wx.dtype]
  if not x.work then fail("Wx: expected a floating-point type, got %s", Wx.dtype) end
  x.product = check_product(x, "dtype", opts.dtype)
  x.forward_clip = positive("forward_clip", opts.forward_clip)
  local chosen = choose(x, opts)
  x.backend, x.fused = chosen.backend, chosen.fused and chosen.fused.arguments
  x.alternating = chosen.alternating and chosen.alternating.arguments
  local n, d = { "N", x.heads }, { "D", x.dim }
  x.Wx = (takes_halves[x.backend] or Wx.dtype == x.work) and Wx or Wx:to(x.work)
  x.R = weight(x, "R", R, "recurrent", { n, d, d })
  x.b = weight(x, "b", b, "bias", { n, d })
  x.params = check_params(x, opts.params)
  if opts.states ~= nil then
    x.initial = belonging(x, "states", opts.states,
                          { { "S", #x.cell.states }, { "B", x.batch }, { "1", 1 }, n, d })
  end
  x.lengths, x.shortest = check_lengths(x, opts.lengths)
  x.outputs = opts.outputs == nil and "all" or opts.outputs
  if not outputs[x.outputs] then fail("outputs: expected 'all', 'h' or 'last', got %s", got(x.outputs)) end
  x.cut = opts.recurrent_grad_cut or false
  if type(x.cut) ~= "boolean" then fail("recurrent_grad_cut: expected true or false, got %s", got(x.cut)) end
  x.clip = positive("recurrent_grad_clip", opts.recurrent_grad_clip)
  return x
end

return arguments
