-- The constants of perilune.rnn.model were found on one kind of GPU. A probe measures one plan of each scope on the GPU
-- at hand, once, and remembers by how much that scope's times differ: probes.jsonl in the folder of caches.

local cells = require "perilune.cells"
local chips = require "perilune.rnn.chips"
local fused = require "perilune.rnn.fused"
local records = require "perilune.rnn.records"

local probe = {}

-- Sizes for which the scope is made, and of which chips from sm_80 on have a plan.
local problems <const> = {
  block = { batch = 16, heads = 12, head_dim = 64 },
  cluster = { batch = 16, heads = 3, head_dim = 256 },
  grid = { batch = 16, heads = 1, head_dim = 512 },
}

-- A chip without clusters has no number for them.
local function scale(value)
  return value == nil or type(value) == "number" and value > 0 and value < math.huge, "a number above 0, or nothing"
end

--- The file of all probes: for each device, measured times over predicted ones.
probe.file = records.file("probes.jsonl", 1, {
  { "device", records.text }, { "block", scale }, { "cluster", scale }, { "grid", scale }, { "date", records.text },
})

local here = {} -- of this process, by device: for where nothing can be written

local function known(chip)
  local device = chips.identity(chip)
  return probe.file:find { device = device } or here[device]
end

--- Measures anew on `device`, whose chip this is, and remembers. measure(problem, candidate) gives microseconds of a
-- step (see perilune.rnn.tune) or raises an error; a scope that cannot be measured keeps the model's constants.
function probe.measure(device, chip, measure)
  local record = { device = chips.identity(chip), date = os.date "!%Y-%m-%dT%H:%M:%SZ" }
  local plain = { architecture = chip.architecture, multiprocessors = chip.multiprocessors,
                  shared_bytes = chip.shared_bytes }
  for scope, sizes in pairs(problems) do
    local problem = { cell = cells.lstm, dtype = "bfloat16", product = "bfloat16", device = device,
                      batch = sizes.batch, heads = sizes.heads, head_dim = sizes.head_dim }
    local found = fused.choose(problem, plain, { scope = scope })
    local ok, us = pcall(measure, problem, found)
    if found and ok then record[scope] = us / found.predicted_us end
  end
  here[record.device] = record
  probe.file:add { record }
  return record
end

--- A copy of `chip` with what a probe found: scale = { block =, cluster =, grid = }, for perilune.rnn.fused. Where
-- there was no probe yet, `measure` makes one on `device`; without `measure` the copy has no scale.
function probe.scaled(chip, device, measure)
  local copy, record = {}, known(chip)
  for name, value in pairs(chip) do copy[name] = value end
  if not record and measure then record = probe.measure(device, chip, measure) end
  copy.scale = record and { block = record.block, cluster = record.cluster, grid = record.grid }
  return copy
end

return probe
