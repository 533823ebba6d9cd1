-- The fused recurrence on a GPU by what a call is given and what becomes of its results: every option in every scope,
-- gradients for some inputs only, unusual values, many launches, restarts, an interrupt, plans. Against `reference` in
-- float64.

local pl = require "perilune"
local core = require "perilune.core"
local with = require "tests.recurrence.compare".with
local devices = require "tests.devices"
local grid = require "tests.recurrence.grid"
local message_of = require "tests.message_of"
local program = require "tests.bind.program"

local gpu <const> = "cuda"
if not devices.has(gpu, "uses of the fused recurrence") then return end

local lstm = pl.cells.lstm
local shape <const> = { B = 6, T = 12, N = 2 }

local scopes = { { name = "block", D = 40, dtype = "bfloat16" } }
if core.fused_chip(gpu).architecture >= 90 then
  scopes[#scopes + 1] = { name = "cluster", D = 104, dtype = "float32" }
end
scopes[#scopes + 1] = { name = "grid", D = 72, dtype = "float16" }

before_each(function() pl.seed(11) end)

local function sized(D) return with(shape, { D = D }) end

-- Options that run fused with these fields of the plan.
local function fused(cell, sizes, dtype, forced, chosen)
  return with(chosen or {}, { plan = grid.plan(cell, sizes, dtype, gpu, forced) })
end

local function within(found, expected, dtype, room)
  local worst, where = grid.errors(grid.back(found), expected, dtype)
  for kind, limit in ipairs(grid.limits[dtype][0]) do
    limit = limit * (room or 1)
    assert(worst[kind] <= limit, ("%s: error %g, limit %g"):format(where[kind], worst[kind], limit))
  end
end

-- A problem with the weights that the outputs of `chosen` take.
local function problem(cell, sizes, dtype, chosen)
  local cpu, there = grid.problem(cell, sizes, dtype, 0, gpu)
  local count = chosen.outputs == "h" and 1 or #cell.states
  for _, x in ipairs { cpu, there } do x.weights.states = x.weights.states:narrow(1, 1, count) end
  return cpu, there
end

local function agrees(cell, sizes, dtype, forced, chosen, from_default)
  local _ <close> = pl.scope()
  local cpu, there = problem(cell, sizes, dtype, chosen)
  local expected = grid.run(cpu, cell, with(chosen, { backend = "reference" }), from_default)
  local options = fused(cell, sizes, dtype, forced, chosen)
  grid.poison(gpu, 2 ^ 20)
  within(grid.run(there, cell, options, from_default), expected, dtype)
end

-- A forward clip has a kink, on either side of which 16 bits may fall.
local options = {
  ["lengths"] = { lengths = { 12, 0, 5, 1, 12, 7 } },
  ["lengths, h only"] = { lengths = { 1, 11, 2, 0, 3, 12 }, outputs = "h" },
  ["last only"] = { outputs = "last" },
  ["recurrent cut"] = { recurrent_grad_cut = true },
  ["recurrent clip"] = { recurrent_grad_clip = 0.05 },
  ["everything"] = { lengths = { 2, 12, 5, 0, 9, 12 }, recurrent_grad_clip = 0.1, forward_clip = 0.3, outputs = "h" },
}

describe("fused takes", function()
  for _, scope in ipairs(scopes) do
    for name, chosen in pairs(options) do
      local dtype = chosen.forward_clip and "float32" or scope.dtype
      it(("%s in the scope %s in %s"):format(name, scope.name, dtype), function()
        agrees(lstm, sized(scope.D), dtype, { scope = scope.name }, chosen)
      end)
    end

    it("no initial states in the scope " .. scope.name, function()
      agrees(pl.cells.slstm, sized(scope.D), scope.dtype, { scope = scope.name }, {}, true)
    end)

    for _, dtype in ipairs { "bfloat16", "float16", "float32" } do
      it(("initial states far from zero in the scope %s in %s"):format(scope.name, dtype), function()
        local _ <close> = pl.scope()
        local sizes = sized(scope.D)
        local cpu, there = problem(lstm, sizes, dtype, {})
        cpu.given.states, there.given.states = cpu.given.states * 8, there.given.states * 8
        local expected = grid.run(cpu, lstm, { backend = "reference" })
        -- The limits are for states of the size of 1.
        within(grid.run(there, lstm, fused(lstm, sizes, dtype, { scope = scope.name })), expected, dtype, 1.5)
      end)
    end
  end

  it("any strides", function()
    local _ <close> = pl.scope()
    local sizes, dtype = sized(40), "float32"
    local cpu, there = problem(lstm, sizes, dtype, {})
    local expected = grid.run(cpu, lstm, { backend = "reference" })
    local x = there.given
    x.Wx = x.Wx:permute({ 5, 4, 3, 2, 1 }):contiguous():permute { 5, 4, 3, 2, 1 }
    x.R = x.R:transpose(3, 4):contiguous():transpose(3, 4)
    x.b = x.b:transpose(1, 3):contiguous():transpose(1, 3)
    there.weights.states = there.weights.states:transpose(1, 5):contiguous():transpose(1, 5)
    within(grid.run(there, lstm, fused(lstm, sizes, dtype)), expected, dtype)
  end)

  it("views that begin between two lines of 16 bytes", function()
    local _ <close> = pl.scope()
    local cpu, there = problem(lstm, sized(40), "bfloat16", {})
    local wide = pl.zeros { 6, 12, 4, 2, 43, dtype = "bfloat16", device = gpu }
    local Wx = wide:narrow(5, 2, 40)
    Wx:copy_(there.given.Wx)
    local h = pl.rnn(Wx, there.given.R, there.given.b, fused(lstm, sized(40), "bfloat16", nil, { cell = lstm }))
    local expected = pl.rnn(cpu.given.Wx, cpu.given.R, cpu.given.b, { cell = lstm })
    within({ h = h }, { h = expected }, "bfloat16")
  end)

  it("lengths that are on the GPU, and complains of those out of range at the next wait", function()
    local _ <close> = pl.scope()
    local cpu, there = problem(lstm, sized(40), "bfloat16", {})
    local x = there.given
    local function run(lengths)
      local on_gpu = pl.tensor(lengths, { dtype = "int64", device = gpu })
      return (pl.rnn(x.Wx, x.R, x.b, fused(lstm, sized(40), "bfloat16", nil, { cell = lstm, lengths = on_gpu })))
    end
    local lengths = { 12, 0, 5, 1, 12, 7 }
    local expected = pl.rnn(cpu.given.Wx, cpu.given.R, cpu.given.b, { cell = lstm, lengths = lengths })
    within({ h = run(lengths) }, { h = expected }, "bfloat16")
    local h = run { 12, 0, 5, 1, 13, 7 }
    assert.matches("lengths[5] is 13, expected 0..T=12", message_of(h.totable, h), 1, true)
    assert.same(h:totable(), run(lengths):totable())
  end)

  it("float32 weights beside 16-bit inputs, and products of autocast", function()
    local _ <close> = pl.scope()
    local cpu, there = problem(lstm, sized(40), "bfloat16", {})
    local expected = grid.run(cpu, lstm, { backend = "reference" })
    local function single(name) there.given[name] = there.given[name]:float() end
    for _, name in ipairs { "R", "b", "states" } do single(name) end
    local found = grid.run(there, lstm, fused(lstm, sized(40), "bfloat16"))
    assert.equal("bfloat16", found.states.dtype)
    for _, name in ipairs { "last", "d R", "d b", "d states" } do assert.equal("float32", found[name].dtype) end
    within(found, expected, "bfloat16")
    single "Wx"
    there.weights.states = there.weights.states:float()
    found = pl.autocast("bfloat16", grid.run, there, lstm, { backend = "fused" })
    assert.equal("float32", found.states.dtype)
    within(found, expected, "bfloat16")
  end)
end)

-- ---------------------------------------------------------------------------------------------------------------------
-- What becomes of results

-- A call on fresh leaves of which only the `wanted` inputs, by name, want a gradient. Returns results and gradients.
local function differentiate(given, weights, call, wanted)
  local leaf = grid.each(given, function(t) return t:detach():clone() end)
  for name in pairs(wanted) do (leaf[name] or leaf.params[name]):requires_grad() end
  call.states, call.params = leaf.states, next(leaf.params) and leaf.params or nil
  local states, last = pl.rnn(leaf.Wx, leaf.R, leaf.b, call);
  ((states * weights.states):sum() + (last * weights.last):sum()):backward()
  local found = { states = states:detach(), last = last:detach() }
  for name in pairs(wanted) do found["d " .. name] = (leaf[name] or leaf.params[name]).grad end
  return found
end

local function agrees_for(cell, scope, chosen, wanted)
  local _ <close> = pl.scope()
  local sizes = sized(scope.D)
  local cpu, there = problem(cell, sizes, scope.dtype, chosen)
  local expected = differentiate(cpu.given, cpu.weights, with(chosen, { cell = cell, backend = "reference" }), wanted)
  local call = fused(cell, sizes, scope.dtype, { scope = scope.name }, with(chosen, { cell = cell }))
  grid.poison(gpu, 2 ^ 20)
  within(differentiate(there.given, there.weights, call, wanted), expected, scope.dtype)
end

describe("fused gives", function()
  for _, wanted in ipairs { "Wx", "R", "b", "states" } do
    it("a gradient for " .. wanted .. " alone", function()
      agrees_for(lstm, scopes[1], {}, { [wanted] = true })
      agrees_for(lstm, scopes[1], { recurrent_grad_cut = true }, { [wanted] = true })
      for i = 2, #scopes do agrees_for(lstm, scopes[i], {}, { [wanted] = true }) end
    end)
  end

  it("a gradient for a param alone, and for all of them", function()
    local peephole = pl.cells.peephole_lstm
    agrees_for(peephole, scopes[1], {}, { pf = true })
    agrees_for(peephole, scopes[#scopes], {}, { pi = true, pf = true, po = true })
  end)

  it("the same without gradients, whatever is asked for", function()
    for _, scope in ipairs(scopes) do
      local _ <close> = pl.scope()
      local _, there = problem(lstm, sized(scope.D), scope.dtype, {})
      local x = there.given
      local function call(outputs, states)
        local chosen = { cell = lstm, states = states, outputs = outputs }
        return pl.rnn(x.Wx, x.R, x.b, fused(lstm, sized(scope.D), scope.dtype, { scope = scope.name }, chosen))
      end
      local states, last = call("all", x.states:detach():clone():requires_grad())
      local expected = grid.back { states = states:detach(), last = last:detach() }
      for _, outputs in ipairs { "all", "h", "last" } do
        grid.poison(gpu, 2 ^ 20)
        local found, found_last = call(outputs, x.states)
        assert.equal(outputs == "last", found == nil)
        within({ last = found_last }, { last = expected.last }, scope.dtype)
        if found then
          within({ states = found }, { states = expected.states:narrow(1, 1, found.shape[1]) }, scope.dtype)
        end
      end
    end
  end)

  it("the same bits again, and leaves what it was given as it was", function()
    for _, scope in ipairs(scopes) do
      local _ <close> = pl.scope()
      local sizes = sized(scope.D)
      local _, there = problem(lstm, sizes, scope.dtype, {})
      local before = grid.each(there.given, function(t) return t:clone() end)
      local weights = { states = there.weights.states:clone(), last = there.weights.last:clone() }
      local call = fused(lstm, sizes, scope.dtype, { scope = scope.name })
      local first = grid.run(there, lstm, call)
      grid.poison(gpu, 2 ^ 20)
      for name, t in pairs(grid.run(there, lstm, call)) do
        assert.equal(t:numel(), pl.eq(t, first[name]):sum():item(), name .. " differs at the second run")
      end
      for name, t in pairs(before) do
        if name ~= "params" then
          assert.equal(t:numel(), pl.eq(t, there.given[name]):sum():item(), name .. " was overwritten")
        end
      end
      for name, t in pairs(weights) do
        assert.equal(t:numel(), pl.eq(t, there.weights[name]):sum():item(), "the weights of " .. name)
      end
    end
  end)

  it("an error for a second backward", function()
    local _, there = problem(lstm, sized(40), "bfloat16", {})
    local Wx = there.given.Wx:requires_grad()
    local states = pl.rnn(Wx, there.given.R, there.given.b, fused(lstm, sized(40), "bfloat16", nil, { cell = lstm }))
    states:backward(there.weights.states)
    assert.matches("was used up by an earlier backward", message_of(states.backward, states, there.weights.states))
  end)

  it("what two recurrences in flight need, their backward ways in either order", function()
    for _, scope in ipairs(scopes) do
      local _ <close> = pl.scope()
      local made, sizes = {}, sized(scope.D)
      for i = 1, 2 do
        local cpu, there = problem(lstm, sizes, scope.dtype, {})
        local Wx, exact = there.given.Wx:requires_grad(), cpu.given.Wx:requires_grad()
        local call = fused(lstm, sizes, scope.dtype, { scope = scope.name }, { cell = lstm })
        made[i] = {
          Wx = Wx, states = pl.rnn(Wx, there.given.R, there.given.b, call), weights = there.weights.states,
          exact = exact, expected = pl.rnn(exact, cpu.given.R, cpu.given.b, { cell = lstm }),
          exact_weights = cpu.weights.states,
        }
      end
      for i = 2, 1, -1 do
        local x = made[i]
        x.states:backward(x.weights)
        x.expected:backward(x.exact_weights)
        within({ ["d Wx"] = x.Wx.grad }, { ["d Wx"] = x.exact.grad }, scope.dtype)
      end
    end
  end)
end)

-- ---------------------------------------------------------------------------------------------------------------------
-- Unusual values, and many launches

-- Results and gradients of a problem whose Wx has `value` at one place are NaN or infinite where reference's are.
local function spoiled(cell, scope, dtype, value)
  local _ <close> = pl.scope()
  local sizes = sized(scope.D)
  local cpu, there = problem(cell, sizes, dtype, {})
  cpu.given.Wx[2][4][1][2][13] = value
  there.given.Wx[2][4][1][2][13] = value
  local expected = grid.run(cpu, cell, { backend = "reference" })
  local found = grid.back(grid.run(there, cell, fused(cell, sizes, dtype, { scope = scope.name })))
  return (grid.finite_alike(found, expected))
end

describe("on fused", function()
  for _, scope in ipairs(scopes) do
    for _, name in ipairs { "elman", "lstm", "slstm" } do
      it(("NaN spreads as in reference: %s in the scope %s"):format(name, scope.name), function()
        assert.is_true(spoiled(pl.cells[name], scope, scope.dtype, 0 / 0) > 0)
      end)
    end
    it("infinity saturates as in reference in the scope " .. scope.name, function()
      for _, value in ipairs { 1 / 0, -1 / 0 } do spoiled(lstm, scope, scope.dtype, value) end
    end)

    it("10,000 launches in a row give the same: scope " .. scope.name, function()
      local _ <close> = pl.scope()
      local sizes = { B = 3, T = 3, N = 2, D = scope.D }
      local _, there = grid.problem(lstm, sizes, "bfloat16", 0, gpu)
      local x = there.given
      local chosen = { cell = lstm, states = x.states, outputs = "h" }
      local call = fused(lstm, sizes, "bfloat16", { scope = scope.name }, chosen)
      local first, wrong = pl.rnn(x.Wx, x.R, x.b, call), 0
      for _ = 1, 100 do
        local _ <close> = pl.scope()
        local all = pl.zeros({ 1, device = gpu })
        for _ = 1, 100 do all = all + pl.ne(pl.rnn(x.Wx, x.R, x.b, call), first):sum():float() end
        wrong = wrong + all:item()
      end
      assert.equal(0, wrong)
    end)
  end
end)

-- ---------------------------------------------------------------------------------------------------------------------
-- Restarts, interrupts

describe("a sequence in fused pieces", function()
  -- `last` is float32 and holds all that a launch knows: pieces give the bits of the whole.
  for _, scope in ipairs(scopes) do
    for _, name in ipairs { "lstm", "gru", "slstm" } do
      it(("restarted at random steps is the whole: %s in the scope %s"):format(name, scope.name), function()
        local _ <close> = pl.scope()
        local cell, sizes = pl.cells[name], with(sized(scope.D), { T = 65 })
        local _, there = grid.problem(cell, sizes, scope.dtype, 0, gpu)
        local x = there.given
        local call = fused(cell, sizes, scope.dtype, { scope = scope.name }, { cell = cell, states = x.states })
        local whole, whole_last = pl.rnn(x.Wx, x.R, x.b, call)
        for _ = 1, 5 do
          local states, first, pieces = x.states, 1, 0
          while first <= sizes.T do
            local length = math.min(math.random(1, 40), sizes.T - first + 1)
            local piece = with(call, { states = states })
            local found, last = pl.rnn(x.Wx:narrow(2, first, length), x.R, x.b, piece)
            local differ = pl.ne(found, whole:narrow(3, first, length)):sum():item()
            assert.equal(0, differ, "after a restart at step " .. first)
            states, first, pieces = last, first + length, pieces + 1
          end
          assert.is_true(pieces > 1)
          assert.equal(0, pl.ne(states, whole_last):sum():item())
        end
      end)
    end
  end
end)

describe("an interrupt during fused launches", function()
  it("ends the wait within a moment, and the session goes on", function()
    -- Three seconds of launches; the signal comes after half a second. Then the next line waits for the rest.
    local out, err = program.run { args = "-i", input = [[
pl = require "perilune"; function drawn(...) return pl.randn { dtype = "bfloat16", device = "cuda", ... } end
Wx, R, b = drawn(4, 16384, 4, 1, 128), drawn(4, 1, 128, 128) * 0.1, drawn(4, 1, 128)
problem = { cell = "lstm", batch = 4, head_dim = 128, dtype = "bfloat16", device = "cuda", plan = { scope = "grid" } }
plan = pl.rnn_plan(problem)
function run() return (pl.rnn(Wx, R, b, { cell = "lstm", plan = plan, outputs = "h" })) end
function work(n) for _ = 1, n do local _ <close> = pl.scope(); run() end end
first = run(); work(2); pl.synchronize "cuda"
t = pl.time(); work(20); pl.synchronize "cuda"; each = (pl.time() - t) / 20
t = pl.time(); os.execute "(sleep 0.5; kill -INT $PPID) &"; work(math.ceil(3 / each)); pl.synchronize "cuda"
waited = pl.time() - t
wrong = pl.ne(run(), first):sum():item(); all = pl.time() - t
print(("waited %.3f s of %.3f s, %d differ"):format(waited, all, wrong))
]] }
    local waited, all, wrong = out:match "waited ([%d.]+) s of ([%d.]+) s, (%d+) differ"
    assert(waited, out .. err)
    assert.matches("interrupted", err)
    assert.equal("0", wrong)
    assert.is_true(tonumber(waited) < 1, ("the wait took %s s"):format(waited))
    assert.is_true(tonumber(all) > 1.5, ("everything took %s s: the signal came too late to tell"):format(all))
  end)
end)

-- ---------------------------------------------------------------------------------------------------------------------
-- Plans

describe("plans on a GPU", function()
  local function plan(more)
    return pl.rnn_plan(with({ cell = "lstm", batch = 16, head_dim = 64, dtype = "bfloat16", device = gpu }, more))
  end

  it("are fused where that fits, else alternating, and say why", function()
    local chosen = plan {}
    assert.equal("fused", chosen.backend)
    assert.equal("block", chosen.fused.scope)
    assert.matches("fused: predicted [%d.]+ us a step; one persistent launch for all time steps\n.*\n  scope block: ",
      tostring(chosen))
    for reason, more in pairs {
      ["a head_dim that is a multiple of 8, got 10"] = { head_dim = 10 },
      ["and Wx has float64"] = { dtype = "float64" },
      ["has no plan that fits sm_"] = { head_dim = 8192 },
    } do
      assert.equal("alternating", plan(more).backend)
      assert.matches("not fused: it .*" .. reason, tostring(plan(more)))
      assert.matches("backend: 'fused' .*" .. reason, message_of(plan, with(more, { backend = "fused" })))
    end
  end)

  it("are what pl.rnn runs, and fit one problem only", function()
    local _ <close> = pl.scope()
    local sizes = { B = 16, T = 3, N = 1, D = 64 }
    local cpu, there = grid.problem(lstm, sizes, "bfloat16", 0, gpu)
    local x = there.given
    local expected = pl.rnn(cpu.given.Wx, cpu.given.R, cpu.given.b, { cell = lstm })
    for _, forced in ipairs { { rows = 8 }, { scope = "grid" }, { scope = "grid", rows = 16 } } do
      local made = plan { plan = forced }
      for name, value in pairs(forced) do assert.equal(value, made.fused[name]) end
      within({ h = pl.rnn(x.Wx, x.R, x.b, { cell = lstm, plan = made }) }, { h = expected }, "bfloat16")
    end
    assert.matches("it was made for batch = 5",
      message_of(pl.rnn, x.Wx, x.R, x.b, { cell = lstm, plan = plan { batch = 5 } }))
    assert.matches("it was made for product = bfloat16, but this call has float32",
      message_of(pl.rnn, x.Wx, x.R, x.b, { cell = lstm, dtype = "float32", plan = plan {} }))
  end)

  it("that are not possible name the limit they break", function()
    local function refused(forced, more) return message_of(plan, with({ plan = forced }, more or {})) end
    assert.matches("at most 1024 threads are in a block", refused({ scope = "block" }, { head_dim = 2048 }), 1, true)
    assert.matches("rows: expected 4, 8", refused { rows = 5 }, 1, true)
    local multiprocessors = core.fused_chip(gpu).multiprocessors
    local blocks = 16 * (multiprocessors // 16 + 1)
    assert.matches(("run at once; %d multiprocessors are there; blocks = %d is given"):format(multiprocessors, blocks),
      refused { scope = "grid", blocks = blocks }, 1, true)
    assert.matches("plan: unknown field 'block'", refused { block = 1 }, 1, true)
  end)

  it("are remembered: another call of the same sizes costs microseconds more than none", function()
    local choose = require "perilune.rnn.plan".choose
    local given = { cell = lstm, batch = 3, heads = 1, head_dim = 64, dtype = "bfloat16", product = "bfloat16",
                    device = pl.zeros({ 1, device = gpu }).device }
    local first = choose(given)
    local began = pl.time()
    for _ = 1, 1000 do assert(choose(given) == first) end
    assert.is_true((pl.time() - began) / 1000 < 20e-6)
  end)
end)
