-- experiments/tracking.lua and tracking_table.lua: every model and task, a run that is killed again and again, and what
-- they refuse.
local pl = require "perilune"
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local json_lines = require "perilune.json_lines"
local new_folder = require "tests.new_folder"
local program = require "tests.bind.program"

local small <const> = "--width 8 --layers 1 --batch 4 --max 10 --count 8 --validate-at 12 --lengths 10,20"

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

local function run(arguments) return program.run { args = "experiments/tracking.lua " .. arguments } end

local function records(path, kind) return experiment.read(path, kind, true) end

local function done(arguments, out)
  local text, errors, status = run(("%s %s --out %s"):format(small, arguments, out))
  assert(status == 0, errors)
  return records(out .. "/tracking.jsonl", "result")[1], text
end

describe("tracking", function()
  for model in pairs(pl.nn.mixers) do
    it("trains " .. model, function()
      local row, text = done(("--model %s --task parity --steps 3 --state 2"):format(model), folder .. "/run")
      assert.are.same({ 10, 20 }, row.lengths)
      assert.are.same({ model, "parity", 1, 3, "beyond" }, { row.model, row.task, row.seed, row.steps, row.metric })
      assert.are.equal(row.accuracy[2], row.beyond) -- at the one length above 10
      assert.near((row.beyond - 0.5) / 0.5, row.scaled, 1e-12)
      assert.matches("beyond 10: ", text)
    end)
  end

  it("takes the model's options", function()
    local accuracies, parameters = {}, {}
    for i, arguments in ipairs { "", "--positions rotary", "--convolution 4" } do
      local row = done("--model transformer --heads 2 --steps 3 --lengths 20,160 " .. arguments, folder .. "/" .. i)
      accuracies[i], parameters[i] = row.positions[2], row.parameters
    end
    assert.are.equal(parameters[1], parameters[2]) -- positions have none
    assert.are_not.equal(accuracies[1], accuracies[2])
    assert.are.equal(parameters[1] + 8 * 4 + 8, parameters[3])
  end)

  for task in pairs(pl.task) do
    it("trains on " .. task, function()
      local labels = task < "f" and "every" or "last"
      local row = done(("--model gru --task %s --labels %s --steps 2"):format(task, labels), folder .. "/run")
      assert.are.equal(pl.task[task] {}.chance, row.chance)
      assert.is_true(row.accuracy[1] >= 0 and row.accuracy[1] <= 1)
    end)
  end

  it("killed at any moment, goes on to the same bits", function()
    local arguments <const> = "--model lstm --steps 150 --validate-every 5"
    local whole, killed = folder .. "/whole", folder .. "/killed"
    local expected = done(arguments, whole)
    local kills, pause = 0, 0.03
    while not io.open(killed .. "/tracking.jsonl") do
      kills, pause = kills + 1, pause * 1.1
      assert(kills < 100, "it does not get on")
      program.run { before = ("timeout -s KILL %g"):format(pause),
                    args = ("experiments/tracking.lua %s %s --out %s"):format(small, arguments, killed) }
    end
    local found = done(arguments, killed) -- the last kill may have come while the results were written
    found.seconds, expected.seconds = nil, nil
    assert.is_true(kills > 1)
    assert.are.same(expected, found)
    local function validations(out) return records(out .. "/tracking.jsonl", "validation") end
    assert.are.same(validations(whole), validations(killed))
    local a, b = pl.load(whole .. "/checkpoint.safetensors"), pl.load(killed .. "/checkpoint.safetensors")
    a.state, b.state = nil, nil -- has the seconds
    for name, tensor in pairs(a) do assert.are.same(tensor:totable(), b[name]:totable()) end
    local losses = {}
    for i, path in ipairs { whole, killed } do
      losses[i] = {}
      for _, record in ipairs(json_lines.read(path .. "/steps.jsonl")) do
        table.insert(losses[i], { record.step, record.loss or record.accuracy })
      end
    end
    assert.are.same(losses[1], losses[2])
  end)

  it("keeps to one run per folder, of the same options", function()
    local out = folder .. "/run"
    done("--model gru --steps 2", out)
    for arguments, expected in pairs {
      ["--model gru --steps 2 --task even_pairs"] = "%-%-task parity, not %-%-task even_pairs",
      ["--model gru --steps 2 --lr 0.1"] = "%-%-lr 0.002, not %-%-lr 0.1",
      ["--model gru --steps 2 --convolution 4"] = "no %-%-convolution, not %-%-convolution 4",
      ["--model gru --steps 2 --validate-every 50"] = "%-%-validate%-every 100, not %-%-validate%-every 50",
    } do
      local _, errors, status = run(("%s %s --out %s"):format(small, arguments, out))
      assert.are.equal(1, status)
      assert.are.equal(1, select(2, errors:gsub("\n", "")))
      assert.matches("^option %-%-out: '.*/run' holds a run with " .. expected .. "; take another folder", errors)
    end
    local row = done("--model gru --steps 2 --threads 2 --count 4", out) -- what may change
    assert.are.equal(2, row.steps)
    do
      local _ <close> = assert(core.lock(out .. "/run.lock"))
      local _, errors, status = run(("%s --model gru --steps 2 --out %s"):format(small, out))
      assert.are.same({ ("option --out: another run is at work in '%s'\n"):format(out), 1 }, { errors, status })
    end
    program.write(out .. "/run.json", '{"model": "g')
    local _, errors, status = run(("%s --model gru --steps 2 --out %s"):format(small, out))
    assert.are.equal(1, status)
    assert.matches("^option %-%-out: '.*/run/run.json' is damaged: [^\n]*\n$", errors)
  end)

  it("goes on after a log that was cut short, and removes what a killed process left of a checkpoint", function()
    local out = folder .. "/run"
    done("--model gru --steps 40 --validate-every 20", out)
    local log = program.read(out .. "/steps.jsonl")
    program.write(out .. "/steps.jsonl", log:sub(1, -5))
    os.remove(out .. "/checkpoint.safetensors") -- or nothing were left to do
    program.write(out .. "/checkpoint.safetensors.a8XfQ2", "half")
    program.write(out .. "/checkpoint.safetensors.notes", "mine")
    local _, errors, status = run(("%s --model gru --steps 40 --validate-every 20 --out %s"):format(small, out))
    assert.are.equal(0, status)
    assert.matches("warning: [^\n]*/steps.jsonl ends within a line, which is left out\n", errors)
    assert.is_nil(io.open(out .. "/checkpoint.safetensors.a8XfQ2"))
    assert.are.equal("mine", program.read(out .. "/checkpoint.safetensors.notes"))
  end)

  it("draws", function()
    done("--model elman --steps 2", folder .. "/run")
    local text, errors, status = run("--plot " .. folder .. "/run/tracking.jsonl")
    assert.are.same({ folder .. "/run/tracking.svg\n", 0 }, { text, status }, errors)
    assert.matches("elman on parity", program.read(folder .. "/run/tracking.svg"))
  end)

  it("refuses in one line what cannot be", function()
    for arguments, expected in pairs {
      ["--model foo"] = "option %-%-model: expected one of elman, gru, lstm",
      ["--task foo"] = "option %-%-task: expected one of a5, aa_star",
      ["--heads 3"] = "option %-%-heads: expected a divisor of the width 64, got 3",
      ["--min 5 --max 4"] = "option %-%-max: expected an integer of at least %-%-min %(5%), got 4",
      ["--warmup 5 --steps 5"] = "option %-%-warmup: expected fewer than the 5 steps, got 5",
      ["--device cuda:99"] = "option %-%-device: ",
    } do
      local _, errors, status = run(arguments .. " --out " .. folder .. "/none")
      assert.are.equal(1, status)
      assert.matches("^" .. expected, errors)
      assert.are.equal(1, select(2, errors:gsub("\n", "")))
    end
  end)
end)

describe("tracking_table", function()
  it("tabulates the best seeds, and has nothing to do a second time", function()
    local arguments = "experiments/tracking_table.lua --model mlstm,gru --heads 2 --seeds 2 --steps 2 --lengths 40,80 "
      .. "--count 8 --out " .. folder
    local text, errors, status = program.run { args = arguments }
    assert(status == 0, errors)
    local rows = records(folder .. "/tracking_table.jsonl", "best")
    assert.are.equal(3, #rows) -- mlstm, gru, gru of two heads
    local runs = {}
    for i = 1, 4 do
      local row = rows[i > 2 and 2 or 1]
      local name = ("%s/models/runs/%04d_task=parity_model=%s_seed=%d"):format(folder, i, row.model, (i - 1) % 2 + 1)
      runs[i] = records(name .. "/tracking.jsonl", "result")[1].beyond
    end
    assert.are.equal(math.max(runs[1], runs[2]), rows[1].beyond)
    assert.are.equal(math.max(runs[3], runs[4]), rows[2].beyond)
    assert.matches("parity +mlstm +%d%.%d+ +%-?%d%.%d+ +0%.54 ", text)
    assert.matches("model +1 head +2 heads\nparity +gru +%d%.%d+ %(0/2%) +%d%.%d+ %(0/2%)\n", text)
    local again = program.run { args = arguments }
    assert.matches("4 runs in [^\n]*/models: 4 are done, 0 are to do", again)
    assert.are.same(rows, records(folder .. "/tracking_table.jsonl", "best"))
    local time = records(folder .. "/tracking_table.jsonl", "time")[1]
    assert.is_true(time.seconds > 0 and time.run_seconds > time.seconds) -- the runs took theirs the first time

    -- Of runs in the folder only those are tabulated that are asked for, and one whose result was lost is told of.
    local less = "experiments/tracking_table.lua --model gru --heads 2 --seeds 1 --steps 2 --lengths 40,80 "
      .. "--count 8 --out " .. folder
    assert.are.equal(0, select(3, program.run { args = less }))
    local found = records(folder .. "/tracking_table.jsonl", "best")
    assert.are.same({ 2, 1, 1 }, { #found, found[1].seeds, found[2].seeds })
    local damaged = folder .. "/models/runs/0003_task=parity_model=gru_seed=1"
    program.write(damaged .. "/tracking.jsonl", program.read(damaged .. "/tracking.jsonl"):sub(1, 300))
    text, errors, status = program.run { args = less }
    assert.matches('parity +gru ', text)
    assert.are.equal(1, status)
    assert.matches("warning: [^\n]*0003_task=parity_model=gru_seed=1 is marked as done, but has no result", errors)
    assert.are.equal(1, #records(folder .. "/tracking_table.jsonl", "best"))
  end)

  it("is of the runs that succeed, where others fail, and tells so", function()
    local run_of_mlstm = folder .. "/models/runs/0001_task=parity_model=mlstm_seed=1"
    core.make_directory(run_of_mlstm)
    program.write(run_of_mlstm .. "/run.json", "{}")
    local text, errors, status = program.run { args = "experiments/tracking_table.lua --model mlstm,gru --heads 2 "
      .. "--seeds 1 --steps 2 --lengths 40,80 --count 8 --out " .. folder }
    assert.are.equal(1, status)
    assert.matches("failed +runs/0001_task=parity_model=mlstm_seed=1  exit status 1: .* holds a run with no ", text)
    assert.matches("perilune: 1 runs failed; the table is of the others\n$", errors)
    local models = {}
    for i, row in ipairs(records(folder .. "/tracking_table.jsonl", "best")) do models[i] = row.model .. row.heads end
    assert.are.same({ "gru1", "gru2" }, models)
    assert.matches("parity +gru ", text)
  end)

  it("refuses before any run what no run can", function()
    for arguments, expected in pairs {
      ["--task parity,foo"] = "option %-%-task: expected one of a5, .*, got 'parity,foo'",
      ["--heads 2,3"] = "option %-%-heads: expected divisors of the width 64, got 3",
      ["--lengths 20,40"] = "option %-%-lengths: expected one above those of training %(40%), got 20,40",
    } do
      local out = folder .. "/none"
      local _, errors, status = program.run { args = ("experiments/tracking_table.lua %s --out %s"):format(arguments,
        out) }
      assert.are.equal(1, status)
      assert.matches("^" .. expected, errors)
      assert.is_nil(io.open(out))
    end
  end)
end)
