-- What goes wrong inside step is reported with the cell, the line and the operand.

local pl = require "perilune"

local function here(offset) return "trace_spec.lua:" .. (debug.getinfo(2, "l").currentline + offset) end

local function assert_refused(step, ...)
  local ok, message = pcall(pl.cell, {
    name = "mine", states = { "h", "c" }, gates = { "i", "f" }, params = { "p" }, constants = { leak = 0.5 },
    step = step,
  })
  assert.is_false(ok)
  for _, part in ipairs { "cell 'mine': step", ... } do
    assert.is_truthy(message:find(part, 1, true), ("%q is not in %q"):format(part, message))
  end
end

describe("tracing a step function", function()
  it("calls it once", function()
    local calls = 0
    pl.cell {
      name = "counted", states = { "h" }, gates = { "i" },
      step = function(gate) calls = calls + 1 return { h = gate.i } end,
    }
    assert.equal(1, calls)
  end)

  it("names what is not declared", function()
    assert_refused(function(gate) return { h = gate.q } end, "gate.q is not declared; there are i, f", here(0),
                   "in: assert_refused(function(gate) return { h = gate.q } end")
    assert_refused(function(_, state) return { h = state.m } end, "state.m is not declared; there are h, c", here(0))
    assert_refused(function(_, _, k) return { h = k.q } end, "k.q is not declared; there are leak, p", here(0))
    assert_refused(function(gate) gate.i = 3 end, "gate.i: step must not assign to it", here(0))
  end)

  it("names operands that are not expressions", function()
    assert_refused(function(gate)
      local nothing = {}
      return { h = gate.i * nothing.field }
    end, "operand 2 of mul is nil; expected an expression or a number", here(-1),
                   "in: return { h = gate.i * nothing.field }")
    assert_refused(function(gate) return { h = gate.i + "1" } end, 'operand 2 of add is the string "1"', here(0))
    local empty = nil
    assert_refused(function() return { h = empty + 1 } end,
                   "attempt to perform arithmetic on a nil value (upvalue 'empty')", here(-1))
    assert_refused(function(gate) return { h = pl.nonsense(gate.i) } end, "nonsense", here(0))
    assert_refused(function(gate) return { h = pl.softmax(gate.i, 1) } end, "an expression has no", here(0))
    assert_refused(function() return { h = pl.tanh() } end, "): tanh: ", here(0))
    assert_refused(function(gate) return { h = pl.tanh(gate.i, gate.f) } end, "tanh takes 1 operand, got 2", here(0))
  end)

  it("finds the line in a function that step calls", function()
    local function squash(x) return x < 1 end
    local place = here(-1)
    assert_refused(function(gate) return { h = squash(gate.i) } end, place,
                   "cannot compare expressions; use pl.lt(a, b)")
  end)

  it("has comparisons that are 1 or 0, as on tensors and numbers", function()
    local tests = { "lt", "le", "gt", "ge", "eq", "ne" }
    local cell = pl.cell {
      name = "compares", states = { "h" }, gates = { "x", "y" },
      step = function(gate)
        local h = 0
        for i, test in ipairs(tests) do h = h + 10 ^ i * pl[test](gate.x, gate.y) end
        return { h = h }
      end,
    }
    local pairs_of = { { 1, 2 }, { 2, 1 }, { 3, 3 } }
    for _, backend in ipairs { "reference", "vanilla" } do
      for _, pair in ipairs(pairs_of) do
        local Wx = pl.tensor(pair, { dtype = "float64" }):reshape { 1, 1, 2, 1, 1 }
        local zeros = { dtype = "float64" }
        local states = pl.rnn(Wx, pl.full({ 2, 1, 1, 1 }, 0, zeros), pl.full({ 2, 1, 1 }, 0, zeros),
                              { cell = cell, backend = backend })
        local expected = 0
        for i, test in ipairs(tests) do
          local value = pl[test](pair[1], pair[2])
          assert.is_true(value == 1 or value == 0)
          assert.equal(value, (pl[test](pl.tensor { pair[1] }, pair[2]) * 1):item())
          expected = expected + 10 ^ i * value
        end
        assert.equal(expected, states:item())
      end
    end
  end)

  it("refuses tensors from outside", function()
    local t = pl.ones { 3, 4 }
    local message = "step uses a tensor from outside (shape [3, 4]); declare it in params"
    assert_refused(function(gate) return { h = gate.i * t, c = 0 } end, message, here(0))
    assert_refused(function(gate) return { h = t * gate.i, c = 0 } end, message, here(0))
    assert_refused(function(gate) return { h = pl.maximum(t, gate.i), c = 0 } end, message, here(0))
    assert_refused(function() return { h = t, c = 0 } end, "returned for state 'h' a tensor from outside")
  end)

  it("checks what is returned", function()
    assert_refused(function() end, "returned 0 values; expected one table with the new states h, c", here(0))
    assert_refused(function(gate) return gate.i, gate.f end, "returned 2 values; expected one table")
    assert_refused(function(gate) return gate.i end, "returned an expression; expected a table")
    assert_refused(function() return 3 end, "returned number; expected a table")
    assert_refused(function(gate) return { h = gate.i } end, "returned no state 'c'; expected the new states h, c")
    assert_refused(function(gate) return { h = gate.i, c = 0, d = 0 } end, "returned a state 'd' that is not declared")
    assert_refused(function(gate) return { h = gate.i, c = true } end, "returned a boolean for state 'c'")
    assert_refused(function(gate) return { gate.i, c = 0, h = 0 } end, "returned a state '1' that is not declared")
  end)

  it("refuses an expression kept from another trace", function()
    local kept
    pl.cell {
      name = "first", states = { "h" }, gates = { "i" },
      step = function(gate) kept = gate.i return { h = gate.i } end,
    }
    assert_refused(function(gate) return { h = gate.i + kept, c = 0 } end, "another trace (cell 'first')")
    assert_refused(function() return { h = kept, c = 0 } end, "returned an expression of another trace")
  end)

  it("names cell and line for errors that are not text, too", function()
    local odd = setmetatable({}, { __tostring = function() return "odd" end })
    assert_refused(function() error(odd) end, "odd", here(0))
    assert_refused(function() error({}) end, "raised a table instead of a message", here(0))
    assert_refused(function() error() end, "raised nil instead of a message", here(0))
    assert_refused(function() error(3) end, "raised a number instead of a message", here(0))
  end)

  it("takes long chains, and refuses endless ones", function()
    local function chain(count)
      return function(gate)
        local h = gate.i
        for _ = 1, count do h = pl.sin(h) + gate.i end
        return { h = h, c = 0 }
      end
    end
    local message = "step makes more than 4096 expressions"
    assert_refused(chain(100000), message, "in: for _ = 1, count do h = pl.sin(h) + gate.i end")
    assert_refused(chain(2100), message)
    local linear = pl.cell {
      name = "linear chain", states = { "h" }, gates = { "i" },
      step = function(gate)
        local h = gate.i
        for _ = 1, 1000 do h = h * 0.999 + gate.i end
        return { h = h }
      end,
    }
    assert.is_true(#linear:explain() > 0)
  end)
end)
