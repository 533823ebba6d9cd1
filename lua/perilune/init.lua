-- `local pl = require "perilune"`: everything that scripts use, put together from the C core and the Lua modules.
local core = require "perilune.core"
local declared = require "perilune.code.declared"

local require = require -- cells may give the name another value

local pl = {
  version = core.version,
  null = core.null,
}

-- Modules that are loaded when first used, so that a short script starts fast.
local modules <const> = {
  nn = "perilune.nn",
  optim = "perilune.optim",
  train = "perilune.train",
  checkpoint = "perilune.checkpoint",
  distributed = "perilune.distributed",
  task = "perilune.task",
  data = "perilune.data",
  cells = "perilune.cells",
  progress = "perilune.progress",
  monitor = "perilune.monitor",
  plot = "perilune.plot",
  display = "perilune.display",
  widgets = "perilune.widgets",
  interact = "perilune.widgets.interact",
}

-- Functions, and the module and name under which each is found.
local from_module <const> = {
  cell = { "perilune.cell", "new" },
  check_cell = { "perilune.check_cell", "check_cell" },
  rnn = { "perilune.rnn", "rnn" },
  rnn_plan = { "perilune.rnn", "rnn_plan" },
  tuning = { "perilune.rnn.tune", "tuning" },
  tensorboard = { "perilune.tensorboard", "open" },
}

local from_core <const> = {
  "tensor", "full", "rand", "randn", "randint", "bernoulli", "arange", "linspace", "seed", "scope", "no_grad",
  "grad_enabled", "memory", "memory_limit", "reset_peak_memory", "devices", "synchronize", "threads", "tf32",
  "compilations", "time", "sleep", "timer", "cuda_graph", "save", "load", "is_tensor", "json_encode", "json_decode",
  "input",
}

for _, name in ipairs(from_core) do pl[name] = core[name] end
for _, row in ipairs(core.operations) do pl[row.name] = core[row.name] end

--- Asks the user for a line that is not shown while it is typed: password([prompt]) -> text.
function pl.password(prompt) return core.input(prompt, true) end
for name, f in pairs(require "perilune.tensor") do pl[name] = f end
for name, f in pairs(require "perilune.cross_entropy") do pl[name] = f end
for name, f in pairs(require "perilune.pointwise") do pl[name] = f end

-- What can be completed after "pl.", loaded or not.
local names = {}
for name in pairs(modules) do names[name] = "module" end
for name in pairs(from_module) do names[name] = "function" end

return setmetatable(pl, {
  __names = names,
  __index = declared.safe_index(function(_, name)
    local value
    if modules[name] then
      value = require(modules[name])
    elseif from_module[name] then
      local module, field = table.unpack(from_module[name])
      value = require(module)[field]
    end
    if value ~= nil then rawset(pl, name, value) end
    return value
  end),
})
