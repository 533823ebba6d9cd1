-- The experiments and the notebook on a GPU: short runs, what they write, the losses of the CPU. Skips itself where
-- there is no GPU.

local program = require "bind.program"
local records = require "perilune.experiment".read
local devices = require "tests.devices"
local new_folder = require "tests.new_folder"

if not devices.has("cuda", "experiments on a GPU") then return end

local device <const> = "cuda"
local folder

-- What a run printed; it must succeed.
local function run(args)
  local out, errors, status = program.run { args = args }
  assert.equal(0, status, args .. "\n" .. out .. errors)
  return out
end

describe("experiments on a GPU", function()
  before_each(function() folder = new_folder() end)
  after_each(function() os.execute("rm -r " .. folder) end)

  -- Losses of a short training run of two cells.
  local function parity(on, dtype)
    local out = ("%s/%s-%s"):format(folder, on, dtype)
    run(("experiments/parity.lua --cell gru,lstm --steps 20 --validate-every 10 --lengths 8,16 --count 16 --batch 8 "
      .. "--no-plot --device %s --dtype %s --out %s"):format(on, dtype, out))
    local path, losses = out .. "/parity.jsonl", {}
    assert.equal(on, records(path, "run")[1].options.device)
    assert.equal(2, #records(path, "result"))
    for i, record in ipairs(records(path, "validation")) do losses[i] = record.loss end
    assert.equal(4, #losses)
    return losses
  end

  it("parity has the losses of the CPU", function()
    local expected = parity("cpu", "float32")
    for dtype, limit in pairs { float32 = 1e-3, bfloat16 = 5e-2 } do
      for i, loss in ipairs(parity(device, dtype)) do
        local off = math.abs(loss - expected[i])
        assert.is_true(off < limit, ("%s: loss %g, expected %g"):format(dtype, loss, expected[i]))
      end
    end
  end)

  it("speed measures recurrences", function()
    for _, backend in ipairs { "auto", "alternating" } do
      local path = ("%s/%s.jsonl"):format(folder, backend)
      run(("experiments/speed.lua --device %s --dtype bfloat16 --backend %s --sizes 2x16x2x64,3x5x1x32 --repeats 2 "
        .. "--out %s"):format(device, backend, path))
      local rows = records(path, "rnn")
      assert.equal(12, #rows) -- two sizes; inference, forward and both ways; Wx given and from the input
      for _, row in ipairs(rows) do assert.is_true(row.ms > 0 and row.gflops > 0 and row.peak_bytes > 0) end
    end
  end)

  it("speed knows the least time, and what the first call takes with and without compiled kernels", function()
    local setting = { cell = "lstm", batch = 16, steps = 64, heads = 2, head_dim = 64, dtype = "bfloat16",
                      device = device, backend = "fused" }
    local row = require("perilune.speed").measure(setting, { repeats = 3 })
    assert.equal("steps", row.floor_by)
    assert.is_true(row.of_floor > 0.01 and row.of_floor < 1)
    local first = require("perilune.speed.process").first(setting)
    assert.is_true(first.kernels >= 2 and first.compile_ms > 0 and first.cold_ms > first.compile_ms)
    assert.is_true(first.warm_ms < first.cold_ms)
  end)

  it("speed sweeps", function()
    local path = folder .. "/sweep.jsonl"
    run(("experiments/speed.lua --device %s --dtype bfloat16 --sweep heads --work recurrence --repeats 1 --out %s")
      :format(device, path))
    local ran = {}
    for _, row in ipairs(records(path, "rnn")) do ran[row.backend] = (ran[row.backend] or 0) + 1 end
    assert.equal(30, ran.alternating)
    assert.is_true(ran.fused >= 27)
    assert.equal(#records(path, "rnn") // 3, #records(path, "first call"))
  end)

  it("speed measures a training step", function()
    local path = folder .. "/training.jsonl"
    run(("experiments/speed.lua --what training --device %s --repeats 1 --out %s"):format(device, path))
    local row = records(path, "training")[1]
    assert.is_true(row.batch_ms > 0 and row.ms > row.batch_ms)
  end)

  it("heads measures heads, and fused against alternating", function()
    local path = folder .. "/heads.jsonl"
    run(("experiments/heads.lua --device %s --widths 128 --heads 1,2 --steps 16 --repeats 2 --batches 2,8 "
      .. "--head-dims 32,36 --out %s"):format(device, path))
    local rows, pairs_of = records(path, "heads"), records(path, "break_even")
    assert.same({ 4, 2, 4 }, { #rows, #records(path, "limit"), #pairs_of })
    for _, row in ipairs(rows) do
      assert.is_true(row.forward_us > 0 and row.both_us > row.forward_us and row.both_bytes > 0)
      assert.equal("measured", row.how)
    end
    for _, row in ipairs(pairs_of) do
      assert.is_true(row.alternating_us > 0)
      assert.equal(row.head_dim == 32, row.fused_us ~= nil)
    end
  end)

  it("numerics finds errors of the size of each type's rounding", function()
    local path = folder .. "/numerics.jsonl"
    run(("experiments/numerics.lua --device %s --cells lstm,slstm --lengths 8,33 --sizes 2x2x32 --out %s")
      :format(device, path))
    assert.equal(2, #records(path, "exact"))
    for _, row in ipairs(records(path, "exact")) do assert.is_true(row.h < 1e-12 and row.gradient < 1e-11) end
    local rounding <const> = { float32 = 2 ^ -24, tf32 = 2 ^ -11, float16 = 2 ^ -11, bfloat16 = 2 ^ -8 }
    local rows = records(path, "errors")
    assert.equal(32, #rows) -- two cells, two forget biases, four types, two backends
    for _, row in ipairs(rows) do
      local size, words = rounding[row.dtype], ("%s %s %s"):format(row.cell, row.dtype, row.backend)
      assert.equal(row.backend == "fused", row.scope ~= nil)
      for _, of in ipairs { row.states.h.largest, row.states.c.largest, row.gradients.Wx, row.gradients.R } do
        assert.is_true(of[2] > size / 100 and of[2] < 50 * size, ("%s: %g"):format(words, of[2]))
      end
    end
  end)

  it("the notebook runs from end to end", function()
    local short, out = folder .. "/short.ipynb", folder .. "/out.ipynb"
    local text, found = program.read("notebooks/01-parity.ipynb"):gsub("steps = 3000", "steps = 20")
    local checks
    text, checks = text:gsub("assert%(accuracy[^\n]-%)\\n", "") -- which so short a training cannot meet
    assert.same({ 1, 1 }, { found, checks })
    program.write(short, text)
    run(("notebook run %s -o %s --device %s"):format(short, out, device))
    local printed = program.read(out)
    assert.matches("device: " .. device, printed, 1, true)
    assert.matches("both ways agree", printed, 1, true)
  end)
end)
