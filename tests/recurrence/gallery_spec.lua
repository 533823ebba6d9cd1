-- Every cell of pl.cells against the equations of its paper in plain Lua, as a layer that learns, and as what the
-- documentation says of it.

local pl = require "perilune"
local compare = require "tests.recurrence.compare"
local oracle = require "tests.recurrence.oracle"

local TOLERANCE <const> = 1e-12

local function nested(given)
  local tables = { params = {} }
  for name, t in pairs(given) do
    if name ~= "params" then tables[name] = t:totable() end
  end
  for name, t in pairs(given.params) do tables.params[name] = t:totable() end
  return tables
end

local function source_of(name)
  local file = assert(io.open(package.searchpath("perilune.cells." .. name, package.path)))
  local text = file:read "a"
  file:close()
  return text
end

-- Where nothing was written to an sLSTM yet, an input gate far below 0 is no reason for a state that is not a number.
it("the first input gate of an sLSTM may be closed", function()
  for _, backend in ipairs { "reference", "vanilla" } do
    for _, gate in ipairs { -60, -120, -1e30 } do
      local wx = pl.zeros { 1, 3, 4, 1, 2 }
      wx:select(3, 1):fill_(gate)
      wx:select(3, 3):fill_(0.5)
      wx:requires_grad()
      local h = pl.rnn(wx, pl.zeros { 4, 1, 2, 2 }, pl.zeros { 4, 1, 2 },
        { cell = "slstm", backend = backend, outputs = "h" })
      -- c / n of the first step is tanh(z).
      assert.is_true(math.abs(h:min():item() - 0.5 * pl.tanh(pl.tensor { 0.5 }):item()) < 1e-6)
      h:sum():backward()
      assert.is_true(wx.grad:abs():max():item() < 10)
    end
  end
end)

-- The stabiliser and the bound of n are there for the numbers' sizes: results and gradients are those of the paper's
-- equations without them. (A bound that took half of n's gradient where n is 1, as it is after every first step, once
-- kept the sLSTM from learning.)
it("an sLSTM from empty states has the gradients of the equations without a stabiliser", function()
  local plain = pl.cell {
    name = "plain_slstm", states = { "h", "c", "n" }, gates = { "i", "f", "z", "o" },
    step = function(gate, state)
      local a, e = pl.exp(gate.i), pl.sigmoid(gate.f)
      local c, n = e * state.c + a * pl.tanh(gate.z), e * state.n + a
      return { h = pl.sigmoid(gate.o) * c / n, c = c, n = n }
    end,
  }
  pl.seed(29)
  local start = { Wx = 2 * pl.randn { 2, 6, 4, 2, 3, dtype = "float64" },
                  R = pl.randn { 4, 2, 3, 3, dtype = "float64" }, b = pl.randn { 4, 2, 3, dtype = "float64" } }
  local weights = pl.randn { 2, 6, 2, 3, dtype = "float64" }
  local function gradients(cell, backend)
    local leaf = {}
    for name, t in pairs(start) do leaf[name] = t:detach():clone():requires_grad() end
    local h = pl.rnn(leaf.Wx, leaf.R, leaf.b, { cell = cell, backend = backend, outputs = "h" })
    local loss = (h:select(1, 1) * weights):sum()
    loss:backward()
    return { h = h:detach(), Wx = leaf.Wx.grad, R = leaf.R.grad, b = leaf.b.grad }
  end
  for _, backend in ipairs { "reference", "vanilla" } do
    local expected, found = gradients(plain, backend), gradients(pl.cells.slstm, backend)
    for name, t in pairs(expected) do
      local off = (found[name] - t):abs():max():item()
      assert.is_true(off < 1e-10, ("%s by %s: off by %g"):format(name, backend, off))
    end
  end
end)

describe("a cell of the gallery", function()
  before_each(function() pl.seed(23) end)

  for name, cell in pairs(pl.cells) do
    it(("computes what its paper says: %s"):format(name), function()
      local _ <close> = pl.scope()
      local plain = oracle.cells[name]
      assert.same({ #plain.x, #plain.r, #plain.b, #(plain.k or {}) },
        { cell:count "input", cell:count "recurrent", cell:count "bias", #cell.params })
      for _, shape in ipairs { { B = 2, T = 7, N = 2, D = 5 }, { B = 1, T = 1, N = 1, D = 1 } } do
        local given = compare.arguments(cell, shape)
        local options = { cell = cell, states = given.states, params = next(given.params) and given.params }
        local expected = pl.tensor(oracle.run(name, nested(given)), { dtype = "float64" })
        for _, backend in ipairs { "reference", "vanilla" } do
          options.backend = backend
          local states = pl.rnn(given.Wx, given.R, given.b, options)
          local off = (pl.abs(states - expected) / pl.maximum(pl.abs(expected), 1)):max():item()
          assert(off <= TOLERANCE, ("%s differs by %g"):format(backend, off))
        end
      end
    end)

    it(("is a layer that learns: %s"):format(name), function()
      local rnn = pl.nn.RNN { input_size = 3, hidden_size = 8, heads = 2, cell = name }
      local head = pl.nn.Linear(8, 1)
      local parameters = { table.unpack(rnn:parameters()) }
      for _, p in ipairs(head:parameters()) do parameters[#parameters + 1] = p end
      local optimizer, first, last = pl.optim.Adam(parameters, { lr = 0.05 }), nil, nil
      local x = pl.randn { 8, 4, 3 }
      local y = x:narrow(3, 1, 1):narrow(2, 3, 1) - x:narrow(3, 2, 1):narrow(2, 4, 1)
      for _ = 1, 30 do
        local _ <close> = pl.scope()
        local loss = (head(rnn(x)):narrow(2, 4, 1) - y):square():mean()
        optimizer:zero_grad()
        loss:backward()
        optimizer:step()
        last = loss:item()
        first = first or last
      end
      for _, p in ipairs(parameters) do assert.is_true(p.grad:abs():max():item() > 0) end
      assert(last < 0.75 * first, ("the loss went from %g to %g"):format(first, last))
    end)

    it(("has its name, and says where it comes from: %s"):format(name), function()
      assert.equal(name, cell.name)
      assert.matches("%-%- [^\n]*[A-Z]%. [A-Z].*[12]%d%d%d", source_of(name))
    end)
  end

  it("has an oracle of its own", function()
    local count = 0
    for name in pairs(oracle.cells) do
      assert.equal(name, pl.cells[name].name)
      count = count + 1
    end
    for _ in pairs(pl.cells) do count = count - 1 end
    assert.equal(0, count)
  end)

  it("is named where a name is wrong", function()
    assert.error_matches(function() return pl.cells.lsmt end, "no cell 'lsmt'; there are elman, gru, .*unicornn")
  end)
end)
