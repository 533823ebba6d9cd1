-- The settings of experiments/lm.lua that have a name: what an option is where it is not given.
local presets = {}

-- Minutes on two cores of a CPU.
presets.tiny = {
  model = "lstm", heads = 1, width = 128, layers = 2, tokenizer = "bytes", dtype = "float32",
  batch = 16, accumulate = 1, length = 64, steps = 2000, lr = 4e-3, warmup = 100, clip = 1, decay = 0.1, dropout = 0,
  eval_every = 500,
}

-- The works of Shakespeare that char-rnn learned, 1.1 MB, on one GPU.
presets.char = {
  model = "lstm", heads = 1, width = 256, layers = 2, tokenizer = "characters", dtype = "bfloat16",
  batch = 64, accumulate = 1, length = 128, steps = 4000, lr = 3e-3, warmup = 100, clip = 1, decay = 0.1,
  dropout = 0.3, stateful = true, eval_every = 500,
}

-- The language models of FlashRNN's poster: 12 blocks of 768 units, 164 M parameters with 12 heads, 190 M with one.
-- The numbers are those of the poster and of xLSTM's experiments of that size (Beck et al. 2024).
presets["seed-165m"] = {
  model = "lstm", heads = 12, width = 768, layers = 12, hidden = 2048, tokenizer = "bpe", vocabulary = 50304,
  dtype = "bfloat16", batch = 256, accumulate = 8, length = 1024, steps = 57000, lr = 1e-3, warmup = 750, clip = 0.5,
  decay = 0.1, dropout = 0, eval_every = 1000,
}

-- The same, larger: for the time of a step and its memory.
presets["seed-1b"] = {
  model = "lstm", heads = 16, width = 2048, layers = 24, hidden = 5464, tokenizer = "bpe", vocabulary = 50304,
  dtype = "bfloat16", batch = 256, accumulate = 32, length = 1024, steps = 57000, lr = 4e-4, warmup = 750, clip = 0.5,
  decay = 0.1, dropout = 0, eval_every = 1000,
}

return presets
