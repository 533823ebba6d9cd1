-- Word problems of permutation groups: which permutation a product of random ones is (Merrill, Petty and Sabharwal
-- 2024, "The illusion of state in state-space models"). S5 and A5 are not solvable, so their word problems are complete
-- for NC1 (Barrington 1989): a recurrent network of finite state solves them; circuits of constant depth (TC0) are
-- believed not to.
local sequence = require "perilune.task.sequence"

local word_problem = {}

-- All permutations of 1..n in lexicographic order.
local function permutations_of(n)
  local list, used, current = {}, {}, {}
  local function extend(position)
    if position > n then
      list[#list + 1] = { table.unpack(current) }
      return
    end
    for item = 1, n do
      if not used[item] then
        used[item], current[position] = true, item
        extend(position + 1)
        used[item] = false
      end
    end
  end
  extend(1)
  return list
end

local function is_even(permutation)
  local even = true
  for i = 1, #permutation do
    for k = i + 1, #permutation do
      if permutation[i] > permutation[k] then even = not even end
    end
  end
  return even
end

-- The elements as text, and product[a][b] = the number of "first a, then b".
local function table_of(elements)
  local symbols, number, product = {}, {}, {}
  for i, element in ipairs(elements) do
    symbols[i] = table.concat(element)
    number[symbols[i]] = i
  end
  for i, first in ipairs(elements) do
    product[i] = {}
    for k, second in ipairs(elements) do
      local both = {}
      for place, item in ipairs(first) do both[place] = second[item] end
      product[i][k] = number[table.concat(both)]
    end
  end
  return symbols, product
end

--- The task of the permutations of five items, or of the even ones only.
function word_problem.define(name, about, even_only)
  local symbols, product
  return sequence.define {
    name = name,
    about = about,
    prepare = function(self)
      if not product then
        local elements = {}
        for _, element in ipairs(permutations_of(5)) do
          if not even_only or is_even(element) then elements[#elements + 1] = element end
        end
        symbols, product = table_of(elements)
      end
      self.symbols, self.classes = symbols, #symbols
    end,
    row = function(_, source, length, put)
      local state = 1 -- the identity, first in lexicographic order
      for _ = 1, length do
        local element = 1 + source.below(#symbols)
        state = product[state][element]
        put(element, state)
      end
    end,
  }
end

return word_problem
