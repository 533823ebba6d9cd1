-- Parity of a bit string: trains recurrent cells on lengths 3..40 and reports how they extrapolate to 512.
--
--   perilune experiments/parity.lua                     all four cells, results in parity/
--   perilune experiments/parity.lua --cell lstm --seed 3
--   perilune experiments/parity.lua --device cuda --dtype bfloat16
--   perilune experiments/parity.lua --plot parity/parity.jsonl
--
-- One recurrent layer reads a one-hot bit per step and a linear layer reads out the parity so far. Training stops when
-- every position of unseen sequences of the validation length is right, several validations in a row. A transformer or
-- linear recurrence fails here.
local pl = require "perilune"
local experiment = require "perilune.experiment"
local options = require "perilune.options"
local nn = pl.nn

-- The recipe of each cell. An Elman cell of 32 units learns from most seeds, of 64 at a lower rate from all we tried.
local recipes <const> = {
  elman = { units = 64, lr = 0.002 },
  gru = { units = 32, lr = 0.003 },
  lstm = { units = 32, lr = 0.003, forget_gate = true },
  slstm = { units = 32, lr = 0.003, forget_gate = true },
}

local option = options.read {
  usage = "perilune experiments/parity.lua [OPTIONS]",
  about = "Trains recurrent cells on parity and reports accuracy beyond the training length.",
  { "cell", "list", default = { "elman", "gru", "lstm", "slstm" }, choices = { "elman", "gru", "lstm", "slstm" },
    help = "cells to train, one after another" },
  { "units", "integer", minimum = 1, help = "units of the recurrent layer [32; elman 64]" },
  { "heads", "integer", default = 1, minimum = 1, help = "heads; they divide the units" },
  { "layers", "integer", default = 1, minimum = 1, help = "recurrent layers" },
  { "labels", "string", default = "every", choices = { "every", "last" }, help = "positions that carry a label" },
  { "min", "integer", default = 3, minimum = 1, help = "shortest training sequence" },
  { "max", "integer", default = 40, minimum = 1, help = "longest training sequence" },
  { "steps", "integer", default = 6000, minimum = 1, help = "most training steps" },
  { "batch", "integer", default = 64, minimum = 1, help = "sequences per step" },
  { "lr", "number", minimum = 0, help = "learning rate of Adam [0.003; elman 0.002]" },
  { "clip", "number", default = 1, minimum = 0, help = "greatest norm of the gradient" },
  { "forget-bias", "number", default = 1, help = "start of the forget gate's bias, for cells with one" },
  { "validate-at", "integer", default = 256, minimum = 1, help = "length at which training may stop" },
  { "validate-every", "integer", default = 100, minimum = 1, help = "steps between validations" },
  { "patience", "integer", default = 10, minimum = 1, help = "faultless validations in a row that end training" },
  { "lengths", "integers", default = { 40, 64, 128, 256, 512 }, minimum = 1, help = "lengths to report" },
  { "count", "integer", default = 1024, minimum = 1, help = "sequences per length, in reports and validations" },
  { "backend", "string", default = "auto", help = "auto, fused, alternating, reference or vanilla" },
  { "dtype", "string", default = "float32", choices = { "float32", "float64", "bfloat16", "float16" },
    help = "type of parameters and data; 16 bits: of the products (autocast), with float32 parameters" },
  { "device", "string", default = "cpu", help = "where to train: cpu, cuda, cuda:1" },
  { "threads", "integer", default = 1, minimum = 1, help = "threads; so small a model is fastest on one" },
  { "seed", "integer", default = 1, help = "seed of data and parameters" },
  { "out", "string", default = "parity", help = "folder of the results" },
  { "no-plot", "flag", help = "write results only" },
  { "plot", "string", help = "draw this file of results and do nothing else" },
}

local half <const> = option.dtype == "bfloat16" or option.dtype == "float16"
local autocast <const> = half and option.dtype or nil -- the type of the products where it is not that of the tensors
local dtype <const> = half and "float32" or option.dtype

-- ---------------------------------------------------------------------------------------------------------------------
-- The plot, from a file of results alone

-- Draws accuracy over length beside the file of results. Returns the path of the picture.
local function draw(path)
  local series = {}
  for i, record in ipairs(experiment.read(path, "result")) do
    series[i] = { x = record.lengths, y = record.accuracy, label = ("%s, seed %d"):format(record.cell, record.seed) }
  end
  series.title, series.xlabel, series.ylabel = "Parity beyond the training length", "length", "accuracy"
  series.logx, series.yrange = 2, { 0.4, 1.02 }
  local picture = path:gsub("%.jsonl$", "") .. ".svg"
  pl.plot.line(series):save(picture)
  return picture
end

if option.plot then
  print(options.attempt("plot", draw, option.plot))
  return
end

-- ---------------------------------------------------------------------------------------------------------------------
-- What the options cannot mean together or on this machine

local function units_of(cell)
  return option.units or recipes[cell].units
end

local function check_options()
  options.attempt("threads", pl.threads, option.threads)
  options.attempt("device", pl.zeros, { 1, device = option.device })
  if option.max < option.min then
    options.fail("option --max: expected an integer of at least --min (%d), got %d", option.min, option.max)
  end
  options.attempt("device", pl.synchronize, option.device)
  for _, cell in ipairs(option.cell) do
    local units = units_of(cell)
    if units % option.heads ~= 0 then
      options.fail("option --heads: expected a divisor of the %d units of %s, got %d", units, cell, option.heads)
    end
    options.attempt("backend", pl.rnn_plan, {
      cell = cell, batch = option.batch, heads = option.heads, head_dim = units // option.heads, dtype = dtype,
      device = option.device, backend = option.backend,
    })
  end
  options.attempt("out", experiment.make_folder, option.out)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Training

-- Accuracies at a length, with the products of training.
local function accuracy_of(task, ...)
  if autocast then return pl.autocast(autocast, task.accuracy, task, ...) end
  return task:accuracy(...)
end

local Model = nn.class "Parity"

function Model:init(cell, units)
  self.last_only = option.labels == "last"
  self.rnn = nn.RNN {
    input_size = 2, hidden_size = units, heads = option.heads, layers = option.layers, cell = cell,
    backend = option.backend, forget_bias = recipes[cell].forget_gate and option.forget_bias or nil,
  }
  self.readout = nn.Linear(units, 2)
end

function Model:forward(x, lengths)
  local h = self.rnn(x, nil, self.last_only and lengths or nil)
  if self.last_only then h = h:select(2, h.shape[2]) end
  return self.readout(h)
end

local function train(cell, task, results)
  pl.seed(option.seed)
  local units, lr = units_of(cell), option.lr or recipes[cell].lr
  local model = Model(cell, units):to(dtype):to(option.device)
  local optimizer = pl.optim.Adam(model:parameters(), { lr = lr })
  local began_s, right = pl.time(), 0
  local history = pl.train.loop {
    model = model, optimizer = optimizer, steps = option.steps, clip = option.clip, label = cell,
    autocast = autocast,
    batch = function(step) return task:batch(step) end,
    loss = function(m, batch) return nn.cross_entropy(m(batch.x, batch.lengths), batch.y) end,
    evaluate_every = option.validate_every,
    evaluate = function(m, step) -- on another set each time: a mistake is a rare string
      local last, every = accuracy_of(task, m, option.validate_at, option.count, 1 + step)
      right = every == 1 and right + 1 or 0
      return { accuracy = last, positions = every }, right >= option.patience
    end,
  }
  for _, record in ipairs(history.evaluations) do
    results:write { kind = "validation", cell = cell, seed = option.seed, step = record.step,
                    accuracy = record.accuracy, positions = record.positions, loss = history.steps[record.step].loss }
  end
  return model, { kind = "result", cell = cell, seed = option.seed, units = units, lr = lr, steps = #history.steps,
                  seconds = pl.time() - began_s, solved = history.stopped == true,
                  metric = "accuracy", x = "lengths" }
end

-- On a set of sequences that no validation saw.
local function report(row, model, task)
  row.lengths, row.accuracy, row.positions = option.lengths, {}, {}
  for i, length in ipairs(option.lengths) do
    row.accuracy[i], row.positions[i] = accuracy_of(task, model:eval(), length, option.count, 1)
  end
end

local function print_row(first, cells, last)
  local words = { ("%-8s"):format(first) }
  for i, cell in ipairs(cells) do words[i + 1] = ("%10s"):format(cell) end
  print(table.concat(words) .. last)
end

local function run()
  check_options()
  local results <close> = options.attempt("out", experiment.results, option.out .. "/parity.jsonl", option)
  local task = pl.task.parity {
    size = option.batch, min = option.min, max = option.max, labels = option.labels, ragged = option.labels == "last",
    seed = option.seed, dtype = dtype, device = option.device,
  }
  print_row("cell", option.lengths, "   steps  seconds")
  for _, cell in ipairs(option.cell) do
    local model, row = train(cell, task, results)
    local shown = {}
    report(row, model, task)
    results:write(row)
    for i, accuracy in ipairs(row.accuracy) do shown[i] = ("%.2f %%"):format(100 * accuracy) end
    print_row(cell, shown, ("%8d %8.1f"):format(row.steps, row.seconds))
  end
  return results.path
end

local path = run()
print("results: " .. path)
if not option.no_plot then
  local drawn, picture = pcall(draw, path)
  if drawn then
    print("plot:    " .. picture)
  else
    io.stderr:write("warning: no plot was drawn: ", picture, "\n(draw it later with --plot ", path, ")\n")
  end
end
