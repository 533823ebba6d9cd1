-- Training on a GPU: the same losses as on the processor in every type of the products, steps that overflow are
-- skipped, memory stays flat; and what a process says of its peak and of what it compiled.
local pl = require "perilune"
local devices = require "tests.devices"

if not devices.has("cuda", "training on a GPU") then return end

-- The options of a loop that trains a small LSTM on parity, the same on every device.
local function setting(device, steps)
  pl.seed(5)
  local task = pl.task.parity { size = 32, min = 3, max = 20, seed = 2, device = device }
  local model = pl.nn.Sequential(pl.nn.RNN { input_size = 2, hidden_size = 24, cell = "lstm" }, pl.nn.Linear(24, 2))
  model:to(device)
  return {
    model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 3e-3 }), steps = steps, clip = 1,
    progress = false,
    batch = function(step) return task:batch(step) end,
    loss = function(m, batch) return pl.nn.cross_entropy(m(batch.x), batch.y) end,
  }
end

local function memory() return pl.memory()["cuda:0"] end

describe("training on a GPU", function()
  for _, case in ipairs { { false, 1e-5 }, { "bfloat16", 3e-4 }, { "float16", 1e-4 } } do
    local autocast, most = table.unpack(case)
    it("loses as on the processor, products in " .. (autocast or "float32"), function()
      local losses = {}
      for _, device in ipairs { "cpu", "cuda" } do
        local option = setting(device, 40)
        option.autocast = autocast or nil
        losses[device] = pl.train.loop(option).steps
        for _, p in ipairs(option.model:parameters()) do assert.are.equal("float32", p.dtype) end
      end
      for i, record in ipairs(losses.cuda) do
        local difference = math.abs(record.loss - losses.cpu[i].loss)
        assert.is_true(difference < most, ("step %d: the losses differ by %g"):format(i, difference))
      end
    end)
  end

  it("loses as on the processor, parameters in bfloat16", function()
    local losses = {}
    for _, device in ipairs { "cpu", "cuda" } do
      local option = setting(device, 40)
      option.model:to("bfloat16")
      option.optimizer = pl.optim.AdamW(option.model:parameters(), { lr = 3e-3 })
      option.loss = function(m, batch) return pl.nn.cross_entropy(m(batch.x:to("bfloat16")), batch.y) end
      losses[device] = pl.train.loop(option).steps
      for _, p in ipairs(option.model:parameters()) do assert.are.equal("bfloat16", p.dtype) end
    end
    for i, record in ipairs(losses.cuda) do
      local difference = math.abs(record.loss - losses.cpu[i].loss)
      assert.is_true(difference < 1e-2, ("step %d: the losses differ by %g"):format(i, difference))
    end
  end)

  it("skips steps whose float16 gradients overflow, and goes on at a lower scale", function()
    local option = setting("cuda", 60)
    option.autocast, option.scaler = "float16", pl.optim.GradScaler { init_scale = 2.0 ^ 40 }
    local history = pl.train.loop(option)
    assert.is_true(history.steps[1].skipped)
    assert.is_false(history.steps[60].skipped)
    assert.is_true(history.steps[60].scale < history.steps[1].scale)
    assert.are.equal(history.steps[1].loss, history.steps[1].loss) -- no NaN
  end)

  it("keeps live and cached bytes where they are", function()
    local option = setting("cuda", 200)
    pl.train.loop(option)
    local before = memory()
    pl.train.loop(option)
    local after = memory()
    assert.are.same({ before.live, before.buffers }, { after.live, after.buffers })
    assert.are.equal(before.cached, after.cached)
  end)
end)

describe("a GPU's account", function()
  it("peaks anew after a reset", function()
    local _ <close> = pl.scope()
    do
      local _ <close> = pl.scope()
      pl.ones { 1 << 22, device = "cuda" }
    end
    pl.reset_peak_memory("cuda")
    assert.are.equal(memory().live, memory().peak)
    pl.ones { 1 << 20, device = "cuda" }
    assert.is_true(memory().peak - memory().live < 4 << 20)
  end)

  it("says what was compiled and what came from disk", function()
    local before = pl.compilations "cuda"
    local cell = pl.cell { name = "fresh", states = { "h" }, gates = { "a" }, step = function(gate, state)
      return { h = pl.tanh(gate.a) * (os.time() + 0.5) + state.h } -- a constant that no cache on disk knows
    end }
    pl.rnn(pl.randn { 2, 3, 1, 1, 8, device = "cuda" }, pl.randn { 1, 1, 8, 8, device = "cuda" },
      pl.randn { 1, 1, 8, device = "cuda" }, { cell = cell, backend = "alternating" })
    local after = pl.compilations "cuda"
    assert.is_true(after.compiled > before.compiled and after.total_ms > before.total_ms)
    assert.is_true(after.most_ms > 0 and after.most_ms <= after.total_ms)
    assert.is_true(after.compiled + after.cached > 1)
  end)
end)
