-- Cells as data: pl.cell checks a declaration, traces its step function once, and compiles graph and gradient to the
-- two programs that every device runs (host/device/recurrence.h): declaration, trace, gradient, save, program.

local core = require "perilune.core"
local declared = require "perilune.code.declared"
local declaration = require "perilune.cell.declaration"
local explain = require "perilune.cell.explain"
local program = require "perilune.cell.program"
local trace = require "perilune.cell.trace"

local module = {}
local Cell = { __name = "cell" }
Cell.__index = Cell

function module.is_cell(x) return getmetatable(x) == Cell end

-- The traced graph with the new h clamped to +-clip: part of the graph, so that every device has it.
local function clamped(traced, clip)
  if not clip then return traced end
  local copy = {}
  for key, value in pairs(traced) do copy[key] = value end
  copy.new = table.move(traced.new, 1, #traced.new, 1, {})
  local g = traced.graph
  copy.new[1] = g:make("clamp", copy.new[1], g:constant(-clip), g:constant(clip))
  return copy
end

local function serialise_program(code, out)
  out[#out + 1] = ("%d/%d/%d"):format(code.inputs, #code.constants, code.registers)
  for _, value in ipairs(code.constants) do out[#out + 1] = ("%a"):format(value) end
  for _, instruction in ipairs(code.code) do out[#out + 1] = table.concat(instruction, ",") end
  out[#out + 1] = table.concat(code.outputs, ",")
end

-- Everything a device is told, as one text: equal texts are the same cell.
local function key_of(spec)
  local out = { ("%d states, %d params, %d saves"):format(spec.states, spec.params, spec.saves) }
  for _, gate in ipairs(spec.gates) do
    out[#out + 1] = (gate.input and "i" or "-") .. (gate.recurrent and "r" or "-") .. (gate.bias and "b" or "-")
  end
  for _, value in ipairs(spec.initial) do out[#out + 1] = ("%a"):format(value) end
  serialise_program(spec.forward, out)
  serialise_program(spec.backward, out)
  return table.concat(out, ";")
end

-- Compiled programs per forward clip, of one cell.
local function programs(self, clip)
  local known = self.compiled[clip or false]
  if not known then
    known = program.compile(clamped(self.traced, clip), self.owner)
    self.compiled[clip or false] = known
  end
  return known
end

--- What core.cell takes; options.forward_clip clamps h to +-v. Carries the key by which equal cells are known.
function Cell:spec(options)
  local compiled = programs(self, options and options.forward_clip)
  local spec = {
    gates = self.parts, states = #self.states, initial = self.initial, params = #self.params, saves = #compiled.saves,
    forward = compiled.forward, backward = compiled.backward,
  }
  spec.key = key_of(spec)
  return spec
end

local on_device = setmetatable({}, { __mode = "v" }) -- by content

--- The cell as devices know it; equal content, defined once or again, is one object. options.forward_clip as in spec.
function Cell:compile(options)
  local clip = options and options.forward_clip or false
  local known = self.handles[clip]
  if not known then
    local spec = self:spec(options)
    known = on_device[spec.key] or core.cell(spec)
    on_device[spec.key] = known
    self.handles[clip] = known
  end
  return known
end

--- What the cell declares, and its equations as traced, as text: how `explain` begins.
function Cell:equations() return explain.equations(self, programs(self, nil)) end

--- The equations, their gradient, what is saved, the programs and what is generated from them for a GPU, as text.
-- options.forward_clip as in spec.
function Cell:explain(options)
  local generated = core.cell_text(self:compile(options))
  return explain.text(self, programs(self, options and options.forward_clip), generated)
end

--- The step function on tensors: tables by name in, new states by name out, each a tensor or a number.
function Cell:run_step(gates, states, params) return trace.on_tensors(self, gates, states, params) end

--- How many gates have the part "input", "recurrent" or "bias".
function Cell:count(part)
  local count = 0
  for _, has in ipairs(self.parts) do count = count + (has[part] and 1 or 0) end
  return count
end

function Cell:__tostring()
  local text = ("cell %s: states %s; gates %s"):format(self.name, table.concat(self.states, " "),
                                                       table.concat(self.gates, " "))
  if #self.params > 0 then text = text .. "; params " .. table.concat(self.params, " ") end
  return text
end

local function build(given)
  local self = declaration.check(given)
  self.traced = trace.on_expressions(self)
  self.compiled, self.handles = {}, {}
  programs(self, nil) -- so that limits are checked here, where the cell is written
  return setmetatable(self, Cell)
end

--- Makes a cell of { name =, states =, gates =, params =, constants =, step = }. The fields name, states, gates,
-- params, constants, initial (numbers), parts (per gate: input, recurrent, bias) and starts (per param, where it has
-- one: the number or { low, high } that layers start it with) can be read, not changed.
function module.new(given)
  local ok, result = pcall(build, given)
  if not ok then error(result, type(result) == "string" and 2 or 0) end
  return result
end
declared.options(module.new, declaration.fields)

return module
