-- pl.task.cycle_navigation: where one stands on a cycle of five places after random steps (Deletang et al. 2023,
-- "Neural networks and the Chomsky hierarchy").
local sequence = require "perilune.task.sequence"

local places <const> = 5
local moves <const> = { 0, 1, places - 1 } -- of the symbols, in their order

return sequence.define {
  name = "cycle_navigation",
  about = "steps 0, + and - on a cycle of five places, labelled with the place, 1..5; it starts at 1.",
  symbols = { "0", "+", "-" },
  classes = places,
  row = function(_, source, length, put)
    local place = 0
    for _ = 1, length do
      local symbol = 1 + source.below(#moves)
      place = (place + moves[symbol]) % places
      put(symbol, place + 1)
    end
  end,
}
