-- The sizes of the sweeps of experiments/speed.lua: FlashRNN's own where there is a GPU, smaller ones on a CPU. A sweep
-- varies one thing: "heads" the width of heads that have as many units together (and of one head beyond), "batch" the
-- batch rows, "length" the time steps, the latter two for many heads and for one.
local sweeps = {}

--- The names of all.
sweeps.names = { "heads", "batch", "length" }

-- heads: { heads, units of each }; of these `two` are those of the other sweeps.
local gpu <const> = {
  batch = 16, steps = 1024,
  heads = { { 48, 16 }, { 24, 32 }, { 12, 64 }, { 6, 128 }, { 3, 256 }, { 2, 384 }, { 1, 768 }, { 1, 1024 },
            { 1, 1536 }, { 1, 2048 } },
  two = { { 12, 64 }, { 1, 768 } },
  batches = { 1, 2, 4, 8, 16, 32, 64, 128, 256 }, lengths = { 128, 256, 512, 1024, 2048, 4096, 8192 },
}
local cpu <const> = {
  batch = 16, steps = 64,
  heads = { { 16, 16 }, { 8, 32 }, { 4, 64 }, { 2, 128 }, { 1, 256 }, { 1, 512 } },
  two = { { 4, 64 }, { 1, 256 } },
  batches = { 1, 2, 4, 8, 16, 32, 64 }, lengths = { 16, 32, 64, 128, 256 },
}

local function size(batch, steps, heads)
  return { batch = batch, steps = steps, heads = heads[1], head_dim = heads[2] }
end

-- Each returns the sizes of a sweep.
local listed = {}

function listed.heads(of)
  local list = {}
  for i, heads in ipairs(of.heads) do list[i] = size(of.batch, of.steps, heads) end
  return list
end

function listed.batch(of)
  local list = {}
  for _, heads in ipairs(of.two) do
    for _, batch in ipairs(of.batches) do list[#list + 1] = size(batch, of.steps, heads) end
  end
  return list
end

function listed.length(of)
  local list = {}
  for _, heads in ipairs(of.two) do
    for _, steps in ipairs(of.lengths) do list[#list + 1] = size(of.batch, steps, heads) end
  end
  return list
end

--- The sizes { batch =, steps =, heads =, head_dim = } of the sweep `name` for a device such as "cpu" or "cuda:1".
function sweeps.sizes(name, device) return listed[name](device == "cpu" and cpu or gpu) end

--- A size as options and tables write it: BATCHxTIMExHEADSxUNITS.
function sweeps.text(of) return ("%dx%dx%dx%d"):format(of.batch, of.steps, of.heads, of.head_dim) end

--- The size that a text means; BATCHxTIMExUNITS has one head. nil for another text.
function sweeps.parse(text)
  local batch, steps, rest = text:match("^([1-9]%d*)x([1-9]%d*)x(.+)$")
  local heads, units = (rest or ""):match("^([1-9]%d*)x([1-9]%d*)$")
  if not heads then heads, units = "1", (rest or ""):match("^[1-9]%d*$") end
  if not units then return nil end
  return size(math.tointeger(batch), math.tointeger(steps), { math.tointeger(heads), math.tointeger(units) })
end

return sweeps
