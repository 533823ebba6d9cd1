-- The constants of perilune.rnn.model and perilune.rnn.steps were found on one kind of GPU. A probe measures one fused
-- plan of each scope and one alternating one on the GPU at hand, once, and remembers by how much times differ there:
-- probes.jsonl in the folder of caches.

local cells = require "perilune.cells"
local chips = require "perilune.rnn.chips"
local fused = require "perilune.rnn.fused"
local records = require "perilune.rnn.records"
local steps = require "perilune.rnn.steps"

local probe = {}

-- Sizes for which each of them is made, and of which chips from sm_80 on have a plan.
local problems <const> = {
  block = { batch = 16, heads = 12, head_dim = 64 },
  cluster = { batch = 16, heads = 3, head_dim = 256 },
  grid = { batch = 16, heads = 1, head_dim = 512 },
  alternating = { batch = 256, heads = 1, head_dim = 768 },
}

--- What is scaled, in the order in which it is told.
probe.names = { "block", "cluster", "grid", "alternating" }

-- A chip without clusters has no number for them.
local scale = records.optional(function(value)
  return type(value) == "number" and value > 0 and value < math.huge, "a number above 0"
end)

--- The file of all probes: for each device, measured times over predicted ones.
probe.file = records.file("probes.jsonl", 1, {
  { "device", records.text }, { "block", scale }, { "cluster", scale }, { "grid", scale }, { "alternating", scale },
  { "date", records.text },
})

local here = {} -- of this process, by device: for where nothing can be written

local function known(chip)
  local device = chips.identity(chip)
  return probe.file:find { device = device } or here[device]
end

--- Measures anew on `device`, whose chip this is, and remembers. measure(problem, candidate) gives microseconds of a
-- step (see perilune.rnn.tune) or raises an error; what cannot be measured keeps the model's constants.
function probe.measure(device, chip, measure)
  local record = { device = chips.identity(chip), date = os.date "!%Y-%m-%dT%H:%M:%SZ" }
  local plain = { architecture = chip.architecture, multiprocessors = chip.multiprocessors,
                  shared_bytes = chip.shared_bytes }
  for _, name in ipairs(probe.names) do
    local sizes = problems[name]
    local problem = { cell = cells.lstm, dtype = "bfloat16", product = "bfloat16", device = device,
                      batch = sizes.batch, heads = sizes.heads, head_dim = sizes.head_dim }
    local found = name == "alternating" and steps.choose(problem, plain)
      or fused.choose(problem, plain, { scope = name })
    local ok, us = pcall(measure, problem, found)
    if found and ok then record[name] = us / found.predicted_us end
  end
  here[record.device] = record
  probe.file:add { record }
  return record
end

--- A copy of `chip` with what a probe found: scale = { block =, cluster =, grid =, alternating = }, for
-- perilune.rnn.fused and perilune.rnn.steps. Where there was no probe yet, `measure` makes one on `device`; without
-- `measure` the copy has no scale.
function probe.scaled(chip, device, measure)
  local copy, record = {}, known(chip)
  for name, value in pairs(chip) do copy[name] = value end
  if not record and measure then record = probe.measure(device, chip, measure) end
  if record then
    copy.scale = {}
    for _, scaled in ipairs(probe.names) do copy.scale[scaled] = record[scaled] end
  end
  return copy
end

return probe
