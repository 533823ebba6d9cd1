-- What a compiled cell saves, how it uses registers, and its explanation.

local pl = require "perilune"

-- Rewrites the golden files instead of comparing when the environment has PERILUNE_UPDATE.
local function assert_golden(path, text)
  if os.getenv "PERILUNE_UPDATE" then
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
  end
  local file = assert(io.open(path))
  local expected = file:read "a"
  file:close()
  assert.equal(expected, text)
end

local function unit(step, changes)
  local given = { name = "unit", states = { "h" }, gates = { "x", "y", "z" }, step = step }
  for key, value in pairs(changes or {}) do given[key] = value end
  return pl.cell(given)
end

describe("a compiled cell", function()
  it("explains itself", function()
    for _, name in ipairs { "elman", "gru", "lstm", "slstm" } do
      assert_golden(("tests/golden/%s.txt"):format(name), pl.cells[name]:explain())
    end
    assert_golden("tests/golden/elman_clipped.txt", pl.cells.elman:explain { forward_clip = 0.5 })
  end)

  it("saves the fewest values", function()
    local function saves(step) return unit(step):spec().saves end
    assert.equal(0, saves(function(gate) return { h = gate.x + gate.y - 2 * gate.z } end))
    assert.equal(0, saves(function(gate) return { h = pl.tanh(gate.x) } end)) -- the new state itself
    assert.equal(2, saves(function(gate) return { h = gate.x * gate.y } end))
    assert.equal(1, saves(function(gate, state) return { h = state.h * (gate.x + gate.y) } end))
    assert.equal(1, saves(function(gate, state) return { h = state.h * pl.exp(gate.x + gate.y) + gate.z } end))
    -- one test instead of two gates
    assert.equal(1, saves(function(gate, state) return { h = pl.where(pl.lt(gate.x, gate.y), state.h, gate.z) } end))
    assert.equal(5, pl.cells.lstm:spec().saves)
    assert.equal(4, pl.cells.gru:spec().saves)
    assert.equal(0, pl.cells.elman:spec().saves)
  end)

  it("marks gradients that are zero", function()
    local backward = unit(function(gate, state) return { h = gate.x + 0 * state.h } end):spec().backward
    assert.same({ -1, -1, -1 }, table.move(backward.outputs, 2, 4, 1, {}))
    assert.equal(0, #backward.constants)
  end)

  it("uses registers again", function()
    local long = unit(function(gate)
      local x = gate.x
      for _ = 1, 1000 do x = pl.tanh(x + gate.y) end
      return { h = pl.stop_gradient(x) }
    end)
    assert.is_true(long:spec().forward.registers <= 4 + 2)
  end)

  it("complains when there are not enough registers or saves", function()
    assert.error_matches(function()
      unit(function(gate)
        local values, sum = {}, 0
        for i = 1, 300 do values[i] = pl.floor(gate.x + i) end
        for i = 1, 300 do sum = sum * 2 + values[301 - i] end
        for i = 1, 300 do sum = sum * 3 + values[i] end
        return { h = sum }
      end)
    end, "cell 'unit': its forward program needs %d+ registers; at most 255 are there")
    assert.error_matches(function()
      unit(function(gate)
        local product = 1
        for i = 1, 33 do product = product * pl.exp(gate.x * i) end
        return { h = product }
      end)
    end, "cell 'unit': its backward needs %d+ values saved per step; at most 32 are there")
  end)
end)
