-- Compiled programs against the step function on numbers, and their gradients against central differences.

local pl = require "perilune"
local machine = require "tests.cell.machine"
local zoo = require "tests.recurrence.zoo"

-- Numbers that differ from run to run of this function only by `seed`.
local function draws(seed)
  local x = seed
  return function(low, high)
    x = (x * 16807) % 2147483647
    return low + (high - low) * (x / 2147483647)
  end
end

local function list(count, draw, low, high)
  local result = {}
  for i = 1, count do result[i] = draw(low, high) end
  return result
end

local function join(...)
  local result = {}
  for _, part in ipairs { ... } do table.move(part, 1, #part, #result + 1, result) end
  return result
end

local function by_name(names, values)
  local result = {}
  for i, name in ipairs(names) do result[name] = values[i] end
  return result
end

-- One step of a cell through its programs: new states, and the gradient of their weighted sum.
local function step_through(spec, gates, states, params, weights)
  local out = machine(spec.forward, join(gates, states, params))
  local new = table.move(out, 1, #states, 1, {})
  local saves = table.move(out, #states + 1, #out, 1, {})
  return new, machine(spec.backward, join(saves, states, new, params, weights))
end

local function weighted_sum(spec, inputs, weights)
  local sum, out = 0, machine(spec.forward, inputs)
  for i, weight in ipairs(weights) do sum = sum + weight * out[i] end
  return sum
end

describe("a compiled cell", function()
  for _, entry in ipairs(zoo) do
    local cell = entry.cell
    for _, clip in ipairs { false, 0.3 } do
      it(("%s%s computes its step and its gradient"):format(entry.name, clip and ", clipped," or ""), function()
        local spec = cell:spec { forward_clip = clip or nil }
        for seed = 11, 15 do
          local draw = draws(seed)
          local gates = list(#cell.gates, draw, -1.5, 1.5)
          local states = list(#cell.states, draw, 0.2, 1.5)
          local params = list(#cell.params, draw, -1, 1)
          local weights = list(#cell.states, draw, -1, 1)
          local new, gradients = step_through(spec, gates, states, params, weights)

          local k = by_name(cell.params, params)
          for name, value in pairs(cell.constants) do k[name] = value end
          local methods = cell.name == "methods" -- numbers have no methods
          local expected = not methods and cell.step(by_name(cell.gates, gates), by_name(cell.states, states), k)
          for i, name in ipairs(cell.states) do
            local value = expected and expected[name] or new[i]
            if clip and i == 1 then value = pl.clamp(value, -clip, clip) end
            assert.near(value, new[i], 1e-14)
          end

          local inputs = join(gates, states, params)
          for i = 1, entry.smooth and #inputs or 0 do
            local step, kept = 1e-5, inputs[i]
            inputs[i] = kept + step
            local above = weighted_sum(spec, inputs, weights)
            inputs[i] = kept - step
            local below = weighted_sum(spec, inputs, weights)
            inputs[i] = kept
            assert.near((above - below) / (2 * step), gradients[i], 1e-8)
          end
        end
      end)
    end
  end

  it("stops gradients where it is told to", function()
    local cell = pl.cell {
      name = "stop", states = { "h" }, gates = { "x" },
      step = function(gate, state) return { h = pl.stop_gradient(gate.x * state.h) * gate.x } end,
    }
    local new, gradients = step_through(cell:spec(), { 3 }, { 5 }, {}, { 1 })
    assert.same({ 45 }, new)
    assert.same({ 15, 0 }, gradients)
  end)

  it("clips a gradient where it is told to", function()
    local cell = pl.cell {
      name = "clip", states = { "h" }, gates = { "x" },
      step = function(gate) return { h = 7 * pl.gradient_clip(gate.x, 2) } end,
    }
    local new, gradients = step_through(cell:spec(), { 3 }, { 0 }, {}, { 1 })
    assert.same({ 21 }, new)
    assert.same({ 2, 0 }, gradients)
  end)

  it("differentiates every elementwise operation", function()
    for _, row in ipairs(require("perilune.core").pointwise) do
      local names = { "a", "b", "c" }
      local cell = pl.cell {
        name = row.name, states = { "h" }, gates = { "a", "b", "c" },
        step = function(gate)
          local operands = {}
          for i = 1, row.arity do operands[i] = gate[names[i]] end
          return { h = pl[row.name](table.unpack(operands)) }
        end,
      }
      local spec, draw = cell:spec(), draws(77)
      local gates = list(3, draw, row.low, row.high)
      local new, gradients = step_through(spec, gates, { 0 }, {}, { 1 })
      assert.near(pl[row.name](table.unpack(gates, 1, row.arity)), new[1], 1e-15)
      for i = 1, row.name == "gradient_clip" and 0 or row.arity do
        local function at(x)
          local moved = { table.unpack(gates) }
          moved[i] = x
          return weighted_sum(spec, join(moved, { 0 }), { 1 })
        end
        local step = 1e-5
        assert.near((at(gates[i] + step) - at(gates[i] - step)) / (2 * step), gradients[i], 1e-6, row.name)
      end
    end
  end)
end)
