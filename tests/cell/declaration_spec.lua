-- Every misuse of pl.cell is an error that names the cell, the field, what came and what was expected.

local pl = require "perilune"

local function declaration(changes)
  local given = {
    name = "mine", states = { "h", "c" }, gates = { "i", "f" }, params = { "p" }, constants = { leak = 0.5 },
    step = function(gate, state, k)
      local c = k.leak * state.c + gate.f * k.p
      return { h = pl.tanh(gate.i) * c, c = c }
    end,
  }
  for key, value in pairs(changes or {}) do
    if value == "absent" then given[key] = nil else given[key] = value end
  end
  return given
end

local function assert_refused(changes, ...)
  local ok, message = pcall(pl.cell, declaration(changes))
  assert.is_false(ok)
  for _, part in ipairs { ... } do
    assert.is_truthy(message:find(part, 1, true), ("%q is not in %q"):format(part, message))
  end
end

describe("pl.cell", function()
  it("leaves the given table as it was and can be used again under the same name", function()
    local given = declaration { states = { "h", { name = "c", init = 2 } } }
    local first = pl.cell(given)
    assert.same({ "h", { name = "c", init = 2 } }, given.states)
    assert.same({ "i", "f" }, given.gates)
    assert.same({ 0, 2 }, first.initial)
    assert.equal(first:compile(), pl.cell(given):compile())
  end)

  it("keeps different contents apart", function()
    local one = pl.cell(declaration())
    assert.are_not.equal(one:spec().key, pl.cell(declaration { constants = { leak = 0.25 } }):spec().key)
    assert.are_not.equal(one:spec().key, pl.cell(declaration { gates = { "i", { "f", bias = false } } }):spec().key)
    assert.are_not.equal(one:spec().key, pl.cell(declaration { states = { "h", { "c", init = 1 } } }):spec().key)
    assert.are_not.equal(one:spec().key, one:spec({ forward_clip = 1 }).key)
    assert.equal(one:spec().key, pl.cell(declaration { name = "other" }):spec().key)
  end)

  it("describes itself", function()
    assert.equal("cell mine: states h c; gates i f; params p", tostring(pl.cell(declaration())))
  end)

  it("says where it was called", function()
    local ok, message = pcall(function() pl.cell { name = "" } end)
    assert.is_false(ok)
    assert.matches("declaration_spec.lua:%d+: pl.cell: name: expected a non%-empty string", message)
  end)

  it("checks fields", function()
    assert.error_matches(function() pl.cell("lstm") end, "pl.cell: expected a table .*, got \"lstm\"")
    assert_refused({ name = "absent" }, "pl.cell: name: expected a non-empty string, got nil")
    assert_refused({ nmae = "x" }, "cell 'mine': nmae: expected one of the fields constants, gates, name")
    assert_refused({ step = "absent" }, "cell 'mine': step: expected a function(gate, state, k), got nil")
    assert_refused({ step = 3 }, "step: expected a function(gate, state, k), got 3")
  end)

  it("checks states", function()
    assert_refused({ states = "absent" }, "cell 'mine': states: expected a list of names, got nil")
    assert_refused({ states = {} }, "states: expected at least one state")
    assert_refused({ states = { "h", "h" } }, 'states[2]: expected a name used once, got "h"')
    assert_refused({ states = { "h", c = 1 } }, "states: expected a list of names", "the key c")
    assert_refused({ states = { "h", 3 } }, "states[2]: expected a name or a table with one, got 3")
    assert_refused({ states = { "h", { "c", init = "1" } } }, 'states[2].init: expected a number, got "1"')
    assert_refused({ states = { "h", { "c", start = 1 } } }, "states[2].start: expected one of the keys name, init")
    assert_refused({ states = { "h h" } }, "states[1]: expected a name of letters, digits and _")
    assert_refused({ states = { "a", "b", "c", "d", "e", "f", "g", "h", "i" } }, "states: expected at most 8, got 9")
  end)

  it("checks gates", function()
    assert_refused({ gates = 4 }, "gates: expected a list of names", "got 4")
    assert_refused({ gates = {} }, "gates: expected at least one gate with an input part")
    assert_refused({ gates = { { "i", input = false } } }, "at least one gate with an input part")
    assert_refused({ gates = { "i", { "f", recurrent = 0 } } }, "gates[2].recurrent: expected true or false, got 0")
    assert_refused({ gates = { "i", { "f", recurent = false } } }, "gates[2].recurent: expected one of the keys")
    assert_refused({ gates = { "i", { "f", input = false, recurrent = false, bias = false } } }, "gates[2]: expected",
                   "none of them")
    assert_refused({ gates = { "i", "i" } }, 'gates[2]: expected a name used once, got "i"')
    local many = {}
    for i = 1, 17 do many[i] = "g" .. i end
    assert_refused({ gates = many }, "gates: expected at most 16, got 17")
  end)

  it("keeps what a param starts with, which makes no other cell", function()
    local cell = pl.cell(declaration { params = { { "p", init = { 0, 1 } } } })
    assert.same({ "p" }, cell.params)
    assert.same({ p = { 0, 1 } }, cell.starts)
    assert.same({ p = 2 }, pl.cell(declaration { params = { { name = "p", init = 2 } } }).starts)
    assert.equal(pl.cell(declaration()):compile(), cell:compile())
  end)

  it("checks params and constants", function()
    assert_refused({ params = { { "p", init = "1" } } }, 'params[1].init: expected a number or { low, high }, got "1"')
    assert_refused({ params = { { "p", init = { 1, 0 } } } }, "params[1].init: expected a number or { low, high }")
    assert_refused({ params = { { "p", init = 0 / 0 } } }, "params[1].init: expected a number or { low, high }")
    assert_refused({ params = { { "p", start = 1 } } }, "params[1].start: expected one of the keys name, init")
    assert_refused({ params = "p" }, 'params: expected a list of names, got "p"')
    assert_refused({ params = { "p", "p" } }, 'params[2]: expected a name used once, got "p"')
    assert_refused({ params = { "p", "leak" } }, "constants.leak: expected a name that is not one of params")
    assert_refused({ constants = { leak = "0.5" } }, 'constants.leak: expected a number, got "0.5"')
    assert_refused({ constants = { 1 } }, "constants: expected names of letters, digits and _, got 1")
  end)
end)
