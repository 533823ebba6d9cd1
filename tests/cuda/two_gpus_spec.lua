-- Recurrences and training on a second GPU, alone and by turns with the first. primitives_spec.lua has the operations.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local devices = require "tests.devices"
local grid = require "tests.recurrence.grid"
local zoo = require "tests.recurrence.zoo"

local first <const>, second <const> = "cuda:0", "cuda:1"

if not devices.has(second, "on a second GPU") then return end

-- The same numbers in float64 for the CPU, and in dtype for each GPU.
local function everywhere(cell, shape, dtype)
  local exact, there = grid.problem(cell, shape, dtype, 0, first)
  local function move(t) return t:to(second) end
  local moved = { given = grid.each(there.given, move), weights = {
    states = move(there.weights.states), last = move(there.weights.last) } }
  return exact, { [first] = there, [second] = moved }
end

describe("on a second GPU", function()
  before_each(function() pl.seed(23) end)

  for _, dtype in ipairs { "float64", "float32", "tf32", "bfloat16", "float16" } do
    it("alternating meets the limits in " .. dtype, function()
      grid.check(pl.cells.lstm, { B = 16, T = 33, N = 2, D = 64, type = dtype, bias = 0 }, "alternating", second)
      grid.check(pl.cells.gru, { B = 3, T = 12, N = 12, D = 24, type = dtype, bias = 0 }, "alternating", second)
    end)
  end

  for _, entry in ipairs(zoo) do
    it("alternating agrees with reference for " .. entry.name, function()
      local _ <close> = pl.scope()
      local options = { lengths = { 12, 0, 5 }, recurrent_grad_clip = 0.1 }
      local exact, on = everywhere(entry.cell, { B = 3, T = 12, N = 2, D = 10 }, "float64")
      options.backend = "reference"
      local expected = grid.run(exact, entry.cell, options)
      options.backend = "alternating"
      local found = grid.run(on[second], entry.cell, options)
      assert.equal(second, found.last.device)
      assert.equal(second, found["d Wx"].device)
      local off, where = compare.difference(grid.back(found), expected)
      assert(off <= 1e-10, ("%s differs by %g"):format(where, off))
    end)
  end

  it("recurrences by turns give each GPU's own results, by launches and by graphs", function()
    local _ <close> = pl.scope()
    local cell, shape = pl.cells.lstm, { B = 8, T = 20, N = 2, D = 32 }
    local exact, on = everywhere(cell, shape, "float32")
    local expected = grid.run(exact, cell, { backend = "reference" })
    for turn = 1, 5 do
      local found = {}
      for device, problem in pairs(on) do found[device] = grid.run(problem, cell, { backend = "alternating" }) end
      for device, results in pairs(found) do
        local off, where = compare.difference(grid.back(results), expected)
        assert(off <= 2e-5, ("turn %d, %s of %s differs by %g"):format(turn, where, device, off))
      end
    end
  end)

  it("a gradient goes from one GPU's recurrence through the other's", function()
    local _ <close> = pl.scope()
    local cell, shape = pl.cells.lstm, { B = 3, T = 12, N = 2, D = 10 }
    local exact, on = everywhere(cell, shape, "float64")
    local function chained(one, other, backend)
      local Wx = one.given.Wx:detach():clone():requires_grad()
      local _, last = pl.rnn(Wx, one.given.R, one.given.b, { cell = cell, backend = backend })
      local states = pl.rnn(other.given.Wx, other.given.R, other.given.b,
        { cell = cell, states = last:to(other.given.Wx.device), backend = backend });
      (states * other.weights.states):sum():backward()
      return { ["d Wx"] = Wx.grad, states = states:detach() }
    end
    local expected = chained(exact, exact, "reference")
    for from, to in pairs { [first] = second, [second] = first } do
      local found = chained(on[from], on[to], "alternating")
      assert.equal(from, found["d Wx"].device)
      assert.equal(to, found.states.device)
      local off, where = compare.difference(grid.back(found), expected)
      assert(off <= 1e-10, ("from %s to %s: %s differs by %g"):format(from, to, where, off))
    end
  end)

  it("training takes the steps of the CPU, with the first GPU's by turns, and holds on to no memory", function()
    local data = pl.randn { 8, 12, 5, dtype = "float64" }
    local function trainer(device)
      pl.seed(4)
      local rnn = pl.nn.RNN { input_size = 5, hidden_size = 16, heads = 2, cell = "gru" }:to("float64"):to(device)
      local optimizer, x = pl.optim.AdamW(rnn:parameters(), { lr = 1e-2 }), data:to(device)
      return function()
        local _ <close> = pl.scope()
        optimizer:zero_grad()
        local loss = rnn(x):square():mean()
        loss:backward()
        optimizer:step()
        return loss:item()
      end
    end
    local cpu, one, two = trainer "cpu", trainer(first), trainer(second)
    local held
    for step = 1, 20 do
      local expected = cpu()
      for device, take in pairs { [first] = one, [second] = two } do
        local loss = take()
        assert(math.abs(loss - expected) <= 1e-9 * expected,
          ("step %d on %s: loss %.17g, expected %.17g"):format(step, device, loss, expected))
      end
      if step == 10 then
        collectgarbage()
        collectgarbage()
        held = pl.memory()[second]
      end
    end
    collectgarbage()
    collectgarbage()
    local now = pl.memory()[second]
    assert.equal(held.buffers, now.buffers)
    assert.equal(held.live, now.live)
  end)

  it("arguments on two GPUs are an error that says which is where", function()
    local _, on = everywhere(pl.cells.lstm, { B = 2, T = 3, N = 1, D = 8 }, "float32")
    local one, other = on[first].given, on[second].given
    assert.error_matches(function() pl.rnn(one.Wx, other.R, one.b, { cell = "lstm" }) end,
      "R: expected it on cuda:0 %(where Wx is%)")
    assert.error_matches(function() pl.rnn(other.Wx, other.R, one.b, { cell = "lstm" }) end,
      "b: expected it on cuda:1 %(where Wx is%)")
  end)
end)
