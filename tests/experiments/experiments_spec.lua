-- The experiments as programs: short runs, their files, their errors, the same numbers from the same seed.
local pl = require "perilune"
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
      { "speed", "--out " .. file .. "/below", "out: cannot write '" },
      { "numerics", "--sizes 4x32", "sizes: expected BATCHxHEADSxUNITS, got '4x32'" },
      { "numerics", "--dtypes tf32", "dtypes: tf32 is a type of a GPU's products" },
      { "numerics", "--backends reference,fused", "backends: 'fused' runs on cuda only" },
      { "numerics", "--cells foo", "cells: expected one of elman, gru, lstm, slstm, with commas, got 'foo'" },
      { "heads", "--widths 64 --heads 1,3", "heads: expected divisors of the width 64, got 3" },
      { "heads", "--chip A10", "chip: expected one of A100, .*, got A10" },
      { "heads", "--cell foo", "cell: no cell 'foo'; there are elman" },
      { "heads", "--device typo", "device: there is no 'typo' here" },
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
    for _, name in ipairs { "parity", "speed", "bandwidth", "constrint", "numerics", "heads" } do
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

  it("heads plans for a chip that is not here: times, the largest width, and where alternating is quicker", function()
    local path = folder .. "/heads.jsonl"
    local status, text = run("heads", "--chip H200 --widths 768 --heads 1,12 --batches 256,16 --head-dims 60,64,768 "
      .. "--out " .. path)
    assert.are.equal(0, status, text)
    local rows, limits, pairs_of = records(path, "heads"), records(path, "limit"), records(path, "break_even")
    assert.are.same({ 4, 2, 6 }, { #rows, #limits, #pairs_of })
    local one, other, many = rows[1], rows[2], rows[3]
    assert.are.same({ "fused", "alternating", "fused" }, { one.backend, other.backend, many.backend })
    assert.are.same({ "planned for H200", "predicted", true, false }, { one.device, one.how, one.auto, other.auto })
    assert.are.same({ 4 * 768 * 768 + 4 * 768, 4 * 768 * 64 + 4 * 768 }, { one.parameters, many.parameters })
    assert.are.same({ "block", 64 }, { many.scope, many.head_dim })
    for _, row in ipairs(rows) do assert.is_true(row.forward_us > 0 and row.both_us > row.forward_us) end
    assert.is_true(one.both_us > many.both_us and one.both_us < other.both_us)
    local function backend_of(row, head_dim)
      return pcall(pl.rnn_plan, { cell = "lstm", batch = 16, heads = row.heads, head_dim = head_dim, chip = "H200",
                                  dtype = "bfloat16", backend = "fused" })
    end
    for _, row in ipairs(limits) do -- the last that is planned: the next one is not
      assert.are.same({ true, false }, { (backend_of(row, row.head_dim)), (backend_of(row, row.head_dim + 8)) })
      assert.are.equal(row.heads * row.head_dim, row.width)
      local _, at_once = backend_of(row, row.head_dim_at_once)
      local _, later = backend_of(row, row.head_dim_at_once + 64)
      assert.is_true(at_once.details.launches == 1 and later.details.launches > 1)
    end
    for _, row in ipairs(pairs_of) do assert.are.equal(row.head_dim == 60, row.fused_us == nil) end
    for head_dim, first in pairs { [60] = "16", [64] = "none of these", [768] = "256" } do
      assert.matches(("\n +%d +%%d+ [^\n]*  %s\n"):format(head_dim, first), text)
    end
    status, text = run("heads", "--plot " .. path)
    assert.are.same({ 0, folder .. "/heads.svg\n" }, { status, text })
    local picture = program.read(folder .. "/heads.svg")
    for _, words in ipairs { "768 units, fused", "head_dim 768, heads 1", "as quick", "planned for H200" } do
      assert.is_truthy(picture:find(words, 1, true), words)
    end
  end)

  it("heads measures what the CPU offers", function()
    local path = folder .. "/heads.jsonl"
    local status, text = run("heads", "--widths 24 --heads 1,3 --steps 4 --repeats 2 --out " .. path)
    assert.are.equal(0, status, text)
    local rows = records(path, "heads")
    assert.are.equal(2, #rows)
    for _, row in ipairs(rows) do
      assert.are.same({ "reference", "measured", true }, { row.backend, row.how, row.auto })
      assert.is_true(row.forward_us_p10 <= row.forward_us and row.forward_us <= row.forward_us_p90)
      assert.is_true(row.forward_bytes > 4 * 16 * 4 * 4 * 24 and row.both_bytes > row.forward_bytes)
    end
    assert.matches("Fused and alternating run on GPUs only", text)
    assert.are.equal(0, (run("heads", "--plot " .. path)))
    assert.is_true(exists(folder .. "/heads.svg"))
  end)

  it("numerics finds errors of the size of each type's rounding, and sums several files up in one table", function()
    local path = folder .. "/numerics.jsonl"
    local status, text = run("numerics", "--cells elman,slstm --lengths 4,24 --vanilla-most 4 --sizes 2x1x16 --out "
      .. path)
    assert.are.equal(0, status, text)
    local device, rows = records(path, "run")[1].device, records(path, "errors")
    assert.are.equal(18, #rows) -- three types and two backends of an Elman cell and of an sLSTM with two forget biases
    local rounding <const> = { float32 = 2 ^ -24, float16 = 2 ^ -11, bfloat16 = 2 ^ -8 }
    for _, row in ipairs(rows) do
      local lengths = row.backend == "vanilla" and { 4 } or { 4, 24 }
      assert.are.same({ device, lengths }, { row.device, row.lengths })
      local size = rounding[row.dtype]
      for name, state in pairs(row.states) do
        local message = ("%s of %s %s %s"):format(name, row.cell, row.dtype, row.backend)
        assert.are.same({ #lengths, #row.steps }, { #state.median, #state.per_step }, message)
        for i, middle in ipairs(state.median) do
          assert.is_true(middle > size / 100 and middle <= state.largest[i] and state.largest[i] < 20 * size, message)
        end
        assert.is_true(state.per_step[1] == state.per_step[1] and state.last[1] < 20 * size, message)
      end
      for _, name in ipairs { "Wx", "R", "b", "states" } do
        local of = row.gradients[name]
        assert.is_true(#of == #lengths and of[1] > 0 and of[1] < 20 * size, name)
      end
    end
    assert.are.same({ 1, 2, 3, 4, 6, 8, 11, 16, 23, 24 }, rows[1].steps)
    assert.matches("float32%s+vanilla over reference, T = 4%s", text)
    assert.matches("bfloat16 reference%s+24/4%s+3  ", text)
    local elsewhere = folder .. "/elsewhere.jsonl" -- as if of another device
    program.write(elsewhere, (program.read(path):gsub('"device": "cpu: ', '"device": "cuda:0: ')))
    status, text = run("numerics", ("--plot %s,%s"):format(path, elsewhere))
    assert.are.equal(0, status, text)
    assert.are.equal(36, select(2, text:gsub("\n[12] +%l+ +[03] +%l+%d+ +%l+ +2x1x16 ", "")))
    assert.matches("device 2 is cuda:0: ", text, 1, true)
    for _, what in ipairs { "h", "c", "gradient" } do
      local picture = program.read(("%s/numerics-%s-2x1x16.svg"):format(folder, what))
      assert.matches("slstm, forget bias 3", picture)
      assert.matches(">bfloat16 vanilla, device 2<", picture)
      assert.are.equal(what == "c", not picture:find "elman")
    end
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
