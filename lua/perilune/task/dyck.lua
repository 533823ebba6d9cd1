-- Dyck languages of bounded depth: what dyck1 and dyck2 are made of (Hewitt et al. 2020, "RNNs can generate bounded
-- hierarchical languages with optimal memory"). A row is a prefix of a word of balanced brackets, a random walk of its
-- depth between 0 and the bound. Which symbols may come next follows from the label.
local check = require "perilune.nn.check"
local sequence = require "perilune.task.sequence"

local dyck = {}

--- The task of the brackets in the list `pairs_of_brackets`, such as { "()", "[]" }.
function dyck.define(name, pairs_of_brackets)
  local kinds, symbols = #pairs_of_brackets, {}
  for i, pair in ipairs(pairs_of_brackets) do symbols[i], symbols[kinds + i] = pair:sub(1, 1), pair:sub(2, 2) end
  return sequence.define {
    name = name,
    about = ("words of %s, labelled 1 where all brackets are closed, else 1 + (open - 1) * %d + the kind (1..%d) of "
      .. "the last open one, where `open` is the number of open ones."):format(
      table.concat(pairs_of_brackets, " and "), kinds, kinds),
    symbols = symbols,
    options = { depth = 5 },
    options_text = "depth = 5 (the most that are open at once, at least 3)",
    prepare = function(self)
      check.integer(self.name, "depth", self.depth, 3)
      self.classes = 1 + kinds * self.depth
      -- In the long run the walk spends 1/depth of its time at each depth, half of that at either end; and at even
      -- positions only even depths occur, at odd ones odd depths.
      self.chance = 2 / (self.depth * kinds)
    end,
    row = function(self, source, length, put)
      local stack, open = {}, 0
      for _ = 1, length do
        local symbol
        if open == 0 or (open < self.depth and source.bit() == 1) then
          open, symbol = open + 1, 1 + source.below(kinds)
          stack[open] = symbol
        else
          symbol, open = kinds + stack[open], open - 1
        end
        put(symbol, open == 0 and 1 or 1 + (open - 1) * kinds + stack[open])
      end
    end,
  }
end

return dyck
