-- perilune.speed, what experiments/speed.lua is made of: one setting measured, its least time, results read back,
-- compared and drawn.
local pl = require "perilune"
local chips = require "perilune.rnn.chips"
local compare = require "perilune.speed.compare"
local experiment = require "perilune.experiment"
local figures = require "perilune.speed.figures"
local floor = require "perilune.speed.floor"
local message_of = require "tests.message_of"
local model = require "perilune.rnn.model"
local new_folder = require "tests.new_folder"
local process = require "perilune.speed.process"
local program = require "bind.program"
local records = require "perilune.speed.records"
local speed = require "perilune.speed"
local sweeps = require "perilune.speed.sweeps"

local small <const> = { cell = "lstm", batch = 2, steps = 3, heads = 2, head_dim = 8, backend = "reference" }

-- The setting `small` with other fields.
local function with(fields)
  local setting = {}
  for name, value in pairs(small) do setting[name] = value end
  for name, value in pairs(fields) do setting[name] = value end
  return setting
end

local function near(expected, got) assert.is_true(math.abs(got / expected - 1) < 1e-9, expected .. " " .. got) end

describe("speed.measure", function()
  it("times a setting and counts its operations and bytes", function()
    local units <const>, R <const>, W <const> = 2 * 3 * 16, 4 * 2 * 64, 4 * 256 -- of the batch; of R and the layer
    local of_pass = { inf = { 5, 5, 1 }, fwd = { nil, 5, 1 }, ["f+b"] = { nil, 11, 3 } }
    for _, pass in ipairs(speed.passes) do
      for _, with_input in ipairs { false, true } do
        local row = speed.measure(with { pass = pass, with_input = with_input }, { repeats = 3 })
        assert.same({ "lstm", "reference", "float32", 2, 3, 2, 8, with_input, pass, 3 }, {
          row.cell, row.backend, row.dtype, row.batch, row.steps, row.heads, row.head_dim, row.with_input, row.pass,
          row.repeats })
        assert.equal(experiment.device_name(experiment.device_line "cpu"), row.device)
        assert.is_true(row.ms > 0 and row.ms_p10 <= row.ms and row.ms <= row.ms_p90)
        near(row.ms * 1000 / 3, row.us_per_step)
        local each, layer, ways = table.unpack(of_pass[pass], 1, 3)
        near(2 * ways * units * 4 * (8 + (with_input and 16 or 0)), row.gflops * row.ms * 1e6)
        if each then
          local values = units * (each + (with_input and layer or 0)) + ways * (R + (with_input and W or 0))
          near(4 * values, row.gbytes_per_s * row.ms * 1e6)
        end
        near(row.floor_ms / row.ms, row.of_floor)
        assert.is_true(row.floor_by == "products" or row.floor_by == "memory")
        assert.is_true(row.peak_bytes >= 4 * units * (with_input and 1 or 4))
      end
    end
  end)

  it("takes a cell of one's own, with learned vectors", function()
    local cell = pl.cell {
      name = "damped", states = { "h" }, gates = { "a" }, params = { "p" },
      step = function(gate, state, k) return { h = k.p * state.h + pl.tanh(gate.a) } end,
    }
    for _, backend in ipairs { "reference", "vanilla" } do
      local row = speed.measure(with { cell = cell, backend = backend }, { repeats = 1 })
      assert.same({ "damped", backend, "f+b" }, { row.cell, row.backend, row.pass })
    end
  end)

  it("measures fewer times, but five, where there is little time", function()
    local calls = 0
    local times = speed.times(function() calls = calls + 1 end, "cpu", { repeats = 50, seconds = 0 })
    assert.same({ 5, 7 }, { #times, calls })
    assert.equal(3, #speed.times(function() end, "cpu", { repeats = 3, seconds = 0 }))
    assert.equal(50, #speed.times(function() end, "cpu", { repeats = 50, seconds = 10 }))
  end)

  it("peak bytes are those of the call alone", function()
    local before = speed.measure(small, { repeats = 1 }).peak_bytes
    speed.measure(with { batch = 64, head_dim = 64 }, { repeats = 1 })
    assert.equal(before, speed.measure(small, { repeats = 1 }).peak_bytes)
  end)

  it("says what is wrong with a setting", function()
    for expected, fields in pairs {
      ["speed: batch: expected an integer of at least 1, got 0"] = { batch = 0 },
      ["speed: pass: expected one of inf, fwd, f%+b, got 'both'"] = { pass = "both" },
      ["speed: unknown option 'units'"] = { units = 3 },
      ["'fused' runs on cuda only"] = { backend = "fused" },
      ["no cell 'foo'"] = { cell = "foo" },
    } do
      assert.matches(expected, message_of(speed.measure, with(fields)))
    end
  end)

  it("tells of the first call", function()
    local first = speed.first(small)
    assert.is_true(first.ms > 0)
    assert.same({ 0, 0 }, { first.kernels, first.compile_ms })
    local of_process = process.first(small)
    assert.is_true(of_process.cold_ms > 0 and of_process.warm_ms > 0)
    assert.same({ 0, 0 }, { of_process.kernels, of_process.compile_ms })
  end)
end)

describe("the least time", function()
  it("of a step on a GPU is that of an empty step of the scope that the plan has", function()
    local function least(heads, dim, pass)
      return floor.step_us({ cell = pl.cells.lstm, batch = 16, heads = heads, head_dim = dim, dtype = "bfloat16",
                             product = "bfloat16" }, chips.named "H200", pass)
    end
    local forward_us, backward_us = model.least_us "block"
    assert.equal(forward_us, least(12, 64, "inf"))
    assert.equal(forward_us + backward_us, least(12, 64, "f+b"))
    assert.equal(model.least_us "grid", (least(1, 2048, "inf")))
    assert.equal(0, least(1, 100, "inf")) -- no plan
  end)

  it("is the largest of what products, memory and steps leave", function()
    local setting = with { cell = pl.cells.lstm, plan = speed.plan(small), device = "cpu", dtype = "float32",
                           pass = "inf" }
    local slow, fast = { gflops = 1, gbytes_per_s = 1e6 }, { gflops = 1e6, gbytes_per_s = 1 }
    assert.same({ "products", 2 * 96 * 4 * 8 / 1e6 }, { floor.of(setting, slow).by, floor.of(setting, slow).ms })
    assert.same({ "memory", 4 * (96 * 5 + 4 * 2 * 64) / 1e6 },
      { floor.of(setting, fast).by, floor.of(setting, fast).ms })
  end)
end)

describe("sweeps", function()
  it("are FlashRNN's on a GPU, and smaller on a CPU", function()
    local gpu = sweeps.sizes("heads", "cuda:1")
    assert.same({ "16x1024x48x16", "16x1024x1x2048" }, { sweeps.text(gpu[1]), sweeps.text(gpu[#gpu]) })
    local lengths = sweeps.sizes("length", "cuda")
    assert.same({ 128, 8192, 14 }, { lengths[1].steps, lengths[#lengths].steps, #lengths })
    assert.equal(256, sweeps.sizes("batch", "cuda")[9].batch)
    for _, name in ipairs(sweeps.names) do
      for _, size in ipairs(sweeps.sizes(name, "cpu")) do
        assert.is_true(size.batch * size.steps * size.heads * size.head_dim <= 1 << 20)
        assert.same(size, sweeps.parse(sweeps.text(size)))
      end
    end
  end)
end)

describe("results", function()
  local folder
  before_each(function() folder = new_folder() end)
  after_each(function() os.execute("rm -r " .. folder) end)

  local function written(text)
    local path = folder .. "/file"
    program.write(path, text)
    return path
  end

  it("of older files say what they leave to their run", function()
    local rows = records.read "experiments/results/speed-h100-fused.jsonl"
    local by_key = {}
    for _, row in ipairs(rows) do by_key[records.key(row)] = row end
    local row = by_key["gru fused bfloat16 16x1024x1x768 with input f+b"]
    assert.same({ "NVIDIA H100 80GB HBM3", 1, 768 }, { row.device, row.heads, row.head_dim })
    assert.is_true(by_key["lstm fused bfloat16 16x1024x1x768 recurrence inf"].ms < 2)
    assert.equal("AMD EPYC", records.read("experiments/results/speed-cpu.jsonl")[1].device)
  end)

  it("that are none are refused", function()
    assert.matches("holds no measured recurrence", message_of(records.read, written '{"kind": "peak"}\n'))
    assert.matches(": line 1 is no JSON record: what$", message_of(records.read, written "what\n"))
    assert.matches("the line of the run", message_of(records.read, written '{"kind": "rnn"}\n'))
    assert.matches("a row has no size",
      message_of(records.read, written '{"kind": "run", "options": {}, "device": "x"}\n{"kind": "rnn"}\n'))
  end)

  it("of other systems are the table that is shipped", function()
    local count, oom, seen = 0, 0, {}
    for line in io.lines "experiments/peers.csv" do
      if line:match "^[^#]" then count = count + 1 end
      if line:match ",OOM$" then oom = oom + 1 end
    end
    local rows = records.peers "experiments/peers.csv"
    assert.equal(count - 1 - oom, #rows)
    for _, row in ipairs(rows) do
      local key = table.concat({ row.system, row.machine, records.key(with { cell = row.cell, backend = row.dtype,
        batch = row.batch, steps = row.steps, heads = row.heads, head_dim = row.head_dim, dtype = "",
        with_input = row.with_input, pass = row.pass }) }, " ")
      assert.is_nil(seen[key], key)
      assert.is_true(row.ms > 0 and (row.pass == "inf" or row.pass == "f+b"))
      seen[key] = row
    end
    local flash = seen["FlashRNN 1.0.5 fused NVIDIA H200 lstm bfloat16  16x1024x1x768 recurrence f+b"]
    assert.same({ 13.1, "2026-11-21" }, { flash.ms, flash.date })
    local columns = "system,machine,date,cell,dtype,batch,steps,heads,head_dim,work,pass,ms\n"
    assert.matches("file:1: expected the columns system", message_of(records.peers, written "a,b\n"))
    assert.matches("file:2: expected system,.*, got 's,m'", message_of(records.peers, written(columns .. "s,m\n")))
    assert.matches("file:2: expected", message_of(records.peers,
      written(columns .. "s,m,,lstm,,1,2,3,4,recurrence,inf,fast\n")))
  end)
end)

-- A measured row of 16 x 1024 steps.
local function row_of(heads, dim, ms, fields)
  local row = { cell = "lstm", backend = "fused", dtype = "bfloat16", batch = 16, steps = 1024, heads = heads,
                head_dim = dim, with_input = false, pass = "inf", ms = ms, ms_p10 = 0.9 * ms, ms_p90 = 1.1 * ms,
                floor_ms = 0.1, device = "GPU", device_line = "cuda:0: GPU, sm_90" }
  for name, value in pairs(fields or {}) do row[name] = value end
  return row
end

describe("a comparison", function()
  it("pairs the same settings, worst first", function()
    local now = { row_of(12, 64, 1), row_of(6, 128, 3), row_of(3, 256, 2), row_of(1, 768, 5) }
    local before = { row_of(12, 64, 2), row_of(6, 128, 2), row_of(3, 256, 2), row_of(1, 768, 1, { pass = "f+b" }) }
    local list, alone = compare.rows(now, before)
    assert.same({ 1.5, 1, 0.5 }, { list[1].ratio, list[2].ratio, list[3].ratio })
    assert.equal(1, alone)
    local text = compare.text(now, before, "old")
    assert.matches("1%.500 +3%.000 %[2%.700, 3%.300%] +2%.000 .* lstm fused bfloat16 16x1024x6x128 recurrence inf\n",
      text)
    assert.matches("median ratio 1%.000 of 3 settings\nmeasured then on cuda:0: GPU, sm_90\n1 settings are not in old$",
      text)
  end)
end)

describe("figures", function()
  it("are drawn of what has three points, with other systems and the least time", function()
    local rows = { row_of(3, 256, 2), row_of(12, 64, 1), row_of(6, 128, 1.5), row_of(12, 64, 4, { batch = 64 }),
                   row_of(12, 64, 2, { backend = "alternating", floor_ms = 0.2 }) }
    local peers = { { system = "Flash", machine = "H", cell = "lstm", dtype = "float16", batch = 16, steps = 1024,
                      heads = 12, head_dim = 64, with_input = false, pass = "inf", ms = 3 },
                    { system = "Other", machine = "H", cell = "gru", dtype = "", batch = 16, steps = 1024, heads = 12,
                      head_dim = 64, with_input = false, pass = "inf", ms = 3 } }
    local list = figures.of(rows, peers)
    assert.equal(1, #list)
    assert.equal("heads-lstm-16x1024-inf", list[1].name)
    local series = list[1].figure.data
    local seen = {}
    for i, one in ipairs(series) do seen[i] = one.label end
    assert.same({ "fused", "alternating", "least possible", "Flash float16, H" }, seen)
    assert.same({ { 64, 128, 256 }, { 1, 1.5, 2 }, { 0.9, 0.9 * 1.5, 1.8 }, { 0.1, 0.1, 0.1 }, { 3 } },
      { series[1].x, series[1].y, series[1].low, series[3].y, series[4].high })
    assert.matches("lstm, bfloat16: inference\nbatch 16, 1024 steps, GPU", list[1].figure.options.title)
  end)

  it("tell types and devices apart", function()
    local rows = {}
    for _, dtype in ipairs { "float32", "bfloat16" } do
      for _, batch in ipairs { 1, 2, 4 } do rows[#rows + 1] = row_of(1, 8, batch, { dtype = dtype, batch = batch }) end
    end
    local list = figures.of(rows)
    assert.same({ 1, "batch-lstm-1x8x1024-inf" }, { #list, list[1].name })
    local series = list[1].figure.data
    assert.same({ "fused, float32", "fused, bfloat16", "least possible, float32" },
      { series[1].label, series[2].label, series[3].label })
  end)
end)
