-- nn.sample: what can be drawn and how often; nn.generate: symbols that follow a prompt.
local core = require "perilune.core"
local pl = require "perilune"
local nn = pl.nn
local devices = require "tests.devices"
local memory = require "tests.tensor.check"
local message_of = require "tests.message_of"

local chances <const> = { 0.05, 0.4, 0.1, 0.25, 0.2 }
local rows <const> = 4000

-- How often each of the symbols came in `rows` draws from `chances`.
local function counts_of(options, device)
  pl.seed(11)
  local logits = pl.log(pl.tensor({ chances }, { device = device })):expand { rows, #chances }
  local counts = { 0, 0, 0, 0, 0 }
  for _, id in ipairs(nn.sample(logits, options):reshape({ -1 }):totable()) do counts[id] = counts[id] + 1 end
  return counts
end

-- Fails unless the counts lie within four standard deviations of those of `expected`, which sum up to 1.
local function fit(expected, counts)
  for id, p in ipairs(expected) do
    local bound = 4 * math.sqrt(rows * p * (1 - p))
    assert(math.abs(counts[id] - rows * p) <= bound, ("%d of symbol %d, expected %g"):format(counts[id], id, rows * p))
  end
end

-- `chances`, those not in `kept` 0, to the power 1 / temperature, summing up to 1.
local function only(kept, temperature)
  local result, sum = { 0, 0, 0, 0, 0 }, 0
  for _, id in ipairs(kept) do
    result[id] = chances[id] ^ (1 / (temperature or 1))
    sum = sum + result[id]
  end
  for id, p in ipairs(result) do result[id] = p / sum end
  return result
end

for _, device in ipairs { "cpu", "cuda" } do
  describe("nn.sample on " .. device, function()
    if not devices.has(device, "nn.sample") then return end
    local all <const> = { 1, 2, 3, 4, 5 }

    it("draws with the probabilities, at each temperature", function()
      fit(chances, counts_of(nil, device))
      fit(only(all, 0.5), counts_of({ temperature = 0.5 }, device))
      fit(only(all, 3), counts_of({ temperature = 3 }, device))
    end)

    it("takes the best at temperature 0", function()
      assert.are.same({ 0, rows, 0, 0, 0 }, counts_of({ temperature = 0 }, device))
    end)

    it("draws none but the top k", function()
      fit(only { 2 }, counts_of({ top_k = 1 }, device))
      fit(only { 2, 4, 5 }, counts_of({ top_k = 3 }, device))
      fit(chances, counts_of({ top_k = 9 }, device))
    end)

    it("draws none but the fewest that reach top p", function()
      fit(only { 2 }, counts_of({ top_p = 0.3 }, device))
      fit(only { 2, 4 }, counts_of({ top_p = 0.6 }, device))
      fit(only { 2, 4, 5 }, counts_of({ top_p = 0.7 }, device))
      fit(chances, counts_of({ top_p = 1 }, device))
      fit(only({ 2, 4 }, 0.5), counts_of({ top_p = 0.7, temperature = 0.5 }, device)) -- 0.16 and 0.0625 of 0.275
      fit(only { 2, 4 }, counts_of({ top_k = 3, top_p = 0.7 }, device)) -- 0.65 of 0.85
    end)

    it("repeats with the seed and leaves no tensor behind", function()
      assert.are.same(counts_of({ top_k = 4 }, device), counts_of({ top_k = 4 }, device))
      local logits = pl.randn { 2, 6, device = device }
      local before = memory.buffers()
      do
        local _ <close> = pl.scope()
        nn.sample(logits, { top_k = 3, top_p = 0.5 })
      end
      assert.are.same(before, memory.live())
    end)
  end)
end

describe("nn.sample", function()
  it("tells apart what float32 does, and keeps what is equal", function()
    local logits = pl.tensor { { 20, 20.000002, 19.999998, -math.huge } }
    for _ = 1, 30 do assert.are.equal(2, nn.sample(logits, { top_k = 1 }):item()) end
    local seen = {}
    for _ = 1, 60 do seen[nn.sample(pl.tensor { { 1, 0, 1, -5 } }, { top_k = 1 }):item()] = true end
    assert.are.same({ [1] = true, [3] = true }, seen)
  end)

  it("names what is wrong", function()
    local logits = pl.zeros { 1, 3 }
    assert.matches("nn.sample: logits: expected 2 dimensions, got shape %[3%]", message_of(nn.sample, pl.zeros { 3 }))
    assert.matches("nn.sample: temperature: expected a number of at least 0, got %-1",
      message_of(nn.sample, logits, { temperature = -1 }))
    assert.matches("nn.sample: top_k: expected an integer of at least 1, got 0",
      message_of(nn.sample, logits, { top_k = 0 }))
    assert.matches("nn.sample: top_p: expected a number of at least 0 and at most 1, got 2",
      message_of(nn.sample, logits, { top_p = 2 }))
    assert.matches("nn.sample: top_p: expected a number above 0", message_of(nn.sample, logits, { top_p = 0 }))
    assert.matches("unknown option 'topk'; expected temperature, top_k, top_p",
      message_of(nn.sample, logits, { topk = 2 }))
  end)
end)

local function model_of(mixer)
  return nn.SequenceModel { mixer = mixer, vocabulary = 7, width = 8, layers = 2, heads = 2 }
end

describe("nn.generate", function()
  for _, mixer in ipairs { "lstm", "mlstm", "mamba", "transformer" } do
    it("goes on with the best symbols at temperature 0 with " .. mixer, function()
      pl.seed(3)
      local m, prompt = model_of(mixer):to "float64", pl.randint(1, 7, { 3, 4 })
      local ids = nn.generate(m, prompt, { count = 6, temperature = 0 })
      assert.are.same({ 3, 10 }, ids.shape)
      local expected = prompt
      for length = 4, 9 do
        expected = pl.cat({ expected, m(expected):select(2, length):argmax(2, true) }, 2)
      end
      assert.are.same(expected:totable(), ids:totable())
    end)
  end

  it("leaves nothing behind when on_token raises an error", function()
    local m, prompt = model_of "gru", pl.ones { 2, 1, dtype = "int64" }
    local before = memory.buffers()
    local steps = 0
    assert.matches("enough", message_of(nn.generate, m, prompt, { count = 9, on_token = function()
      steps = steps + 1
      if steps == 3 then error "enough" end
    end }))
    assert.are.equal(3, steps)
    assert.are.equal(before, memory.buffers())
    assert.is_true(pl.grad_enabled())
  end)

  it("is repeated by the seed, and by a restored state of the random numbers", function()
    local m, prompt, runs = model_of "slstm", pl.ones { 2, 1, dtype = "int64" }, {}
    for i, seed in ipairs { 5, 5, 6 } do
      pl.seed(seed)
      runs[i] = nn.generate(m, prompt, { count = 20, top_k = 6 }):totable()
    end
    assert.are.same(runs[1], runs[2])
    assert.are_not.same(runs[1], runs[3])
    assert.are_not.same(runs[1][1], runs[1][2])
    local seed, position = core.random_state()
    local first = nn.generate(m, prompt, { count = 9 }):totable()
    core.random_state(seed, position)
    assert.are.same(first, nn.generate(m, prompt, { count = 9 }):totable())
  end)

  it("tells each step, and how fast it was", function()
    local told = {}
    local ids, rate = nn.generate(model_of "gru", pl.ones { 2, 3, dtype = "int64" },
      { count = 5, on_token = function(list) told[#told + 1] = list end })
    for row = 1, 2 do
      for t = 1, 5 do assert.are.equal(ids:totable()[row][3 + t], told[t][row]) end
    end
    assert.are.equal(5, #told)
    assert.is_true(rate > 0)
    local _, none = nn.generate(model_of "gru", pl.ones { 1, 1, dtype = "int64" }, { count = 1 })
    assert.is_nil(none)
  end)

  it("stops where every row did", function()
    pl.seed(2)
    local m, prompt = model_of "gru", pl.ones { 3, 2, dtype = "int64" }
    local ids = nn.generate(m, prompt, { count = 500, stop = 4 })
    local longest = 0
    for _, row in ipairs(ids:totable()) do
      local first = 3
      while row[first] ~= 4 do first = first + 1 end
      longest = math.max(longest, first)
      for t = first, #row do assert.are.equal(4, row[t]) end
    end
    assert.are.equal(longest, ids.shape[2])
    assert.is_true(longest < 502)
  end)

  it("needs no more memory for more symbols, and records no gradient", function()
    local m, seen, recorded = model_of "lstm", {}, nil
    local function note()
      seen[#seen + 1] = memory.live()
      recorded = recorded or pl.grad_enabled()
    end
    local before = memory.buffers()
    do
      local _ <close> = pl.scope()
      nn.generate(m, pl.ones { 2, 3, dtype = "int64" }, { count = 30, on_token = note })
    end
    assert.are.same(before, memory.live())
    assert.are.same(seen[2], seen[30])
    assert.is_false(recorded)
  end)

  it("names what is wrong", function()
    local m, prompt = model_of "gru", pl.ones { 1, 2, dtype = "int64" }
    assert.matches("nn.generate: model: expected a module with a method step%(ids %[, state%]%), got nn.Linear",
      message_of(nn.generate, nn.Linear(2, 2), prompt, { count = 1 }))
    assert.matches("nn.generate: model: .*, got 'gru'", message_of(nn.generate, "gru", prompt, { count = 1 }))
    assert.matches("nn.generate: prompt: expected 2 dimensions, got shape %[2%]",
      message_of(nn.generate, m, pl.ones { 2, dtype = "int64" }, { count = 1 }))
    assert.matches("nn.generate: prompt: expected integers, at least one row and one position, got %[1, 2%] float32",
      message_of(nn.generate, m, pl.ones { 1, 2 }, { count = 1 }))
    assert.matches("nn.generate: prompt: expected integers, .*, got %[1, 0%] int64",
      message_of(nn.generate, m, pl.ones { 1, 0, dtype = "int64" }, { count = 1 }))
    assert.matches("nn.generate: count: expected an integer of at least 1, got nothing",
      message_of(nn.generate, m, prompt))
    assert.matches("nn.generate: top_k: expected an integer of at least 1, got 1.5",
      message_of(nn.generate, m, prompt, { count = 1, top_k = 1.5 }))
    assert.matches("nn.generate: stop: expected an integer of at least 1, got 0",
      message_of(nn.generate, m, prompt, { count = 1, stop = 0 }))
    assert.matches("nn.generate: on_token: expected a function, got 3",
      message_of(nn.generate, m, prompt, { count = 1, on_token = 3 }))
    assert.matches("unknown option 'length'", message_of(nn.generate, m, prompt, { length = 1 }))
  end)
end)

describe("nn.generate on a GPU", function()
  if not devices.has("cuda", "nn.generate") then return end

  it("takes a prompt on the CPU for a model on a GPU", function()
    local m, prompt = model_of("lstm"):to "float64", pl.randint(1, 7, { 2, 3 })
    local expected = nn.generate(m, prompt, { count = 8, temperature = 0 })
    local ids = nn.generate(m:to "cuda", prompt, { count = 8, temperature = 0 })
    assert.are.equal("cpu", ids.device)
    assert.are.same(expected:totable(), ids:totable())
  end)
end)
