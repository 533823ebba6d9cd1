-- What the tensor specifications share: comparisons, central differences, and the counting of live buffers.
local assert = require "luassert"
local pl = require "perilune"

local check = {}

-- The workspace of a GPU's products is a buffer that stays: it is there before anybody counts.
for _, device in ipairs(pl.devices()) do
  local one = pl.ones { 1, 1, device = device.name }
  one:matmul(one)
end

--- The elements of a tensor in row-major order.
function check.flat(t) return t:detach():reshape({ -1 }):totable() end

local function equal_or_close(expected, got, tolerance)
  if expected ~= expected or got ~= got then return expected ~= expected and got ~= got end
  if expected == got then return true end
  return math.abs(expected - got) <= tolerance * math.max(1, math.abs(expected))
end

--- Fails unless `got`, a tensor or a nested table, has the form of the nested table and agrees within `tolerance`
-- (relative to 1 or the greater; 0 by default). NaN agrees with NaN.
function check.near(expected, got, tolerance, path)
  path = path or "value"
  if pl.is_tensor(got) then got = got:totable() end
  if type(expected) == "table" then
    assert(type(got) == "table", path .. ": expected a table, got " .. tostring(got))
    assert(#expected == #got, ("%s: expected %d entries, got %d"):format(path, #expected, #got))
    for i, value in ipairs(expected) do check.near(value, got[i], tolerance, ("%s[%d]"):format(path, i)) end
    return
  end
  assert(type(got) == "number" and equal_or_close(expected, got, tolerance or 0),
    ("%s: expected %s, got %s"):format(path, tostring(expected), tostring(got)))
end

--- Fails unless both tensors have the same shape and agree within `tolerance`.
function check.same(expected, got, tolerance, path)
  assert.same(expected.shape, got.shape, path)
  check.near(check.flat(expected), check.flat(got), tolerance, path)
end

--- The message of the error that f(...) must raise.
function check.message(f, ...)
  local ok, message = pcall(f, ...)
  assert(not ok, "expected an error")
  return tostring(message)
end

local function is_float(t) return t.dtype:find "float" ~= nil end

local function loss_of(weights, ...)
  local loss = 0
  for i = 1, select("#", ...) do
    local result = select(i, ...)
    if pl.is_tensor(result) and is_float(result) then
      weights[i] = weights[i] or pl.randn_like(result:detach())
      loss = loss + (result * weights[i]):sum()
    end
  end
  return loss
end

--- Compares the gradients of a randomly weighted sum of call(table.unpack(inputs)) with central differences. `inputs`
-- are float64 tensors. Returns false when no result depends on them.
function check.gradients(call, inputs, tolerance, path)
  local leaves, weights = {}, {}
  for i, t in ipairs(inputs) do leaves[i] = t:detach():clone():requires_grad() end
  local loss = loss_of(weights, call(table.unpack(leaves)))
  if not pl.is_tensor(loss) or not loss:needs_grad() then return false end
  loss:backward()
  local step <const> = 1e-6
  for i, t in ipairs(inputs) do
    local gradient = leaves[i].grad and check.flat(leaves[i].grad)
    local moved = t:detach():clone():contiguous()
    local line, trial = moved:reshape { -1 }, table.move(inputs, 1, #inputs, 1, {})
    trial[i] = moved
    for k, x in ipairs(check.flat(t)) do
      local function at(value)
        line[k] = value
        return loss_of(weights, call(table.unpack(trial))):item()
      end
      local difference = (at(x + step) - at(x - step)) / (2 * step)
      line[k] = x
      check.near(difference, gradient and gradient[k] or 0, tolerance or 1e-6,
        ("%s: gradient %d[%d]"):format(path or "gradient", i, k))
    end
  end
  return true
end

--- Gradients of each input, as far as it has one: of the sum of all floating-point results, each weighted with its
-- value.
function check.first_gradients(call, inputs)
  local leaves, loss = {}, 0
  for i, t in ipairs(inputs) do leaves[i] = t:detach():clone():requires_grad() end
  for _, result in ipairs { call(table.unpack(leaves)) } do
    if pl.is_tensor(result) and is_float(result) then
      local wide = result:double()
      loss = loss + (wide * wide:detach()):sum()
    end
  end
  loss:backward()
  local gradients = {}
  for i, leaf in ipairs(leaves) do gradients[i] = leaf.grad end
  return gradients
end

--- The tensor's values under other strides: { name = tensor }.
function check.strided(t)
  local shape, forms = t.shape, {}
  if #shape >= 2 then
    forms.transposed = t:transpose(1, #shape):contiguous():transpose(1, #shape)
  end
  if #shape >= 1 and shape[#shape] > 0 then
    local edge = pl.zeros_like(t:narrow(-1, 1, 1)) + 9
    forms.narrowed = pl.cat({ edge, t, edge }, -1):narrow(-1, 2, shape[#shape])
  end
  return forms
end

--- Live buffers on all devices, as they are.
function check.live()
  local buffers = 0
  for _, memory in pairs(pl.memory()) do buffers = buffers + memory.buffers end
  return buffers
end

--- Live buffers on all devices after a full collection.
function check.buffers()
  collectgarbage()
  collectgarbage()
  return check.live()
end

--- Runs call(table.unpack(inputs)) and its backward with room for no further buffer, then for one, and so on until it
-- succeeds on `device`; fails when an attempt that ran out of memory left a buffer.
function check.starved(call, inputs, path, device)
  local smallest <const> = 512 -- bytes of a small buffer
  local leaves, failed = {}, 0
  for i, t in ipairs(inputs) do leaves[i] = t:detach():clone():requires_grad() end
  local seeds = {}
  loss_of(seeds, pl.no_grad(call, table.unpack(leaves)))
  local function attempt()
    local loss = loss_of(seeds, call(table.unpack(leaves)))
    if pl.is_tensor(loss) and loss:needs_grad() then loss:backward() end
  end
  local before = check.buffers()
  repeat
    pl.memory_limit(math.max(1, pl.memory()[device].live + failed * smallest), device)
    local ok, message = pcall(attempt)
    pl.memory_limit(nil, device)
    for _, t in ipairs(leaves) do t.grad = nil end
    assert(ok or message:find "out of memory", message)
    message = nil -- luacheck: ignore
    assert.equal(before, check.buffers(), ("%s: buffers left with room for %d"):format(path, failed))
    if not ok then failed = failed + 1 end
  until ok
  assert.is_true(failed > 0, path .. ": was never short of memory")
end

return check
