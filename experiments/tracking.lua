-- State tracking: trains one model on one task and reports how it does beyond the training length, up to 16 times it.
--
--   perilune experiments/tracking.lua --model lstm --task s5 --out runs/lstm
--   perilune experiments/tracking.lua --model transformer --task parity --plot runs/parity/tracking.jsonl
--   perilune sweep experiments/tracking.lua --model lstm,gru --task parity,s5 --seed 1..3 --jobs 2
--
-- The model is pl.nn.SequenceModel: embedding, residual blocks (norm, mixer, gated MLP), norm and read-out. Every
-- position or the last is labelled. Training stops when unseen sequences of the validation length are faultless several
-- times in a row. A run that was ended goes on from its checkpoint in --out; it must be given the same options. With as
-- many threads on the same device it does so bit for bit.
local pl = require "perilune"
local experiment = require "perilune.experiment"
local options = require "perilune.options"
local nn = pl.nn

local option = options.read {
  usage = "perilune experiments/tracking.lua [OPTIONS]",
  about = "Trains a model on a task of state tracking and reports accuracy beyond the training length.",
  { "model", "string", default = "lstm", choices = options.names(nn.mixers), help = "how positions are mixed" },
  { "task", "string", default = "parity", choices = options.names(pl.task), help = "what is to be tracked" },
  { "width", "integer", default = 64, minimum = 1, help = "units of the model" },
  { "layers", "integer", default = 2, minimum = 1, help = "residual blocks" },
  { "heads", "integer", minimum = 1, help = "heads; they divide the width [1; transformer and mlstm 4]" },
  { "state", "integer", default = 16, minimum = 1, help = "states of Mamba per feature" },
  { "positions", "string", default = "sinusoidal", choices = { "sinusoidal", "rotary" }, help = "of the transformer" },
  { "convolution", "integer", minimum = 1, help = "width of the causal convolution of each block [none]" },
  { "labels", "string", default = "every", choices = { "every", "last" }, help = "positions that carry a label" },
  { "min", "integer", default = 3, minimum = 1, help = "shortest training sequence" },
  { "max", "integer", default = 40, minimum = 1, help = "longest training sequence" },
  { "curriculum", "integer", minimum = 1,
    help = "steps after which the longest sequence, at first --min, is one longer [none]" },
  { "steps", "integer", default = 3000, minimum = 1, help = "most training steps" },
  { "batch", "integer", default = 32, minimum = 1, help = "sequences per step" },
  { "lr", "number", default = 0.002, minimum = 0, help = "peak learning rate of AdamW" },
  { "warmup", "integer", minimum = 0,
    help = "steps up to the peak; a cosine to a tenth follows [a tenth of all, at most 100]" },
  { "decay", "number", minimum = 0, help = "weight decay of matrices [0.01; mamba_negative 0]" },
  { "clip", "number", default = 1, minimum = 0, help = "greatest norm of the gradient" },
  { "validate-at", "integer", minimum = 1, help = "length at which training may stop [4 times --max]" },
  { "validate-every", "integer", default = 100, minimum = 1, help = "steps between validations, and checkpoints" },
  { "patience", "integer", default = 5, minimum = 1, help = "faultless validations in a row that end training" },
  { "lengths", "integers", minimum = 1, help = "lengths to report [1, 2, 4, 8 and 16 times --max]" },
  { "count", "integer", default = 128, minimum = 1, help = "sequences per length, in reports" },
  { "autocast", "string", choices = { "bfloat16", "float16" }, help = "type of products [that of the parameters]" },
  { "device", "string", default = "cpu", help = "where to train: cpu, cuda, cuda:1" },
  { "threads", "integer", default = 1, minimum = 1, help = "threads of the CPU; so small a model is fastest on one" },
  { "seed", "integer", default = 1, help = "seed of data and parameters" },
  { "out", "string", default = "tracking", help = "folder of the results and the checkpoint" },
  { "plot", "string", help = "draw this file of results and do nothing else" },
}

-- ---------------------------------------------------------------------------------------------------------------------
-- The plot, from a file of results alone

-- Draws accuracy over length beside the file of results. Returns the path of the picture.
local function draw(path)
  local record = experiment.read(path, "result")[1]
  local picture = path:gsub("%.jsonl$", "") .. ".svg"
  pl.plot.line({
    { x = record.lengths, y = record.accuracy, label = "last position" },
    { x = record.lengths, y = record.positions, label = "all positions" },
    { x = { record.lengths[1], record.lengths[#record.lengths] }, y = { record.chance, record.chance },
      label = "chance" },
    title = ("%s on %s, trained up to length %d"):format(record.model, record.task, record.max),
    xlabel = "length", ylabel = "accuracy", logx = 2, yrange = { 0, 1.02 },
  }):save(picture)
  return picture
end

if option.plot then
  print(options.attempt("plot", draw, option.plot))
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- What options mean, and cannot mean together or on this machine

local many_heads <const> = { transformer = true, mlstm = true }
option.heads = option.heads or many_heads[option.model] and 4 or 1
-- Decay pulls eigenvalues of -1, which tell parity, back towards 0.
option.decay = option.decay or option.model == "mamba_negative" and 0 or 0.01
option.warmup = option.warmup or math.min(100, option.steps // 10)
option.validate_at = option.validate_at or 4 * option.max
if not option.lengths then
  option.lengths = {}
  for i = 0, 4 do option.lengths[i + 1] = option.max << i end
end
if option.max < option.min then
  options.fail("option --max: expected an integer of at least --min (%d), got %d", option.min, option.max)
end
if option.warmup >= option.steps then
  options.fail("option --warmup: expected fewer than the %d steps, got %d", option.steps, option.warmup)
end
if option.width % option.heads ~= 0 then
  options.fail("option --heads: expected a divisor of the width %d, got %d", option.width, option.heads)
end
options.attempt("threads", pl.threads, option.threads)
options.attempt("device", pl.synchronize, option.device)
-- What a run that goes on may do otherwise: where it trains, and what it reports.
local free <const> = { device = true, threads = true, lengths = true, count = true, out = true }
local _ <close> = options.attempt("out", experiment.claim, option.out, option, free)

-- ---------------------------------------------------------------------------------------------------------------------
-- Training

-- Weight decay is for matrices, but not for embeddings.
local function groups_of(model)
  local matrices, others = {}, {}
  for _, p in ipairs(model:parameters()) do
    local decays = #p.shape > 1 and p ~= model.embedding.weight
    table.insert(decays and matrices or others, p)
  end
  return { { params = matrices }, { params = others, weight_decay = 0 } }
end

-- Accuracies at a length, with the products of training.
local function accuracy_of(task, ...)
  if option.autocast then return pl.autocast(option.autocast, task.accuracy, task, ...) end
  return task:accuracy(...)
end

local function train(task, model)
  local state = { faultless = 0, seconds = 0 } -- in the checkpoint
  local began_s = pl.time()
  local schedule = pl.optim.cosine { warmup = option.warmup, total = option.steps, peak = option.lr,
                                     floor = option.lr / 10 }
  local history = pl.train.loop {
    model = model, optimizer = pl.optim.AdamW(groups_of(model), { lr = option.lr, weight_decay = option.decay }),
    steps = option.steps, clip = option.clip, schedule = schedule, label = option.model .. " on " .. option.task,
    autocast = option.autocast, log = option.out .. "/steps.jsonl", log_every = 10,
    checkpoint = option.out .. "/checkpoint.safetensors", checkpoint_every = option.validate_every, state = state,
    batch = function(step) return task:batch(step) end,
    loss = function(m, batch) return nn.cross_entropy(m(batch.x, batch.lengths), batch.y, { ignore_index = 0 }) end,
    evaluate_every = option.validate_every,
    evaluate = function(m, step) -- on another set each time: a mistake is a rare sequence
      local last, every = accuracy_of(task, m, option.validate_at, 64, 1 + step)
      state.faultless = every == 1 and state.faultless + 1 or 0
      state.seconds = state.seconds + pl.time() - began_s
      began_s = pl.time()
      return { accuracy = last, positions = every }, state.faultless >= option.patience
    end,
  }
  return history, state.seconds
end

-- On a set of sequences that no validation saw: accuracies at the last position and over all, at each length.
local function report(task, model)
  local accuracy, positions, beyond, count = {}, {}, 0, 0
  for i, length in ipairs(option.lengths) do
    accuracy[i], positions[i] = accuracy_of(task, model, length, option.count, 1)
    if length > option.max then
      beyond, count = beyond + accuracy[i], count + 1
    end
  end
  beyond = count > 0 and beyond / count or nil
  return { accuracy = accuracy, positions = positions, lengths = option.lengths, beyond = beyond,
           scaled = beyond and task:scaled(beyond) }
end

local function run()
  pl.seed(option.seed)
  local task = pl.task[option.task] {
    size = option.batch, min = option.min, max = option.max, labels = option.labels, inputs = "ids",
    ragged = option.labels == "last", seed = option.seed, device = option.device,
    curriculum = option.curriculum and { start = option.min, every = option.curriculum } or nil,
  }
  local model = nn.SequenceModel {
    mixer = option.model, vocabulary = task.vocabulary, classes = task.classes, width = option.width,
    layers = option.layers, heads = option.heads, labels = option.labels, convolution = option.convolution,
    state = option.state, positions = option.positions,
  }:to(option.device)
  local history, seconds = train(task, model)
  local last = history.evaluations[#history.evaluations]
  local row = report(task, model:eval())
  row.kind, row.model, row.task, row.seed, row.max = "result", option.model, option.task, option.seed, option.max
  row.heads = option.heads
  row.parameters, row.steps, row.seconds = model:parameter_count(), last.step, seconds
  row.solved, row.chance, row.metric = history.stopped == true, task.chance, "beyond"
  local results <close> = options.attempt("out", experiment.results, option.out .. "/tracking.jsonl", option)
  for _, record in ipairs(history.evaluations) do
    record.kind = "validation"
    results:write(record)
  end
  results:write(row)
  return row
end

local row = run()
print(("%s on %s, seed %d: %d parameters, %d steps, %.0f s"):format(row.model, row.task, row.seed, row.parameters,
  row.steps, row.seconds))
print "length  last position  all positions  scaled"
for i, length in ipairs(row.lengths) do
  local scaled = (row.accuracy[i] - row.chance) / (1 - row.chance)
  print(("%6d %14.3f %14.3f %7.3f"):format(length, row.accuracy[i], row.positions[i], scaled))
end
if row.beyond then print(("beyond %d: %.3f, scaled %.3f"):format(row.max, row.beyond, row.scaled)) end
print("results: " .. option.out .. "/tracking.jsonl")
