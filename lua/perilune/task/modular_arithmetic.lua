-- pl.task.modular_arithmetic: the value modulo 5 of an expression without brackets.
local arithmetic = require "perilune.task.arithmetic"
local sequence = require "perilune.task.sequence"

return sequence.define {
  name = "modular_arithmetic",
  about = "expressions of digits 0..4 with +, - and * (which binds closer), labelled with the value so far modulo 5, "
    .. "plus 1. One of an even length begins with a minus sign; after an operator the label is that before it.",
  symbols = arithmetic.symbols(false),
  classes = arithmetic.modulus,
  row = function(_, source, length, put) arithmetic.row(source, length, put, 0) end,
}
