-- What recurrences on a GPU hold and for how long, what happens when memory ends, lengths that stay on the GPU, long
-- sequences in pieces, plans that are forced, and interrupts. Skips itself where there is no GPU.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local devices = require "tests.devices"
local message_of = require "tests.message_of"
local program = require "bind.program"

if not devices.has("cuda", "the memory of recurrences on a GPU") then return end

local gpu <const> = "cuda:0"
local way <const> = "alternating"

local function memory(device)
  collectgarbage()
  collectgarbage()
  return pl.memory()[device or gpu]
end

-- Gives up all plans: those of earlier tests would count.
local function forget_plans()
  pl.memory_limit(1, gpu)
  pcall(pl.zeros, { 1, device = gpu })
  pl.memory_limit(nil, gpu)
end

-- Arguments on the processor in float64, and the same for the GPU in dtype.
local function problem(cell, shape, dtype, device)
  local given, moved = compare.arguments(cell, shape), { params = {} }
  for _, name in ipairs { "Wx", "R", "b", "states" } do
    given[name] = given[name] and given[name]:to(dtype):to "float64"
    moved[name] = given[name] and given[name]:to(dtype):to(device or gpu)
  end
  return given, moved
end

local function weights_of(cell, shape, steps)
  return pl.randn { #cell.states, shape.B, steps, shape.N, shape.D, dtype = "float64" }
end

-- Results and gradients on the processor and on the GPU, both in float64 on the processor.
local function both(cell, shape, dtype, options, gpu_options)
  local given, moved = problem(cell, shape, dtype)
  local weights = { states = weights_of(cell, shape, shape.T), last = weights_of(cell, shape, 1) }
  local weights_gpu = { states = weights.states:to(dtype):to(gpu), last = weights.last:to(dtype):to(gpu) }
  weights = { states = weights.states:to(dtype):to "float64", last = weights.last:to(dtype):to "float64" }
  local function with(backend, list) return compare.with({ backend = backend }, list or {}) end
  local expected = compare.run(cell, given, with("reference", options), weights)
  local function again()
    local found = compare.run(cell, moved, with(way, gpu_options or options), weights_gpu)
    for name, t in pairs(found) do found[name] = t:to("cpu"):to "float64" end
    return found
  end
  return expected, again
end

local limit <const> = { float64 = 1e-9, float32 = 1e-4 }

local function agree(cell, shape, dtype, options, gpu_options)
  local _ <close> = pl.scope()
  local expected, again = both(cell, shape, dtype, options, gpu_options)
  for turn = 1, 3 do -- steps one by one; a graph is made; a graph is repeated
    local off, where = compare.difference(again(), expected)
    assert(off <= limit[dtype], ("%s of %s in %s differs by %g at turn %d"):format(where, cell.name, dtype, off, turn))
  end
end

-- ---------------------------------------------------------------------------------------------------------------------

describe("memory", function()
  it("stays the same over ten thousand training steps", function()
    pl.seed(3)
    local rnn = pl.nn.RNN { input_size = 3, hidden_size = 16, cell = "lstm", backend = way }:to(gpu)
    local optimizer = pl.optim.AdamW(rnn:parameters(), { lr = 1e-3 })
    local function steps(n)
      for _ = 1, n do
        local _ <close> = pl.scope()
        optimizer:zero_grad()
        local h = rnn(pl.randn { 4, 12, 3, device = gpu });
        (h * h):mean():backward()
        optimizer:step()
      end
      return memory()
    end
    steps(50)
    pl.reset_peak_memory(gpu)
    local before = steps(50)
    local after = steps(9900)
    assert.equal(before.live, after.live)
    assert.equal(before.cached, after.cached)
    assert.equal(before.buffers, after.buffers)
    assert.equal(before.peak, after.peak)
    assert.is_true(after.peak > after.live)
  end)

  it("of plans is counted, bounded over many shapes, and the results are right", function()
    local cell = pl.cells.gru
    forget_plans()
    local before = memory()
    local function all_shapes()
      for heads = 1, 40 do agree(cell, { B = 2, T = 12, N = heads, D = 16 }, "float32") end
      return memory()
    end
    local first = all_shapes()
    assert.is_true(first.live > before.live, "a plan's memory is seen")
    assert.is_true(first.buffers <= before.buffers + 25) -- plans, and cuBLAS's workspace
    local second = all_shapes()
    assert.equal(first.buffers, second.buffers)
    assert.equal(first.live, second.live)
    assert.is_true(second.cached <= second.peak + (65 << 20))
  end)

  it("of a loop that leaks handles is bounded by a scope", function()
    local leaked, live = {}, nil
    local Wx = pl.randn({ 8, 64, 4, 2, 64, device = gpu }):requires_grad()
    local R, b = pl.randn { 4, 2, 64, 64, device = gpu } * 0.1, pl.zeros { 4, 2, 64, device = gpu }
    for i = 1, 300 do
      local _ <close> = pl.scope()
      leaked[i] = { pl.rnn(Wx, R, b, { cell = "lstm", backend = way }) }
      local now = pl.memory()[gpu].live
      live = live or now
      assert.is_true(now <= live, ("%d bytes live at turn %d, %d at the first"):format(now, i, live))
    end
    assert.matches("dropped when its scope closed", message_of(function() return leaked[1][1] + 1 end))
  end)
end)

describe("a memory limit", function()
  after_each(function() pl.memory_limit(nil, gpu) end)

  it("reached inside a recurrence is an error with the statistics, leaves nothing, and the session goes on", function()
    local _ <close> = pl.scope()
    local given = select(2, problem(pl.cells.lstm, { B = 8, T = 64, N = 2, D = 64 }, "float32"))
    local function gradients()
      local _ <close> = pl.scope()
      local Wx, R = given.Wx:detach():requires_grad(), given.R:detach():requires_grad()
      local _, last = pl.rnn(Wx, R, given.b, { cell = "lstm", backend = way })
      last:sum():backward()
      return Wx.grad:sum():item() + R.grad:sum():item()
    end
    forget_plans()
    local expected, failed = gradients(), 0
    local buffers = memory().buffers
    local enough
    for room = 0, 200 do
      pl.memory_limit(memory().live + 1024 + room * (100 << 10), gpu)
      local ok, result = pcall(gradients)
      pl.memory_limit(nil, gpu)
      if ok then
        assert.equal(expected, result)
        enough = room
        break
      end
      failed = failed + 1
      assert.matches("out of memory: %d+ bytes asked, %d+ live, limit %d+; %d+ cached, peak %d+", result)
      assert.is_true(memory().buffers <= buffers, "buffers are left after room " .. room)
    end
    assert.is_not_nil(enough)
    assert.is_true(failed > 5, failed .. " limits were too small")
    assert.equal(expected, gradients())
  end)

  it("takes plans before it is an error", function()
    local _ <close> = pl.scope()
    forget_plans()
    for heads = 1, 6 do agree(pl.cells.elman, { B = 2, T = 10, N = 8 * heads, D = 64 }, "float32") end
    local held = memory()
    pl.memory_limit(held.live + (64 << 10), gpu)
    local more = pl.zeros { 100 << 10, device = gpu } -- 400 KiB
    assert.is_true(memory().live <= held.live + (64 << 10))
    assert.equal(0, more:sum():item())
    pl.memory_limit(nil, gpu)
    for heads = 1, 6 do agree(pl.cells.elman, { B = 2, T = 10, N = 8 * heads, D = 64 }, "float32") end
  end)
end)

describe("long sequences", function()
  for _, dtype in ipairs { "float64", "float32" } do
    for _, name in ipairs { "lstm", "gru" } do
      it(("in pieces give what the processor gives, %s in %s"):format(name, dtype), function()
        pl.seed(5)
        for _, steps in ipairs { 512, 513, 1300 } do
          agree(pl.cells[name], { B = 3, T = steps, N = 2, D = 10 }, dtype, { lengths = { steps, 0, steps - 7 } })
        end
      end)
    end
  end
end)

describe("an infinity in a float32 product", function()
  it("stays one", function()
    local cell = pl.cell {
      name = "linear", states = { "h" }, gates = { { "a", bias = false } },
      step = function(gate) return { h = gate.a } end,
    }
    for _, infinity in ipairs { 1 / 0, -1 / 0 } do
      for _, weight in ipairs { 1, 1 / 3 } do -- one that tf32 holds, one that it does not
        local states = pl.zeros { 1, 1, 1, 1, 16, device = gpu }
        states:narrow(5, 3, 1):copy_(pl.full({ 1, 1, 1, 1, 1 }, infinity, { device = gpu }))
        local R = pl.full({ 1, 1, 16, 16 }, weight, { device = gpu })
        local Wx = pl.zeros { 1, 1, 1, 1, 16, device = gpu }
        local h = pl.rnn(Wx, R, nil, { cell = cell, states = states, backend = way })
        for unit = 1, 16 do assert.equal(infinity, h:totable()[1][1][1][1][unit]) end
      end
    end
  end)
end)

describe("lengths", function()
  local cell, shape <const> = pl.cells.lstm, { B = 3, T = 12, N = 2, D = 10 }
  local lengths <const> = { 12, 0, 5 }

  it("on the GPU are what a table is, of any integer type and stride", function()
    for _, dtype in ipairs { "int64", "int32", "uint8" } do
      local there_already = pl.tensor(lengths, { dtype = dtype, device = gpu })
      agree(cell, shape, "float64", { lengths = lengths }, { lengths = there_already })
    end
    local spread = pl.tensor({ { 12, 1 }, { 0, 1 }, { 5, 1 } }, { dtype = "int64", device = gpu }):select(2, 1)
    agree(cell, shape, "float64", { lengths = lengths }, { lengths = spread })
    local here = pl.tensor(lengths, { dtype = "int32" })
    agree(cell, shape, "float64", { lengths = lengths }, { lengths = here })
  end)

  it("on the GPU serve the step-by-step way, too", function()
    local _ <close> = pl.scope()
    local _, moved = problem(cell, shape, "float64")
    local there_already = pl.tensor(lengths, { dtype = "int64", device = gpu })
    local function run(backend, given)
      return (pl.rnn(moved.Wx, moved.R, moved.b, { cell = cell, backend = backend, lengths = given }))
    end
    local off = (run("vanilla", there_already) - run(way, lengths)):abs():max():item()
    assert.is_true(off < 1e-12, off .. " apart")
  end)

  it("on the GPU out of range are an error at the next wait, and the session goes on", function()
    for value, nearest in pairs { [13] = 12, [-2] = 0 } do
      local _, moved = problem(cell, shape, "float64")
      local function run(last)
        local given = pl.tensor({ 12, 0, last }, { dtype = "int64", device = gpu })
        local h = pl.rnn(moved.Wx, moved.R, moved.b, { cell = cell, backend = way, lengths = given, outputs = "h" })
        return h
      end
      local h = run(value)
      local expected = ("lengths[3] is %d, expected 0..T=12 (in an earlier operation on cuda:0)"):format(value)
      assert.matches(expected, message_of(h.totable, h), 1, true)
      assert.same(run(nearest):totable(), h:totable())
    end
    pl.synchronize(gpu)
  end)

  it("that were changed before backward are an error", function()
    local _, moved = problem(cell, shape, "float64")
    local given = pl.tensor(lengths, { dtype = "int64", device = gpu })
    local Wx = moved.Wx:requires_grad()
    local h = pl.rnn(Wx, moved.R, moved.b, { cell = cell, backend = way, lengths = given })
    given:copy_(given - given)
    local loss = h:sum()
    assert.matches("changed in place", message_of(loss.backward, loss))
  end)
end)

describe("a plan", function()
  local shape <const> = { B = 4, T = 16, N = 2, D = 16 }
  local options <const> = { cell = "lstm", batch = 4, heads = 2, head_dim = 16, dtype = "float32", device = "cuda" }

  local function plan_with(changes) return pl.rnn_plan(compare.with(options, changes)) end

  it("for the GPU forces its way", function()
    local _, moved = problem(pl.cells.lstm, shape, "float32")
    local function run(more)
      more.cell = "lstm"
      return (pl.rnn(moved.Wx, moved.R, moved.b, more))
    end
    local alternating, vanilla = plan_with { backend = way }, plan_with { backend = "vanilla" }
    assert.equal(way, alternating.backend)
    local expected = run { backend = way }
    assert.equal(0, (run { plan = alternating } - expected):abs():max():item())
    assert.is_true((run { plan = vanilla } - expected):abs():max():item() < 1e-5)
    assert.equal(0, (run { plan = vanilla } - run { backend = "vanilla" }):abs():max():item())
    assert.matches("not both", message_of(run, { plan = alternating, backend = way }))
    assert.matches("it was made for batch = 5", message_of(run, { plan = plan_with { batch = 5, backend = way } }))
    assert.matches("'reference' runs on cpu only", message_of(run, { backend = "reference" }))
    local here = plan_with { backend = "reference", device = "cpu" }
    assert.matches("it was made for device = cpu", message_of(run, { plan = here }))
  end)
end)

describe("an interrupt", function()
  it("ends a wait for the GPU within a moment, and the session goes on", function()
    -- Three seconds of products; the signal comes after half a second. Then the next line waits for the rest.
    local out, err = program.run { args = "-i", input = [[
pl = require "perilune"; a = pl.randn { 4096, 4096, device = "cuda" }; warm = a:matmul(a):sum():item()
function work(n) for _ = 1, n do local _ <close> = pl.scope(); a:matmul(a) end end
work(10); pl.synchronize "cuda"; t = pl.time(); work(20); pl.synchronize "cuda"; each = (pl.time() - t) / 20
t = pl.time(); os.execute "(sleep 0.5; kill -INT $PPID) &"; work(math.ceil(3 / each)); pl.synchronize "cuda"
waited = pl.time() - t
sum = pl.ones({ 3, device = "cuda" }):sum():item(); all = pl.time() - t
print(("waited %.3f s of %.3f s, sum %g"):format(waited, all, sum))
]] }
    local waited, all, sum = out:match "waited ([%d.]+) s of ([%d.]+) s, sum (%d+)"
    assert(waited, out .. err)
    assert.matches("interrupted", err)
    assert.equal("3", sum)
    assert.is_true(tonumber(waited) < 1, ("the wait took %s s"):format(waited))
    assert.is_true(tonumber(all) > 1.5, ("everything took %s s: the signal came too late to tell"):format(all))
  end)
end)

local second <const> = "cuda:1"
if not devices.has(second, "two GPUs") then return end

describe("two GPUs", function()
  it("have plans of their own", function()
    local cell, shape = pl.cells.lstm, { B = 3, T = 20, N = 2, D = 16 }
    local _ <close> = pl.scope()
    local given, first = problem(cell, shape, "float32", gpu)
    local other = { Wx = first.Wx:to(second), R = first.R:to(second), b = first.b:to(second) }
    local expected = pl.rnn(given.Wx, given.R, given.b, { cell = cell, backend = "reference" })
    for turn = 1, 5 do
      for device, x in pairs { [gpu] = first, [second] = other } do
        local h = pl.rnn(x.Wx, x.R, x.b, { cell = cell, backend = way })
        assert.equal(device, h.device)
        local off = (h:to("cpu"):to "float64" - expected):abs():max():item()
        assert.is_true(off < 1e-5, ("%s is %g off at turn %d"):format(device, off, turn))
      end
    end
  end)

  it("copy without waiting, in the order of both streams", function()
    local elements = 4 << 20
    local ramp = pl.arange(1, elements, 1, { dtype = "float32" }) % 1000
    local here, busy = ramp:to(gpu), pl.randn { 2048, 2048, device = gpu }
    for turn = 1, 20 do
      local _ <close> = pl.scope()
      local copy
      do
        local _ <close> = pl.scope()
        for _ = 1, 4 do busy:matmul(busy) end -- so that the copy is asked for long before its source is there
        copy = (here * turn):to(second):keep()
      end
      local reused = here * -1 -- in the memory of the source
      local back = (copy * 2):to(gpu)
      assert.equal(0, (back - here * (2 * turn)):abs():max():item())
      assert.equal(0, (copy:to "cpu" - ramp * turn):abs():max():item())
      assert.equal(0, (reused + here):abs():max():item())
    end
  end)
end)
