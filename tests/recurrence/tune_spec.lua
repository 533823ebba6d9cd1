-- The tuner with a made-up planner and made-up times, for a GPU that need not be here: what wins, what is remembered,
-- by this process and others, what the plans and `perilune tune` say.

local core = require "perilune.core"
local fused = require "perilune.rnn.fused"
local message_of = require "tests.message_of"
local new_folder = require "tests.new_folder"
local pl = require "perilune"
local plan = require "perilune.rnn.plan"
local probe = require "perilune.rnn.probe"
local steps = require "perilune.rnn.steps"
local program = require "tests.bind.program"
local tune = require "perilune.rnn.tune"
local tuned = require "perilune.rnn.tuned"
local zoo = require "tests.recurrence.zoo"

local chip <const> = { model = "Test GPU", architecture = 90, multiprocessors = 132, shared_bytes = 227 * 1024 }

local function problem(changes)
  local given = { cell = pl.cells.lstm, batch = 16, heads = 12, head_dim = 64, dtype = "bfloat16",
                  product = "bfloat16", device = "cuda:0" }
  for name, value in pairs(changes or {}) do given[name] = value end
  return given
end

-- The planner: five plans, best predicted first, of 37 looked at; none where there is no plan at all.
local forced <const> = { { rows = 4, ring = 8 }, { rows = 8, ring = 8 }, { rows = 4, ring = 4 }, { rows = 8, ring = 4 },
                         { rows = 4, ring = 8, writers_forward = 0 } }
local function ranked(of, on_chip, count)
  local list = {}
  for i = 1, math.min(count, #forced) do
    local given = { scope = "block" }
    for name, value in pairs(forced[i]) do given[name] = value end
    local found, why_not = fused.choose(of, on_chip, given)
    if not found then return nil, why_not end
    found.predicted_us, found.feasible = 1 + i / 100, 37
    list[i] = found
  end
  return list
end

-- A measuring function that gives these times (an error where it is a text), and the plans that it was given.
local function times(...)
  local list, seen = { ... }, {}
  return function(_, candidate)
    seen[#seen + 1] = candidate.plan
    local time = list[#seen]
    if type(time) == "string" then error(time, 0) end
    return time
  end, seen
end

local function is_not_measured() error "measured" end

local folder, before

before_each(function()
  folder = new_folder()
  before = { ranked = fused.ranked, measure = tune.measure, chip = core.fused_chip, cache = core.cache_folder,
             time = core.time, scaled = probe.scaled, tuning = pl.tuning(true) }
  fused.ranked, tune.measure = ranked, is_not_measured
  probe.scaled = function(of) return of end
  core.fused_chip = function() return chip end
  core.cache_folder = function() return folder end
end)

after_each(function()
  fused.ranked, tune.measure, core.fused_chip, core.cache_folder, core.time = before.ranked, before.measure,
    before.chip, before.cache, before.time
  probe.scaled = before.scaled
  pl.tuning(before.tuning)
  os.execute("rm -rf " .. folder)
end)

local function lines()
  local list = {}
  for line in io.lines(folder .. "/plans.jsonl") do list[#list + 1] = line end
  return list
end

describe("the tuner", function()
  it("takes the quickest of the four plans that the model thinks best", function()
    local measure, seen = times(2.5, 1.5, 3.5, 4.5, 0.5)
    local found = tune.choose(problem(), chip, measure)
    assert.equal(4, #seen)
    assert.same({ 8, 8 }, { found.plan.rows, found.plan.ring })
    assert.equal(found.plan.rows, found.arguments.rows)
    assert.same({ by = "measured", predicted_us = 1.02, measured_us = 1.5, feasible = 37, tried = 4 }, found.chosen)
  end)

  it("measures the alternating backend, too, where it may be the quicker one", function()
    local large = problem { batch = 512, heads = 1, head_dim = 768 }
    local function measure(_, candidate)
      if candidate.backend == "alternating" then return candidate.predicted_us / 2 end
      return 60 + candidate.plan.ring
    end
    fused.ranked = before.ranked
    local found = tune.measured(large, chip, measure)
    local alternating_us = steps.choose(large, chip).predicted_us / 2
    assert.near(alternating_us, found.chosen.alternating_us, 1e-9)
    assert.near(alternating_us, tune.remembered(large, chip).chosen.alternating_us, 1e-9)
    local made = plan.choose(large)
    assert.equal("alternating", made.backend)
    assert.matches(("not fused: measured 64.00 us a step\nalternating: one kernel"), made.reason(), 1, true)
    assert.equal("fused", plan.choose(large, "fused").backend)
    assert.is_nil(tune.measured(problem(), chip, measure).chosen.alternating_us)
  end)

  it("begins no plan that would end past two seconds, but always measures one", function()
    local function tried(seconds_each)
      local now = 0
      core.time = function() return now end
      local seen = 0
      local found = tune.measured(problem(), chip, function()
        now, seen = now + seconds_each, seen + 1
        return 5 - seen
      end)
      assert.equal(seen, found.chosen.tried)
      return seen
    end
    assert.equal(4, tried(0.5))
    assert.equal(3, tried(0.6))
    assert.equal(1, tried(1.5))
    assert.equal(1, tried(30))
  end)

  it("passes over what cannot be measured, and leaves the choice to the model when nothing can", function()
    local found = tune.measured(problem(), chip, times("first", 2, "third", 3))
    assert.same({ 8, 2, 2 }, { found.plan.rows, found.chosen.measured_us, found.chosen.tried })
    found = tune.measured(problem(), chip, times("first", "second", "third", "fourth"))
    assert.same({ by = "model", predicted_us = 1.01, feasible = 37, failure = "first" }, found.chosen)
    assert.matches("chosen by the model: .*; measuring failed: first", tune.explain(found.chosen))
    assert.is_nil(tune.remembered(problem { batch = 5 }, chip))
    local now = 0
    core.time = function() return now end
    found = tune.measured(problem(), chip, function(_, candidate)
      now = now + 3
      if candidate.plan.rows == 4 and candidate.plan.ring == 8 then error "first" end
      return 1
    end)
    assert.equal(8, found.plan.rows)
  end)

  it("says why there is no plan", function()
    local found, why_not = tune.choose(problem { head_dim = 1024 }, chip, is_not_measured)
    assert.is_nil(found)
    assert.matches("scope block", why_not)
  end)

  it("measures nothing where it is switched off, or the chip is not here", function()
    local function is_by_model(found)
      assert.same({ by = "model", predicted_us = 1.01, feasible = 37 }, found.chosen)
      assert.same({ 4, 8 }, { found.plan.rows, found.plan.ring })
    end
    is_by_model(tune.choose(problem(), chip, false))
    tune.measured(problem(), chip, times(4, 3, 2, 1))
    assert.equal("remembered", tune.choose(problem(), chip, false).chosen.by)
    assert.is_true(pl.tuning(false))
    is_by_model(tune.choose(problem(), chip))
    assert.is_false(pl.tuning())
    assert.is_false(pl.tuning(true))
    assert.matches("tuning: on: expected true or false, got number", message_of(pl.tuning, 1))
    for setting, expected in pairs { ["0"] = "false", off = "false", [""] = "true", on = "true" } do
      assert.equal(expected .. "\n", (program.run {
        before = "PERILUNE_TUNE=" .. setting, args = "-e 'print(require(\"perilune\").tuning())'" }))
    end
  end)
end)

describe("what was measured", function()
  local function remembered(changes) return tune.remembered(problem(changes), chip) end

  it("is remembered by device, cell, sizes and types", function()
    assert.is_nil(remembered())
    local found = tune.measured(problem(), chip, times(4, 3, 1.25, 2))
    local again = tune.choose(problem(), chip, is_not_measured)
    assert.same(found.plan, again.plan)
    assert.same(found.arguments, again.arguments)
    assert.same({ by = "remembered", predicted_us = 1.03, measured_us = 1.25, feasible = 37, tried = 4 }, again.chosen)
    for _, changes in ipairs { { cell = pl.cells.gru }, { batch = 8 }, { heads = 1 }, { head_dim = 56 },
                               { dtype = "float32" }, { product = "float16" }, { forward_clip = 1.5 } } do
      assert.is_nil(remembered(changes))
    end
    assert.is_nil(tune.remembered(problem(), { model = "Other GPU", architecture = 90, multiprocessors = 132,
                                               shared_bytes = 227 * 1024 }))
    local function step(g) return { h = pl.tanh(g.z) } end
    local function cell(name) return pl.cell { name = name, states = { "h" }, gates = { "z" }, step = step } end
    tune.measured(problem { cell = cell "one" }, chip, times(1, 2, 3, 4))
    assert.equal("remembered", remembered({ cell = cell "another" }).chosen.by)
  end)

  it("is replaced by what is measured later, and by what another process measures", function()
    tune.measured(problem(), chip, times(1, 2, 3, 4))
    tune.measured(problem(), chip, times(4, 3, 2, 0.75))
    assert.equal(0.75, remembered().chosen.measured_us)
    local record = tuned:find(tuned.subject(problem(), chip))
    record.measured_us = 0.5
    program.write(folder .. "/line", core.json_encode(record) .. "\n")
    assert(os.execute(("cat %s/line >> %s/plans.jsonl"):format(folder, folder)))
    assert.equal(0.5, remembered().chosen.measured_us)
    os.remove(folder .. "/plans.jsonl")
    assert.is_nil(remembered())
  end)

  it("survives lines that are damaged, foreign or unfinished", function()
    tune.measured(problem(), chip, times(1, 2, 3, 4))
    local good = lines()[1]
    local bad, changed = good:gsub('"batch": 16', '"batch": 0')
    assert.equal(1, changed)
    local all = { "", "nonsense", good, "[]", "3", bad, good:sub(1, 50) }
    program.write(folder .. "/plans.jsonl", table.concat(all, "\n"))
    assert.equal(1, remembered().chosen.measured_us)
    tune.measured(problem { batch = 8 }, chip, times(1, 2, 3, 4))
    assert.equal(1, remembered().chosen.measured_us)
    assert.equal(1, remembered({ batch = 8 }).chosen.measured_us)
    assert.equal(good:sub(1, 50), lines()[7])
  end)

  it("is passed over where this program has no such plan", function()
    local function change(field)
      tune.measured(problem(), chip, times(1, 2, 3, 4))
      assert.truthy(remembered())
      local record = tuned:find(tuned.subject(problem(), chip))
      field(record.plan)
      assert(tuned:add { record })
      assert.is_nil(remembered())
    end
    change(function(p) p.rows = 5 end)
    change(function(p) p.of_another_version = 1 end)
    change(function(p) p.scope = "continent" end)
    assert.equal("measured", tune.choose(problem(), chip, times(1, 2, 3, 4)).chosen.by)
  end)

  it("is used, too, where it cannot be written", function()
    core.cache_folder = function() return "/proc/nowhere" end
    local found = tune.choose(problem(), chip, times(4, 3, 2, 1))
    assert.same({ 8, 4 }, { found.plan.rows, found.plan.ring })
    assert.matches("/proc/nowhere': No such file or directory$", found.chosen.forgotten)
    assert.matches("; it is not remembered: cannot create", tune.explain(found.chosen))
    core.cache_folder = function() return nil, "no folder" end
    assert.equal("no folder", tune.choose(problem(), chip, times(4, 3, 2, 1)).chosen.forgotten)
    core.cache_folder = function() return folder end
    assert(os.execute("ln -s /dev/full " .. folder .. "/plans.jsonl"))
    assert.truthy(tune.choose(problem(), chip, times(4, 3, 2, 1)).chosen.forgotten)
  end)
end)

describe("several processes", function()
  it("append at once, and lose and tear nothing", function()
    tune.measured(problem(), chip, times(1, 2, 3, 4))
    local record = lines()[1]
    os.remove(folder .. "/plans.jsonl")
    program.write(folder .. "/append.lua", ([[
      local core, tuned = require "perilune.core", require "perilune.rnn.tuned"
      local record = core.json_decode(%q)
      record.heads = math.tointeger(arg[1])
      record.name = ("x"):rep(5000)
      for batch = 1, 100 do
        record.batch = batch
        assert(tuned:add { record })
      end
    ]]):format(record))
    assert(os.execute(("for i in 1 2 3 4; do XDG_CACHE_HOME=%s %s %s/append.lua $i 2>>%s/errors & done; wait"):format(
      folder, program.path, folder, folder)))
    assert.equal("", program.read(folder .. "/errors"))
    local path, count = folder .. "/perilune/plans.jsonl", 0
    tuned:scan(program.read(path), function(_, number, why_not)
      assert.is_nil(why_not, "line " .. number)
      count = count + 1
    end)
    assert.equal(400, count)
    core.cache_folder = function() return folder .. "/perilune" end
    assert.equal(400, #tuned:all())
  end)
end)

describe("a plan tells how it was chosen:", function()
  local function reason(given) return plan.choose(problem(), nil, given).reason() end

  it("by measurement, then from memory", function()
    tune.measure = times(2, 1.238, 3, 4)
    assert.matches("chosen by measurement: 1.24 us a step (model 1.02), the best of 4 measured of 37 looked at\n",
      reason(), 1, true)
    assert.matches("remembered measurement: 1.24 us a step (model 1.02), the best of 4 measured of 37 looked at",
      tune.explain(tune.remembered(problem(), chip).chosen), 1, true)
    assert.matches("chosen by measurement: ", reason(), 1, true) -- that choice stays: planning is once per shape
  end)

  it("by the model", function()
    pl.tuning(false)
    assert.matches("chosen by the model: predicted 1.01 us a step, of 37 looked at\n", reason(), 1, true)
  end)

  it("by force", function()
    assert.matches("\nforced: predicted %d+%.%d%d us a step\n", reason { scope = "block", rows = 8 })
    local found = plan.choose(problem(), nil, { rows = 8 }).fused
    assert.same({ 8, "forced" }, { found.plan.rows, found.chosen.by })
  end)
end)

-- A measuring function by which plans of each scope take that many times what the model says, and the scopes it saw.
local function slower(times_of_scope, seen)
  return function(of, candidate)
    seen[#seen + 1] = candidate.plan.scope
    local plain = fused.choose(of, { architecture = 90, multiprocessors = 132, shared_bytes = 227 * 1024 },
      { scope = candidate.plan.scope })
    return plain.predicted_us * times_of_scope[candidate.plan.scope]
  end
end

describe("a probe", function()
  local number = 0
  local new_chip

  before_each(function()
    fused.ranked, probe.scaled = before.ranked, before.scaled
    number = number + 1 -- what was found is known in this process, by the chip's name
    new_chip = { model = "Probed GPU " .. number, architecture = 90, multiprocessors = 132, shared_bytes = 227 * 1024 }
  end)

  it("measures one plan of each scope once, before the first tuning, and is remembered", function()
    local seen = {}
    local found = tune.measured(problem(), new_chip, slower({ block = 2, cluster = 3, grid = 4 }, seen))
    local scopes = { table.unpack(seen, 1, 3) }
    table.sort(scopes)
    assert.same({ "block", "cluster", "grid" }, scopes)
    assert.equal("block", found.plan.scope)
    local scale = probe.scaled(new_chip).scale
    assert.near(2, scale.block, 1e-12)
    assert.near(3, scale.cluster, 1e-12)
    assert.near(4, scale.grid, 1e-12)
    local before_second = #seen
    tune.measured(problem { batch = 8 }, new_chip, slower({ block = 2, cluster = 3, grid = 4 }, seen))
    assert.is_true(#seen - before_second <= 4)
    assert.matches('"block": 2%.0', program.read(folder .. "/probes.jsonl"))
  end)

  it("moves what the model predicts, and so what it chooses", function()
    local plain = fused.choose(problem { heads = 6, head_dim = 128 }, new_chip)
    assert.equal("cluster", plain.plan.scope)
    probe.measure("cuda:0", new_chip, slower({ block = 0.1, cluster = 2, grid = 1 }, {}))
    local found = fused.choose(problem { heads = 6, head_dim = 128 }, probe.scaled(new_chip))
    assert.equal("block", found.plan.scope)
    local cluster = fused.choose(problem { heads = 6, head_dim = 128 }, probe.scaled(new_chip), { scope = "cluster" })
    assert.near(2 * plain.predicted_us, cluster.predicted_us, 1e-9)
  end)

  it("leaves a scope that cannot be measured, or that the chip has not, as the model has it", function()
    local old = { model = new_chip.model, architecture = 80, multiprocessors = 108, shared_bytes = 163 * 1024 }
    probe.measure("cuda:0", old, function(_, candidate)
      if candidate.plan.scope == "grid" then error("no room", 0) end
      return 3 * candidate.predicted_us
    end)
    local scale = probe.scaled(old).scale
    assert.near(3, scale.block, 1e-12)
    assert.is_nil(scale.cluster)
    assert.is_nil(scale.grid)
    assert.is_true(fused.choose(problem { head_dim = 512 }, probe.scaled(old)).predicted_us > 0)
  end)

  it("is neither made nor used with tuning off", function()
    probe.measure("cuda:0", new_chip, slower({ block = 7, cluster = 7, grid = 7 }, {}))
    local on = tune.choose(problem(), new_chip, false)
    pl.tuning(false)
    local off = tune.choose(problem(), new_chip, is_not_measured)
    assert.near(7 * off.predicted_us, on.predicted_us, 1e-9)
    assert.matches("chosen by the model, adjusted to this device: predicted", tune.explain(on.chosen), 1, true)
    assert.matches("chosen by the model: predicted", tune.explain(off.chosen), 1, true)
  end)

  it("is used, too, where it cannot be written, and lines that are none are passed over", function()
    core.cache_folder = function() return "/proc/nowhere" end
    probe.measure("cuda:0", new_chip, slower({ block = 2, cluster = 2, grid = 2 }, {}))
    assert.near(2, probe.scaled(new_chip).scale.block, 1e-12)
    core.cache_folder = function() return folder end
    program.write(folder .. "/probes.jsonl", '{"device": "another"}\n{"device": 3, "block": -1}\nnonsense\n')
    assert.near(2, probe.scaled(new_chip).scale.block, 1e-12)
    assert.is_nil(probe.scaled({ model = "another", architecture = 90, multiprocessors = 1, shared_bytes = 1 }).scale)
  end)
end)

describe("measuring", function()
  local function on_cpu(cell, changes)
    local given = problem { cell = cell, batch = 2, heads = 2, head_dim = 8, dtype = "float32", product = "float32",
                            device = "cpu" }
    for name, value in pairs(changes or {}) do given[name] = value end
    return before.measure(given, {})
  end

  it("gives the time of a step, for every kind of cell", function()
    for _, entry in ipairs(zoo) do
      local us = on_cpu(entry.cell)
      assert(us > 0 and us < 1e5, entry.name)
    end
    assert.is_true(on_cpu(pl.cells.lstm, { product = "bfloat16", forward_clip = 0.5 }) > 0)
  end)

  it("leaves the caller's random numbers, gradients, types and memory alone", function()
    local function numbers(between)
      pl.seed(5)
      local first = pl.rand { 4 }:totable()
      if between then between() end
      return { first, pl.rand { 4 }:totable() }
    end
    local expected = numbers()
    assert.same(expected, numbers(function() on_cpu(pl.cells.lstm) end))
    local x = pl.ones({ 2 }):requires_grad()
    local y = (x * 3):sum()
    collectgarbage()
    local live = pl.memory().cpu.buffers
    assert.is_true(pl.no_grad(on_cpu, pl.cells.lstm) > 0)
    assert.is_true(pl.autocast("bfloat16", on_cpu, pl.cells.lstm) > 0)
    assert.is_true(pl.grad_enabled())
    collectgarbage()
    assert.equal(live, pl.memory().cpu.buffers)
    y:backward()
    assert.same({ 3, 3 }, x.grad:totable())
    pl.no_grad(function()
      on_cpu(pl.cells.lstm)
      assert.is_false(pl.grad_enabled())
    end)
  end)
end)

-- Runs `perilune tune` with words as its arguments, on the made-up GPU, where a plan's time is its rows and its ring.
local function command(words, more)
  local script = folder .. "/command.lua"
  program.write(script, ([[
    local core, fused, tune = require "perilune.core", require "perilune.rnn.fused", require "perilune.rnn.tune"
    core.fused_chip = function(device)
      if device == "cpu" then return nil end
      return { model = "Test GPU", architecture = 90, multiprocessors = 132, shared_bytes = 227 * 1024 }
    end
    fused.ranked = function(problem, chip, count)
      local list = {}
      for i, rows in ipairs { 4, 8 } do
        local found, why_not = fused.choose(problem, chip, { scope = 'block', rows = rows })
        if not found then return nil, why_not end
        found.predicted_us, found.feasible = 1 + i / 100, 37
        if i <= count then list[i] = found end
      end
      return list
    end
    tune.measure = function(_, candidate) return 20 - candidate.plan.rows - candidate.plan.ring end
    %s
    require "perilune.commands.tune" ()
  ]]):format(more or ""))
  local out, errors, status = program.run { before = "XDG_CACHE_HOME=" .. folder, args = script .. " " .. words }
  return out, errors, status
end

describe("perilune tune", function()
  it("measures a list of shapes and cells, and prints a table", function()
    local out, errors, status = command "16x12x64 2x1x12 --cell lstm,gru"
    assert.equal(0, status, out .. errors)
    assert.matches("tune 100%% 4/4", errors)
    assert.matches("lstm 16x12x64 +block, 8 rows +1%.02 +4%.00 +measured +rows 4\n",
      out)
    assert.matches("gru 2x1x12 +not fused: it takes a head_dim that is a multiple of 8, got 12", out)
    assert.matches("on this device: block %d+%.%d%d, cluster %d+%.%d%d, grid %d+%.%d%d\n", out)
    assert.matches("lstm 16x12x64 .* remembered ", (command "16x12x64"))
    assert.matches("lstm 16x12x64 .* measured ", (command "16x12x64 --again"))
    assert.matches("lstm 16x12x64 .* measured ", (command "16x12x64 --product float16"))
  end)

  it("takes the README's sizes unless it is given others", function()
    local out, errors, status = command "--dtype float16"
    assert.equal(0, status, out .. errors)
    for _, shape in ipairs { "1x12x64", "16x3x256", "8x1x2048" } do assert.matches("lstm " .. shape .. " ", out) end
  end)

  it("says what cannot be measured or remembered, and ends with status 1", function()
    local out, errors, status = command("16x12x64 8x12x64",
      "tune.measure = function(p) if p.batch == 8 then error('no room', 0) end return 1 end")
    assert.equal(1, status)
    assert.matches("lstm 8x12x64: no room", errors)
    assert.matches("lstm 16x12x64 .* measured", out)
    out, errors, status = command("64x12x64", "core.cache_folder = function() return '/proc/nowhere' end")
    assert.equal(1, status)
    assert.matches("what was measured is not remembered: cannot create the directory '/proc/nowhere'", errors)
    assert.matches("lstm 64x12x64 .* measured", out)
  end)

  it("exports what is remembered, and imports it elsewhere", function()
    local file = folder .. "/shared.jsonl"
    command "16x12x64 8x12x64"
    command "16x12x64 --again"
    local out, _, status = command("--export " .. file)
    assert.same({ 0, "exported 2 to " .. file .. "\n" }, { status, out })
    local records = program.read(file)
    os.execute("rm -r " .. folder .. "/perilune")
    assert.equal(("imported 2 from %s; 0 were not newer than what is here, 0 were refused\n"):format(file),
      (command("--import " .. file)))
    assert.matches("lstm 8x12x64 .* remembered ", (command "8x12x64"))
    assert.matches("^imported 0 .* 2 were not newer", (command("--import " .. file)))
    program.write(file, (records:gsub('"date": "%d+', '"date": "2001')) .. records) -- of two of a problem, the newer
    os.execute("rm -r " .. folder .. "/perilune")
    assert.matches("^imported 2 ", (command("--import " .. file)))
    assert.is_nil(program.read(folder .. "/perilune/plans.jsonl"):find "2001")
    local newer, bad = records:gsub('"date": "%d+', '"date": "9999', 1), records:gsub('"batch": %d+', '"batch": -1')
    program.write(file, newer .. "nonsense\n" .. bad:match "[^\n]+")
    local errors
    out, errors, status = command("--import " .. file)
    assert.equal(1, status)
    assert.matches("^imported 1 .* 1 were not newer than what is here, 2 were refused", out)
    assert.equal(("%s:3: refused: it is no JSON\n%s:4: refused: batch: expected an integer of at least 1, got '-1'\n")
      :format(file, file), errors)
  end)

  it("imports, measures and exports in this order", function()
    command "16x12x64"
    local first, second = folder .. "/first.jsonl", folder .. "/second.jsonl"
    command("--export " .. first)
    os.execute("rm -r " .. folder .. "/perilune")
    local out = command(("16x12x64 8x12x64 --import %s --export %s"):format(first, second))
    assert.matches("imported 1 .*16x12x64 .* remembered .*8x12x64 .* measured .*exported 2", out)
  end)

  it("names the option or shape that is wrong", function()
    for words, expected in pairs {
      ["16x12"] = "^shape '16x12': expected BATCHxHEADSxUNITS, such as 16x12x64\n",
      ["16x12x0"] = "^shape '16x12x0': expected BATCHxHEADSxUNITS",
      ["--cell foo"] = "^option %-%-cell: no cell 'foo'; there are elman",
      ["--dtype int8"] = "^option %-%-dtype: expected one of float32, bfloat16, float16, got 'int8'",
      ["--device cpu"] = "^option %-%-device: expected a GPU, got 'cpu'",
      ["--import"] = "^option %-%-import needs a value",
      ["--import /nonexistent"] = "^option %-%-import: /nonexistent: No such file or directory",
      ["--import /"] = "^option %-%-import: [^\n]*Is a directory",
      ["--export /nonexistent/x"] = "^option %-%-export: cannot create a file beside '/nonexistent/x'",
      ["--frob"] = "^unknown option '%-%-frob'",
    } do
      local out, errors, status = command(words)
      assert.same({ 1, "" }, { status, out })
      assert.matches(expected, errors)
      assert.equal("\n", errors:match "\n.*")
    end
  end)

  it("is a command of the program, which says where there is no GPU", function()
    assert.matches("\nperilune tune +measures how recurrences run best", (program.run { args = "--help" }))
    local help, _, status = program.run { args = "tune --help" }
    assert.equal(0, status)
    assert.matches("^usage: perilune tune %[SHAPES%] %[OPTIONS%]\n.*%-%-again", help)
    local out, errors
    out, errors, status = program.run { args = "tune --device cuda:99" }
    assert.same({ 1, "" }, { status, out })
    assert.matches("^option %-%-device: there is no 'cuda:99' here", errors)
  end)
end)
