-- Optimisers against plain Lua updates of the same numbers, clipping, schedules, the scale of a loss.
local pl = require "perilune"
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local function parameter(values)
  return pl.nn.parameter(pl.tensor(values, { dtype = "float64" }))
end

-- The gradient of sum(w * p^2) / 2 is w * p: easy to follow by hand.
local w <const> = { 1, 2, -3 }

local function give_gradient(p)
  (pl.tensor(w, { dtype = "float64" }) * p * p * 0.5):sum():backward()
end

-- Runs `steps` steps of the optimiser on one parameter and update(p, g, t, i) in Lua; compares after each.
local function follow(optimizer, p, steps, update)
  local mine = p:totable()
  for t = 1, steps do
    optimizer:zero_grad()
    give_gradient(p)
    optimizer:step()
    for i, value in ipairs(mine) do mine[i] = update(value, w[i] * value, t, i) end
    near(mine, p:totable(), 1e-12)
  end
end

describe("SGD", function()
  it("moves against the gradient", function()
    local p = parameter { 1, -2, 3 }
    follow(pl.optim.SGD({ p }, { lr = 0.1 }), p, 3, function(x, g) return x - 0.1 * g end)
  end)

  for _, nesterov in ipairs { false, true } do
    it("with momentum and weight decay, nesterov " .. tostring(nesterov), function()
      local p, sum = parameter { 1, -2, 3 }, { 0, 0, 0 }
      local options = { lr = 0.05, momentum = 0.9, weight_decay = 0.1, nesterov = nesterov }
      follow(pl.optim.SGD({ p }, options), p, 5, function(x, g, _, i)
        g = g + 0.1 * x
        sum[i] = 0.9 * sum[i] + g
        return x - 0.05 * (nesterov and g + 0.9 * sum[i] or sum[i])
      end)
    end)
  end
end)

for _, kind in ipairs { "Adam", "AdamW" } do
  describe(kind, function()
    it("follows the published update", function()
      local p, m, v = parameter { 1, -2, 3 }, { 0, 0, 0 }, { 0, 0, 0 }
      local options = { lr = 0.01, betas = { 0.8, 0.95 }, eps = 1e-6, weight_decay = 0.2 }
      follow(pl.optim[kind]({ p }, options), p, 6, function(x, g, t, i)
        if kind == "Adam" then g = g + 0.2 * x else x = x - 0.01 * 0.2 * x end
        m[i], v[i] = 0.8 * m[i] + 0.2 * g, 0.95 * v[i] + 0.05 * g * g
        return x - 0.01 * (m[i] / (1 - 0.8 ^ t)) / (math.sqrt(v[i] / (1 - 0.95 ^ t)) + 1e-6)
      end)
    end)

    it("goes on from a saved state as if it had not stopped", function()
      local p = parameter { 1, -2, 3 }
      local optimizer = pl.optim[kind]({ p }, { lr = 0.01 })
      for _ = 1, 3 do optimizer:zero_grad() give_gradient(p) optimizer:step() end
      local q = parameter(p:totable())
      local other = pl.optim[kind]({ q }, { lr = 0.01 })
      local name = os.tmpname()
      local path = name .. ".safetensors"
      pl.save(path, optimizer:state_dict())
      other:load_state_dict(pl.load(path))
      os.remove(path)
      os.remove(name)
      for _, pair in ipairs { { p, optimizer }, { q, other } } do
        pair[2]:zero_grad()
        give_gradient(pair[1])
        pair[2]:step()
      end
      near(p:totable(), q:totable(), 0)
      assert.matches("1.first.1: expected a tensor, got nothing", message_of(other.load_state_dict, other,
        { steps = pl.tensor({ 1 }), ["1.second.1"] = pl.zeros { 3 } }))
    end)
  end)
end

describe("an optimiser", function()
  it("takes groups with options of their own, and skips parameters without a gradient", function()
    local a, b, idle = parameter { 1, 1, 1 }, parameter { 1, 1, 1 }, parameter { 1, 1, 1 }
    local optimizer = pl.optim.SGD({ { params = { a } }, { params = { b, idle }, lr = 0.2 } }, { lr = 0.1 })
    give_gradient(a)
    give_gradient(b)
    optimizer:step()
    near({ 0.9, 0.8, 1.3 }, a:totable(), 1e-12)
    near({ 0.8, 0.6, 1.6 }, b:totable(), 1e-12)
    near({ 1, 1, 1 }, idle:totable(), 0)
    optimizer:set_lr(0.01)
    near(0.01, optimizer.groups[1].lr, 1e-12)
    near(0.02, optimizer.groups[2].lr, 1e-12)
    optimizer:zero_grad()
    assert.is_nil(a.grad)
  end)

  it("leaves no buffers behind", function()
    local p = parameter { 1, -2, 3 }
    local optimizer = pl.optim.AdamW({ p })
    local function step()
      local _ <close> = pl.scope()
      optimizer:zero_grad()
      give_gradient(p)
      pl.optim.clip_grad_norm({ p }, 0.1)
      optimizer:step()
    end
    step()
    local before = pl.memory().cpu.buffers
    for _ = 1, 20 do step() end
    assert.are.equal(before, pl.memory().cpu.buffers)
  end)

  it("names what is wrong", function()
    local p = parameter { 1 }
    assert.matches("optim.SGD: lr: expected a number of at least 0, got %-1",
      message_of(pl.optim.SGD, { p }, { lr = -1 }))
    assert.matches("unknown option 'rate'; expected lr, momentum", message_of(pl.optim.SGD, { p }, { rate = 1 }))
    assert.matches("params: expected at least one tensor, got an empty list", message_of(pl.optim.Adam, {}))
    assert.matches("params: expected a table, got nothing", message_of(pl.optim.Adam))
    assert.matches("params%[2%]: expected a tensor, got 3", message_of(pl.optim.Adam, { p, 3 }))
    assert.matches("betas: expected a table, got 0.9", message_of(pl.optim.Adam, { p }, { betas = 0.9 }))
    assert.matches("a tensor is there twice", message_of(pl.optim.Adam, { p, p }))
  end)
end)

describe("clip_grad_norm", function()
  it("returns the norm of all gradients and scales them together", function()
    local a, b = parameter { 3, 0, 0 }, parameter { 0, 2, 0 }
    give_gradient(a)
    give_gradient(b) -- gradients 3 and 4
    near(5, pl.optim.clip_grad_norm({ a, b, parameter { 1, 1, 1 } }, 1), 1e-12)
    near({ 0.6, 0, 0 }, a.grad:totable(), 1e-6)
    near({ 0, 0.8, 0 }, b.grad:totable(), 1e-6)
    near(1, pl.optim.clip_grad_norm({ a, b }, 2), 1e-6)
    near({ 0.6, 0, 0 }, a.grad:totable(), 1e-6)
  end)

  local nan <const> = 0 / 0

  -- Two parameters of which the first has a gradient that is not finite.
  local function broken(value)
    local a, b = parameter { 1, 1 }, parameter { 1 };
    (a * pl.tensor({ value, 1 }, { dtype = "float64" })):sum():backward();
    (b * 2):sum():backward()
    return a, b
  end

  it("makes all gradients NaN when their norm is, and the finite ones zero when it is infinite", function()
    local a, b = broken(nan)
    local norm = pl.optim.clip_grad_norm({ a, b }, 1)
    assert.is_true(norm ~= norm)
    for _, p in ipairs { a, b } do
      for _, value in ipairs(p.grad:totable()) do assert.is_true(value ~= value) end
    end
    a, b = broken(math.huge)
    assert.are.equal(math.huge, pl.optim.clip_grad_norm({ a, b }, 1))
    assert.are.same({ 0 }, b.grad:totable())
    assert.are.equal(0, a.grad:totable()[2])
  end)

  it("refuses a norm that is not finite on request, and leaves the gradients", function()
    for _, value in ipairs { nan, math.huge } do
      local a, b = broken(value)
      assert.matches("optim.clip_grad_norm: the norm of the gradients is %-?%a+",
        message_of(pl.optim.clip_grad_norm, { a, b }, 1, { error_if_nonfinite = true }))
      assert.are.equal(1, a.grad:totable()[2])
      assert.are.same({ 2 }, b.grad:totable())
    end
    local p = parameter { 1 }
    assert.matches("unknown option 'nonfinite'", message_of(pl.optim.clip_grad_norm, { p }, 1, { nonfinite = true }))
    assert.matches("error_if_nonfinite: expected a boolean, got 1",
      message_of(pl.optim.clip_grad_norm, { p }, 1, { error_if_nonfinite = 1 }))
  end)
end)

describe("cosine", function()
  it("warms up, falls and stays", function()
    local schedule = pl.optim.cosine { warmup = 4, total = 14, peak = 2, floor = 0.5 }
    near(0.5, schedule(1), 1e-12)
    near(2, schedule(4), 1e-12)
    near(1.25, schedule(9), 1e-12)
    near(0.5, schedule(14), 1e-12)
    near(0.5, schedule(100), 1e-12)
    assert.matches("total: expected an integer of at least 5, got 3",
      message_of(pl.optim.cosine, { warmup = 4, total = 3, peak = 1 }))
  end)
end)

describe("parameters of 16 bits", function()
  -- Enough elements for several blocks and an end that fills none; a step is far below their spacing.
  local count <const> = 1300
  local ways <const> = {
    { "SGD", { lr = 3e-4, momentum = 0.9, weight_decay = 0.1 } },
    { "SGD", { lr = 3e-4, momentum = 0.9, nesterov = true } },
    { "Adam", { lr = 3e-4, weight_decay = 0.1 } },
    { "AdamW", { lr = 3e-4, weight_decay = 0.1 } },
  }

  -- A parameter of `dtype`, one of float32 with the same value, and step(): one step of each, with the same gradient.
  local function pair(dtype, way)
    local start = (pl.rand { count } + 0.5):to(dtype)
    local p, q = pl.nn.parameter(start), pl.nn.parameter(start:float())
    local optimizer, other = pl.optim[way[1]]({ p }, way[2]), pl.optim[way[1]]({ q }, way[2])
    return p, q, optimizer, function()
      local g = (pl.rand { count } + 0.5):to(dtype)
      p.grad, q.grad = g, g:float()
      optimizer:step()
      other:step()
    end
  end

  for _, dtype in ipairs { "bfloat16", "float16" } do
    for _, way in ipairs(ways) do
      it(("have a master that %s steps as if it were the parameter, %s"):format(way[1], dtype), function()
        pl.seed(3)
        local p, q, optimizer, step = pair(dtype, way)
        local start = p:clone()
        for _ = 1, 12 do
          step()
          assert.are.equal(dtype, p.dtype)
          near(q:totable(), optimizer:state_dict()["1.master.1"]:totable(), 0)
          near(q:to(dtype):totable(), p:totable(), 0)
        end
        assert.is_true(pl.ne(p, start):sum():item() > count / 20)
        for name, tensor in pairs(optimizer:state_dict()) do
          if name ~= "steps" then assert.are.equal("float32", tensor.dtype) end
        end
      end)
    end

    it("have a master that starts again where they were set, " .. dtype, function()
      for _, way in ipairs(ways) do
        local p, q, _, step = pair(dtype, way)
        for _ = 1, 5 do step() end
        local set = p:detach():narrow(1, 400, 500)
        set:copy_(set * 1.5)
        q:detach():narrow(1, 400, 500):copy_(set)
        for _ = 1, 5 do step() end
        near(q:to(dtype):totable(), p:totable(), 0)
      end
    end)
  end

  it("go on bit for bit from a saved state", function()
    pl.seed(4)
    local p, _, optimizer, step = pair("bfloat16", ways[4])
    for _ = 1, 5 do step() end
    local name = os.tmpname()
    pl.save(name .. ".safetensors", optimizer:state_dict())
    local r = pl.nn.parameter(p:clone())
    local resumed = pl.optim.AdamW({ r }, ways[4][2])
    resumed:load_state_dict(pl.load(name .. ".safetensors"))
    os.remove(name .. ".safetensors")
    os.remove(name)
    for _ = 1, 5 do
      step()
      r.grad = p.grad
      resumed:step()
      near(p:totable(), r:totable(), 0)
    end
    local other = resumed:state_dict()
    for key, tensor in pairs(optimizer:state_dict()) do near(tensor:totable(), other[key]:totable(), 0) end
  end)

  it("stand beside others in one group, and are clipped with them", function()
    local half, single = pl.nn.parameter(pl.ones { 2, dtype = "bfloat16" }), pl.nn.parameter(pl.ones { 2 })
    local optimizer = pl.optim.AdamW({ half, single }, { lr = 0.25, weight_decay = 0 })
    half.grad, single.grad = pl.full({ 2 }, 3, { dtype = "bfloat16" }), pl.full({ 2 }, 4)
    near(math.sqrt(50), pl.optim.get_total_norm { half.grad, single.grad }, 1e-6)
    near(math.sqrt(50), pl.optim.clip_grad_norm({ half, single }, 1), 1e-6)
    near(3 / math.sqrt(50), half.grad:float():totable()[1], 2e-3)
    near(4 / math.sqrt(50), single.grad:totable()[1], 1e-6)
    optimizer:step()
    near({ 0.75, 0.75 }, half:totable(), 1e-5)
    near({ 0.75, 0.75 }, single:totable(), 1e-5)
    assert.is_nil(optimizer:state_dict()["1.master.2"])
  end)

  it("have norms that are added up in float32", function()
    local p = pl.nn.parameter(pl.zeros { 100000, dtype = "bfloat16" })
    p.grad = pl.full({ 100000 }, 2 ^ -70, { dtype = "bfloat16" }) -- squares that no bfloat16 sum would count
    near(1, pl.optim.clip_grad_norm({ p }, 1) / (2 ^ -70 * math.sqrt(100000)), 1e-5)
  end)
end)

describe("GradScaler", function()
  -- A scaler, a parameter of value 1 with an optimiser, and one step of it whose gradient is `slope`.
  local function setting(options)
    local scaler, p = pl.optim.GradScaler(options), parameter { 1 }
    local optimizer = pl.optim.SGD({ p }, { lr = 0.5 })
    return scaler, p, optimizer, function(slope)
      optimizer:zero_grad()
      scaler:scale((p * slope):sum()):backward()
      local taken = scaler:step(optimizer)
      scaler:update()
      return taken
    end
  end

  it("scales the loss and takes the scale out of the gradients, once", function()
    local scaler, p, optimizer = setting { init_scale = 8 }
    local loss = (p * 3):sum()
    near(24, scaler:scale(loss):item(), 0)
    scaler:scale(loss):backward()
    near({ 24 }, p.grad:totable(), 0)
    assert.is_true(scaler:unscale_(optimizer))
    assert.is_true(scaler:unscale_(optimizer))
    near({ 3 }, p.grad:totable(), 0)
    assert.is_true(scaler:step(optimizer))
    near({ 1 - 0.5 * 3 }, p:totable(), 0)
  end)

  it("skips a step with an infinite gradient or NaN, lowers the scale, and raises it after good steps", function()
    local scaler, p, optimizer, step = setting { init_scale = 8, growth_interval = 2 }
    for _, slope in ipairs { 1e308, 0 / 0 } do -- 8e308 is infinite
      local before = scaler:get_scale()
      assert.is_false(step(slope))
      near({ 1 }, p:totable(), 0)
      near(before / 2, scaler:get_scale(), 0)
    end
    assert.are.equal(0, optimizer.steps)
    assert.is_true(step(1))
    near(2, scaler:get_scale(), 0)
    assert.is_true(step(1))
    near(4, scaler:get_scale(), 0)
    near({ 0 }, p:totable(), 0)
    assert.is_true(step(1))
    assert.is_false(step(0 / 0)) -- begins the count anew
    assert.is_true(step(1))
    near(2, scaler:get_scale(), 0)
  end)

  it("takes a step without gradients for a good one, and parameters of several types", function()
    local p, q = parameter { 1 }, pl.nn.parameter(pl.ones { 1 })
    local scaler, optimizer = pl.optim.GradScaler { init_scale = 4 }, pl.optim.SGD({ p, q }, { lr = 0.5 })
    assert.is_true(scaler:step(optimizer))
    scaler:update()
    scaler:scale((p * 3):sum() + (q * 2):sum():double()):backward()
    assert.is_true(scaler:step(optimizer))
    near({ -0.5 }, p:totable(), 0)
    near({ 0 }, q:totable(), 0)
  end)

  it("hands its state on, and names what is wrong", function()
    local scaler, _, _, step = setting { init_scale = 8, growth_interval = 2 }
    step(1)
    local other = pl.optim.GradScaler { growth_interval = 2 }
    other:load_state_dict(scaler:state_dict())
    near(8, other:get_scale(), 0)
    other:update()
    near(16, other:get_scale(), 0)
    assert.matches("unknown option 'scale'; expected backoff_factor", message_of(pl.optim.GradScaler, { scale = 2 }))
    assert.matches("growth_factor: expected a number of at least 1, got 0.5",
      message_of(pl.optim.GradScaler, { growth_factor = 0.5 }))
    assert.matches("loss: expected a tensor, got 3", message_of(scaler.scale, scaler, 3))
  end)
end)
