-- Random expressions modulo 5, and their values as they are read: what modular_arithmetic and
-- modular_arithmetic_brackets are made of (Deletang et al. 2023, "Neural networks and the Chomsky hierarchy").
--
-- An expression is an operand, an operator, an operand and so on; of an even length it begins with a minus sign. An
-- operand is a digit or, up to a depth, an expression in brackets. `*` binds closer than `+` and `-`. The label of a
-- prefix is the value of what has been read since the last bracket that is open, without an operator at its end, and 0
-- where that is nothing; so the label at the last position is the value of the whole.
local modulus <const> = 5
local digits <const> = { "0", "1", "2", "3", "4" }
local operators <const> = { "+", "-", "*" }
local plus <const>, minus <const> = modulus + 1, modulus + 2
local opening <const>, closing <const> = modulus + #operators + 1, modulus + #operators + 2

local arithmetic = { modulus = modulus }

--- The symbols: digits, operators, and, if so, brackets.
function arithmetic.symbols(brackets)
  local symbols = table.move(operators, 1, #operators, modulus + 1, { table.unpack(digits) })
  if brackets then symbols[opening], symbols[closing] = "(", ")" end
  return symbols
end

-- What has been read since a bracket: the sum of the terms before the last, the last term with its sign, and the
-- operator that waits for an operand.
local function new_level(operator) return { sum = 0, term = 0, operator = operator } end

local function value_of(level) return (level.sum + level.term) % modulus end

local function take_operand(level, value)
  if level.operator == plus or level.operator == minus then
    level.sum = value_of(level)
    level.term = level.operator == plus and value or -value
  else
    level.term = level.term * value % modulus
  end
end

--- Draws a row with brackets of at most `depth`, as kind.row of sequence.define does. Every third operand and every
-- third place behind one has a bracket, as far as the length lets it.
function arithmetic.row(source, length, put, depth)
  local levels, level, open, left = {}, new_level(plus), 0, length
  local function put_symbol(symbol)
    left = left - 1
    put(symbol, value_of(level) + 1)
  end
  if length % 2 == 0 then
    level.operator = minus
    put_symbol(minus)
  end
  local behind_operand = false
  while left > 0 do
    if behind_operand then
      if open > 0 and (left < open + 2 or source.below(3) == 0) then -- an operand would not fit, or by choice
        local value = value_of(level)
        level, open = levels[open], open - 1
        take_operand(level, value)
        put_symbol(closing)
      else
        level.operator = plus + source.below(#operators)
        put_symbol(level.operator)
        behind_operand = false
      end
    elseif open < depth and left >= open + 3 and source.below(3) == 0 then -- it, an operand and what closes them
      open = open + 1
      levels[open], level = level, new_level(plus)
      put_symbol(opening)
    else
      local digit = source.below(modulus)
      take_operand(level, digit)
      put_symbol(digit + 1)
      behind_operand = true
    end
  end
end

return arithmetic
