-- The table of language models: LSTM and sLSTM with one head and several, by the backends, and a Transformer, each
-- trained by experiments/lm.lua on the same text with the same budget.
--
--   perilune experiments/lm_table.lua --data text.txt --device cuda --seconds 300 --out lm_table
--   perilune experiments/lm_table.lua --steps 300                                      on a CPU, smaller models
--   perilune experiments/lm_table.lua --plot lm_table/lm_table.jsonl
--
-- What stands behind "--" goes to every run as it is: -- --width 256 --dtype float32. The rows run one after the
-- other, each in a process and a folder of its own; what was stopped goes on when the command is given again, and rows
-- that are there are not run again. Models, heads and backends may be added; all else needs another --out.
local pl = require "perilune"
local experiment = require "perilune.experiment"
local options = require "perilune.options"
local presets = require "perilune.lm.presets"
local process = require "perilune.speed.process"
local text = require "perilune.lm.text"

-- What the FlashRNN project's poster reports of 15 B tokens of SlimPajama: validation perplexity, seconds a step of
-- 256 x 1024 tokens. Of the sLSTM, which it has in several sizes of heads, the range.
local reported <const> = {
  ["lstm 1 fused"] = { 22.1, 0.535 }, ["lstm 1 alternating"] = { 21.9, 0.575 },
  ["lstm 12 fused"] = { 22.2, 0.325 }, ["lstm 12 alternating"] = { 22.1, 0.511 },
  ["transformer 12"] = { 17.9, 0.190 },
}
local slstm_perplexity <const>, slstm_step_s <const> = "21.3-21.8", "0.342-0.577"

local own, passed = {}, {} -- the arguments before and behind "--"
do
  local list = own
  for _, word in ipairs(arg) do
    if word == "--" and list == own then
      list = passed
    else
      list[#list + 1] = word
    end
  end
end

local option = options.read({
  usage = "perilune experiments/lm_table.lua [OPTIONS] [-- OPTIONS OF lm.lua]",
  about = "Trains language models with equal budgets, and tabulates speed, memory and validation loss.",
  { "preset", "string", choices = options.names(presets), help = "of experiments/lm.lua [seed-165m; on a CPU tiny]" },
  { "data", "string", help = "the text, as lm.lua takes it [the King James Bible of Debian]" },
  { "tokenizer", "string", help = "as lm.lua takes it [that of the preset]" },
  { "vocabulary", "integer", minimum = 1, help = "as lm.lua takes it [that of the preset]" },
  { "model", "list", default = { "lstm", "slstm", "transformer" }, choices = options.names(pl.nn.mixers),
    help = "mixers" },
  { "heads", "integers", minimum = 1,
    help = "heads of the recurrent models; others have the most of them [1,12; on a CPU 1,4]" },
  { "backend", "list", choices = { "fused", "alternating", "reference", "vanilla" },
    help = "of the recurrent models [fused,alternating; on a CPU reference]" },
  { "steps", "integer", default = 2000, minimum = 1, help = "training steps of a row" },
  { "seconds", "number", minimum = 0, help = "most seconds of training of a row [none]" },
  { "device", "string", default = "cpu", help = "where to train: cpu, cuda, cuda:1" },
  { "seed", "integer", default = 1, help = "seed of every row" },
  { "out", "string", default = "lm_table", help = "folder of the rows, the table and the figure" },
  { "plot", "string", help = "draws this table's file, and nothing else" },
}, own)

-- ---------------------------------------------------------------------------------------------------------------------
-- The figure, from the table's file alone

-- Draws validation losses over the seconds of training, a line per row. Returns the picture's path.
local function draw(path)
  local lines = { title = "language models with equal budgets", xlabel = "seconds of training",
                  ylabel = "validation loss, nats per token" }
  for i, row in ipairs(experiment.read(path, "row")) do
    lines[i] = { x = row.at_seconds, y = row.losses, label = row.name }
  end
  local picture = path:gsub("%.jsonl$", "") .. ".svg"
  pl.plot.line(lines):save(picture)
  return picture
end

if option.plot then
  print(options.attempt("plot", draw, option.plot))
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The rows

local on_cpu <const> = option.device == "cpu"
option.backend = option.backend or on_cpu and { "reference" } or { "fused", "alternating" }
option.heads = option.heads or on_cpu and { 1, 4 } or { 1, 12 }
option.preset = option.preset or on_cpu and "tiny" or "seed-165m"
for _, name in ipairs { "tokenizer", "vocabulary" } do
  if option[name] == nil then option[name] = presets[option.preset][name] end
end
local recurrent <const> = { elman = true, gru = true, lstm = true, slstm = true }

-- The rows as { name =, model =, heads =, backend = (or nil) }.
local function rows_of()
  local rows = {}
  local function add(model, heads, backend)
    rows[#rows + 1] = { name = table.concat({ model, heads, backend }, " "), model = model, heads = heads,
                        backend = backend }
  end
  for _, model in ipairs(option.model) do
    if recurrent[model] then
      for _, heads in ipairs(option.heads) do
        for _, backend in ipairs(option.backend) do add(model, heads, backend) end
      end
    else
      add(model, math.max(table.unpack(option.heads)))
    end
  end
  return rows
end

local function result_in(path)
  local file <close> = io.open(path)
  return file and experiment.read(path, "result", true)[1]
end

local text_folder <const> = option.out .. "/text" -- the rows share it

-- The result of a row, which is run unless it was. Without one, nil and what went wrong is on the standard error.
local function result_of(row)
  row.folder = option.out .. "/" .. row.name:gsub(" ", "_")
  local path = row.folder .. "/lm.jsonl"
  if result_in(path) then return result_in(path) end
  local words = { process.program(), process.quoted((arg[0]:gsub("[^/]*$", "lm.lua"))) }
  local function give(name, value)
    if value ~= nil then words[#words + 1] = ("--%s=%s"):format(name, process.quoted(tostring(value))) end
  end
  give("preset", option.preset)
  give("data", option.data == "random" and "random" or text_folder)
  for _, name in ipairs { "vocabulary", "steps", "seconds", "device", "seed" } do give(name, option[name]) end
  give("model", row.model)
  give("heads", row.heads)
  give("backend", row.backend)
  give("out", row.folder)
  give("eval-every", math.max(option.steps // 8, 1)) -- for the curves
  for _, word in ipairs(passed) do words[#words + 1] = process.quoted(word) end
  -- Not os.execute, during which Ctrl-C would be the row's alone, and the next row begin.
  assert(io.popen(table.concat(words, " "), "w")):close()
  return result_in(path)
end

-- A row with what its run says.
local function completed(row, result)
  local evaluations = experiment.read(row.folder .. "/lm.jsonl", "validation", true)
  row.kind, row.losses, row.at_seconds, row.folder = "row", {}, {}, nil
  for i, record in ipairs(evaluations) do row.losses[i], row.at_seconds[i] = record.loss, record.seconds end
  for _, name in ipairs { "parameters", "steps", "seconds", "ms", "tokens_per_s", "of_peak", "peak_bytes", "loss",
                          "perplexity", "bits_per_byte", "sample_tokens_per_s" } do
    row[name] = result[name]
  end
  local said = reported[row.name]
  row.reported_perplexity, row.reported_step_s = said and said[1], said and said[2]
  return row
end

local function said_of(row)
  if row.model == "slstm" and not on_cpu then return slstm_perplexity, slstm_step_s end
  if not row.reported_step_s then return "", "" end
  return ("%.1f"):format(row.reported_perplexity), ("%.3f"):format(row.reported_step_s)
end

local function print_table(rows)
  print(("\n%-26s %10s %8s %9s %10s %8s %7s %7s | %9s %11s"):format("", "parameters", "steps", "ms a step", "tokens/s",
    "peak MiB", "loss", "perpl.", "poster", "s a step"))
  for _, row in ipairs(rows) do
    local perplexity, step_s = said_of(row)
    print(("%-26s %10d %8d %9s %10s %8.0f %7s %7s | %9s %11s"):format(row.name, row.parameters, row.steps,
      row.ms and ("%.1f"):format(row.ms) or "", row.tokens_per_s and ("%.0f"):format(row.tokens_per_s) or "",
      row.peak_bytes / (1 << 20), row.loss and ("%.3f"):format(row.loss) or "",
      row.perplexity and ("%.1f"):format(row.perplexity) or "", perplexity, step_s))
  end
  print "poster: perplexity after 15 B tokens of SlimPajama, 768 units in 12 blocks, and seconds for 256 x 1024 tokens"
end

local wrong, reason = text.check { data = option.data, tokenizer = option.tokenizer, vocabulary = option.vocabulary,
                                   out = text_folder }
if wrong then options.fail("option --%s: %s", wrong, options.reason(reason)) end
-- The folder is of these options, but that rows may be added. "--" with what stands behind it is one of them.
local claimed <const> = { [""] = #passed > 0 and table.concat(passed, " ") or nil }
for name, value in pairs(option) do claimed[name] = value end
local _ <close> = options.attempt("out", experiment.claim, option.out, claimed,
  { model = true, heads = true, backend = true, out = true })
if option.data ~= "random" then
  options.attempt("out", experiment.make_folder, text_folder)
  local fine, message = pcall(text.open, { data = option.data, tokenizer = option.tokenizer, out = text_folder,
                                           vocabulary = option.vocabulary })
  if not fine then
    os.remove(option.out .. "/run.json") -- so that another text may be tried here
    options.fail("option --data: %s", options.reason(message))
  end
end
local path <const> = option.out .. "/lm_table.jsonl"
local rows, failed = {}, {}
for _, row in ipairs(rows_of()) do
  print(("== %s"):format(row.name))
  local result = result_of(row)
  if result then
    rows[#rows + 1] = completed(row, result)
  else
    failed[#failed + 1] = row.name
  end
  local file <close> = options.attempt("out", experiment.results, path, option) -- after each row: it may be the last
  for _, each in ipairs(rows) do file:write(each) end
end
print_table(rows)
print("results: " .. path)
if #rows > 0 then
  local drawn, picture = pcall(draw, path)
  if drawn then
    print("figure: " .. picture)
  else
    io.stderr:write("warning: no figure was drawn: ", picture, "\n(draw it later with --plot ", path, ")\n")
  end
end
if #failed > 0 then
  options.fail("perilune: %d rows failed (%s); the table is of the others", #failed, table.concat(failed, ", "))
end
