-- Language models: trains one on any text, goes on where it was ended, and draws text from it.
--
--   perilune experiments/lm.lua --out runs/kjv                                    a small LSTM, minutes on a CPU
--   perilune experiments/lm.lua --preset char --data shakespeare.txt --device cuda --out runs/char
--   perilune experiments/lm.lua --sample 500 --prompt "In the " --out runs/kjv    draws; trains nothing
--   perilune experiments/lm.lua --preset seed-165m --profile --device cuda        where the time of a step goes
--   perilune experiments/lm.lua --plot runs/kjv/lm.jsonl
--
-- A preset (perilune.lm.presets) says what the options are that are not given. The model is pl.nn.SequenceModel; the
-- optimiser AdamW (0.9, 0.95), with weight decay on matrices but not on the embedding's, a line up to the learning rate
-- and half a cosine down to a tenth of it. The last tenth of the text is for validation. A run that was ended goes on
-- from its checkpoint in --out, bit for bit; it must be given the same options. Several processes that are started
-- together (pl.distributed: srun, mpirun, or torchrun's variables) train one model, each with its rows of every batch.
local pl = require "perilune"
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local options = require "perilune.options"
local presets = require "perilune.lm.presets"
local texts = require "perilune.lm.text"
local training = require "perilune.lm.training"

local option = options.read {
  usage = "perilune experiments/lm.lua [OPTIONS]",
  about = "Trains a language model on a text, and draws from it. What is not given is as the preset has it.",
  { "preset", "string", default = "tiny", choices = options.names(presets),
    help = "tiny: 2 x 128 LSTM on bytes, to 1.35 nats per byte of the Bible in minutes on a CPU; char: 2 x 256 on "
      .. "characters; seed-165m, seed-1b: 12 x 768, 24 x 2048" },
  { "data", "string",
    help = "a text, a folder of texts, ids (.tokens), a run's folder, or random [the King James Bible of Debian]" },
  { "tokenizer", "string", help = "bytes, characters, bpe (trained on the text), or a tokenizer.json" },
  { "vocabulary", "integer", minimum = 1, help = "symbols of bpe and of the model, if more than the text has" },
  { "model", "string", choices = options.names(pl.nn.mixers), help = "how positions are mixed" },
  { "heads", "integer", minimum = 1, help = "heads; they divide the width" },
  { "width", "integer", minimum = 1, help = "units of the model" },
  { "layers", "integer", minimum = 1, help = "residual blocks" },
  { "hidden", "integer", minimum = 1, help = "units of the MLPs [8/3 of the width]" },
  { "tied", "flag", help = "the head has the embedding's matrix" },
  { "dropout", "number", minimum = 0, maximum = 1, help = "on the embedding and on what each block adds" },
  { "backend", "string", choices = { "auto", "fused", "alternating", "reference", "vanilla" },
    help = "of the recurrence [auto]" },
  { "dtype", "string", choices = { "float32", "bfloat16" }, help = "type of parameters and products" },
  { "batch", "integer", minimum = 1, help = "sequences per step" },
  { "accumulate", "integer", minimum = 1,
    help = "parts into which a batch is cut, to save memory; several processes share them" },
  { "length", "integer", minimum = 1, help = "tokens per sequence" },
  { "stateful", "flag", optional = true, help = "reads the text on and on, and carries the state from step to step" },
  { "steps", "integer", minimum = 1, help = "training steps" },
  { "seconds", "number", minimum = 0, help = "ends training after so long, evaluation not counted [none]" },
  { "lr", "number", minimum = 0, help = "peak learning rate" },
  { "warmup", "integer", minimum = 0, help = "steps up to the peak [of the preset, a tenth of the steps at most]" },
  { "clip", "number", minimum = 0, help = "greatest norm of the gradient" },
  { "decay", "number", minimum = 0, help = "weight decay of matrices" },
  { "eval-every", "integer", minimum = 1, help = "steps between evaluations, and checkpoints" },
  { "log-every", "integer", default = 10, minimum = 1, help = "steps between lines of the log" },
  { "device", "string", default = "cpu", help = "where to train: cpu, cuda, cuda:1" },
  { "threads", "integer", minimum = 1, help = "threads of the CPU [all]" },
  { "seed", "integer", default = 1, help = "seed of batches, parameters and draws" },
  { "out", "string", default = "lm", help = "folder of the text's ids, the results and the checkpoint" },
  { "profile", "flag", help = "tells where the time of a step goes, on random ids, and trains nothing" },
  { "sample", "integer", minimum = 1, help = "draws so many tokens from the checkpoint, and trains nothing" },
  { "prompt", "string", help = "what the drawn text goes on from" },
  { "temperature", "number", default = 0.8, minimum = 0, help = "of draws; 0 takes the most probable token" },
  { "top-k", "integer", minimum = 1, help = "draws from so many tokens only" },
  { "top-p", "number", minimum = 0, maximum = 1, help = "draws from the fewest tokens of that probability only" },
  { "plot", "string", help = "draws the curves of this file of results, and nothing else" },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- The plot, from a file of results alone

local function draw(path)
  local runs, lines, names = experiment.runs(path), { xlabel = "step", ylabel = "loss, nats per token" }, {}
  for i, run in ipairs(runs) do
    local row = run.result and run.result[1] or error(("run %d of %s has no result"):format(i, path), 0)
    names[i] = ("%s, %.3g M parameters"):format(row.model, row.parameters / 1e6)
    for _, kind in ipairs { "train", "validation" } do
      local line = { x = {}, y = {}, label = #runs > 1 and row.model .. ", " .. kind or kind }
      for k, record in ipairs(run[kind] or {}) do line.x[k], line.y[k] = record.step, record.loss end
      if #line.x > 0 then lines[#lines + 1] = line end -- random ids have no validation
    end
  end
  lines.title = table.concat(names, "; ")
  local picture = path:gsub("%.jsonl$", "") .. ".svg"
  pl.plot.line(lines):save(picture)
  return picture
end

if option.plot then
  print(options.attempt("plot", draw, option.plot))
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Drawing

local function write(text)
  io.stdout:write(text)
  io.stdout:flush()
end

-- Shows `count` tokens, and tells how fast one text and 32 at once are drawn.
local function show_sample(model, tokenizer, count)
  local sampling = require "perilune.lm.sampling"
  local ids = options.attempt("prompt", sampling.prompt, tokenizer, option.prompt)
  if option.prompt then write(option.prompt) end
  local rate = sampling.stream(model, tokenizer, ids, count, option, write)
  local together = sampling.rate(model, 32, 64, option)
  print(("\n-- %s tokens/s, %.0f for 32 texts together"):format(rate and ("%.0f"):format(rate) or "?", together))
  return rate, together
end

if option.threads then options.attempt("threads", pl.threads, option.threads) end
options.attempt("device", pl.synchronize, option.device)
if option.top_p == 0 then options.fail("option --top-p: expected a number above 0; --temperature 0 takes the best") end
if option.sample then
  local tokenizer, about = options.attempt("out", texts.tokenizer, option.out)
  local file <close> = options.attempt("out", assert, io.open(option.out .. "/run.json"))
  local trained = core.json_decode(file:read "a")
  trained.device, option.preset = option.device, trained.preset
  local path = training.checkpoint_of(option.out)
  local model = options.attempt("out", require("perilune.lm.sampling").load, path, trained, about.vocabulary)
  pl.seed(option.seed)
  local rate, together = show_sample(model, tokenizer, option.sample)
  local results <close> = options.attempt("out", experiment.results, option.out .. "/sample.jsonl", option)
  results:write { kind = "sample", tokens_per_s = rate, tokens_per_s_of_32 = together,
                  parameters = model.net:parameter_count() }
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- What options mean, and cannot mean together

if option.tokenizer and option.data and texts.is_run(option.data) then
  options.fail("option --tokenizer: '%s' is a run's folder, which has a tokenizer", option.data)
end
local preset <const> = presets[option.preset]
option.warmup = option.warmup or math.min(preset.warmup, (option.steps or preset.steps) // 10)
for name, value in pairs(preset) do
  if option[name] == nil then option[name] = value end
end
option.stateful = option.stateful or false
if option.width % option.heads ~= 0 then
  options.fail("option --heads: expected a divisor of the width %d, got %d", option.width, option.heads)
end
if option.warmup >= option.steps then
  options.fail("option --warmup: expected fewer than the %d steps, got %d", option.steps, option.warmup)
end
if option.batch % option.accumulate ~= 0 then
  options.fail("option --accumulate: expected a divisor of the batch %d, got %d", option.batch, option.accumulate)
end
if option.stateful and option.model == "transformer" then
  options.fail("option --stateful: a transformer has no state that could be carried on and on")
end
if option.model == "transformer" and option.width // option.heads % 2 == 1 then
  options.fail("option --heads: a transformer's heads have an even number of features, but %d by %d is %d",
    option.width, option.heads, option.width // option.heads)
end
local wrong, reason = texts.check(option)
if wrong then options.fail("option --%s: %s", wrong, options.reason(reason)) end
if option.backend == "auto" then option.backend = nil end
local recurrent <const> = { elman = true, gru = true, lstm = true, slstm = true }
if option.backend and not recurrent[option.model] then
  options.fail("option --backend: it is for recurrent cells, not for %s", option.model)
end

-- That the way asked for can take so many sequences at once.
local function check_backend(rows)
  if not option.backend then return end
  options.attempt("backend", pl.rnn_plan, {
    cell = option.model, batch = rows, heads = option.heads, head_dim = option.width // option.heads,
    dtype = option.dtype, device = option.device, backend = option.backend,
  })
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Where the time of a step goes

if option.profile then
  check_backend(option.batch // option.accumulate)
  local ms = require("perilune.lm.profile").measure(option, option.vocabulary or 256)
  print "of one step  ms      share"
  for _, name in ipairs { "step", "recurrence", "products", "head", "optimizer", "rest" } do
    print(("%-12s %7.2f %5.1f %%"):format(name, ms[name], 100 * ms[name] / ms.step))
  end
  options.attempt("out", experiment.make_folder, option.out)
  local results <close> = options.attempt("out", experiment.results, option.out .. "/profile.jsonl", option)
  ms.kind = "profile"
  results:write(ms)
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The processes that train together, the folder, and the text

local distributed = pl.distributed
options.attempt("device", distributed.init)
local job = { rank = distributed.rank(), world = distributed.world_size() }
job.parts = (option.accumulate + job.world - 1) // job.world -- of no more rows than one process would take at once
job.rows = option.batch // (job.parts * job.world)
if job.world > 1 then
  if job.rows * job.parts * job.world ~= option.batch then
    options.fail("option --batch: expected a multiple of %d (%d processes, each with %d of the %d parts), got %d",
      job.parts * job.world, job.world, job.parts, option.accumulate, option.batch)
  end
  for name, instead in pairs { stateful = "--stateful=false", seconds = "--steps" } do
    if option[name] then
      options.fail("option --%s: it is for one process, not for %d that train together; give %s", name, job.world,
        instead)
    end
  end
end
if option.device == "cuda" then option.device = "cuda:" .. distributed.local_rank() end
check_backend(job.rows)

-- What a run that goes on may do otherwise: where it trains, and what it draws.
local free <const> = { device = true, threads = true, out = true, prompt = true, temperature = true, top_k = true,
                       top_p = true }
local _ <close> = job.rank == 0 and options.attempt("out", experiment.claim, option.out, option, free)

-- Ends a run whose text will not do. Unless something was trained in the folder, other options may be tried there.
local function give_up(message)
  local trained <close> = io.open(training.checkpoint_of(option.out))
  if job.rank == 0 and not trained then
    for _, file in ipairs { "run.json", "text.json" } do os.remove(option.out .. "/" .. file) end
  end
  options.fail("option --data: %s", options.reason(message))
end

local fine, text
if option.data == "random" then
  text = texts.random(option.vocabulary or 256)
else
  if job.rank > 0 then distributed.barrier() end -- rank 0 writes the ids, which the others read
  fine, text = pcall(texts.open, option)
  if not fine then give_up(text) end
  if job.rank == 0 then distributed.barrier() end
end
local fits, made = pcall(training.batches, option, text, job)
if not fits then give_up(made) end
local batches <close> = made

-- ---------------------------------------------------------------------------------------------------------------------
-- Training

local model, row, curves = training.run(option, text, batches, job)
if job.rank > 0 then return end
print(("%s, %d heads, %d parameters: %d steps in %.0f s, peak memory %.0f MiB"):format(row.model, row.heads,
  row.parameters, row.steps, row.seconds, row.peak_bytes / (1 << 20)))
if row.ms then print(("%.1f ms a step, %.0f tokens/s"):format(row.ms, row.tokens_per_s)) end
if row.of_peak then print(("%.1f %% of the device's products"):format(100 * row.of_peak)) end
if row.loss then
  print(("validation: loss %.4f nats per token, perplexity %.2f, %.3f bits per byte"):format(row.loss, row.perplexity,
    row.bits_per_byte))
  row.sample_tokens_per_s, row.sample_tokens_per_s_of_32 = show_sample(model, text.tokenizer, 200)
end
local path <const> = option.out .. "/lm.jsonl"
local file <close> = io.open(path)
-- A run that was finished before has no times of steps to tell of: what is there stays.
if row.ms or not file or not experiment.read(path, "result", true)[1] then
  local results <close> = options.attempt("out", experiment.results, path, option)
  for _, record in ipairs(curves) do results:write(record) end
  results:write(row)
end
print("results: " .. path)
