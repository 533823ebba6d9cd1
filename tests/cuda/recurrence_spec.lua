-- The alternating recurrence on a GPU: the zoo with every option against `reference` in float64 to rounding, in 16 bits
-- against `reference` with products rounded alike, and what one call must not do to the next. Sizes and the limits of
-- each type are recurrence_grid_spec.lua's.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local devices = require "tests.devices"
local grid = require "tests.recurrence.grid"
local zoo = require "tests.recurrence.zoo"

if not devices.has("cuda", "the alternating recurrence") then return end

local run, back, norm, with = grid.run, grid.back, grid.norm, compare.with
local function problem(cell, shape, dtype) return grid.problem(cell, shape, dtype, 0, "cuda") end

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

describe("alternating agrees with reference", function()
  local shape = { B = 3, T = 12, N = 2, D = 10 }
  for _, entry in ipairs(zoo) do
    for name, chosen in pairs(options) do
      for _, dtype in ipairs { "float64", "float32" } do
        it(("for %s in %s with %s"):format(entry.name, dtype, name), function()
          local _ <close> = pl.scope()
          pl.seed(7)
          local cpu, gpu = problem(entry.cell, shape, dtype)
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
        local cpu, gpu = problem(cell, shape, dtype)
        local function single(t) return t:float() end
        cpu.given = grid.each(cpu.given, single)
        cpu.weights = { states = single(cpu.weights.states), last = single(cpu.weights.last) }
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

  -- Of cells that decide, only the first step is the same in every type.
  for _, entry in ipairs(zoo) do
    for _, name in ipairs { "lengths", "lengths, h only", "last only", "recurrent cut", "recurrent clip" } do
      for _, dtype in ipairs { "bfloat16", "float16" } do
        it(("within the limits for %s in %s with %s"):format(entry.name, dtype, name), function()
          local _ <close> = pl.scope()
          pl.seed(7)
          local chosen, steps = options[name], 12
          if entry.decides then
            chosen, steps = with(chosen, { lengths = chosen.lengths and { 1, 0, 1 } }), 1
          end
          local cpu, gpu = problem(entry.cell, { B = 3, T = steps, N = 2, D = 10 }, dtype)
          local count = chosen.outputs == "h" and 1 or #entry.cell.states
          for _, x in ipairs { cpu, gpu } do x.weights.states = x.weights.states:narrow(1, 1, count) end
          local expected = run(cpu, entry.cell, with(chosen, { backend = "reference" }))
          local found = back(run(gpu, entry.cell, with(chosen, { backend = "alternating" })))
          local worst, where = grid.errors(found, expected, dtype)
          for kind, limit in ipairs(grid.limits[dtype][0]) do
            assert(worst[kind] <= limit, ("%s: error %g, limit %g"):format(where[kind], worst[kind], limit))
          end
        end)
      end
    end
  end
end)

describe("alternating", function()
  it("takes any strides", function()
    local _ <close> = pl.scope()
    local cell, shape = pl.cells.gru, { B = 3, T = 9, N = 2, D = 12 }
    local cpu, gpu = problem(cell, shape, "float32")
    local expected = run(cpu, cell, { backend = "reference" })
    -- A run, and its gradients from the states alone.
    local function gradients(weights)
      local Wx, R, b = gpu.given.Wx, gpu.given.R, gpu.given.b
      Wx, R, b = Wx:detach():requires_grad(), R:detach():requires_grad(), b:detach():requires_grad()
      local states = pl.rnn(Wx, R, b, { cell = cell, states = gpu.given.states, backend = "alternating" })
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
    local cpu, gpu = problem(cell, { B = 3, T = 40, N = 2, D = 8 }, "float64")
    local expected = pl.rnn(cpu.given.Wx, cpu.given.R, cpu.given.b, { cell = cell })
    for round = 1, 3 do
      for steps = 40, 9, -round do
        local found = pl.rnn(gpu.given.Wx:narrow(2, 1, steps), gpu.given.R, gpu.given.b,
          { cell = cell, backend = "alternating" })
        local off = norm(found:to("cpu") - expected:narrow(3, 1, steps))
        assert(off < 1e-10, ("T=%d differs by %g"):format(steps, off))
      end
    end
  end)

  it("keeps float32 weights beside 16-bit inputs, with gradients in float32", function()
    local Wx = pl.randn { 2, 5, 4, 1, 16, dtype = "bfloat16", device = "cuda" }
    local R = pl.randn({ 4, 1, 16, 16, device = "cuda" }):requires_grad()
    local b = pl.randn({ 4, 1, 16, device = "cuda" }):requires_grad()
    local states, last = pl.rnn(Wx, R, b, { cell = "lstm", backend = "alternating" })
    assert.equal("bfloat16", states.dtype)
    assert.equal("float32", last.dtype);
    (states:float():sum() + last:sum()):backward()
    assert.equal("float32", R.grad.dtype)
    assert.equal("float32", b.grad.dtype)
  end)

  it("is what auto chooses where fused cannot run", function()
    local plan = pl.rnn_plan { cell = "lstm", head_dim = 10, device = "cuda" }
    assert.equal("alternating", plan.backend)
    assert.matches("not fused: it takes a head_dim that is a multiple of 8, got 10", tostring(plan), 1, true)
    assert.error_matches(function()
      pl.rnn_plan { cell = "lstm", head_dim = 10, device = "cuda", backend = "reference" }
    end, "'reference' runs on cpu only")
  end)

  it("holds no memory after its tensors are gone", function()
    local function step()
      local _ <close> = pl.scope()
      local Wx = pl.randn({ 4, 20, 4, 2, 32, device = "cuda" }):requires_grad()
      local states = pl.rnn(Wx, pl.randn { 4, 2, 32, 32, device = "cuda" }, pl.zeros { 4, 2, 32, device = "cuda" },
                            { cell = "lstm", backend = "alternating" })
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
