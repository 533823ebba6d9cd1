-- Checkpoints and the training loop that goes on from them: bit for bit, after any kill, and past damaged files.
local pl = require "perilune"
local message_of = require "tests.message_of"
local new_folder = require "tests.new_folder"
local program = require "tests.bind.program"

local folder
before_each(function() folder = new_folder() end)
after_each(function() os.execute("rm -r " .. folder) end)

local read, write = program.read, program.write

-- A model with dropout, trained on random batches; `option` is added to those of the loop.
local function training(steps, option)
  pl.seed(5)
  local nn = pl.nn
  local model = nn.Sequential { nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1) }
  local all = {
    model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 0.01 }), steps = steps, progress = false,
    clip = 1,
    schedule = function(step) return 0.01 / step end,
    batch = function() return pl.randn { 4, 3 } end,
    loss = function(m, x) return (m(x) - x:sum(2, { keepdim = true })):square():mean() end,
    evaluate_every = 4,
    evaluate = function(m, step) return { size = m[1].weight:square():sum():item(), step = step } end,
  }
  for name, value in pairs(option) do all[name] = value end
  return all
end

local function parameters(model)
  local list = {}
  for name, t in pairs(model:state_dict()) do list[name] = t:totable() end
  return list
end

describe("train.loop with a checkpoint", function()
  it("goes on as if it had not stopped", function()
    local whole = training(20, {})
    local expected = pl.train.loop(whole)
    for _, stop in ipairs { 1, 7, 8 } do
      local path = ("%s/%d.safetensors"):format(folder, stop)
      local state = { calls = 0 }
      local function count(batch)
        return function(step)
          state.calls = state.calls + 1
          return batch(step)
        end
      end
      local first = training(20, { checkpoint = path, checkpoint_every = stop, state = state, log = path .. ".jsonl" })
      local batch = first.batch
      first.batch = count(function(step)
        if step == stop + 2 then error("killed", 0) end
        return batch(step)
      end)
      assert.are.equal("killed", message_of(pl.train.loop, first))

      state = {}
      local second = training(20, { checkpoint = path, state = state, log = path .. ".jsonl" })
      pl.rand { 100 } -- the random numbers are the checkpoint's
      second.batch = count(second.batch)
      local history = pl.train.loop(second)
      local resumed = (stop + 1) // stop * stop
      assert.are.equal(resumed, history.resumed)
      assert.are.equal(20 - resumed, #history.steps)
      assert.are.same(parameters(whole.model), parameters(second.model))
      assert.are.same(expected.evaluations, history.evaluations)
      assert.are.equal(20, state.calls)
      local steps = {}
      for line in io.lines(path .. ".jsonl") do
        local record = pl.json_decode(line)
        if record.loss then
          steps[#steps + 1] = record.step
          assert.are.equal(expected.steps[record.step].loss, record.loss)
        end
      end
      assert.are.equal(20, #steps)
    end
  end)

  it("goes on bit for bit with parameters of 16 bits, their masters and micro-batches", function()
    local path = folder .. "/half.safetensors"
    local function half(steps, option)
      local made = training(steps, option)
      made.model:to("bfloat16")
      made.optimizer = pl.optim.AdamW(made.model:parameters(), { lr = 0.01 })
      made.batch = function() return pl.randn { 4, 3, dtype = "bfloat16" } end
      made.accumulate = 2
      return made
    end
    local whole = half(12, {})
    local expected = pl.train.loop(whole)
    pl.train.loop(half(5, { checkpoint = path }))
    local second = half(12, { checkpoint = path })
    local history = pl.train.loop(second)
    assert.are.equal(5, history.resumed)
    for i, record in ipairs(history.steps) do assert.are.equal(expected.steps[5 + i].loss, record.loss) end
    local masters = parameters(whole.optimizer)
    assert.is_not_nil(masters["1.master.1"])
    assert.are.same(masters, parameters(second.optimizer))
    assert.are.same(parameters(whole.model), parameters(second.model))
  end)

  it("names the last good one when a loss, a gradient or the parameters are not finite", function()
    local path = folder .. "/c.safetensors"
    local last = "the last good checkpoint is '" .. path:gsub("%p", "%%%0") .. "', of step 6$"
    local function broken(step_of, what, option)
      local now
      local all = training(20, { checkpoint = path, checkpoint_every = 3 })
      local batch, loss = all.batch, all.loss
      all.batch = function(step)
        now = step
        return batch(step)
      end
      all.loss = function(m, x)
        local value = loss(m, x)
        return now < step_of and value or what(m, value)
      end
      for name, value in pairs(option or {}) do all[name] = value end
      return message_of(pl.train.loop, all)
    end
    local function no_number(_, value) return value * (0 / 0) end
    local function steep(m, value) -- without bound at 0
      return value + pl.sqrt(m[3].weight - m[3].weight:detach()):sum()
    end
    assert.matches("loss of step 1 .*; there is no checkpoint yet$", broken(1, no_number))
    assert.matches("the loss of step 8 is %-?nan.*" .. last, broken(8, no_number))
    assert.matches("the gradient of step 8 is .*" .. last, broken(8, steep))
    local free = { clip = false }
    assert.matches("the norm of the parameters is %-?nan after step 9; " .. last, broken(9, steep, free))
    local option = training(20, { checkpoint = path })
    assert.are.equal(6, pl.checkpoint.load(path, { model = option.model, optimizer = option.optimizer }).step)
  end)

  it("has nothing to do after its end", function()
    local path = folder .. "/c.safetensors"
    local stop = function(_, step) return { step = step }, step == 8 end
    pl.train.loop(training(20, { checkpoint = path, evaluate = stop }))
    local function never() error "never" end
    local again = pl.train.loop(training(20, { checkpoint = path, evaluate = stop, batch = never }))
    assert.are.same({ 8, true, 0 }, { again.resumed, again.stopped, #again.steps })
    assert.are.same({ { step = 4 }, { step = 8 } }, again.evaluations)
    local further = pl.train.loop(training(8, { checkpoint = path, batch = never }))
    assert.are.equal(0, #further.steps)
  end)

  it("begins its log anew after a kill before the first checkpoint, within a line, too", function()
    local path = folder .. "/c.safetensors"
    write(folder .. "/log.jsonl", '{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    for _, steps in ipairs { 2, 3 } do
      pl.train.loop(training(steps, { checkpoint = path, log = folder .. "/log.jsonl" }))
    end
    local steps = {}
    for line in io.lines(folder .. "/log.jsonl") do
      local record = pl.json_decode(line)
      if record.loss then steps[#steps + 1] = record.step end
    end
    assert.are.same({ 1, 2, 3 }, steps)
  end)

  it("is not needed by a log, to which a line that was cut short is no harm", function()
    write(folder .. "/log.jsonl", '{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    pl.train.loop(training(2, { log = folder .. "/log.jsonl", evaluate = false }))
    local steps = {}
    for line in io.lines(folder .. "/log.jsonl") do steps[#steps + 1] = pl.json_decode(line).step end
    assert.are.same({ 1, 1, 2 }, steps)
  end)

  it("is saved at the end, also where the batches end", function()
    local path = folder .. "/c.safetensors"
    local option = training(20, { checkpoint = path, checkpoint_every = 3 })
    local batch = option.batch
    option.batch = function(step) return step <= 10 and batch(step) or nil end
    pl.train.loop(option)
    assert.are.equal(10, pl.checkpoint.load(path, { model = option.model, optimizer = option.optimizer }).step)
  end)

  it("refuses options that mean nothing", function()
    assert.matches("checkpoint: expected a string", message_of(pl.train.loop, training(2, { checkpoint = 3 })))
    assert.matches("checkpoint_every: expected", message_of(pl.train.loop,
      training(2, { checkpoint = folder .. "/c.safetensors", checkpoint_every = 0 })))
    assert.matches("state: expected a table", message_of(pl.train.loop, training(2, { state = 1 })))
  end)
end)

describe("checkpoint", function()
  local before
  local function saved(count)
    before = folder .. "/c.before.safetensors"
    local path, layer = folder .. "/c.safetensors", pl.nn.Linear(2, 2)
    for i = 1, count do pl.checkpoint.save(path, { model = layer }, { number = i }) end
    return path, layer
  end

  it("has texts of any length for its state", function()
    local path = folder .. "/c.safetensors"
    local long = ("é"):rep(300000)
    pl.checkpoint.save(path, {}, { text = long })
    assert.are.equal(long, pl.checkpoint.load(path, {}).text)
  end)

  it("is nil where there is none", function() assert.is_nil(pl.checkpoint.load(folder .. "/none.safetensors", {})) end)

  it("keeps the one before", function()
    local path, layer = saved(3)
    assert.are.equal(3, pl.checkpoint.load(path, { model = layer }).number)
    assert.are.equal(2, pl.checkpoint.load(before, { model = layer }).number)
  end)

  it("that is cut short anywhere gives way to the one before, and tells so", function()
    local path = saved(2)
    local whole = read(path)
    for _, length in ipairs { 0, 5, 8, 40, #whole // 2, #whole - 1 } do
      write(path, whole:sub(1, length))
      local text, errors, status = program.evaluate(([[local pl = require "perilune"
        print(pl.checkpoint.load(%q, { model = pl.nn.Linear(2, 2) }).number)]]):format(path))
      assert.are.same({ "1\n", 0 }, { text, status }, errors)
      assert.matches("warning: .*" .. path:gsub("%p", "%%%0"), errors)
      assert.matches("going on from '" .. before:gsub("%p", "%%%0"), errors)
    end
    write(before, "x")
    assert.matches("c.safetensors", message_of(pl.checkpoint.load, path, { model = pl.nn.Linear(2, 2) }))
  end)

  it("that is damaged does not become the one before, whatever happens meanwhile", function()
    local path = saved(2)
    write(path, "x")
    local _, errors, status = program.run { before = "ulimit -f 4; trap '' XFSZ;", args = "-e " .. program.quote(([[
      local pl, path = require "perilune", %q
      pl.checkpoint.load(path, { model = pl.nn.Linear(2, 2) })
      pl.checkpoint.save(path, { model = pl.nn.Linear(100, 100) })]]):format(path)) }
    assert.are.equal(1, status)
    assert.matches("cannot write", errors)
    local parts = { model = pl.nn.Linear(2, 2) }
    assert.are.equal(1, pl.checkpoint.load(path, parts).number)
    for number = 3, 4 do pl.checkpoint.save(path, parts, { number = number }) end
    assert.are.same({ 4, 3 }, { pl.checkpoint.load(path, parts).number, pl.checkpoint.load(before, parts).number })
  end)

  it("that cannot be read is not one that is missing", function()
    local path = saved(1)
    assert(os.remove(path) and os.execute(("ln -s c.safetensors %s"):format(path))) -- to itself
    assert.matches("cannot read " .. path:gsub("%p", "%%%0") .. ": Too many levels",
      message_of(pl.checkpoint.load, path, {}))
  end)

  it("that is missing because it was just being replaced gives way to the one before", function()
    local path, layer = saved(2)
    os.remove(path)
    assert.are.equal(1, pl.checkpoint.load(path, { model = layer }).number)
  end)

  it("names what does not fit", function()
    local path, layer = saved(1)
    local file = "'" .. path:gsub("%p", "%%%0") .. "'"
    assert.matches(file .. " holds 'model%..-', which is of none of the parts",
      message_of(pl.checkpoint.load, path, {}))
    assert.matches("expected shape", message_of(pl.checkpoint.load, path, { model = pl.nn.Linear(2, 3) }))
    pl.save(path, { weight = layer.weight })
    os.remove(before)
    assert.matches(file .. " is no checkpoint", message_of(pl.checkpoint.load, path, { model = layer }))
    assert.matches("path: expected a name ending in .safetensors, got 'c'", message_of(pl.checkpoint.load, "c", {}))
    assert.matches("parts: expected names and objects", message_of(pl.checkpoint.save, path, { model = 1 }))
  end)

  it("names the file that a full disk cannot take, and leaves the one before", function()
    local path, layer = saved(1)
    local _, errors, status = program.run { before = "ulimit -f 4; trap '' XFSZ;", args = "-e " .. program.quote(([[
      local pl = require "perilune"
      pl.checkpoint.save(%q, { model = pl.nn.Linear(100, 100) })]]):format(path)) }
    assert.are.equal(1, status)
    assert.matches("cannot write '" .. path:gsub("%p", "%%%0") .. "'?.*: File too large", errors)
    assert.are.equal(1, pl.checkpoint.load(path, { model = layer }).number)
    assert.matches("cannot write '/dev/full': No space left on device", message_of(pl.train.loop,
      training(3, { log = "/dev/full" })))
  end)
end)
