-- The experiments as programs: short runs, their files, their errors, the same numbers from the same seed.
local program = require "bind.program"
local records = require "perilune.experiment".read
local new_folder = require "tests.new_folder"

local folder

-- Runs an experiment with arguments; returns exit status, and standard output and error together.
local function run(name, arguments, environment)
  local args = ("experiments/%s.lua %s"):format(name, arguments)
  local out, errors, status = program.run { before = environment, args = args }
  return status, out .. errors
end

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

describe("experiments", function()
  before_each(function() folder = new_folder() end)
  after_each(function() os.execute("rm -r " .. folder) end)

  local short <const> = "--cell gru,elman --steps 20 --validate-every 10 --lengths 8,16 --count 16 --batch 8 --out "

  it("parity writes its options, validations and results, and a plot", function()
    local status, text = run("parity", short .. folder .. "/out")
    assert.are.equal(0, status, text)
    local path = folder .. "/out/parity.jsonl"
    local start = records(path, "run")[1]
    assert.are.equal(20, start.options.steps)
    assert.are.equal(1, start.options.seed)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT", start.date)
    assert.matches("^cpu: .*%d+ threads", start.device)
    assert.are.equal(4, #records(path, "validation"))
    local results = records(path, "result")
    assert.are.same({ "gru", "elman" }, { results[1].cell, results[2].cell })
    assert.are.same({ 8, 16 }, results[1].lengths)
    assert.is_true(results[1].accuracy[1] >= 0 and results[1].accuracy[1] <= 1)
    assert.is_true(exists(folder .. "/out/parity.svg"))
  end)

  it("parity gives the same numbers from the same seed, and others from another", function()
    local seen = {}
    for i, seed in ipairs { 3, 3, 4 } do
      run("parity", ("%s%s/%d --no-plot --seed %d"):format(short, folder, i, seed))
      local losses = {}
      for j, record in ipairs(records(("%s/%d/parity.jsonl"):format(folder, i), "validation")) do
        losses[j] = record.loss
      end
      seen[i] = losses
    end
    assert.are.equal(4, #seen[1])
    assert.are.same(seen[1], seen[2])
    assert.are_not.same(seen[1], seen[3])
  end)

  it("parity rounds its products to 16 bits and learns", function()
    local losses = {}
    for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
      local out = folder .. "/" .. dtype
      local status, text = run("parity", ("--cell gru --max 5 --steps 60 --validate-every 30 --validate-at 5 "
        .. "--lengths 5 --count 64 --no-plot --out %s --dtype %s"):format(out, dtype))
      assert.are.equal(0, status, text)
      losses[dtype] = records(out .. "/parity.jsonl", "validation")[2].loss
    end
    for _, dtype in ipairs { "bfloat16", "float16" } do
      assert.is_true(losses[dtype] ~= losses.float32)
      assert.is_true(math.abs(losses[dtype] - losses.float32) < 0.05, dtype .. ": " .. losses[dtype])
    end
  end)

  it("parity without gnuplot says so, keeps its results, and draws later", function()
    assert(os.execute(("mkdir %s/bin && ln -s $(command -v sh) %s/bin/"):format(folder, folder)))
    local status, text = run("parity", short .. folder .. "/out", ("PATH=%s/bin"):format(folder))
    assert.are.equal(0, status, text)
    assert.matches("warning: no plot was drawn: .*gnuplot was not found", text)
    local path = folder .. "/out/parity.jsonl"
    assert.are.equal(2, #records(path, "result"))
    assert.is_false(exists(folder .. "/out/parity.svg"))
    status = run("parity", "--plot " .. path)
    assert.are.equal(0, status)
    assert.is_true(exists(folder .. "/out/parity.svg"))
    status, text = run("parity", "--plot " .. folder .. "/missing.jsonl")
    assert.are.equal(1, status)
    assert.matches("^option %-%-plot: [^\n]*missing.jsonl: No such file[^\n]*\n$", text)
  end)

  it("refuse in one line, before any work, what cannot run", function()
    local file = folder .. "/file"
    assert(io.open(file, "w")):close()
    local refused = {
      { "parity", "--units 33 --heads 2", "heads: expected a divisor of the 33 units of elman, got 2" },
      { "parity", "--backend foo", "backend: expected one of auto, .*, got 'foo'" },
      { "parity", "--backend alternating", "backend: 'alternating' runs on cuda only" },
      { "parity", "--device typo", "device: there is no 'typo' here" },
      { "parity", "--min 50 --max 40", "max: expected an integer of at least %-%-min %(50%), got 40" },
      { "parity", "--threads 100000", "threads: expected 1..%d+, got 100000" },
      { "parity", "--out " .. file, "out: .*" .. file },
      { "parity", "--out " .. file .. "/below", "out: .*" .. file },
      { "speed", "--cell foo", "cell: no cell 'foo'; there are elman" },
      { "speed", "--backend foo", "backend: expected one of auto" },
      { "speed", "--sizes 1x4", "sizes: expected BATCHxTIMExUNITS, got '1x4'" },
      { "speed", "--sizes 1x4x0", "sizes: expected BATCHxTIMExUNITS, got '1x4x0'" },
      { "speed", "--out " .. file .. "/below", "out: cannot write the results" },
      { "speed", "--sweep foo", "sweep: expected one of heads, batch, length" },
      { "speed", "--sweep heads --backend alternating", "backend: 'alternating' runs on cuda only" },
      { "speed", "--what training --cell lstm,gru", "cell: expected one for %-%-what training, got 2" },
      { "speed", "--compare " .. file, "compare: .*file holds no measured recurrence" },
      { "speed", "--what startup --compare " .. file, "compare: it is for %-%-what rnn" },
      { "speed", "--peers " .. file, "peers: it is for %-%-plot FILE" },
      { "speed", "--plot " .. file, "plot: .*file holds no measured recurrence" },
      { "speed", "--plot experiments/results/speed-cpu.jsonl --peers " .. file .. "/no", "peers: " },
      { "bandwidth", "--matrices foo", "matrices: expected integers separated by commas, got 'foo'" },
      { "bandwidth", "--matrices 8,0", "matrices: expected a number of at least 1 separated by commas, got '8,0'" },
      { "bandwidth", "--dtypes float32,int8", "dtypes: expected one of float32, .*, got 'float32,int8'" },
    }
    for _, row in ipairs(refused) do
      local name, arguments, expected = table.unpack(row)
      if not arguments:find "--out" and name == "parity" then arguments = arguments .. " --out " .. folder .. "/out" end
      local status, text = run(name, arguments)
      assert.are.equal(1, status, text)
      assert.matches("^option %-%-" .. expected, text)
      assert.are.equal("\n", text:match("\n.*"))
    end
    assert.is_false(exists(folder .. "/out"))
  end)

  it("list their options and refuse others", function()
    for _, name in ipairs { "parity", "speed", "bandwidth", "constrint" } do
      local status, text = run(name, "--help")
      assert.are.equal(0, status)
      assert.matches("usage: perilune experiments/" .. name, text)
      status, text = run(name, "--stepz 3")
      assert.are.equal(1, status)
      assert.matches("unknown option '%-%-stepz'", text)
    end
  end)

  it("constrint plans for a chip that is not here, and counts plans without each family of constraints", function()
    local path = folder .. "/constrint.jsonl"
    local status, text = run("constrint", "--chip A100 --shapes lstm:4x1x64 --out " .. path)
    assert.are.equal(0, status, text)
    local shapes, families = records(path, "shape"), records(path, "families")
    assert.are.equal(1, #shapes)
    assert.is_true(shapes[1].feasible > 1 and shapes[1].predicted_us > 0 and shapes[1].planning_ms > 0)
    assert.are.equal(7, #families)
    assert.are.same({ shapes[1].feasible, 0 }, { families[1].plans, families[1].refused })
    for _, row in ipairs(families) do assert.is_true(row.plans >= families[1].plans, row.without) end
  end)

  it("speed prints a row per size, work and pass, and writes them", function()
    local path = folder .. "/speed.jsonl"
    local status, text = run("speed", "--sizes 1x4x8,2x3x8 --repeats 3 --out " .. path)
    assert.are.equal(0, status, text)
    local rows = records(path, "rnn")
    assert.are.equal(12, #rows)
    local passes = {}
    for _, row in ipairs(rows) do passes[row.pass] = (passes[row.pass] or 0) + 1 end
    assert.are.same({ inf = 4, fwd = 4, ["f+b"] = 4 }, passes)
    assert.matches("2x3x8%s+with input f%+b", text)
    for _, row in ipairs(rows) do
      assert.is_true(row.ms > 0 and row.ms_p10 <= row.ms and row.ms <= row.ms_p90)
      local _, steps = row.size:match("(%d+)x(%d+)")
      local batch = row.size == "1x4x8" and 1 or 2
      local operations = 2 * batch * steps * 4 * 64 * (row.with_input and 2 or 1) * (row.pass == "f+b" and 3 or 1)
      assert.is_true(row.peak_bytes > 0 and row.us_per_step == row.ms * 1000 / steps)
      assert.is_true(math.abs(row.gflops - operations / row.ms / 1e6) < 1e-9 * row.gflops + 1e-12)
    end
  end)

  it("speed sweeps, compares with an earlier run, and draws", function()
    local path, again = folder .. "/speed.jsonl", folder .. "/again.jsonl"
    local status, text = run("speed", "--sweep heads --work recurrence --repeats 1 --out " .. path)
    assert.are.equal(0, status, text)
    local rows = records(path, "rnn")
    assert.are.equal(18, #rows)
    assert.matches("16x64x1x512%s+recurrence f%+b", text)
    assert.is_nil(text:find("with input", 1, true))
    local compared = "--cell lstm,gru --sizes 16x64x16x16 --work recurrence --repeats 1 --compare "
    status, text = run("speed", compared .. path .. " --out " .. again)
    assert.are.equal(0, status, text)
    local ratio = records(again, "rnn")[1].ms / rows[1].ms
    assert.matches(("\n *%.3f .*lstm reference float32 16x64x16x16 recurrence inf\n"):format(ratio), text)
    assert.matches("median ratio %d+%.%d+ of 3 settings", text)
    assert.matches("3 settings are not in", text)
    status, text = run("speed", ("--plot %s --peers experiments/peers.csv"):format(path))
    assert.are.equal(0, status, text)
    assert.is_true(exists(folder .. "/speed-heads-lstm-16x64-f+b.svg"))
  end)

  it("speed measures a training step, its products in a 16-bit type", function()
    local path = folder .. "/speed.jsonl"
    local status, text = run("speed", "--what training --dtype bfloat16 --repeats 1 --out " .. path)
    assert.are.equal(0, status, text)
    local row = records(path, "training")[1]
    assert.are.same({ 64, 40, 64 }, { row.batch, row.steps, row.units })
    assert.is_true(row.batch_ms > 0 and row.ms > row.batch_ms and row.ms <= row.ms_p90)
  end)

  it("bandwidth measures operations and products", function()
    local path = folder .. "/bandwidth.jsonl"
    local status, text = run("bandwidth", "--device cpu --megabytes 1 --repeats 1 --calls 1 --matrices 8 --out "
      .. path)
    assert.are.equal(0, status, text)
    local rows = records(path, "bandwidth")
    assert.are.equal("copy", rows[1].operation)
    for _, row in ipairs(rows) do
      assert.is_true(row.ms > 0 and math.abs(row.gbytes_per_s - row.bytes / row.ms / 1e6) < 1e-6 * row.gbytes_per_s)
    end
    assert.are.equal(4, #records(path, "matmul"))
    status, text = run("bandwidth", "--device cpu --megabytes 1 --repeats 1 --calls 1 --only gelu --dtypes float32")
    assert.are.equal(0, status, text)
    assert.matches("gelu f%+b", text)
    assert.is_nil(text:find("matmul", 1, true))
  end)
end)
