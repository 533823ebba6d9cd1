-- A slow register machine on plain numbers: what compiled programs mean, for tests.

local number = require "perilune.cell.number"
local graph = require "perilune.cell.graph"

--- Runs `program` (as pl.cell compiles it) on a list of numbers; returns its outputs. Checks what devices rely on.
return function(program, inputs)
  assert(#inputs == program.inputs, "wrong number of inputs")
  local register, first = {}, program.inputs + #program.constants
  for i, value in ipairs(inputs) do register[i - 1] = value end
  for i, value in ipairs(program.constants) do register[program.inputs + i - 1] = value end
  for _, instruction in ipairs(program.code) do
    local op, target, a, b, c = table.unpack(instruction)
    assert(target >= first and target < program.registers, "writes an input, a constant or past the registers")
    local arity = graph.rows[op].arity
    assert((arity > 1 or b == a) and (arity > 2 or c == a), "operands past the arity repeat a")
    assert(target ~= a and target ~= b and target ~= c, "writes what it reads")
    register[target] = number.apply(op, assert(register[a], "reads an empty register"), register[b], register[c])
  end
  local outputs = {}
  for i, r in ipairs(program.outputs) do outputs[i] = r < 0 and 0.0 or assert(register[r], "an output is empty") end
  return outputs
end
