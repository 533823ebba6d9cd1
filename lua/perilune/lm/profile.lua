-- Where the time of a training step goes. The parts are run apart, forward and backward, on random numbers of the
-- step's shapes, each timed by the device's clock; what the whole step takes beyond their sum is the rest: norms,
-- residual sums, activations, the embedding, and the host.
local pl = require "perilune"
local Language = require "perilune.lm.model"

local profile = {}

local TRIES <const>, WARM_UP <const> = 10, 3

-- The median ms of f, which makes its tensors in a scope of its own.
local function median_ms(device, f)
  local times, timer = {}, pl.timer(device)
  for try = 1, WARM_UP + TRIES do
    local _ <close> = pl.scope()
    timer:start()
    f()
    local ms = timer:stop()
    if try > WARM_UP then times[#times + 1] = ms end
  end
  table.sort(times)
  return times[TRIES // 2]
end

-- Forward and backward of f at x, with the gradients of x and of the module's parameters.
local function both_ways(device, module, x, f)
  return median_ms(device, function()
    module:zero_grad()
    local y = f(x:detach():requires_grad())
    y:backward(#y.shape > 0 and pl.ones_like(y) or nil)
  end)
end

-- The products with all matrices [outputs, inputs] of a module, of as many rows.
local function products_ms(device, module, rows)
  local ms = 0
  for _, parameter in ipairs(module:parameters()) do
    if #parameter.shape == 2 then
      local x = pl.randn { rows, parameter.shape[2], device = device }:to(parameter.dtype)
      ms = ms + both_ways(device, module, x, function(leaf) return leaf:matmul(parameter:t()) end)
    end
  end
  return ms
end

--- The ms of one step of a model by the options of experiments/lm.lua, on one part of a batch, and of its parts:
-- { step =, recurrence = (or attention: the mixers without the products with their matrices), products = (with all
-- matrices of the blocks), head = (and loss, from the last features on), optimizer = (and clipping), rest = }. What is
-- said of the blocks is measured of the first, times their number.
function profile.measure(option, vocabulary)
  local _ <close> = pl.scope()
  pl.seed(option.seed)
  local model = Language(option, vocabulary)
  local net, device, rows, length = model.net, option.device, option.batch // option.accumulate, option.length
  local block, dtype = net.blocks[1], net.norm.weight.dtype
  local ids = pl.randint(1, net.vocabulary, { rows, length }, { dtype = "int64", device = device })
  local x = pl.randn { rows, length, net.width, device = device }:to(dtype)
  local optimizer = pl.optim.AdamW(model:groups(), { lr = 0 })
  local parameters = net:parameters()
  local function update()
    pl.optim.clip_grad_norm(parameters, 1)
    optimizer:step()
  end
  local ms = { step = median_ms(device, function()
    net:zero_grad()
    net:loss(ids, ids):backward()
    update()
  end) }
  ms.optimizer = median_ms(device, update)
  local mixer = both_ways(device, block, x, function(leaf) return (block.mixer(leaf)) end)
  local own, mlp = products_ms(device, block.mixer, rows * length), products_ms(device, block.mlp, rows * length)
  ms.recurrence, ms.products = net.layers * math.max(mixer - own, 0), net.layers * (own + mlp)
  ms.head = both_ways(device, net, x, function(leaf) return net:loss_of(leaf, ids) end)
  ms.rest = ms.step - ms.recurrence - ms.products - ms.head - ms.optimizer
  return ms
end

return profile
