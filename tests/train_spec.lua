-- The training loop: what it records, evaluates, stops at, refuses and leaves behind.
local pl = require "perilune"
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

-- A linear model that learns y = 2 x, and the options of a loop that trains it.
local function setting(steps)
  pl.seed(3)
  local model = pl.nn.Linear(1, 1)
  return {
    model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 0.1 }), steps = steps, progress = false,
    batch = function(step)
      local x = pl.full({ 4, 1 }, 1 + step % 2)
      return { x = x, y = x * 2 }
    end,
    loss = function(m, batch) return pl.nn.mse_loss(m(batch.x), batch.y) end,
  }
end

describe("train.loop", function()
  it("trains and returns the history", function()
    local option = setting(60)
    local history = pl.train.loop(option)
    assert.are.equal(60, #history.steps)
    assert.is_true(history.steps[60].loss < 0.01 and history.steps[1].loss > history.steps[60].loss)
    near({ 2, 4 }, option.model(pl.tensor { { 1 }, { 2 } }):reshape({ 2 }):totable(), 0.1)
    assert.is_nil(history.stopped)
  end)

  it("evaluates without gradients in evaluation mode, and stops when told", function()
    local option = setting(50)
    local seen = {}
    option.evaluate_every = 5
    option.evaluate = function(model, step)
      seen[#seen + 1] = step
      assert.is_false(model.training)
      assert.is_false(pl.grad_enabled())
      return { score = step }, step == 15
    end
    local history = pl.train.loop(option)
    assert.are.same({ 5, 10, 15 }, seen)
    assert.are.equal(15, #history.steps)
    assert.are.equal(10, history.evaluations[2].score)
    assert.is_true(history.stopped)
    assert.is_true(option.model.training)
  end)

  it("evaluates at the last step by default, and ends when the batches do", function()
    local option = setting(7)
    option.evaluate = function() return 4 end
    assert.are.same({ { value = 4, step = 7 } }, pl.train.loop(option).evaluations)
    option = setting(50)
    local batch = option.batch
    option.batch = function(step)
      if step <= 3 then return batch(step) end
    end
    assert.are.equal(3, #pl.train.loop(option).steps)
  end)

  it("clips and follows a schedule", function()
    local option = setting(4)
    option.clip, option.schedule = 0.001, pl.optim.cosine { warmup = 2, total = 4, peak = 0.5 }
    local before = option.model.weight:item()
    local history = pl.train.loop(option)
    near(0.25, history.steps[1].lr, 1e-12)
    near(0.5, history.steps[2].lr, 1e-12)
    near(0, history.steps[4].lr, 1e-12)
    assert.is_true(history.steps[1].grad_norm > 0.001)
    assert.is_true(math.abs(option.model.weight:item() - before) < 0.002)
  end)

  it("appends JSON lines", function()
    local option = setting(4)
    option.log, option.log_every = os.tmpname(), 2
    option.evaluate = function() return { score = 1 } end
    pl.train.loop(option)
    local steps = {}
    for line in io.lines(option.log) do
      local record = pl.json_decode(line)
      steps[#steps + 1] = ("%d %s"):format(record.step, record.score and "evaluation" or "step")
      if record.loss then assert.is_true(record.loss >= 0 and record.ms > 0 and record.lr == 0.1) end
    end
    os.remove(option.log)
    assert.are.same({ "2 step", "4 step", "4 evaluation" }, steps)
    option.log = "/nonexistent/log"
    assert.matches("cannot write '/nonexistent/log': No such file", message_of(pl.train.loop, option))
  end)

  it("stops with an error that names the step when the loss is not finite", function()
    local option = setting(10)
    local loss, batch, step_now, before = option.loss, option.batch, nil, nil
    option.batch = function(step)
      step_now, before = step, option.model.weight:item()
      return batch(step)
    end
    option.loss = function(m, b)
      return step_now == 3 and loss(m, b) * (0 / 0) or loss(m, b)
    end
    assert.matches("the loss of step 3 is %-?nan", message_of(pl.train.loop, option))
    assert.are.equal(3, step_now)
    near(before, option.model.weight:item(), 0)
  end)

  it("stops before an infinite gradient reaches the parameters", function()
    local option = setting(3)
    option.clip = 1
    local loss = option.loss
    option.loss = function(m, b)
      return loss(m, b) + pl.sqrt(m.weight - m.weight:detach()):sum() -- a slope without bound at 0
    end
    local before = option.model.weight:item()
    assert.matches("the gradient of step 1 is inf .*the parameters are those before", message_of(pl.train.loop, option))
    near(before, option.model.weight:item(), 0)
  end)

  it("with float16 products skips steps that overflow, lowers the scale and learns on", function()
    local option = setting(60)
    option.autocast, option.clip = "float16", 10
    option.scaler = pl.optim.GradScaler { init_scale = 2.0 ^ 30 } -- the gradients of the output are past 65504
    local before, skipped = option.model.weight:item(), 0
    local batch = option.batch
    option.batch = function(step)
      if step == 2 then near(before, option.model.weight:item(), 0) end
      return batch(step)
    end
    local history = pl.train.loop(option)
    for i, record in ipairs(history.steps) do
      skipped = skipped + (record.skipped and 1 or 0)
      assert.are.equal(record.skipped, i <= skipped) -- the first ones, and none later
      assert.are.equal(record.skipped, record.grad_norm == nil)
      near(2.0 ^ (30 - math.min(i - 1, skipped)), record.scale, 0)
    end
    assert.is_true(skipped > 5 and skipped < 25, skipped .. " skipped")
    assert.is_true(history.steps[60].loss < 0.01)
  end)

  it("keeps with a scale what float16 flushes to zero", function()
    local option = setting(1)
    local loss = option.loss
    option.autocast, option.clip = "float16", 1
    option.loss = function(m, b) return loss(m, b) * 1e-9 end
    local norm = pl.train.loop(option).steps[1].grad_norm
    option.autocast = nil
    local exact = pl.train.loop(option).steps[1].grad_norm
    assert.is_true(exact > 0 and math.abs(norm - exact) < 1e-2 * exact, norm .. " and " .. exact)
  end)

  it("stops when no scale makes the gradient finite", function()
    local option = setting(100)
    option.scaler = pl.optim.GradScaler { init_scale = 1 }
    local loss = option.loss
    option.loss = function(m, b)
      return loss(m, b) + pl.sqrt(m.weight - m.weight:detach()):sum()
    end
    local before = option.model.weight:item()
    assert.matches("the gradient of step 16 is not finite at any scale of the loss", message_of(pl.train.loop, option))
    near(before, option.model.weight:item(), 0)
    option.scaler = 3
    assert.matches("scaler: expected an optim.GradScaler, got a number", message_of(pl.train.loop, option))
  end)

  it("leaves memory flat, also when a step fails", function()
    local option = setting(5)
    option.clip = 1
    pl.train.loop(option)
    collectgarbage() -- what earlier tests left
    local before = pl.memory().cpu.buffers
    option.steps = 50
    option.evaluate_every = 10
    option.evaluate = function(m) return m(pl.ones { 3, 1 }):mean():item() end
    pl.train.loop(option)
    assert.are.equal(before, pl.memory().cpu.buffers)
    option.loss = function(m, batch)
      m(batch.x)
      error("on purpose")
    end
    assert.matches("on purpose", message_of(pl.train.loop, option))
    assert.are.equal(before - 2, pl.memory().cpu.buffers) -- the gradients went before the forward
  end)

  it("gives a monitor what it records", function()
    local option = setting(40)
    option.monitor, option.clip, option.schedule = pl.monitor(), math.huge, function(step) return 0.1 / step end
    option.progress = false
    option.evaluate_every = 20
    option.evaluate = function() return { score = 3, note = "text" } end
    option.report = function(record) return { twice = 2 * record.loss } end
    option.monitor.log = option.monitor.add -- nothing is to be drawn here
    local history = pl.train.loop(option)
    local curves, last = option.monitor.curves, history.steps[40]
    assert.are.same({ "grad_norm", "loss", "lr", "twice", "evaluation score" }, option.monitor.names)
    assert.are.equal(2 * last.loss, curves.twice.last)
    assert.are.same({ last.loss, last.grad_norm, last.lr, 3 },
      { curves.loss.last, curves.grad_norm.last, curves.lr.last, curves["evaluation score"].last })
    assert.are.same({ 40, 2 }, { #curves.loss.points, #curves["evaluation score"].points })
    assert.are.equal(history.steps[7].loss, curves.loss.points[7].y)
  end)

  it("draws one line, the bar's or the monitor's, also when a step fails", function()
    local program = require "bind.program"
    local function lines_of(progress)
      local _, err = program.evaluate(([[
        local pl = require "perilune"
        local model = pl.nn.Linear(1, 1)
        pcall(pl.train.loop, { model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 0.1 }), steps = 8,
          monitor = true, progress = %s, label = "fit",
          batch = function(step) return step < 5 and step or error "no" end,
          loss = function(m, step) return m(pl.full({ 1, 1 }, step)):sum() * 0 end })]]):format(progress))
      return err
    end
    assert.are.equal("fit  step 4  loss 0\n", lines_of "false")
    local bar = lines_of "true"
    assert.not_matches("step 4", bar)
    assert.matches("^fit.*loss 0.0000\n$", bar)
  end)

  it("tells beside the bar which numbers are of an evaluation", function()
    local _, bar = require("bind.program").evaluate [[
      local pl = require "perilune"
      local model = pl.nn.Linear(1, 1)
      pl.train.loop { model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 0.1 }), steps = 1,
        report = function() return { rate = 2000.4 } end, evaluate = function() return { loss = 0.5 } end,
        batch = function(step) return step end,
        loss = function(m, step) return m(pl.full({ 1, 1 }, step)):sum() * 0 end }]]
    assert.matches("loss 0.0000, rate 2000, evaluation loss 0.5\n$", bar)
  end)

  it("follows the mean of micro-batches as it would one batch of them all", function()
    local function trained(micro)
      local option = setting(6)
      option.clip, option.evaluate = 1, nil
      option.optimizer = pl.optim.AdamW(option.model:parameters(), { lr = 0.1 })
      local x = pl.randn { 6, 12, 1 }
      option.accumulate = micro
      option.batch = function(step, i)
        local rows = 12 // micro
        local part = x:select(1, step):narrow(1, (i - 1) * rows + 1, rows)
        return { x = part, y = part * 2 }
      end
      return pl.train.loop(option), option.model
    end
    local whole, model = trained(1)
    for _, micro in ipairs { 2, 3 } do
      local history, other = trained(micro)
      for step, record in ipairs(history.steps) do
        near(whole.steps[step].loss, record.loss, 1e-5)
        near(whole.steps[step].grad_norm, record.grad_norm, 1e-5)
      end
      near(model.weight:totable(), other.weight:totable(), 1e-5)
    end
  end)

  it("adds up gradients of 16 bits in float32", function()
    local model = pl.nn.Linear(1, 1, { bias = false }):to("bfloat16")
    local gradient
    local optimizer = pl.optim.SGD(model:parameters(), { lr = 0 })
    local step = optimizer.step
    function optimizer:step()
      gradient = model.weight.grad:item()
      return step(self)
    end
    pl.train.loop {
      model = model, optimizer = optimizer, steps = 1, progress = false, accumulate = 513,
      batch = function(_, i) return pl.full({ 1, 1 }, i == 1 and 512 or 1, { dtype = "bfloat16" }) end,
      loss = function(m, x) return m(x):sum() * 513 end,
    }
    near(1024, gradient, 0) -- one by one they would all be lost beside 512 in bfloat16
  end)

  it("takes no step whose micro-batches end early, and asks for no others", function()
    local option, asked = setting(50), {}
    local batch, before = option.batch, nil
    option.accumulate = 2
    option.batch = function(step, i)
      asked[#asked + 1] = ("%d.%d"):format(step, i)
      if step == 2 then before = option.model.weight:item() end
      if step < 2 or i < 2 then return batch(step) end
    end
    assert.are.equal(1, #pl.train.loop(option).steps)
    assert.are.same({ "1.1", "1.2", "2.1", "2.2" }, asked)
    near(before, option.model.weight:item(), 0)
  end)

  it("adds to the record what report gives", function()
    local option = setting(3)
    option.report = function(record) return { double_step = 2 * record.step } end
    option.log = os.tmpname()
    assert.are.equal(6, pl.train.loop(option).steps[3].double_step)
    local lines = {}
    for line in io.lines(option.log) do lines[#lines + 1] = pl.json_decode(line).double_step end
    os.remove(option.log)
    option.log = nil
    assert.are.same({ 2, 4, 6 }, lines)
    option.report = function() return { loss = 1 } end
    assert.matches("report: expected numbers under new names, got loss = 1", message_of(pl.train.loop, option))
    option.report = function() return 1 end
    assert.matches("report: expected it to return a table of numbers, got a number",
      message_of(pl.train.loop, option))
  end)

  it("names what is wrong with its options", function()
    local option = setting(1)
    option.batches = option.batch
    assert.matches("unknown option 'batches'; expected accumulate, autocast, batch", message_of(pl.train.loop, option))
    option.batches, option.model = nil, 4
    assert.matches("model: expected a module, got a number", message_of(pl.train.loop, option))
    option = setting(1)
    option.monitor = 3
    assert.matches("monitor: expected true or a pl.monitor, got 3", message_of(pl.train.loop, option))
    option = setting(1)
    option.batch = nil
    assert.matches("batch: expected a function, got nothing", message_of(pl.train.loop, option))
    option = setting(1)
    option.accumulate = 0
    assert.matches("accumulate: expected an integer of at least 1, got 0", message_of(pl.train.loop, option))
    option = setting(1)
    option.evaluate = function() return "good" end
    assert.matches("evaluate: expected it to return a number or a table of numbers, got a string",
      message_of(pl.train.loop, option))
  end)
end)
