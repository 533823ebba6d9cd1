-- The alternating recurrence on a GPU by what a call is given and what becomes of its results: initial states or none,
-- lengths at their ends, results used twice or not at all, gradients for some inputs only, NaN and infinity. Against
-- `reference` on the CPU.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local devices = require "tests.devices"
local grid = require "tests.recurrence.grid"
local zoo = require "tests.recurrence.zoo"

if not devices.has("cuda", "uses of the alternating recurrence") then return end

local shape = { B = 3, T = 12, N = 2, D = 10 }

before_each(function() pl.seed(11) end)

-- Fails unless both have the same tensors, alike to the rounding of `dtype`.
local function agree(found, expected, dtype)
  local off, where = compare.difference(grid.back(found), expected)
  assert(off <= (dtype == "float64" and 1e-10 or 2e-5), ("%s differs by %g"):format(where, off))
end

-- A call on fresh leaves: loss(states, last, weights) is what is differentiated, `wanted` names the inputs that want a
-- gradient. Returns results and gradients.
local function differentiate(problem, cell, options, loss, wanted)
  local leaf, call = {}, { cell = cell }
  for key, value in pairs(options) do call[key] = value end
  for _, name in ipairs { "Wx", "R", "b", "states" } do
    local t = problem.given[name]
    leaf[name] = t and t:detach():clone():requires_grad(wanted == nil or wanted[name] or false)
  end
  call.states = leaf.states
  local states, last = pl.rnn(leaf.Wx, leaf.R, leaf.b, call)
  loss(states, last, problem.weights):backward()
  local found = { states = states:detach(), last = last:detach() }
  for name, t in pairs(leaf) do found["d " .. name] = t.grad end
  return found
end

local function both(cell, options, loss, wanted)
  for _, dtype in ipairs { "float64", "float32" } do
    local _ <close> = pl.scope()
    local cpu, gpu = grid.problem(cell, shape, dtype, 0, "cuda")
    local function given(backend) return compare.with({ backend = backend }, options) end
    local expected = differentiate(cpu, cell, given "reference", loss, wanted)
    grid.poison("cuda", 2 ^ 20)
    agree(differentiate(gpu, cell, given "alternating", loss, wanted), expected, dtype)
  end
end

local function weighted(states, last, weights)
  return (states * weights.states):sum() + (last * weights.last):sum()
end

describe("what alternating is given", function()
  for _, entry in ipairs(zoo) do
    for _, dtype in ipairs { "float64", "float32" } do
      it(("no initial states: %s in %s"):format(entry.name, dtype), function()
        local _ <close> = pl.scope()
        local cpu, gpu = grid.problem(entry.cell, shape, dtype, 0, "cuda")
        local expected = grid.run(cpu, entry.cell, { backend = "reference" }, true)
        grid.poison("cuda", 2 ^ 20)
        agree(grid.run(gpu, entry.cell, { backend = "alternating" }, true), expected, dtype)
      end)
    end
  end

  for name, lengths in pairs {
    ["all nothing"] = { 0, 0, 0 }, ["all of T"] = { 12, 12, 12 }, ["one step"] = { 1, 1, 1 }, mixed = { 0, 12, 11 },
  } do
    it("lengths, " .. name, function()
      for _, cell in ipairs { pl.cells.lstm, pl.cells.gru } do both(cell, { lengths = lengths }, weighted) end
    end)
  end

  it("lengths as a tensor on either device", function()
    local _ <close> = pl.scope()
    local cpu, gpu = grid.problem(pl.cells.lstm, shape, "float64", 0, "cuda")
    local expected = grid.run(cpu, pl.cells.lstm, { backend = "reference", lengths = { 0, 12, 7 } })
    for _, device in ipairs { "cpu", "cuda" } do
      local lengths = pl.tensor({ 0, 12, 7 }, { dtype = "int64", device = device })
      agree(grid.run(gpu, pl.cells.lstm, { backend = "alternating", lengths = lengths }), expected, "float64")
    end
  end)

  it("sizes that fill no tile", function()
    for _, sizes in ipairs { { 1, 1, 1, 1 }, { 2, 3, 3, 2 }, { 17, 10, 1, 7 }, { 33, 10, 5, 17 }, { 9, 10, 2, 65 } } do
      local small = { B = sizes[1], T = sizes[2], N = sizes[3], D = sizes[4] }
      for _, dtype in ipairs { "float32", "float64" } do
        local _ <close> = pl.scope()
        local cpu, gpu = grid.problem(pl.cells.gru, small, dtype, 0, "cuda")
        local expected = grid.run(cpu, pl.cells.gru, { backend = "reference" })
        grid.poison("cuda", 2 ^ 20)
        agree(grid.run(gpu, pl.cells.gru, { backend = "alternating" }), expected, dtype)
      end
    end
  end)
end)

local losses = {
  ["the last states alone"] = function(_, last, weights) return (last * weights.last):sum() end,
  ["all states alone"] = function(states, _, weights) return (states * weights.states):sum() end,
  ["one step of one state"] = function(states) return states:select(1, 1):select(2, 5):square():sum() end,
  ["states twice and last twice"] = function(states, last, weights)
    return (states * weights.states):sum() + (states:tanh() * states):sum() + (last * weights.last):sum()
      + last:square():sum()
  end,
}

describe("what becomes of alternating's results", function()
  for name, loss in pairs(losses) do
    it("a gradient from " .. name, function()
      for _, cell in ipairs { pl.cells.lstm, pl.cells.elman } do
        both(cell, {}, loss)
        both(cell, { lengths = { 12, 0, 5 }, recurrent_grad_clip = 0.1 }, loss)
      end
    end)
  end

  for _, wanted in ipairs { "Wx", "R", "b", "states" } do
    it("a gradient for " .. wanted .. " alone", function()
      for _, cell in ipairs { pl.cells.lstm, pl.cells.gru } do
        both(cell, {}, weighted, { [wanted] = true })
        both(cell, { recurrent_grad_cut = true }, weighted, { [wanted] = true })
      end
    end)
  end

  it("without gradients the same bits, however it is called", function()
    for _, dtype in ipairs { "float64", "float32", "bfloat16", "float16" } do
      local _ <close> = pl.scope()
      local _, gpu = grid.problem(pl.cells.lstm, shape, dtype, 0, "cuda")
      local x = gpu.given
      local function call(outputs, states)
        return pl.rnn(x.Wx, x.R, x.b, { cell = "lstm", states = states, outputs = outputs, backend = "alternating" })
      end
      local leaf = x.states:detach():clone():requires_grad()
      local states, last = call("all", leaf)
      for _, outputs in ipairs { "all", "h", "last" } do
        grid.poison("cuda", 2 ^ 20)
        local found, found_last = call(outputs, x.states)
        assert.equal(last:numel(), pl.eq(last, found_last):sum():item(), dtype .. ", last of " .. outputs)
        assert.equal(outputs == "last", found == nil)
        local expected = found and states:narrow(1, 1, found.shape[1])
        assert.equal(found and found:numel(), found and pl.eq(expected, found):sum():item(), dtype .. ", " .. outputs)
      end
    end
  end)

  it("two recurrences in flight, their backward ways in either order", function()
    local _ <close> = pl.scope()
    local cell, made = pl.cells.lstm, {}
    for i = 1, 2 do
      local cpu, gpu = grid.problem(cell, shape, "float32", 0, "cuda")
      local Wx = gpu.given.Wx:detach():clone():requires_grad()
      local states = pl.rnn(Wx, gpu.given.R, gpu.given.b,
        { cell = cell, states = gpu.given.states, backend = "alternating" })
      local exact = cpu.given.Wx:detach():clone():requires_grad()
      local expected = pl.rnn(exact, cpu.given.R, cpu.given.b, { cell = cell, states = cpu.given.states })
      made[i] = { Wx = Wx, states = states, exact = exact, expected = expected }
    end
    for i = 1, 2 do
      made[i].states:sum():backward()
      made[i].expected:sum():backward()
    end
    for i = 2, 1, -1 do
      agree({ ["d Wx"] = made[i].Wx.grad, states = made[i].states:detach() },
        { ["d Wx"] = made[i].exact.grad, states = made[i].expected:detach() }, "float32")
    end
  end)

  it("one after the other: the last states of one are the first of the next", function()
    for _, dtype in ipairs { "float64", "float32" } do
      local _ <close> = pl.scope()
      local cpu, gpu = grid.problem(pl.cells.lstm, shape, dtype, 0, "cuda")
      local function chained(problem, backend)
        local Wx = problem.given.Wx:detach():clone():requires_grad()
        local R = problem.given.R:detach():clone():requires_grad()
        local state
        for start = 1, 12, 4 do
          local _, last = pl.rnn(Wx:narrow(2, start, 4), R, problem.given.b,
            { cell = "lstm", states = state, outputs = "last", backend = backend })
          state = last
        end
        (state * problem.weights.last):sum():backward()
        return { last = state:detach(), ["d Wx"] = Wx.grad, ["d R"] = R.grad }
      end
      agree(chained(gpu, "alternating"), chained(cpu, "reference"), dtype)
    end
  end)
end)

-- How results and gradients of a problem differ whose Wx has `value` at one place.
local function spoiled(cell, dtype, value)
  local _ <close> = pl.scope()
  local cpu, gpu = grid.problem(cell, { B = 3, T = 12, N = 2, D = 20 }, dtype, 0, "cuda")
  cpu.given.Wx[2][4][1][2][13] = value
  gpu.given.Wx[2][4][1][2][13] = value
  local expected = grid.run(cpu, cell, { backend = "reference" })
  local found = grid.back(grid.run(gpu, cell, { backend = "alternating" }))
  local touched
  touched, found, expected = grid.finite_alike(found, expected)
  local worst, where = grid.errors(found, expected, dtype)
  for kind, limit in ipairs(grid.limits[dtype][0]) do
    assert(worst[kind] <= limit, ("%s: error %g, limit %g"):format(where[kind], worst[kind], limit))
  end
  return touched
end

describe("on alternating", function()
  for _, dtype in ipairs { "float64", "float32", "bfloat16", "float16" } do
    for _, name in ipairs { "elman", "gru", "lstm", "slstm" } do
      it(("NaN spreads as in reference: %s in %s"):format(name, dtype), function()
        assert.is_true(spoiled(pl.cells[name], dtype, 0 / 0) > 0)
      end)
    end
    -- slstm divides infinity by itself.
    for _, name in ipairs { "elman", "gru", "lstm" } do
      it(("infinity saturates as in reference: %s in %s"):format(name, dtype), function()
        spoiled(pl.cells[name], dtype, 1 / 0)
        spoiled(pl.cells[name], dtype, -1 / 0)
      end)
    end
  end
end)
