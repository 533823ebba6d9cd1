-- pl.task.even_pairs: whether the pairs ab and ba in a random word are even in number, which is whether it ends as it
-- begins (Deletang et al. 2023, "Neural networks and the Chomsky hierarchy"). A control: it needs memory of one bit and
-- no counting.
local sequence = require "perilune.task.sequence"

return sequence.define {
  name = "even_pairs",
  about = "random words of a and b, labelled 1 where the pairs ab and ba so far are even in number and 2 where odd.",
  symbols = { "a", "b" },
  classes = 2,
  row = function(_, source, length, put)
    local first
    for _ = 1, length do
      local bit = source.bit()
      first = first or bit
      put(bit + 1, (bit ~ first) + 1)
    end
  end,
}
