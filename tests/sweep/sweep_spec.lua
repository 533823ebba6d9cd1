-- perilune sweep on one machine: what it runs and what not, whatever ends early, and what it tells afterwards.
local core = require "perilune.core"
local new_folder = require "tests.new_folder"
local program = require "bind.program"
local records = require "perilune.experiment".read
local walks = require "sweep.walks"

local folder, out

local function read_json(path) return core.json_decode(program.read(path)) end

-- Runs a sweep of walk.lua in `out`; returns output, errors and status.
local function sweep(words) return walks.command(("%s --out %s %s"):format(walks.experiment, out, words)) end

local function count_of(traces)
  local count = 0
  for _ in pairs(traces) do count = count + 1 end
  return count
end

local function file_exists(path)
  local file <close> = io.open(path)
  return file ~= nil
end

-- The process that walks, by the last line of a run's trace; nil before it began.
local function walker(name)
  local lines = walks.traces(out)[name] or {}
  return lines[#lines] and lines[#lines]:match "%d+$"
end

before_each(function()
  folder = new_folder()
  out = folder .. "/sweep"
end)
after_each(function() os.execute("rm -r " .. folder) end)

describe("a sweep", function()
  it("runs the grid, each run in a folder with its options, log, result and mark", function()
    local text, errors, status = sweep "--cell lstm,gru --seed 1..3 --metric accuracy --jobs 2"
    assert.same(0, status, errors)
    local traces = walks.traces(out)
    assert.equal(6, count_of(traces))
    for name, lines in pairs(traces) do assert.equal(1, walks.check(lines, 1), name) end
    local run = out .. "/runs/0005_cell=gru_seed=2_metric=accuracy/"
    assert.same({ cell = "gru", seed = "2", metric = "accuracy" }, read_json(run .. "options.json"))
    assert.matches("^== attempt 1, .* %-%-cell=gru %-%-seed=2 %-%-metric=accuracy %-%-out=.*\nwalked gru\n$",
      program.read(run .. "log"))
    assert.equal(2, records(run .. "walk.jsonl", "result")[1].seed)
    assert.equal(1, read_json(run .. "DONE").attempt)
    assert.matches("6 runs: 6 done\n\ncell  done  accuracy: least  median  greatest  loss  steps\n"
      .. "lstm   3/3 +0%.5625 +0%.625 +0%.6875 +0%.5 +1\ngru    3/3 +0%.3125 +0%.375 +0%.4375 +0%.5 +1\n", text)
    assert.matches("sweep 100%% 6/6", errors)
  end)

  it("gives the experiment flags, and words that are not of the grid", function()
    local _, errors, status = sweep "--fast -- --notes a,b"
    assert.equal(0, status, errors)
    local options = records(out .. "/runs/0001_fast=true/walk.jsonl", "run")[1].options
    assert.is_true(options.fast)
    assert.same({ "a", "b" }, options.notes)
  end)

  it("runs in its folder, whoever goes on with it", function()
    local elsewhere = folder .. "/elsewhere"
    assert(os.execute("mkdir " .. elsewhere))
    program.write(elsewhere .. "/here.lua", [[
      local out = assert(arg[1]:match "^%-%-out=(.*)$")
      assert(io.open(out .. "/place", "w")):write(require "perilune.core".working_directory())]])
    assert(os.execute(("cd %s && %s sweep here.lua >said 2>&1"):format(elsewhere, program.quote(core.program()))))
    local run = elsewhere .. "/here-sweep/runs/0001/"
    assert.equal(elsewhere, program.read(run .. "place"))
    os.remove(run .. "DONE")
    os.remove(run .. "place")
    assert.equal(0, (select(3, walks.command(("run %s/here-sweep 1"):format(elsewhere)))))
    assert.equal(elsewhere, program.read(run .. "place"))
  end)

  it("runs what is missing and nothing twice, when it is given again or grows", function()
    assert.matches("\nno plot: no result names its metric\n", (sweep "--cell lstm --seed 1..2"))
    local text = sweep "--seed 1..3 --cell gru,lstm"
    assert.matches("6 runs in .*: 2 are done, 4 are to do", text)
    assert.matches("6 are done, 0 are to do", (sweep "--cell lstm,gru --seed 1..3"))
    local traces = walks.traces(out)
    assert.equal(6, count_of(traces))
    for name, lines in pairs(traces) do assert.equal(1, walks.check(lines, 1), name) end
  end)

  it("collects failures, which are no reason to end the others, and tries them again", function()
    local text, errors, status = sweep "--cell lstm,gru,elman --seed 1..2 --fail gru --jobs 2"
    assert.equal(1, status)
    assert.matches("perilune: 2 of 6 runs failed\n$", errors)
    assert.matches("6 runs: 4 done, 2 failed", text)
    assert.matches("\nfailed +runs/0003_cell=gru_seed=1_fail=gru  exit status 1: no way for gru\n", text)
    assert.matches("\ngru +0/2\n", text)
    local run = out .. "/runs/0003_cell=gru_seed=1_fail=gru"
    assert.equal("exit status 1: no way for gru", read_json(run .. "/FAILED").reason)
    text = sweep "--cell lstm,gru,elman --seed 1..2 --fail gru --jobs 2"
    assert.matches("4 are done, 2 are to do", text)
    assert.equal(2, read_json(run .. "/FAILED").attempt)
    assert.matches("== attempt 1,.*no way for gru.*== attempt 2,.*no way for gru", program.read(run .. "/log"))
  end)

  it("shows an experiment's own error, such as an unknown option, and forgets it once the option is right", function()
    local text, _, status = sweep "--cll lstm"
    assert.equal(1, status)
    assert.matches("exit status 1: unknown option '%-%-cll=lstm'; %-%-help lists the options", text)
    text, _, status = sweep "--cell lstm"
    assert.equal(0, status)
    assert.matches("1 runs: 1 done\n", text)
  end)

  it("counts what befalls one run's files as that run's failure", function()
    sweep "--seed 1 --fail lstm"
    local run = out .. "/runs/0001_seed=1_fail=lstm"
    os.remove(run .. "/FAILED")
    assert(os.execute(("mkdir -p %s/FAILED/x"):format(run)))
    local text, errors, status = sweep "--seed 1,2 --fail lstm"
    assert.equal(1, status)
    assert.matches("2 of 2 runs failed", errors)
    assert.matches("\nfailed +runs/0001_seed=1_fail=lstm  exit status 1: no way for lstm; "
      .. "cannot rename to '[^']*/FAILED': Is a directory\n", text)
    assert.is_true(file_exists(out .. "/runs/0002_seed=2_fail=lstm/FAILED"))
  end)

  it("refuses what it cannot mean", function()
    for words, message in pairs {
      [""] = "usage: perilune sweep EXPERIMENT.lua",
      ["--cell lstm"] = "the name of an experiment comes first, got '--cell'",
      ["/nonexistent.lua --cell lstm"] = "there is no experiment '/nonexistent.lua'",
      [walks.experiment .. " --seed 3..1"] = "option --seed: expected ranges that go up",
      [walks.experiment .. " --jobs 0"] = "option --jobs: expected a number of at least 1, got '0'",
      [walks.experiment .. " --slurm-time 3"] = "option --slurm-time: goes with --slurm",
      [walks.experiment .. " --slurm --slurm-array 3"] = "option --slurm-array: this one is set by the sweep",
      ["status"] = "expected one folder",
      ["status /nonexistent"] = "there is no sweep in '/nonexistent': it has no sweep.json",
      ["run " .. folder .. " 1"] = "there is no sweep in",
    } do
      local text, errors, status = walks.command(words)
      assert.equal(words == "" and 0 or 1, status, words)
      assert.truthy((text .. errors):find(message, 1, true), text .. errors)
      assert.is_false(file_exists "walk-sweep/sweep.json")
    end
  end)

  it("keeps to one experiment per folder", function()
    sweep "--cell lstm"
    local _, errors, status = walks.command("experiments/parity.lua --out " .. out)
    assert.equal(1, status)
    assert.matches("holds a sweep of the experiment .*walk.lua, not experiments/parity.lua; %-%-out names", errors)
    _, errors, status = sweep "--cell lstm -- --notes a"
    assert.equal(1, status)
    assert.matches("holds a sweep of the arguments '', not '%-%-notes a'", errors)
    program.write(out .. "/sweep.json", '{"runs": [')
    _, errors, status = sweep "--cell lstm"
    assert.equal(1, status)
    assert.matches("sweep.json' is no whole description of a sweep", errors)
  end)
end)

describe("a sweep that is ended early", function()
  local words <const> = "--cell lstm,gru --seed 1..2 --steps 6 --pause 0.1"

  local function start(jobs)
    return walks.start(("%s %s --jobs %d --out %s"):format(walks.experiment, words, jobs, out), folder .. "/said")
  end

  -- Starts two runs at once, waits until both have walked a little, and returns the sweep and their processes.
  local function start_two()
    local process, wait = start(2)
    local name = "cell=lstm_seed=%d_steps=6_pause=0.1"
    for seed = 1, 2 do
      walks.wait(function() return #(walks.traces(out)[name:format(seed)] or {}) >= 3 end, "the second step")
    end
    return process, wait, { walker(name:format(1)), walker(name:format(2)) }
  end

  local function check_resumed(text)
    assert.matches("4 runs in .*: 0 are done, 4 are to do", text)
    local traces, processes = walks.traces(out), 0
    assert.equal(4, count_of(traces))
    for _, lines in pairs(traces) do processes = processes + walks.check(lines, 6) end
    assert.equal(6, processes)
  end

  for name, number in pairs { SIGKILL = 9, SIGINT = 2, SIGTERM = 15 } do
    it("by " .. name .. " takes its runs with it, and goes on from their checkpoints", function()
      local process, wait, walkers = start_two()
      os.execute(("kill -%d %d"):format(number, process))
      wait()
      walks.wait(function() return not (walks.alive(walkers[1]) or walks.alive(walkers[2])) end, "the runs to end")
      local text = walks.command("status " .. out)
      assert.matches("4 runs: 2 interrupted, 2 missing", text)
      assert.matches("\ninterrupted  runs/0001_cell=lstm_seed=1_steps=6_pause=0.1  began %d.* on ", text)
      local resumed, errors, status = sweep(words .. " --jobs 2")
      assert.equal(0, status, errors)
      check_resumed(resumed)
    end)
  end

  it("in one of its runs goes on with the others, names the signal, and comes back to it", function()
    local _, wait, walkers = start_two()
    os.execute("kill -9 " .. walkers[1])
    wait()
    local said = program.read(folder .. "/said")
    assert.matches("4 runs: 3 done, 1 failed", said)
    assert.matches("\nfailed +runs/0001_cell=lstm_seed=1_steps=6_pause=0.1  ended by signal 9 %(SIGKILL%)\n", said)
    local _, errors, status = sweep(words)
    assert.equal(0, status, errors)
    for name, lines in pairs(walks.traces(out)) do
      assert.equal(name == "cell=lstm_seed=1_steps=6_pause=0.1" and 2 or 1, walks.check(lines, 6))
    end
  end)

  it("beside another leaves each run to one of them", function()
    local _, wait = start(2)
    local text, errors, status = sweep(words .. " --jobs 3")
    wait()
    assert.equal(0, status, errors)
    assert.matches("4 runs: 4 done", text)
    assert.matches("4 runs: 4 done", program.read(folder .. "/said"))
    for _, lines in pairs(walks.traces(out)) do assert.equal(1, walks.check(lines, 6)) end
  end)
end)

describe("two sweeps that share a failing run", function()
  it("try it once, and both tell of it", function()
    local words = ("%s --cell gru --seed 1..2 --pause 1 --fail gru --jobs 2 --out %s"):format(walks.experiment, out)
    local _, wait = walks.start(words, folder .. "/said")
    local _, errors, status = walks.command(words)
    wait()
    assert.equal(1, status)
    for _, said in ipairs { errors, program.read(folder .. "/said") } do assert.matches("2 of 2 runs failed", said) end
    for seed = 1, 2 do
      local run = ("%s/runs/%04d_cell=gru_seed=%d_pause=1_fail=gru"):format(out, seed, seed)
      assert.equal(1, read_json(run .. "/FAILED").attempt)
    end
  end)
end)

describe("what a sweep tells", function()
  it("is how far it is, also while it runs", function()
    local words = "%s --seed 1..3 --steps 20 --pause 0.1 --out %s"
    local process, wait = walks.start(words:format(walks.experiment, out), folder .. "/said")
    walks.wait(function() return walker "seed=1_steps=20_pause=0.1" end, "the first run")
    local text = walks.command("status " .. out)
    os.execute("kill " .. process)
    wait()
    assert.matches("3 runs: 1 running, 2 missing", text)
    assert.matches("\nrunning      runs/0001_seed=1_steps=20_pause=0.1  on %S+ for 0:00:0%d\n", text)
    assert.matches("\nno plot: there is no result yet\n", text)
  end)

  it("is a table, JSON lines and a plot over the metric's list or of its numbers", function()
    for metric, title in pairs { accuracy = "lengths", loss = "greatest" } do
      out = folder .. "/" .. metric
      local text, errors, status = sweep("--cell lstm,gru --seed 1..2 --metric " .. metric)
      assert.equal(0, status, errors)
      assert.matches("plot: .*/summary.svg\n$", text)
      local picture = program.read(out .. "/summary.svg")
      assert.truthy(picture:find(title, 1, true))
      assert.truthy(picture:find(">" .. metric .. "<", 1, true))
      local lines = records(out .. "/summary.jsonl", "run")
      assert.equal(4, #lines)
      assert.same({ cell = "lstm", seed = "1", metric = metric }, lines[1].options)
      assert.same({ "done", 0.5 }, { lines[4].state, lines[4].result.loss })
    end
  end)

  it("passes over a line that is not whole", function()
    sweep "--seed 1 --metric loss"
    local path = out .. "/runs/0001_seed=1_metric=loss/walk.jsonl"
    program.write(path, program.read(path) .. '{"kind": "result", "loss": 9')
    assert.matches("loss: least  median  greatest  steps\n 1/1         0.25    0.25      0.25      1",
      (walks.command("status " .. out)))
  end)

  it("does not depend on Slurm's answer", function()
    sweep "--seed 1"
    assert(os.execute("mkdir " .. out .. "/slurm"))
    program.write(out .. "/slurm/array.sh", "")
    local text, errors, status = walks.command("status " .. out, "PATH=" .. folder)
    assert.equal(0, status, errors)
    assert.matches("1 runs: 1 done", text)
    assert.matches("Slurm's queue is not known: the program squeue was not found", errors)
    errors, status = select(2, sweep "--seed 2 --slurm")
    assert.equal(1, status)
    assert.matches("perilune: .*squeue", errors)
  end)
end)
