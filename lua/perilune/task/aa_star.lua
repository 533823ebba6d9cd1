-- pl.task.aa_star: whether a word of a's is in (aa)*, which is whether it is of even length: a regular language that is
-- not star-free (Bhattamishra, Ahuja and Goyal 2020, "On the ability and limitations of transformers to recognize
-- formal languages"). Half the rows begin with a blank, so that the position alone does not give the answer.
local sequence = require "perilune.task.sequence"

local blank <const>, letter <const> = 1, 2

return sequence.define {
  name = "aa_star",
  about = "words of a, half of them behind a blank, labelled 1 where the word so far is in (aa)* and 2 where not.",
  symbols = { " ", "a" },
  classes = 2,
  row = function(_, source, length, put)
    local start = source.bit() -- 1: the word begins at the second position
    for t = 1, length do put(t <= start and blank or letter, 1 + (t - start) % 2) end
  end,
}
