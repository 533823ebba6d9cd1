-- The table of state tracking: which models, trained on short sequences, are right on long ones, and whether splitting
-- the recurrent matrix into heads costs that. Best of several seeds each.
--
--   perilune experiments/tracking_table.lua                          parity, on two cores
--   perilune experiments/tracking_table.lua --task a5 --width 256 --batch 256 --min 1 --max 20 --curriculum 150 \
--     --lr 0.001 --steps 7000 --device cuda
--   perilune experiments/tracking_table.lua --plot tracking_table/tracking_table.jsonl
--
-- It is two sweeps of experiments/tracking.lua, one over the models and one over the heads of the recurrent ones: what
-- was stopped goes on when the command is given again, and runs that are there are not run again.
local pl = require "perilune"
local experiment = require "perilune.experiment"
local folder = require "perilune.sweep.folder"
local options = require "perilune.options"
local summary = require "perilune.sweep.summary"
local sweep = require "perilune.commands.sweep"

local models <const> = { "transformer", "mamba", "mamba_negative", "mlstm", "elman", "gru", "lstm", "slstm" }
local known_tasks <const> = {}
for name in pairs(pl.task) do known_tasks[#known_tasks + 1] = name end
table.sort(known_tasks)
local recurrent <const> = { elman = true, gru = true, lstm = true, slstm = true }

-- Accuracy beyond the training length on parity that the FlashRNN project's poster reports, best of 3 seeds.
local reported <const> = { transformer = 0.52, mamba = 0.56, mlstm = 0.54, elman = 1, gru = 1, lstm = 1, slstm = 1 }

local option = options.read {
  usage = "perilune experiments/tracking_table.lua [OPTIONS]",
  about = "Trains models on tasks of state tracking, and tabulates their accuracy beyond the training length.",
  { "task", "list", default = { "parity" }, choices = known_tasks, help = "tasks of pl.task" },
  { "model", "list", default = models, choices = models, help = "models of pl.nn.mixers" },
  { "heads", "integers", default = { 2, 4, 8 }, minimum = 2,
    help = "heads of the recurrent models, beside 1; divisors of the width" },
  { "width", "integer", default = 64, minimum = 1, help = "units of the models" },
  { "min", "integer", default = 3, minimum = 1, help = "shortest training sequence" },
  { "max", "integer", default = 40, minimum = 1, help = "longest training sequence" },
  { "curriculum", "integer", minimum = 1, help = "as experiments/tracking.lua has it [none]" },
  { "batch", "integer", default = 32, minimum = 1, help = "sequences per step" },
  { "lr", "number", default = 0.002, minimum = 0, help = "peak learning rate" },
  { "seeds", "integer", default = 3, minimum = 1, help = "seeds of each" },
  { "jobs", "integer", default = 2, minimum = 1, help = "runs at once" },
  { "steps", "integer", default = 2000, minimum = 1, help = "most training steps" },
  { "state", "integer", default = 4, minimum = 1, help = "states of Mamba per feature; the paper has 16" },
  { "lengths", "integers", minimum = 1,
    help = "lengths to report, some of them above --max [1, 2, 4, 8 and 16 times --max]" },
  { "count", "integer", default = 128, minimum = 1, help = "sequences per length" },
  { "device", "string", default = "cpu", help = "where to train: cpu, cuda, cuda:1" },
  { "out", "string", default = "tracking_table", help = "folder of the sweeps, the table and the figures" },
  { "plot", "string", help = "draw this table's file and do nothing else" },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- Figures, from the table's file alone

-- Draws the accuracy of each model's best seed over length, a figure per task. Returns the paths.
local function draw(path)
  local by_task, tasks, pictures = {}, {}, {}
  for _, record in ipairs(experiment.read(path, "best")) do
    if record.heads_swept == false then
      local series = by_task[record.task]
      if not series then
        series = {
          title = ("%s, trained up to length %d: best of %d seeds"):format(record.task, record.max, record.seeds),
          xlabel = "length", ylabel = "accuracy at the last position", logx = 2, yrange = { 0, 1.02 },
        }
        by_task[record.task] = series
        tasks[#tasks + 1] = record.task
      end
      series[#series + 1] = { x = record.lengths, y = record.accuracy, label = record.model }
    end
  end
  for i, task in ipairs(tasks) do
    pictures[i] = path:gsub("%.jsonl$", "") .. "-" .. task .. ".svg"
    pl.plot.line(by_task[task]):save(pictures[i])
  end
  return pictures
end

if option.plot then
  for _, picture in ipairs(options.attempt("plot", draw, option.plot)) do print(picture) end
  return
end

if option.lengths and math.max(table.unpack(option.lengths)) <= option.max then
  options.fail("option --lengths: expected one above those of training (%d), got %s", option.max,
    table.concat(option.lengths, ","))
end
for _, heads in ipairs(option.heads) do
  if option.width % heads ~= 0 then
    options.fail("option --heads: expected divisors of the width %d, got %d", option.width, heads)
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The runs

local tracking <const> = arg[0]:gsub("[^/]*$", "tracking.lua")

local failed, run_seconds = 0, 0 -- runs, and what all of them took, whenever that was

-- Runs what is missing of a sweep, and returns the results of its runs.
local function results_of(name, axes)
  local path = option.out .. "/" .. name
  local words = { tracking, "--jobs", tostring(option.jobs), "--out", path, "--task", table.concat(option.task, ",") }
  for _, axis in ipairs(axes) do
    table.insert(words, "--" .. axis[1])
    table.insert(words, table.concat(axis[2], ","))
  end
  for _, word in ipairs { "--seed", "1.." .. option.seeds, "--" } do table.insert(words, word) end
  for _, passed in ipairs { "width", "min", "max", "curriculum", "batch", "lr", "steps", "state", "lengths", "count",
                            "device" } do
    local value = option[passed]
    if value then
      table.insert(words, "--" .. passed)
      table.insert(words, type(value) == "table" and table.concat(value, ",") or tostring(value))
    end
  end
  failed = failed + sweep(words)
  local opened, list = folder.open(path), {}
  local rows = summary.look(opened)
  for _, number in ipairs(opened.asked) do -- the folder may hold more
    local row = rows[number]
    run_seconds = run_seconds + (row.mark.seconds or 0)
    list[#list + 1] = row.result
    if row.state == "done" and not row.result then
      failed = failed + 1
      io.stderr:write(("warning: %s is marked as done, but has no result that can be read; remove %s to run it again\n")
        :format(row.run.path, row.run:file "DONE"))
    end
  end
  return list
end

-- The best seed of each task, model and number of heads, in the order in which they come; a record for the file.
local function best_of(results, heads_swept)
  local list, by_key = {}, {}
  for _, result in ipairs(results) do
    local key = result.task .. " " .. result.model .. " " .. result.heads
    local found = by_key[key]
    if not found then
      found = { kind = "best", heads_swept = heads_swept, seeds = 0, solved_seeds = 0, beyond = -1 }
      by_key[key] = found
      list[#list + 1] = found
    end
    found.seeds = found.seeds + 1
    found.solved_seeds = found.solved_seeds + (result.solved and 1 or 0)
    if result.beyond > found.beyond then
      for _, name in ipairs { "task", "model", "heads", "seed", "max", "parameters", "steps", "seconds", "lengths",
                              "accuracy", "positions", "beyond", "scaled", "chance" } do
        found[name] = result[name]
      end
    end
  end
  return list
end

local function print_models(list)
  print("\ntask                 model           beyond  scaled   reported  at the longest  solved  parameters  steps")
  for _, row in ipairs(list) do
    local said = row.task == "parity" and reported[row.model]
    print(("%-20s %-14s %7.3f %7.3f %10s %15.3f %4d/%-2d %11d %6d"):format(row.task, row.model, row.beyond, row.scaled,
      said and ("%.2f"):format(said) or "", row.accuracy[#row.accuracy], row.solved_seeds, row.seeds, row.parameters,
      row.steps))
  end
end

-- A line per task and model, a column per number of heads: accuracy beyond the training length, and seeds that stopped
-- early because they were faultless.
local function print_heads(list)
  local lines, by_key, columns, known = {}, {}, {}, {}
  for _, row in ipairs(list) do
    local key = row.task .. " " .. row.model
    if not by_key[key] then
      by_key[key] = { task = row.task, model = row.model }
      lines[#lines + 1] = by_key[key]
    end
    by_key[key][row.heads] = ("%.3f (%d/%d)"):format(row.beyond, row.solved_seeds, row.seeds)
    if not known[row.heads] then
      known[row.heads] = true
      columns[#columns + 1] = row.heads
    end
  end
  table.sort(columns)
  local words = { ("\n%-20s %-8s"):format("task", "model") }
  for _, heads in ipairs(columns) do
    words[#words + 1] = ("%13s"):format(heads == 1 and "1 head" or heads .. " heads")
  end
  print(table.concat(words))
  for _, line in ipairs(lines) do
    words = { ("%-20s %-8s"):format(line.task, line.model) }
    for _, heads in ipairs(columns) do words[#words + 1] = ("%13s"):format(line[heads] or "") end
    print(table.concat(words))
  end
end

local began_s = pl.time()
options.attempt("out", experiment.make_folder, option.out)
local by_model = best_of(results_of("models", { { "model", option.model } }), false)
local split, swept = {}, {}
for _, model in ipairs(option.model) do
  if recurrent[model] then split[#split + 1] = model end
end
if #split > 0 then
  swept = best_of(results_of("heads", { { "model", split }, { "heads", option.heads } }), true)
end
local path <const> = option.out .. "/tracking_table.jsonl"
do
  local file <close> = options.attempt("out", experiment.results, path, option)
  for _, list in ipairs { by_model, swept } do
    for _, row in ipairs(list) do file:write(row) end
  end
  file:write { kind = "time", seconds = pl.time() - began_s, run_seconds = run_seconds }
end
print_models(by_model)
if #split > 0 then
  local all = {}
  for _, row in ipairs(by_model) do
    if recurrent[row.model] then all[#all + 1] = row end
  end
  print_heads(table.move(swept, 1, #swept, #all + 1, all))
end
print(("\nbeyond: mean accuracy at the last position at lengths above the training lengths, of the best seed\n"
  .. "%.0f s; results: %s"):format(pl.time() - began_s, path))
local drawn, pictures = pcall(draw, path)
if drawn then
  print("figures: " .. table.concat(pictures, " "))
else
  io.stderr:write("warning: no figure was drawn: ", pictures, "\n(draw it later with --plot ", path, ")\n")
end
if failed > 0 then options.fail("perilune: %d runs failed; the table is of the others", failed) end
