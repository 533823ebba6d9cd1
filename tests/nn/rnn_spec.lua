-- nn.RNN: shapes, stacking, directions, lengths and options, against pl.rnn and against rows run alone.
local pl = require "perilune"
local nn = pl.nn
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local B <const>, T <const>, I <const> = 3, 5, 4
local f64 <const> = { dtype = "float64" }

local function input() return pl.randn { B, T, I, dtype = "float64" } end

local function reversed(list, length)
  local result = {}
  for i = 1, length do result[i] = list[length + 1 - i] end
  return result
end

describe("nn.RNN", function()
  for _, cell in ipairs { "elman", "gru", "lstm", "slstm" } do
    it("gives outputs and last states of " .. cell, function()
      local m = nn.RNN { input_size = I, hidden_size = 6, heads = 2, cell = cell, layers = 2 }
      local y, last = m(pl.randn { B, T, I })
      assert.are.same({ B, T, 6 }, y.shape)
      assert.are.equal(2, #last)
      assert.are.same({ #pl.cells[cell].states, B, 1, 2, 3 }, last[2].shape)
      near(y:select(2, T):totable(), last[2]:select(1, 1):reshape({ B, 6 }):totable(), 1e-6)
      y:sum():backward()
      for _, p in ipairs(m:parameters()) do assert.is_not_nil(p.grad) end
    end)
  end

  it("is the input product followed by pl.rnn", function()
    local m = nn.RNN({ input_size = I, hidden_size = 6, cell = "lstm" }):to("float64")
    local x, layer = input(), m.layer1
    local wx = x:matmul(layer.weight:t()):reshape { B, T, 4, 1, 6 }
    local states = pl.rnn(wx, layer.recurrent, layer.bias, { cell = "lstm", backend = "vanilla" })
    near(states:select(1, 1):reshape({ B, T, 6 }):totable(), m(x):totable(), 1e-10)
  end)

  it("feeds one layer's output to the next and takes initial states", function()
    local m = nn.RNN({ input_size = I, hidden_size = 3, cell = "gru", layers = 2 }):to("float64")
    local x = input()
    local y, last = m(x)
    local left, half = m(x:narrow(2, 1, 2))
    local right, rest = m(x:narrow(2, 3, 3), half)
    near(y:totable(), pl.cat({ left, right }, 2):totable(), 1e-10)
    near(last[2]:totable(), rest[2]:totable(), 1e-10)
  end)

  it("both directions with lengths equal each row run alone", function()
    local m = nn.RNN({ input_size = I, hidden_size = 3, cell = "lstm", bidirectional = true }):to("float64")
    local x, lengths = input(), { 5, 2, 4 }
    local y, last = m(x, nil, lengths)
    assert.are.same({ B, T, 6 }, y.shape)
    assert.are.equal(2, #last)
    local one_way = nn.RNN({ input_size = I, hidden_size = 3, cell = "lstm" }):to("float64")
    for row, length in ipairs(lengths) do
      local alone = x:narrow(1, row, 1):narrow(2, 1, length)
      local got = y:select(1, row):narrow(1, 1, length):totable()
      one_way.layer1 = m.layer1
      local forward = one_way(alone):select(1, 1):totable()
      one_way.layer1 = m.layer1_backward
      local backward_input = pl.tensor({ reversed(alone:select(1, 1):totable(), length) }, f64)
      local backward = reversed(one_way(backward_input):select(1, 1):totable(), length)
      for t = 1, length do near(table.move(backward[t], 1, 3, 4, forward[t]), got[t], 1e-10) end
      local ends = last[1]:select(1, 1):reshape({ B, 3 }):totable()[row]
      table.move(last[2]:select(1, 1):reshape({ B, 3 }):totable()[row], 1, 3, 4, ends)
      for t = length + 1, T do near(ends, y:totable()[row][t], 1e-12) end
    end
    local tensor_lengths = m(x, nil, pl.tensor(lengths, { dtype = "int64" }))
    near(y:totable(), tensor_lengths:totable(), 0)
  end)

  it("repeats the output beyond a row's length, and gives no gradient there", function()
    local m = nn.RNN({ input_size = I, hidden_size = 3, cell = "gru" }):to("float64")
    local x = input():requires_grad()
    local y = m(x, nil, { 5, 2, 1 })
    local values = y:totable()
    near(values[2][2], values[2][5], 0)
    y:sum():backward()
    near({ 0, 0, 0, 0 }, x.grad:totable()[2][3], 0)
  end)

  it("two directions of two layers have twice the features between", function()
    local m = nn.RNN { input_size = I, hidden_size = 3, cell = "elman", bidirectional = true, layers = 2 }
    assert.are.same({ 3, 6 }, m.layer2.weight.shape)
    local y, last = m(pl.randn { B, T, I })
    assert.are.same({ B, T, 6 }, y.shape)
    assert.are.equal(4, #last)
  end)

  it("drops between layers in training only", function()
    local m = nn.RNN { input_size = I, hidden_size = 8, cell = "gru", layers = 2, dropout = 0.5 }
    local x = pl.randn { B, T, I }
    local a, b = m(x):totable(), m(x):totable()
    assert.is_false(pcall(near, a, b, 0))
    m:eval()
    near(m(x):totable(), m(x):totable(), 0)
  end)

  it("starts the forget gate's bias where it is told, and cell params too", function()
    local m = nn.RNN { input_size = I, hidden_size = 4, cell = "lstm", forget_bias = 1.5 }
    near({ { 1.5, 1.5, 1.5, 1.5 } }, m.layer1.bias:totable()[2], 0)
    assert.is_true(math.abs(m.layer1.bias:totable()[1][1][1]) <= 0.5)
    local leaky = pl.cell {
      name = "leaky", states = { "h" }, gates = { "g" }, params = { "leak" },
      step = function(gate, state, k) return { h = k.leak * state.h + (1 - k.leak) * pl.tanh(gate.g) } end,
    }
    local r = nn.RNN { input_size = I, hidden_size = 4, cell = leaky, params = { leak = 0.25 } }
    near({ { 0.25, 0.25, 0.25, 0.25 } }, r.layer1.param_leak:totable(), 0)
    r(pl.randn { B, T, I }):sum():backward()
    assert.is_not_nil(r.layer1.param_leak.grad)
  end)

  it("starts a cell's params as the cell says, or as it is told", function()
    local cell = pl.cell {
      name = "starts", states = { "h" }, gates = { "g" }, params = { { "a", init = 2 }, { "u", init = { 3, 4 } }, "w" },
      step = function(gate, state, k) return { h = k.a * gate.g + k.u * pl.tanh(k.w * state.h) } end,
    }
    local declared = nn.RNN { input_size = I, hidden_size = 4, cell = cell }.layer1
    near({ { 2, 2, 2, 2 } }, declared.param_a:totable(), 0)
    for _, value in ipairs(declared.param_u:totable()[1]) do assert.is_true(value >= 3 and value < 4) end
    for _, value in ipairs(declared.param_w:totable()[1]) do assert.is_true(math.abs(value) <= 0.5) end
    local told = nn.RNN { input_size = I, hidden_size = 4, cell = cell, params = { a = { -2, -1 }, u = 0 } }.layer1
    for _, value in ipairs(told.param_a:totable()[1]) do assert.is_true(value >= -2 and value < -1) end
    near({ { 0, 0, 0, 0 } }, told.param_u:totable(), 0)
    assert.matches("nn.RNN: params.a: expected a number or { low, high }, got a table",
      message_of(nn.RNN, { input_size = I, hidden_size = 4, cell = cell, params = { a = {} } }))
  end)

  it("takes cells without a recurrent part or a bias", function()
    local cell = pl.cell {
      name = "average", states = { "h" }, gates = { { "g", recurrent = false, bias = false } },
      step = function(gate, state) return { h = 0.5 * state.h + 0.5 * gate.g } end,
    }
    local m = nn.RNN { input_size = I, hidden_size = 4, cell = cell }
    assert.are.equal(1, #m:parameters())
    assert.are.same({ B, T, 4 }, m(pl.randn { B, T, I }).shape)
  end)

  it("passes on what pl.rnn complains about, with the line of the call", function()
    local m = nn.RNN { input_size = I, hidden_size = 2, cell = "gru", backend = "quick" }
    local here = debug.getinfo(1, "l").currentline
    local message = message_of(function()
      local y = m(input():float())
      return y
    end)
    assert.matches(("rnn_spec.lua:%d: nn.RNN: backend: expected one of auto, "):format(here + 2), message)
    m = nn.RNN { input_size = I, hidden_size = 2, cell = "gru" }
    assert.matches("nn.RNN: states: expected %[S=1, B=3, 1, N=1, D=2%], got %[1%] float32",
      message_of(m, input():float(), { pl.ones { 1 } }))
  end)

  it("names what is wrong", function()
    local function build(options) return message_of(nn.RNN, options) end
    assert.matches("input_size: expected an integer of at least 1, got nothing", build { hidden_size = 3 })
    assert.matches("hidden_size: expected a multiple of the 2 heads, got 7",
      build { input_size = 1, hidden_size = 7, heads = 2 })
    assert.matches("unknown option 'hiden_size'", build { input_size = 1, hiden_size = 7 })
    assert.matches("cell: no cell 'lstmm'; there are elman",
      build { input_size = 1, hidden_size = 2, cell = "lstmm" })
    assert.matches("cell: expected a name or an object made by pl.cell, got a number",
      build { input_size = 1, hidden_size = 2, cell = 3 })
    assert.matches("has no gate 'f' with a bias",
      build { input_size = 1, hidden_size = 2, cell = "gru", forget_bias = 1 })
    assert.matches("params: expected a table, got 3", build { input_size = 1, hidden_size = 2, params = 3 })
    assert.matches("head_dim: expected an integer of at least 1, got 'x'",
      build { input_size = 1, hidden_size = 2, head_dim = "x" })
    assert.matches("bidirectional: expected a boolean, got 1",
      build { input_size = 1, hidden_size = 2, bidirectional = 1 })
    assert.matches("declares no param 'p'", build { input_size = 1, hidden_size = 2, params = { p = 1 } })
    local m = nn.RNN { input_size = 4, hidden_size = 2 }
    assert.matches("x: expected 3 dimensions, got shape %[2, 3%]", message_of(m, pl.zeros { 2, 3 }))
    assert.matches("expected a last dimension of 4", message_of(m, pl.zeros { 2, 3, 5 }))
  end)

  it("takes nothing but x, states and lengths, and says which is wrong", function()
    local m = nn.RNN { input_size = I, hidden_size = 2, cell = "gru", bidirectional = true }
    local function call(...) return message_of(m, input():float(), ...) end
    local form = "; the call is rnn%(x %[, states %[, lengths%]%]%)"
    local list = "nn.RNN: states: expected a list of at most 2 tensors, one per layer and direction, got "
    assert.matches(list .. "the key 'lengths'" .. form, call { lengths = { 5, 3, 2 } })
    assert.matches(list .. "the key 'foo'" .. form, call { foo = 1 })
    local state = pl.zeros { 1, B, 1, 1, 2 }
    assert.matches(list .. "the key 3" .. form, call { state, state, state })
    assert.matches(list .. "7", call(7))
    assert.matches("nn.RNN: states%[2%]: expected a tensor, got 7", call { [2] = 7 })
    assert.are.same({ B, T, 4 }, m(input():float(), { [2] = state }).shape)
    local rows = "nn.RNN: lengths: expected 3 integers in 0..5, one per row of x, got "
    assert.matches(rows .. "the key 'lengths'", call(nil, { lengths = { 5, 3, 2 } }))
    assert.matches(rows .. "the key 4", call(nil, { 5, 3, 2, 1 }))
    assert.matches(rows .. "5", call(nil, 5))
    assert.matches(rows .. "%[3, 1%] int64", call(nil, pl.ones { 3, 1, dtype = "int64" }))
    for _, wrong in ipairs { { 5, -1, 2 }, { 5, 6, 2 }, { 5, 2.5, 2 }, { 5, "2", 2 }, { 5, nil, 2 } } do
      assert.matches("nn.RNN: lengths%[2%]: expected an integer in 0..5, got ", call(nil, wrong))
    end
    assert.matches(rows .. "%[3%] float32", call(nil, pl.tensor { 2, 2, 2 }))
    assert.matches("at most 3 arguments %(x, states, lengths%), got 4", call(nil, nil, {}))
    assert.matches("x: expected at least one row and one time step, got shape %[0, 5, 4%]",
      message_of(m, pl.zeros { 0, T, I }))
  end)
end)
