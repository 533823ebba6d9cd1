-- pl.optim: optimisers (SGD, Adam, AdamW), gradient clipping, the learning rate's schedule, and the scale of a loss.
--
--   local optimizer = pl.optim.AdamW(model:parameters(), { lr = 1e-3, weight_decay = 0.1 })
--   loss:backward()   pl.optim.clip_grad_norm(model:parameters(), 1)   optimizer:step()   optimizer:zero_grad()
--
-- Parameters are a list of tensors, or a list of groups { params = {..}, lr =, weight_decay =, .. } whose options go
-- before those of the optimiser.
--
-- A parameter of 16 bits, as model:to("bfloat16") makes them, has a master in the state: its value in float32, which
-- takes the steps, most of them smaller than the spacing of 16-bit numbers. The parameter is the master rounded. The
-- master starts from the parameter when the optimiser is made, and again, element by element, wherever the parameter
-- was set since by somebody else (as load_state_dict of the model does). All else in the state is float32 as well.
local core = require "perilune.core"
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"

local optim = {}

-- ---------------------------------------------------------------------------------------------------------------------
-- What optimisers share

local Optimizer = {}
Optimizer.__index = Optimizer

local function check_parameters(who, list)
  check.kind(who, "params", list, "table")
  if #list == 0 then check.fail("%s: params: expected at least one tensor, got an empty list", who) end
  for i, tensor in ipairs(list) do
    check.tensor(who, ("params[%d]"):format(i), tensor)
    core.retain(tensor)
  end
  return list
end

local function check_values(who, values, ranges)
  for name, range in pairs(ranges) do
    if type(range) == "function" then
      range(who, name, values[name])
    else
      check.number(who, name, values[name], range[1], range[2])
    end
  end
end

-- Groups with every option filled in, from a list of tensors or of groups.
local function read_groups(class, params, options)
  local who = class.__name
  local defaults = check.options(who, options, class.defaults)
  check_values(who, defaults, class.ranges)
  check.kind(who, "params", params, "table")
  local listed = type(params[1]) == "table" and params or { { params = params } }
  local known = { params = {} }
  for name in pairs(class.defaults) do known[name] = defaults[name] end
  local groups, seen = {}, {}
  for i, given in ipairs(listed) do
    local group = check.options(who, given, known)
    check_parameters(who, group.params)
    check_values(who, group, class.ranges)
    for _, tensor in ipairs(group.params) do
      if seen[tensor] then check.fail("%s: params: a tensor is there twice (group %d)", who, i) end
      seen[tensor] = true
    end
    group.scale = defaults.lr > 0 and group.lr / defaults.lr or 1
    groups[i] = group
  end
  return groups
end

-- The type of what is kept for a parameter.
local function wide(tensor) return tensor.dtype == "float64" and "float64" or "float32" end

local function zeros_like_all(list)
  local zeros = {}
  for i, tensor in ipairs(list) do
    zeros[i] = core.retain(pl.zeros_like(tensor:detach(), { dtype = wide(tensor) }))
  end
  return zeros
end

-- The masters of the parameters of 16 bits, at their places in the list.
local function masters_of(list)
  local masters = {}
  for i, tensor in ipairs(list) do
    if tensor.dtype == "bfloat16" or tensor.dtype == "float16" then
      masters[i] = core.retain(tensor:detach():contiguous():float())
    end
  end
  return masters
end

-- A class of optimisers: `about` for help, `defaults` and `ranges` of its options, `slots` the names of what it keeps
-- per parameter, and update(self, group, state) for one group; state[slot] lists a tensor per parameter, state.master
-- one per parameter of 16 bits.
local function class(name, description)
  local new = setmetatable(description, { __index = Optimizer })
  new.__index, new.__name = new, "optim." .. name
  new.__tostring = function(self) return ("%s(lr = %g, %d groups)"):format(new.__name, self:lr(), #self.groups) end
  local function make(params, options)
    local self = setmetatable({ steps = 0, states = {} }, new)
    self.groups = read_groups(new, params, options)
    for i, group in ipairs(self.groups) do
      local state = { master = masters_of(group.params) }
      for _, slot in ipairs(new.slots) do state[slot] = zeros_like_all(group.params) end
      self.states[i] = state
    end
    return self
  end
  declared.options(make, new.defaults)
  optim[name] = declared.document(make, new.about)
end

--- Changes every parameter that has a gradient.
function Optimizer:step()
  self.steps = self.steps + 1
  pl.no_grad(function()
    local _ <close> = pl.scope()
    for i, group in ipairs(self.groups) do self:update(group, self.states[i]) end
  end)
end

--- Forgets the gradients.
function Optimizer:zero_grad()
  for _, group in ipairs(self.groups) do
    for _, tensor in ipairs(group.params) do tensor.grad = nil end
  end
end

--- The learning rate of the first group.
function Optimizer:lr()
  return self.groups[1].lr
end

--- Sets the learning rate; a group that began with another keeps its ratio to it.
function Optimizer:set_lr(lr)
  check.number(getmetatable(self).__name, "lr", lr, 0)
  for _, group in ipairs(self.groups) do group.lr = lr * group.scale end
end

--- Name -> tensor: what pl.save takes. Names are "GROUP.SLOT.INDEX" and "steps"; the tensors are the optimiser's own.
-- The slot "master" is there for parameters of 16 bits.
function Optimizer:state_dict()
  local dict = { steps = pl.tensor({ self.steps }, { dtype = "int64" }) }
  for i, state in ipairs(self.states) do
    for slot, tensors in pairs(state) do
      for j, tensor in pairs(tensors) do dict[("%d.%s.%d"):format(i, slot, j)] = tensor end
    end
  end
  return dict
end

--- Takes over what state_dict gave, for the same parameters in the same order.
function Optimizer:load_state_dict(dict)
  local who = getmetatable(self).__name
  check.kind(who, "state", dict, "table")
  local own = self:state_dict()
  for name, tensor in pairs(own) do
    check.tensor(who, name, dict[name])
    local got, expected = check.shape_text(dict[name].shape), check.shape_text(tensor.shape)
    if got ~= expected then check.fail("%s: %s: expected shape %s, got %s", who, name, expected, got) end
  end
  for name in pairs(dict) do
    if not own[name] then check.fail("%s: '%s' is not part of this optimiser's state", who, tostring(name)) end
  end
  for name, tensor in pairs(own) do tensor:copy_(dict[name]:to(tensor.dtype):to(tensor.device)) end
  self.steps = math.tointeger(dict.steps:select(1, 1):item())
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The optimisers

class("SGD", {
  about = [[
optim.SGD(params, { lr, momentum = 0, nesterov = false, weight_decay = 0 }): g + decay p enters a running sum with
momentum, and p moves against it (against g + momentum * sum with nesterov), as in PyTorch.]],
  defaults = { lr = 0.01, momentum = 0, nesterov = false, weight_decay = 0 },
  ranges = { lr = { 0 }, momentum = { 0, 1 }, weight_decay = { 0 } },
  slots = { "momentum" },
  update = function(_, group, state)
    for i, p in ipairs(group.params) do
      if p.grad then
        local direction, master = p.grad:to(wide(p)), state.master[i]
        if master then master:copy_(pl.where(pl.eq(master:to(p.dtype), p), master, p)) end
        local weight = master or p
        if group.weight_decay ~= 0 then direction = direction + weight * group.weight_decay end
        if group.momentum ~= 0 then
          local sum = state.momentum[i]
          sum:mul_(group.momentum)
          sum:add_(direction)
          direction = group.nesterov and direction + sum * group.momentum or sum
        end
        weight:add_(direction, -group.lr)
        if master then p:copy_(master) end
      end
    end
  end,
})

local function check_betas(who, name, betas)
  check.kind(who, name, betas, "table")
  check.number(who, name .. "[1]", betas[1], 0, 1)
  check.number(who, name .. "[2]", betas[2], 0, 1)
end

-- Adam's step for the parameters of a group that have a gradient (Kingma and Ba 2015), with weight decay in the
-- gradient or, decoupled, on the parameter (Loshchilov and Hutter 2019).
local function adam_update(decoupled)
  return function(self, group, state)
    local parameters, first, second, master = {}, {}, {}, {}
    for i, p in ipairs(group.params) do
      if p.grad then
        local n = #parameters + 1
        parameters[n], first[n], second[n] = p, state.first[i], state.second[i]
        master[n] = state.master[i]
      end
    end
    if #parameters == 0 then return end
    core.adam_step {
      parameters = parameters, first = first, second = second, master = master, rate = group.lr,
      beta1 = group.betas[1], beta2 = group.betas[2], epsilon = group.eps, decay = group.weight_decay,
      step = self.steps, decoupled = decoupled,
    }
  end
end

local adam_ranges <const> = { lr = { 0 }, betas = check_betas, eps = { 0 }, weight_decay = { 0 } }

class("Adam", {
  about = [[
optim.Adam(params, { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0 }): steps by running means of the
gradient and of its square, with weight decay in the gradient (Kingma and Ba 2015).]],
  defaults = { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0 },
  ranges = adam_ranges, slots = { "first", "second" }, update = adam_update(false),
})

class("AdamW", {
  about = [[
optim.AdamW(params, { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0.01 }): Adam with weight decay on
the parameter itself (Loshchilov and Hutter 2019).]],
  defaults = { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0.01 },
  ranges = adam_ranges, slots = { "first", "second" }, update = adam_update(true),
})

-- ---------------------------------------------------------------------------------------------------------------------
-- Gradients and rates

-- The gradients of a list of parameters.
local function gradients_of(params)
  local list = {}
  for _, p in ipairs(params) do list[#list + 1] = p.grad end
  return list
end

-- Their common 2-norm, for which the host waits: once per type and device.
local function norm_of(gradients)
  local alike, squares = {}, 0.0
  for _, g in ipairs(gradients) do
    local kind = g.dtype .. " on " .. g.device
    alike[kind] = alike[kind] or {}
    table.insert(alike[kind], g)
  end
  for _, list in pairs(alike) do squares = squares + core.sum_of_squares(list):item() end
  return math.sqrt(squares)
end

--- The common 2-norm of a list of floating-point tensors of any types and devices, a number; sums of squares are taken
-- in float32 or wider. The host waits for the devices.
function optim.get_total_norm(tensors)
  check.kind("optim.get_total_norm", "tensors", tensors, "table")
  for i, tensor in ipairs(tensors) do check.tensor("optim.get_total_norm", ("tensors[%d]"):format(i), tensor) end
  local _ <close> = pl.scope()
  return pl.no_grad(norm_of, tensors)
end

local function finite(x)
  return x == x and x ~= math.huge and x ~= -math.huge
end

local clip_options <const> = { error_if_nonfinite = false }

--- Scales the gradients of a list of parameters together so that their common 2-norm is at most `max`. Returns the norm
-- before; the host waits for the device once. As in PyTorch a norm that is NaN makes all gradients NaN and an infinite
-- one makes the finite ones 0; with { error_if_nonfinite = true } either is an error and leaves them as they are.
function optim.clip_grad_norm(params, max, options)
  check_parameters("optim.clip_grad_norm", params)
  check.number("optim.clip_grad_norm", "max", max, 0)
  local option = check.options("optim.clip_grad_norm", options, clip_options)
  local _ <close> = pl.scope()
  return pl.no_grad(function()
    local gradients = gradients_of(params)
    local norm = norm_of(gradients)
    if option.error_if_nonfinite and not finite(norm) then
      check.fail("optim.clip_grad_norm: the norm of the gradients is %s", tostring(norm))
    end
    if norm > max or norm ~= norm then core.scale_all(gradients, max / (norm + 1e-6)) end
    return norm
  end)
end

declared.options(optim.clip_grad_norm, clip_options)

local cosine_options <const> = { warmup = 0, total = check.none, peak = check.none, floor = 0 }

--- A schedule: lr = schedule(step) for step = 1, 2, ... It rises linearly to `peak` at step `warmup`, falls along half
-- a cosine to `floor` at step `total`, and stays there.
function optim.cosine(options)
  local option = check.options("optim.cosine", options, cosine_options)
  local warmup = check.integer("optim.cosine", "warmup", option.warmup, 0)
  local total = check.integer("optim.cosine", "total", option.total, warmup + 1)
  local peak = check.number("optim.cosine", "peak", option.peak, 0)
  local floor = check.number("optim.cosine", "floor", option.floor, 0, peak)
  return function(step)
    if step <= warmup then return peak * step / warmup end
    local way = math.min((step - warmup) / (total - warmup), 1)
    return floor + (peak - floor) * (1 + math.cos(math.pi * way)) / 2
  end
end
declared.options(optim.cosine, cosine_options)

-- ---------------------------------------------------------------------------------------------------------------------
-- The scale of a loss

local GradScaler = { __name = "optim.GradScaler" }
GradScaler.__index = GradScaler

local scaler_options <const> = {
  init_scale = 65536, growth_factor = 2, backoff_factor = 0.5, growth_interval = 2000,
}
local scaler_ranges <const> = {
  init_scale = { 0 }, growth_factor = { 1 }, backoff_factor = { 0, 1 },
  growth_interval = function(who, name, value) check.integer(who, name, value) end,
}

--- optim.GradScaler{ init_scale = 65536, growth_factor = 2, backoff_factor = 0.5, growth_interval = 2000 }: multiplies
-- a loss, so that gradients which float16 would flush to zero stay within its range, and divides the gradients of the
-- parameters again. Where one of them is not finite the step is skipped and the scale falls by backoff_factor; after
-- growth_interval steps without that it rises by growth_factor (Micikevicius et al. 2018). Used as in PyTorch:
--   scaler:scale(loss):backward()   scaler:unscale_(optimizer) [clip]   scaler:step(optimizer)   scaler:update()
function optim.GradScaler(options)
  local who = GradScaler.__name
  local self = check.options(who, options, scaler_options)
  check_values(who, self, scaler_ranges)
  self.now, self.good_steps, self.unscaled = self.init_scale, 0, {}
  return setmetatable(self, GradScaler)
end

declared.options(optim.GradScaler, scaler_options)

--- The loss to call backward on.
function GradScaler:scale(loss)
  check.tensor(self.__name .. ":scale", "loss", loss)
  return loss * self.now
end

--- The number that losses are multiplied with now.
function GradScaler:get_scale()
  return self.now
end

--- Divides the gradients of the optimiser's parameters by the scale, once per step, and returns whether all are finite;
-- the host waits for the device.
function GradScaler:unscale_(optimizer)
  if self.unscaled[optimizer] == nil then
    local _ <close> = pl.scope()
    self.unscaled[optimizer] = pl.no_grad(function()
      local gradients = {}
      for _, group in ipairs(optimizer.groups) do
        for _, g in ipairs(gradients_of(group.params)) do gradients[#gradients + 1] = g end
      end
      core.scale_all(gradients, 1 / self.now)
      return finite(norm_of(gradients))
    end)
  end
  return self.unscaled[optimizer]
end

--- optimizer:step(), unless a gradient is not finite; returns whether it was taken.
function GradScaler:step(optimizer)
  local taken = self:unscale_(optimizer)
  if taken then optimizer:step() end
  return taken
end

--- Ends a step: the scale falls if one was skipped, and rises after enough good ones.
function GradScaler:update()
  local good = true
  for _, one in pairs(self.unscaled) do good = good and one end
  self.unscaled = {}
  if not good then
    self.now, self.good_steps = self.now * self.backoff_factor, 0
    return
  end
  self.good_steps = self.good_steps + 1
  if self.good_steps == self.growth_interval then
    self.now, self.good_steps = self.now * self.growth_factor, 0
  end
end

--- What load_state_dict takes over: { scale =, good_steps = }, tensors of one element, as pl.save takes them.
function GradScaler:state_dict()
  return { scale = pl.tensor({ self.now }, { dtype = "float64" }),
           good_steps = pl.tensor({ self.good_steps }, { dtype = "int64" }) }
end

function GradScaler:load_state_dict(dict)
  check.kind(self.__name, "state", dict, "table")
  for _, name in ipairs { "scale", "good_steps" } do check.tensor(self.__name, name, dict[name], 1, 1) end
  self.now, self.good_steps = dict.scale:item(), math.tointeger(dict.good_steps:item())
end

return optim
