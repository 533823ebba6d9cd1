-- The alternating recurrence on a GPU against `reference` in float64 on the processor: the built-in cells in every type
-- at the limits that a correct kernel meets, the zoo with options to rounding, the same bits at every repetition. With
-- PERILUNE_SHOW_ERRORS set it prints the largest errors as parts of the limits.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local zoo = require "tests.recurrence.zoo"

local there, why_not = pcall(pl.zeros, { 1, device = "cuda" })
if not there then
  describe("the alternating recurrence", function()
    pending("skipped, for there is no GPU: " .. tostring(why_not))
  end)
  return
end

-- The largest relative L2 error of results and of gradients, by forget bias.
local limits = {
  float64 = { [0] = { 1e-12, 1e-11 }, [3] = { 1e-12, 1e-11 } },
  float32 = { [0] = { 2e-6, 2e-5 }, [3] = { 2e-6, 2e-5 } },
  bfloat16 = { [0] = { 4e-3, 8e-3 }, [3] = { 1.5e-2, 8e-2 } },
  float16 = { [0] = { 4e-3 / 5, 8e-3 / 5 }, [3] = { 1.5e-2 / 5, 8e-2 / 5 } },
}
local dtypes = { "float64", "float32", "bfloat16", "float16" }

-- Between them all T, N, D and B that matter: one step, odd sizes, padded and whole chunks, one and two tiles of rows,
-- batches past what the step's own product takes.
local shapes = {
  { B = 1, T = 1, N = 1, D = 8 },
  { B = 3, T = 2, N = 12, D = 24 },
  { B = 8, T = 33, N = 2, D = 64 },
  { B = 16, T = 33, N = 1, D = 100 },
  { B = 64, T = 33, N = 2, D = 64 },
  { B = 3, T = 257, N = 12, D = 8 },
  { B = 8, T = 257, N = 1, D = 256 },
  { B = 16, T = 33, N = 1, D = 768 },
  { B = 40, T = 9, N = 2, D = 256 },
  { B = 200, T = 12, N = 2, D = 40 },
}

-- Fills freed memory with NaN, so that what a kernel forgets to write shows.
local function poison()
  local _ <close> = pl.scope()
  local size = 512
  while size <= 8 * 2 ^ 20 do
    for eighth = 8, 15 do
      for _ = 1, 3 do pl.full({ size * eighth // 32 }, 0 / 0, { device = "cuda" }) end
    end
    size = size * 2
  end
end

local function each(given, visit)
  local made = { params = {} }
  for name, t in pairs(given) do
    if name ~= "params" then made[name] = visit(t) end
  end
  for name, t in pairs(given.params or {}) do made.params[name] = visit(t) end
  return made
end

-- The same numbers for both: rounded to dtype, then in float64 on the processor and in dtype on the GPU.
local function problem(cell, shape, dtype, forget_bias)
  local given = compare.arguments(cell, shape)
  if forget_bias ~= 0 then
    for i, gate in ipairs(cell.gates) do
      if gate == "f" then given.b[i] = given.b[i] + forget_bias end
    end
  end
  local sizes = { #cell.states, shape.B, shape.T, shape.N, shape.D, dtype = "float64" }
  local weights = { states = pl.randn(sizes) }
  sizes[3] = 1
  weights.last = pl.randn(sizes)
  local function rounded(t) return t:to(dtype) end
  local exact = function(t) return t:to(dtype):to("float64") end
  local on_gpu = function(t) return rounded(t):to("cuda") end
  local weights_gpu = { states = on_gpu(weights.states), last = on_gpu(weights.last) }
  if dtype:match "16$" then weights_gpu.last = weights_gpu.last:float() end
  return { given = each(given, exact), weights = each(weights, exact) },
    { given = each(given, on_gpu), weights = weights_gpu }
end

local function run(x, cell, options) return compare.run(cell, x.given, options, x.weights) end

local function back(found)
  local made = {}
  for name, t in pairs(found) do made[name] = t:to("cpu"):to("float64") end
  return made
end

local function norm(t) return math.sqrt((t * t):sum():item()) end

-- Largest relative L2 errors of results and of gradients, and where.
local function errors(found, expected)
  local worst, where = { 0, 0 }, {}
  for name, t in pairs(expected) do
    local kind = name:match "^d " and 2 or 1
    local off = found[name] and norm(found[name] - t) / math.max(norm(t), 1e-30) or math.huge
    if off ~= off then off = math.huge end
    if norm(t) == 0 then off = found[name] and norm(found[name]) or 0 end
    if off >= worst[kind] then worst[kind], where[kind] = off, name end
  end
  return worst, where
end

local function same_bits(one, other)
  for name, t in pairs(one) do
    assert(norm(t - other[name]) == 0, name .. " differs at the second or third run")
  end
end

local measured = {}

local function check(cell, shape, dtype, forget_bias)
  local _ <close> = pl.scope()
  pl.seed(shape.B + shape.D)
  local cpu, gpu = problem(cell, shape, dtype, forget_bias)
  local expected = run(cpu, cell, { backend = "reference" })
  poison()
  local found = back(run(gpu, cell, { backend = "alternating" }))
  for _ = 1, 2 do same_bits(found, back(run(gpu, cell, { backend = "alternating" }))) end
  local worst, where = errors(found, expected)
  local limit = limits[dtype][forget_bias]
  for kind = 1, 2 do
    local key = ("%-8s %-8s bias %d %s"):format(cell.name, dtype, forget_bias, kind == 1 and "results" or "gradients")
    measured[key] = math.max(measured[key] or 0, worst[kind] / limit[kind])
    assert(worst[kind] <= limit[kind], ("%s: error %g, limit %g"):format(where[kind], worst[kind], limit[kind]))
  end
end

describe("alternating meets the limits", function()
  for _, name in ipairs { "elman", "gru", "lstm", "slstm" } do
    local cell = pl.cells[name]
    for _, dtype in ipairs(dtypes) do
      for _, forget_bias in ipairs(name:match "lstm" and { 0, 3 } or { 0 }) do
        for _, shape in ipairs(shapes) do
          local sizes = ("B=%d T=%d N=%d D=%d"):format(shape.B, shape.T, shape.N, shape.D)
          it(("for %s in %s, forget bias %d, %s"):format(name, dtype, forget_bias, sizes), function()
            check(cell, shape, dtype, forget_bias)
          end)
        end
      end
    end
  end

  if os.getenv "PERILUNE_SHOW_ERRORS" then
    teardown(function()
      local lines = {}
      for key, part in pairs(measured) do lines[#lines + 1] = ("%s: %.3f of the limit"):format(key, part) end
      table.sort(lines)
      print("\n" .. table.concat(lines, "\n"))
    end)
  end
end)

local options = {
  ["no options"] = {},
  ["lengths"] = { lengths = { 12, 0, 5 } },
  ["lengths, h only"] = { lengths = { 1, 11, 2 }, outputs = "h" },
  ["last only"] = { outputs = "last" },
  ["recurrent cut"] = { recurrent_grad_cut = true },
  ["recurrent clip"] = { recurrent_grad_clip = 0.05 },
  ["forward clip"] = { forward_clip = 0.2 },
  ["everything"] = { lengths = { 2, 12, 5 }, recurrent_grad_clip = 0.1, forward_clip = 0.3, outputs = "h" },
}

local function with(chosen, more)
  local all = {}
  for key, value in pairs(chosen) do all[key] = value end
  for key, value in pairs(more) do all[key] = value end
  return all
end

describe("alternating agrees with reference", function()
  local shape = { B = 3, T = 12, N = 2, D = 10 }
  for _, entry in ipairs(zoo) do
    for name, chosen in pairs(options) do
      for _, dtype in ipairs { "float64", "float32" } do
        it(("for %s in %s with %s"):format(entry.name, dtype, name), function()
          local _ <close> = pl.scope()
          pl.seed(7)
          local cpu, gpu = problem(entry.cell, shape, dtype, 0)
          local count = chosen.outputs == "h" and 1 or #entry.cell.states
          for _, x in ipairs { cpu, gpu } do x.weights.states = x.weights.states:narrow(1, 1, count) end
          local expected = run(cpu, entry.cell, with(chosen, { backend = "reference" }))
          for _ = 1, 3 do
            local found = back(run(gpu, entry.cell, with(chosen, { backend = "alternating" })))
            local off, where = compare.difference(found, expected)
            assert(off <= (dtype == "float64" and 1e-10 or 2e-5), ("%s differs by %g"):format(where, off))
          end
        end)
      end
    end
  end

  -- The processor rounds h and R as the GPU does; the GPU rounds gradients of gates, too.
  for _, dtype in ipairs { "bfloat16", "float16" } do
    for name, chosen in pairs(options) do
      it(("for lstm in %s with %s"):format(dtype, name), function()
        local _ <close> = pl.scope()
        pl.seed(7)
        local cell = pl.cells.lstm
        local cpu, gpu = problem(cell, shape, dtype, 0)
        local function single(t) return t:float() end
        cpu.given, cpu.weights = each(cpu.given, single), each(cpu.weights, single)
        local count = chosen.outputs == "h" and 1 or 2
        for _, x in ipairs { cpu, gpu } do x.weights.states = x.weights.states:narrow(1, 1, count) end
        local expected = back(run(cpu, cell, with(chosen, { backend = "reference", dtype = dtype })))
        for _ = 1, 3 do
          local found = back(run(gpu, cell, with(chosen, { backend = "alternating" })))
          local off, where = compare.difference(found, expected)
          assert(off <= (dtype == "bfloat16" and 2e-2 or 3e-3), ("%s differs by %g"):format(where, off))
        end
      end)
    end
  end
end)

describe("alternating", function()
  it("takes any strides", function()
    local _ <close> = pl.scope()
    local cell, shape = pl.cells.gru, { B = 3, T = 9, N = 2, D = 12 }
    local cpu, gpu = problem(cell, shape, "float32", 0)
    local expected = run(cpu, cell, { backend = "reference" })
    -- A run, and its gradients from the states alone.
    local function gradients(weights)
      local Wx, R, b = gpu.given.Wx, gpu.given.R, gpu.given.b
      Wx, R, b = Wx:detach():requires_grad(), R:detach():requires_grad(), b:detach():requires_grad()
      local states = pl.rnn(Wx, R, b, { cell = cell, states = gpu.given.states })
      states:backward(weights)
      return back { states = states:detach(), ["d Wx"] = Wx.grad, ["d R"] = R.grad, ["d b"] = b.grad }
    end
    local contiguous = gradients(gpu.weights.states)
    gpu.given.Wx = gpu.given.Wx:permute({ 5, 4, 3, 2, 1 }):contiguous():permute { 5, 4, 3, 2, 1 }
    gpu.given.R = gpu.given.R:transpose(3, 4):contiguous():transpose(3, 4)
    gpu.given.b = gpu.given.b:transpose(1, 3):contiguous():transpose(1, 3)
    local strided = gradients(gpu.weights.states:transpose(1, 5):contiguous():transpose(1, 5))
    local off, where = compare.difference(strided, contiguous)
    assert(off < 1e-5, ("%s differs from the contiguous one by %g"):format(where, off))
    for _, name in ipairs { "d Wx", "d R", "d b" } do assert.is_true(norm(strided[name]) > 0, name) end
    off = compare.difference({ states = strided.states }, { states = expected.states })
    assert.is_true(off < 2e-5)
  end)

  it("takes a number of steps that changes from call to call", function()
    local _ <close> = pl.scope()
    local cell = pl.cells.lstm
    local cpu, gpu = problem(cell, { B = 3, T = 40, N = 2, D = 8 }, "float64", 0)
    local expected = pl.rnn(cpu.given.Wx, cpu.given.R, cpu.given.b, { cell = cell })
    for round = 1, 3 do
      for steps = 40, 9, -round do
        local found = pl.rnn(gpu.given.Wx:narrow(2, 1, steps), gpu.given.R, gpu.given.b, { cell = cell })
        local off = norm(found:to("cpu") - expected:narrow(3, 1, steps))
        assert(off < 1e-10, ("T=%d differs by %g"):format(steps, off))
      end
    end
  end)

  it("keeps float32 weights beside 16-bit inputs, with gradients in float32", function()
    local Wx = pl.randn { 2, 5, 4, 1, 16, dtype = "bfloat16", device = "cuda" }
    local R = pl.randn({ 4, 1, 16, 16, device = "cuda" }):requires_grad()
    local b = pl.randn({ 4, 1, 16, device = "cuda" }):requires_grad()
    local states, last = pl.rnn(Wx, R, b, { cell = "lstm" })
    assert.equal("bfloat16", states.dtype)
    assert.equal("float32", last.dtype);
    (states:float():sum() + last:sum()):backward()
    assert.equal("float32", R.grad.dtype)
    assert.equal("float32", b.grad.dtype)
  end)

  it("is what auto chooses, and fused says that it is missing", function()
    local plan = pl.rnn_plan { cell = "lstm", head_dim = 64, device = "cuda" }
    assert.equal("alternating", plan.backend)
    local function forced(backend)
      return function() pl.rnn_plan { cell = "lstm", head_dim = 64, device = "cuda", backend = backend } end
    end
    assert.error_matches(forced "fused", "'fused' is not in this version")
    assert.error_matches(forced "reference", "'reference' runs on cpu only")
  end)

  it("holds no memory after its tensors are gone", function()
    local function step()
      local _ <close> = pl.scope()
      local Wx = pl.randn({ 4, 20, 4, 2, 32, device = "cuda" }):requires_grad()
      local states = pl.rnn(Wx, pl.randn { 4, 2, 32, 32, device = "cuda" }, pl.zeros { 4, 2, 32, device = "cuda" },
                            { cell = "lstm" })
      states:sum():backward()
    end
    step()
    local name = pl.zeros({ 1, device = "cuda" }).device
    collectgarbage()
    collectgarbage()
    local before = pl.memory()[name]
    for _ = 1, 50 do step() end
    local after = pl.memory()[name]
    assert.equal(before.buffers, after.buffers)
    assert.equal(before.live, after.live)
    assert.equal(before.cached, after.cached)
  end)
end)
