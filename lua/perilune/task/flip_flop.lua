-- pl.task.flip_flop: one bit of memory that is written, read and, mostly, left alone (Liu et al. 2023, "Exposing
-- attention glitches with flip-flop language modeling", with their probabilities 0.1, 0.1 and 0.8).
local sequence = require "perilune.task.sequence"

local write <const>, read <const>, ignore <const>, zero <const> = 1, 2, 3, 4

return sequence.define {
  name = "flip_flop",
  about = "instructions w (write), r (read) and i (ignore), each followed by a bit, which is the stored one after r; "
    .. "labelled with the stored bit, plus 1. It begins with w and 0 is stored before.",
  symbols = { "w", "r", "i", "0", "1" },
  classes = 2,
  row = function(_, source, length, put)
    local stored, instruction = 0, nil
    for t = 1, length do
      if t % 2 == 1 then
        local drawn = source.below(10)
        instruction = (t == 1 or drawn == 0) and write or drawn == 1 and read or ignore
        put(instruction, stored + 1)
      else
        local bit = instruction == read and stored or source.bit()
        if instruction == write then stored = bit end
        put(zero + bit, stored + 1)
      end
    end
  end,
}
