-- Heads: what it costs and saves to cut a recurrence of constant width into heads, and where alternating overtakes
-- fused. Tables on standard output, JSON lines with --out; --plot draws them.
--
--   perilune experiments/heads.lua                               reference on the CPU
--   perilune experiments/heads.lua --device cuda --out heads-gpu.jsonl
--   perilune experiments/heads.lua --chip H200                   no GPU: what the planner predicts
--   perilune experiments/heads.lua --plot heads-gpu.jsonl
--
-- The first table has a row per width, number of heads and backend: microseconds of a step of training, forward and
-- both ways (gradients of Wx, R, bias and initial states, for one of h), and how many times as long one head of that
-- width takes on the same backend; the parameters of R and bias, and of the input weights of a layer with as many
-- features as units; most bytes that lived at once, arguments included. "*" marks the backend that auto takes.
-- The second table has, for each number of heads, the largest head_dim that the planner runs fused, and the largest
-- multiple of 64 for which that is one launch, not several one after the other.
-- The third has microseconds of a step, both ways, fused over alternating, by head_dim and batch, with as many heads as
-- fit the first width, and the first batch at which alternating is quicker.
-- Where there is a device the times are measured (medians), otherwise predicted; plans are the model's, not tuned ones.
local pl = require "perilune"
local chips = require "perilune.rnn.chips"
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local fused = require "perilune.rnn.fused"
local options = require "perilune.options"
local plan = require "perilune.rnn.plan"
local speed = require "perilune.speed"
local steps = require "perilune.rnn.steps"
local tune = require "perilune.rnn.tune"

local option = options.read {
  usage = "perilune experiments/heads.lua [OPTIONS]",
  about = "Measures recurrences of constant width with more and more heads, and fused against alternating.",
  { "cell", "string", default = "lstm", help = "one of pl.cells" },
  { "device", "string", help = "where to measure: cpu, cuda, cuda:1 [cpu, unless there is a --chip]" },
  { "chip", "string", help = "a chip to plan for without measuring: A100, RTX 4090, H200, ..." },
  { "dtype", "string", choices = { "float32", "bfloat16", "float16" }, help = "type of all [bfloat16; CPU float32]" },
  { "widths", "integers", default = { 768, 2048 }, minimum = 1, help = "units of all heads together" },
  { "heads", "integers", minimum = 1,
    help = "numbers of heads [1,2,4,8,16,32; 1,2,3,6,12,24 where 3 divides the width]" },
  { "batch", "integer", default = 16, minimum = 1, help = "batch of the first two tables" },
  { "steps", "integer", minimum = 1, help = "time steps of the first table [1024; CPU 16]" },
  { "batches", "integers", default = { 1, 4, 16, 64, 128, 256, 512, 1024 }, minimum = 1,
    help = "batches of the third table, for GPUs" },
  { "head-dims", "integers", default = { 64, 128, 256, 512, 768, 1024, 2048 }, minimum = 1,
    help = "head_dims of the third table" },
  { "repeats", "integer", default = 5, minimum = 1, help = "measurements per row, after two to warm up" },
  { "threads", "integer", default = 2, minimum = 1, help = "threads of the CPU" },
  { "out", "string", help = "file for JSON lines" },
  { "plot", "string", help = "draw this file of results, beside it, and do nothing else" },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- The plot, from a file of results alone

-- Appends a point to the series of `series` that has the label of `looks`, or to a new one with these looks.
local function add_point(series, looks, x, y)
  for _, known in ipairs(series) do
    if known.label == looks.label then looks = known end
  end
  if not looks.x then
    looks.x, looks.y = {}, {}
    series[#series + 1] = looks
  end
  looks.x[#looks.x + 1], looks.y[#looks.y + 1] = x, y
end

-- From a power of two to a power of two.
local function range_of(rows, fields)
  local low, high = math.huge, 0
  for _, row in ipairs(rows) do
    for _, field in ipairs(fields) do low, high = math.min(low, row[field]), math.max(high, row[field]) end
  end
  return { 2 ^ math.floor(math.log(low, 2)), 2 ^ math.ceil(math.log(high, 2)) }
end

local dash_of <const> = { fused = 1, alternating = 2, reference = 1 }

local function heads_figure(rows, field, title)
  local series, widths = { logx = 2, logy = 2, title = title, xlabel = "heads" }, {}
  for _, row in ipairs(rows) do
    if not widths[row.width] then
      widths[#widths + 1] = row.width
      widths[row.width] = #widths
    end
    add_point(series, { label = ("%d units, %s"):format(row.width, row.backend), colour = widths[row.width],
                        dash = dash_of[row.backend] }, row.heads, row[field])
  end
  series.ylabel, series.yrange = rows[1].how .. ", us a step", range_of(rows, { "forward_us", "both_us" })
  return pl.plot.line(series)
end

-- nil where no row runs fused.
local function break_even_figure(rows)
  local series = { logx = 2, logy = 2, title = "Alternating over fused, both ways", xlabel = "batch",
                   ylabel = "times as long" }
  for _, row in ipairs(rows) do
    if row.fused_us and row.alternating_us then
      local looks = { label = ("head_dim %d, heads %d"):format(row.head_dim, row.heads) }
      add_point(series, looks, row.batch, row.alternating_us / row.fused_us)
    end
  end
  if #series == 0 then return nil end
  for _, row in ipairs(rows) do add_point(series, { label = "as quick", colour = 7, dash = 1 }, row.batch, 1) end
  return pl.plot.line(series)
end

local function draw(path)
  local rows = experiment.read(path, "heads")
  local figures = {
    heads_figure(rows, "forward_us", "Forward"), heads_figure(rows, "both_us", "Forward and backward"),
    break_even_figure(experiment.read(path, "break_even", true)),
  }
  figures.columns, figures.size = 1, { 760, 330 * #figures + 40 }
  figures.title = ("%s in %s, %s"):format(rows[1].cell, rows[1].dtype, rows[1].device:match "^[^,;]+")
  local picture = path:gsub("%.jsonl$", "") .. ".svg"
  pl.plot.panels(figures):save(picture)
  return picture
end

if option.plot then
  print(options.attempt("plot", draw, option.plot))
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- What to run

if option.chip and option.device then options.fail "expected one of --device and --chip" end
option.device = option.device or not option.chip and "cpu" or nil
local on_cpu <const> = option.device == "cpu"
local how <const> = option.device and "measured" or "predicted"
option.dtype = option.dtype or on_cpu and "float32" or "bfloat16"
option.steps = option.steps or on_cpu and 16 or 1024

options.attempt("threads", pl.threads, option.threads)
if option.device then options.attempt("device", pl.synchronize, option.device) end
local chip = option.chip and options.attempt("chip", chips.named, option.chip)
  or not on_cpu and options.attempt("device", core.fused_chip, option.device) or nil
local cell = options.attempt("cell", function() return pl.cells[option.cell] end)
local device_line <const> = option.chip and "planned for " .. option.chip or experiment.device_line(option.device)

local function heads_of(width)
  local list = {}
  for _, heads in ipairs(option.heads or width % 3 == 0 and { 1, 2, 3, 6, 12, 24 } or { 1, 2, 4, 8, 16, 32 }) do
    if width % heads == 0 then
      list[#list + 1] = heads
    elseif option.heads then
      options.fail("option --heads: expected divisors of the width %d, got %d", width, heads)
    end
  end
  return list
end
for _, width in ipairs(option.widths) do heads_of(width) end

local function problem_of(batch, heads, head_dim)
  return {
    cell = cell, batch = batch, heads = heads, head_dim = head_dim, dtype = option.dtype, product = option.dtype,
    device = option.device or option.chip, chip = option.chip and chip or nil,
  }
end

-- The plan of each way that can run a problem, and why fused cannot: { name =, made = (on a GPU) } in a list.
local function ways_of(problem)
  if not chip then return { { name = "reference" } } end
  local made, why_not = fused.choose(problem, chip)
  local ways = { { name = "alternating", made = steps.choose(problem, chip) } }
  if made then table.insert(ways, 1, { name = "fused", made = made }) end
  return ways, why_not
end

pl.tuning(false)
local results <close> = options.attempt("out", experiment.results, option.out, option)

local function write(kind, row)
  row.kind, row.device, row.cell, row.dtype = kind, device_line, cell.name, option.dtype
  results:write(row)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Heads at constant width

-- Adds the times and bytes of a way to a row.
local function measure(row, problem, way)
  local _ <close> = pl.scope()
  local function drawn(...) return pl.randn { dtype = option.dtype, device = option.device, ... } end
  local function leaf(t) return t and t:detach():requires_grad() end
  local B, T, N, D = problem.batch, option.steps, problem.heads, problem.head_dim
  local function weight(part, scale, ...)
    return cell:count(part) > 0 and drawn(cell:count(part), ...) * scale or nil
  end
  local Wx, initial = leaf(drawn(B, T, cell:count "input", N, D)), leaf(drawn(#cell.states, B, 1, N, D))
  local R, b, seed = leaf(weight("recurrent", D ^ -0.5, N, D, D)), leaf(weight("bias", 1, N, D)), drawn(1, B, T, N, D)
  local function forward(outputs)
    return (pl.rnn(Wx, R, b, { cell = cell, backend = way.name, outputs = outputs, states = initial }))
  end
  local function both()
    forward("h"):backward(seed)
    for _, t in pairs { Wx = Wx, R = R, b = b, initial = initial } do t.grad = nil end
  end
  for _, way_through in ipairs { { "forward", function() forward "all" end }, { "both", both } } do
    local name = way_through[1]
    pl.reset_peak_memory(option.device)
    local times = speed.times(way_through[2], option.device, { repeats = option.repeats })
    local ms, low, high = experiment.quantiles(times)
    row[name .. "_us"], row[name .. "_us_p10"], row[name .. "_us_p90"] = 1000 * ms / T, 1000 * low / T, 1000 * high / T
    row[name .. "_bytes"] = speed.memory(option.device).peak
  end
end

local function row_of(width, heads, way)
  local dim, made = width // heads, way.made
  local problem = problem_of(option.batch, heads, dim)
  local row = {
    batch = option.batch, steps = option.steps, width = width, heads = heads, head_dim = dim, backend = way.name,
    scope = way.name == "fused" and made.plan.scope or nil, how = how,
    auto = plan.choose(problem, "auto").backend == way.name,
    parameters = cell:count "recurrent" * heads * dim * dim + cell:count "bias" * width,
    input_parameters = cell:count "input" * width * width,
    predicted_forward_us = made and made.forward_us, predicted_both_us = made and made.predicted_us,
  }
  if option.device then
    measure(row, problem, way)
  else
    row.forward_us, row.both_us = made.forward_us, made.predicted_us
  end
  write("heads", row)
  return row
end

local function times(one, value) return one and ("%7.2f"):format(one / value) or "      -" end
local function mebibytes(bytes) return bytes and ("%8.1f"):format(bytes / 2 ^ 20) or "       -" end

local function heads_table()
  print(("%s, %s in %s, batch %d%s"):format(device_line, cell.name, option.dtype, option.batch,
    option.device and (", %d steps, medians of %d"):format(option.steps, option.repeats) or ""))
  print(("%5s %5s %5s %-12s %-7s  %9s %9s  %7s %7s  %10s %10s  %8s %8s"):format("", "", "", "", "", "us/step", "",
    "1 head", "over it", "parameters", "", "peak MiB", ""))
  print(("%5s %5s %5s %-12s %-7s  %9s %9s  %7s %7s  %10s %10s  %8s %8s"):format("width", "heads", "units", "backend",
    "scope", "forward", "both", "forward", "both", "R, bias", "inputs", "forward", "both"))
  for _, width in ipairs(option.widths) do
    local one = {} -- head, by backend
    for _, heads in ipairs(heads_of(width)) do
      local ways, why_not = ways_of(problem_of(option.batch, heads, width // heads))
      for _, way in ipairs(ways) do
        local row = row_of(width, heads, way)
        if heads == 1 then one[way.name] = row end
        local single = one[way.name] or {}
        print(("%5d %5d %5d %-12s %-7s  %9.2f %9.2f  %s %s  %10d %10d  %s %s"):format(width, heads, row.head_dim,
          row.backend .. (row.auto and "*" or ""), row.scope or "", row.forward_us, row.both_us,
          times(single.forward_us, row.forward_us), times(single.both_us, row.both_us), row.parameters,
          row.input_parameters, mebibytes(row.forward_bytes), mebibytes(row.both_bytes)))
      end
      if why_not then print(("%5d %5d %5d not fused: it %s"):format(width, heads, width // heads, why_not())) end
    end
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The largest width that runs fused

-- What fused takes multiples of; past what any chip holds; what is tried for one launch.
local UNITS <const>, HEAD_DIM_MAX <const>, TRIED <const> = 8, 16384, 64

local function fused_plan(heads, head_dim) return (fused.choose(problem_of(option.batch, heads, head_dim), chip)) end

-- The largest head_dim that runs fused, 0 where none does, by bisection: R grows with it.
local function largest_fused(heads)
  local low, high = 0, HEAD_DIM_MAX // UNITS
  while low < high do
    local middle = (low + high + 1) // 2
    if fused_plan(heads, middle * UNITS) then low = middle else high = middle - 1 end
  end
  return low * UNITS
end

-- The largest multiple of TRIED up to `most` that takes one launch, 0 where none does. From above: the planner's choice
-- may go back to one launch where it changes the scope.
local function largest_at_once(heads, most)
  for head_dim = most // TRIED * TRIED, TRIED, -TRIED do
    if fused_plan(heads, head_dim).details.launches == 1 then return head_dim end
  end
  return 0
end

-- All numbers of heads of all widths.
local function all_heads()
  local counts, seen = {}, {}
  for _, width in ipairs(option.widths) do
    for _, heads in ipairs(heads_of(width)) do
      if not seen[heads] then counts[#counts + 1] = heads end
      seen[heads] = true
    end
  end
  table.sort(counts)
  return counts
end

local function limits_table()
  print(("\n%5s  %-40s %s"):format("", "largest fused", "in one launch"))
  print(("%5s  %8s %8s %-8s %12s  %8s %8s"):format("heads", "head_dim", "width", "scope", "launches", "head_dim",
    "width"))
  for _, heads in ipairs(all_heads()) do
    local most = largest_fused(heads)
    local at_once = largest_at_once(heads, most)
    local made = most > 0 and fused_plan(heads, most) or nil
    local scope, launches = made and made.plan.scope, made and made.details.launches
    write("limit", {
      batch = option.batch, heads = heads, head_dim = most, width = heads * most, scope = scope, launches = launches,
      head_dim_at_once = at_once, width_at_once = heads * at_once,
    })
    print(("%5d  %8d %8d %-8s %12s  %8d %8d"):format(heads, most, heads * most, scope or "-", launches or "-", at_once,
      heads * at_once))
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Fused against alternating

-- Sets the time of a way in a row, or why it could not be measured, memory for one.
local function add_time(row, problem, way)
  row["predicted_" .. way.name .. "_us"] = way.made.predicted_us
  if option.chip then
    row[way.name .. "_us"] = way.made.predicted_us
    return
  end
  local measured, us = pcall(tune.measure, problem, way.made)
  row[way.name .. (measured and "_us" or "_failure")] = us
end

-- The row of a head_dim and a batch; without fused_us where it does not run fused.
local function break_even(head_dim, batch)
  local heads = math.max(1, option.widths[1] // head_dim)
  local problem = problem_of(batch, heads, head_dim)
  local row = { batch = batch, heads = heads, head_dim = head_dim, how = how }
  for _, way in ipairs(ways_of(problem)) do
    add_time(row, problem, way)
    if way.name == "fused" then row.scope, row.launches = way.made.plan.scope, way.made.details.launches end
  end
  write("break_even", row)
  return row
end

local function short(us, failure) return us and ("%.1f"):format(us) or failure and "failed" or "-" end

local function break_even_table()
  print(("\nus a step, both ways, %s: fused over alternating\n%8s %5s  %s"):format(how, "head_dim", "heads",
    "by batch, and the first batch at which alternating is quicker"))
  local words = {}
  for i, batch in ipairs(option.batches) do words[i] = ("%12d"):format(batch) end
  print(("%8s %5s %s"):format("", "", table.concat(words, " ")))
  for _, head_dim in ipairs(option.head_dims) do
    local first, heads
    for i, batch in ipairs(option.batches) do
      local row = break_even(head_dim, batch)
      local fused_us, other_us = row.fused_us or math.huge, row.alternating_us or math.huge
      words[i] = ("%12s"):format(short(row.fused_us, row.fused_failure) .. "/"
        .. short(row.alternating_us, row.alternating_failure))
      if other_us < fused_us then first = first or batch end
      heads = row.heads
    end
    print(("%8d %5d %s  %s"):format(head_dim, heads, table.concat(words, " "), first or "none of these"))
  end
end

table.sort(option.batches)
heads_table()
if chip then
  limits_table()
  break_even_table()
else
  print "\nFused and alternating run on GPUs only: --chip H200, say, plans for one that is not here."
end
