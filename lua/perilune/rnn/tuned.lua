-- Plans that were measured: plans.jsonl in the folder of caches (perilune.rnn.records).

local chips = require "perilune.rnn.chips"
local records = require "perilune.rnn.records"

local text, count, time = records.text, records.count, records.time
local function dtype(value)
  return value == "float32" or value == "bfloat16" or value == "float16", "float32, bfloat16 or float16"
end
local function fields(value)
  return type(value) == "table" and text(value.scope), "an object with a scope"
end

--- The file. Equal cells are equal whatever they are called, and a forward clip is part of a cell.
local tuned = records.file("plans.jsonl", 7, {
  { "device", text }, { "cell", text }, { "batch", count }, { "heads", count }, { "head_dim", count },
  { "dtype", dtype }, { "product", dtype },
  { "name", text }, { "plan", fields }, { "predicted_us", time }, { "measured_us", time }, { "feasible", count },
  { "tried", count }, { "alternating_us", records.optional(time) }, { "date", text },
})

-- 64 bits of FNV-1a: two cells of one hash would share a plan, which is slower perhaps, but never wrong.
local function hash(words)
  local h = 0xcbf29ce484222325
  for i = 1, #words do h = (h ~ words:byte(i)) * 0x100000001b3 end
  return ("%016x"):format(h)
end

--- What a record of `problem` on `chip` begins with: what it is known by, and the cell's name for readers.
function tuned.subject(problem, chip)
  return {
    device = chips.identity(chip),
    cell = hash(problem.cell:spec({ forward_clip = problem.forward_clip }).key), name = problem.cell.name,
    forward_clip = problem.forward_clip, batch = problem.batch, heads = problem.heads, head_dim = problem.head_dim,
    dtype = problem.dtype, product = problem.product,
  }
end

return tuned
