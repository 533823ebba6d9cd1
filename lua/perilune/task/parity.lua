-- pl.task.parity: random bits, each labelled with the parity of the bits so far.
local sequence = require "perilune.task.sequence"

return sequence.define {
  name = "parity",
  about = "random bits, labelled 1 where the number of ones so far is even and 2 where it is odd.",
  symbols = { "0", "1" },
  classes = 2,
  row = function(_, source, length, put)
    local odd = 0
    for _ = 1, length do
      local bit = source.bit()
      odd = odd ~ bit
      put(bit + 1, odd + 1)
    end
  end,
}
