-- pl.task.modular_arithmetic_brackets: the value modulo 5 of an expression with nested brackets.
local check = require "perilune.nn.check"
local arithmetic = require "perilune.task.arithmetic"
local sequence = require "perilune.task.sequence"

return sequence.define {
  name = "modular_arithmetic_brackets",
  about = "expressions of digits 0..4 with +, -, * and brackets, labelled with the value modulo 5, plus 1, of what has "
    .. "been read since the last open bracket. One of an even length begins with a minus sign; after an operator the "
    .. "label is that before it, after an opening bracket that of 0.",
  symbols = arithmetic.symbols(true),
  options = { depth = 4 },
  options_text = "depth = 4 (of brackets)",
  prepare = function(self) check.integer(self.name, "depth", self.depth) end,
  classes = arithmetic.modulus,
  row = function(self, source, length, put) arithmetic.row(source, length, put, self.depth) end,
}
