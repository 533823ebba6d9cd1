-- pl.rnn and pl.rnn_plan: what they refuse and how they say so, what they choose, and the shapes that come back.

local pl = require "perilune"

local B, T, N, D = 3, 4, 2, 5

local function lstm_arguments(changes)
  local x = {
    Wx = pl.zeros { B, T, 4, N, D }, R = pl.zeros { 4, N, D, D }, b = pl.zeros { 4, N, D },
    opts = { cell = "lstm" },
  }
  for key, value in pairs(changes or {}) do x[key] = value end
  return x
end

local function refused(changes, ...)
  local x = lstm_arguments(changes)
  local ok, message = pcall(function() pl.rnn(x.Wx, x.R, x.b, x.opts) end)
  assert.is_false(ok)
  assert.matches("arguments_spec.lua:%d+: pl.rnn: ", message)
  for _, part in ipairs { ... } do
    assert.is_truthy(message:find(part, 1, true), ("%q is not in %q"):format(part, message))
  end
end

local function refused_option(key, value, ...)
  local opts = { cell = "lstm" }
  opts[key] = value
  refused({ opts = opts }, ...)
end

describe("pl.rnn", function()
  it("returns what outputs asks for", function()
    for _, backend in ipairs { "reference", "vanilla" } do
      local x = lstm_arguments()
      local states, last = pl.rnn(x.Wx, x.R, x.b, { cell = "lstm", backend = backend })
      assert.same({ 2, B, T, N, D }, states.shape)
      assert.same({ 2, B, 1, N, D }, last.shape)
      states, last = pl.rnn(x.Wx, x.R, x.b, { cell = "lstm", backend = backend, outputs = "h" })
      assert.same({ 1, B, T, N, D }, states.shape)
      assert.same({ 2, B, 1, N, D }, last.shape)
      states, last = pl.rnn(x.Wx, x.R, x.b, { cell = "lstm", backend = backend, outputs = "last" })
      assert.is_nil(states)
      assert.same({ 2, B, 1, N, D }, last.shape)
    end
  end)

  it("carries states on: two halves are one whole", function()
    local Wx = pl.randn { B, T, 4, N, D, dtype = "float64" }
    local R = pl.randn { 4, N, D, D, dtype = "float64" }
    local b = pl.randn { 4, N, D, dtype = "float64" }
    local whole = pl.rnn(Wx, R, b, { cell = "lstm" })
    local first, middle = pl.rnn(Wx:narrow(2, 1, 2), R, b, { cell = "lstm" })
    local second = pl.rnn(Wx:narrow(2, 3, 2), R, b, { cell = "lstm", states = middle })
    assert.is_true((pl.cat({ first, second }, 3) - whole):abs():max():item() < 1e-14)
  end)

  it("repeats states beyond a row's length, in lengths given as a table or as a tensor", function()
    local x = lstm_arguments { Wx = pl.randn { B, T, 4, N, D }:requires_grad() }
    for _, backend in ipairs { "reference", "vanilla" } do
      for _, lengths in ipairs { { 2, 0, 4 }, pl.tensor({ 2, 0, 4 }, { dtype = "int64" }) } do
        local states, last = pl.rnn(x.Wx, x.R, x.b, { cell = "lstm", backend = backend, lengths = lengths })
        local h = states:select(1, 1)
        assert.same(h[1][2]:totable(), h[1][4]:totable())
        assert.equal(0, h[2]:abs():max():item())
        assert.same(h[1][2]:totable(), last[1][1][1]:totable())
      end
    end
  end)

  it("checks the shape of every tensor", function()
    refused({ Wx = 3 }, "Wx: expected [B, T, Gw=4, N, D], got 3")
    refused({ Wx = pl.zeros { B, T, 3, N, D } }, "Wx: expected [B, T, Gw=4, N, D], got [3, 4, 3, 2, 5] float32")
    refused({ R = pl.zeros { 3, N, D, D } }, "R: expected [Gr=4, N=2, D=5, D=5], got [3, 2, 5, 5] float32")
    refused({ b = pl.zeros { 4, D } }, "b: expected [Gb=4, N=2, D=5], got [4, 5] float32")
    refused_option("states", pl.zeros { 2, B, N, D }, "states: expected [S=2, B=3, 1, N=2, D=5], got [2, 3, 2, 5]")
    local x = lstm_arguments()
    x.R = nil
    local ok, message = pcall(pl.rnn, x.Wx, nil, x.b, x.opts)
    assert.is_false(ok)
    assert.matches("R: expected %[Gr=4, N=2, D=5, D=5%], got nil", message)
  end)

  it("takes nil for parts that the cell has not, and only then", function()
    local cell = pl.cell {
      name = "plain", states = { "h" }, gates = { { "x", recurrent = false, bias = false } },
      step = function(gate, state) return { h = 0.5 * state.h + gate.x } end,
    }
    local Wx = pl.ones { B, 2, 1, N, D }
    for _, backend in ipairs { "reference", "vanilla" } do
      local _, last = pl.rnn(Wx, nil, nil, { cell = cell, backend = backend })
      assert.equal(1.5, last[1][1][1][1][1]:item())
    end
    assert.error_matches(function() pl.rnn(Wx, pl.ones { 1, N, D, D }, nil, { cell = cell }) end,
                         "R: expected nil %(no gate of cell 'plain' has a recurrent part%), got %[1, 2, 5, 5%]")
    assert.error_matches(function() pl.rnn(Wx, nil, pl.ones { 1, N, D }, { cell = cell }) end,
                         "b: expected nil %(no gate of cell 'plain' has a bias part%)")
  end)

  it("checks types", function()
    refused({ Wx = pl.zeros { B, T, 4, N, D, dtype = "int64" } }, "Wx: expected a floating-point type, got int64")
    refused({ R = pl.zeros { 4, N, D, D, dtype = "float64" } },
            "R: expected type float32 (Wx has float32), got float64")
    refused_option("dtype", "float64", "dtype: expected float32, bfloat16, float16 (Wx has float32), got 'float64'")
  end)

  it("complains about Wx first, and says that sizes start at 1", function()
    assert.error_matches(function() pl.rnn() end, "pl.rnn: Wx: expected a tensor %[B, T, Gw, N, D%], got nil")
    refused({ Wx = pl.zeros { B, 0, 4, N, D } }, "Wx: expected [B, T, Gw=4, N, D] with sizes from 1, got [3, 0, 4")
    refused({ Wx = pl.zeros { 0, T, 4, N, D } }, "Wx: expected [B, T, Gw=4, N, D] with sizes from 1, got [0, 4, 4")
  end)

  it("checks the cell", function()
    refused({ opts = {} }, "cell: expected a name or an object made by pl.cell, got nil")
    refused({ opts = { cell = "lsmt" } }, "cell: no cell 'lsmt'; there are elman, gru, lstm, slstm")
    refused({ opts = { cell = 3 } }, "cell: expected a name or an object made by pl.cell, got 3")
    refused({ opts = "lstm" }, "options: expected a table { cell = ... }, got 'lstm'")
  end)

  it("checks options", function()
    refused_option("length", { 1 }, "unknown option 'length'; there are backend, cell, dtype, forward_clip, lengths")
    refused_option("outputs", "none", "outputs: expected 'all', 'h' or 'last', got 'none'")
    refused_option("lengths", { 1, 2 }, "lengths: expected B=3 numbers, got 2")
    refused_option("lengths", { 1, 2, 5 }, "lengths[3]: expected an integer from 0 to T=4, got 5")
    refused_option("lengths", { 1, -1, 2 }, "lengths[2]: expected an integer from 0 to T=4, got -1")
    refused_option("lengths", { 1, 1.5, 2 }, "lengths[2]: expected an integer from 0 to T=4, got 1.5")
    refused_option("lengths", pl.ones { 3 }, "lengths: expected integers, got [3] float32")
    refused_option("lengths", 3, "lengths: expected a table or an integer tensor, got 3")
    refused_option("recurrent_grad_cut", 1, "recurrent_grad_cut: expected true or false, got 1")
    refused_option("recurrent_grad_clip", 0, "recurrent_grad_clip: expected a number above 0, got 0")
    refused_option("forward_clip", "1", "forward_clip: expected a number above 0, got '1'")
    refused_option("plan", {}, "plan: expected an object made by pl.rnn_plan, got a table")
  end)

  it("checks params", function()
    refused_option("params", { p = pl.ones { N, D } }, "params.p: cell 'lstm' has no such param; it declares none")
    local cell = pl.cell {
      name = "scaled", states = { "h" }, gates = { "x" }, params = { "p" },
      step = function(gate, _, k) return { h = pl.tanh(gate.x * k.p) } end,
    }
    local function run(params)
      return function()
        pl.rnn(pl.ones { B, T, 1, N, D }, pl.ones { 1, N, D, D }, pl.ones { 1, N, D }, { cell = cell, params = params })
      end
    end
    assert.error_matches(run(nil), "params.p: expected %[N=2, D=5%], got nil")
    assert.error_matches(run { p = pl.ones { D } }, "params.p: expected %[N=2, D=5%], got %[5%] float32")
    assert.error_matches(run { p = pl.ones { N, D }, q = 1 },
                         "params.q: cell 'scaled' has no such param; it declares p")
    assert.error_matches(run(3), "params: expected a table of tensors by name, got 3")
    assert.has_no.errors(run { p = pl.ones { N, D } })
  end)

  it("never falls back silently", function()
    refused_option("backend", "fused", "backend: 'fused' runs on cuda only, and the device is cpu")
    refused_option("backend", "alternating", "backend: 'alternating' runs on cuda only")
    local list = "backend: expected one of auto, fused, alternating, reference, vanilla, got "
    refused_option("backend", "fast", list .. "'fast'")
    refused_option("backend", 3, list .. "a number")
  end)

  it("leaves nothing behind when it refuses", function()
    local x = lstm_arguments()
    collectgarbage()
    local before = pl.memory().cpu.buffers
    for _ = 1, 3 do pcall(pl.rnn, x.Wx, x.R, x.b, { cell = "lstm", lengths = { 9, 9, 9 } }) end
    collectgarbage()
    assert.equal(before, pl.memory().cpu.buffers)
  end)
end)

describe("pl.rnn_plan", function()
  it("says what is chosen and why", function()
    local plan = pl.rnn_plan { cell = "lstm", batch = B, heads = N, head_dim = D }
    assert.equal("reference", plan.backend)
    local text = tostring(plan)
    assert.matches("^reference for cell lstm, batch 3, heads 2, head_dim 5, float32 on cpu\n", text)
    assert.matches("not fused: it runs on cuda only, and the device is cpu", text, 1, true)
    local forced = pl.rnn_plan { cell = pl.cells.gru, head_dim = 7, backend = "vanilla" }
    assert.equal("vanilla", forced.backend)
    assert.matches("asked for", forced.reason)
  end)

  it("can be forced on a call that it fits", function()
    local x = lstm_arguments()
    local plan = pl.rnn_plan { cell = "lstm", batch = B, heads = N, head_dim = D, backend = "vanilla" }
    assert.same({ 2, B, T, N, D }, pl.rnn(x.Wx, x.R, x.b, { cell = "lstm", plan = plan }).shape)
    local other = pl.rnn_plan { cell = "lstm", batch = B, heads = N, head_dim = D + 1 }
    refused_option("plan", other, "plan: it was made for head_dim = 6, but this call has 5")
  end)

  it("checks its fields", function()
    local function refused_plan(given, pattern)
      assert.error_matches(function() pl.rnn_plan(given) end, pattern)
    end
    refused_plan({ cell = "lstm" }, "pl.rnn_plan: head_dim: expected an integer of at least 1, got nil")
    refused_plan({ cell = "nothing", head_dim = 3 }, "cell: no cell 'nothing'; there are")
    refused_plan({ cell = "lstm", head_dim = 3, size = 3 }, "unknown option 'size'; there are backend, batch, cell")
    refused_plan({ cell = "lstm", head_dim = 3, backend = "fused" }, "backend: 'fused' runs on cuda only")
    refused_plan(3, "expected a table")
  end)
end)
