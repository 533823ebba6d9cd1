-- pl.rnn and pl.rnn_plan: one recurrence over all time steps, in the way that suits the device or that was asked for.

local arguments = require "perilune.rnn.arguments"
local declared = require "perilune.code.declared"
local core = require "perilune.core"
local place = require "perilune.cell.place"
local plan = require "perilune.rnn.plan"

local rnn = {}

local function compiled(x)
  local handle = x.cell:compile { forward_clip = x.forward_clip }
  return core.recurrence(handle, x.Wx, x.R, x.b, x.params, x.initial, {
    lengths = x.lengths, outputs = x.outputs, cut = x.cut, clip = x.clip, product = x.product,
    fused = x.fused, alternating = x.alternating,
  })
end

local ways = { fused = compiled, alternating = compiled, reference = compiled }

local function run(Wx, R, b, opts)
  local x = arguments.check(Wx, R, b, opts)
  local way = ways[x.backend] or require "perilune.rnn.vanilla"
  local states, last = way(x)
  if states and states.dtype ~= x.dtype then states = states:to(x.dtype) end
  return states, last
end

-- Errors from here carry the name of the function and the place of the call.
local function checked(name, ok, ...)
  if ok then return ... end
  local message = ...
  if type(message) ~= "string" then error(message, 0) end
  error(("%s: %s"):format(name, place.strip(message)), 2) -- the caller of rnn.NAME, which ended in a tail call
end

--- Runs the cell opts.cell over Wx [B,T,Gw,N,D] with R [Gr,N,D,D] and b [Gb,N,D] (nil when no gate has that part).
-- Returns states [S,B,T,N,D] in Wx's type (h only for outputs = "h", nil for "last") and last [S,B,1,N,D] in the type
-- of the arithmetic: float64 for float64, else float32. Options: cell states backend plan dtype lengths outputs params
-- recurrent_grad_cut recurrent_grad_clip forward_clip.
function rnn.rnn(Wx, R, b, opts) return checked("pl.rnn", pcall(run, Wx, R, b, opts)) end

local function make_plan(given)
  if type(given) ~= "table" then error("expected a table { cell =, head_dim =, ... }, got a " .. type(given), 0) end
  local copy = {}
  for key, value in pairs(given) do copy[key] = value end
  copy.cell = arguments.cell(given.cell)
  copy.product = arguments.product(given.dtype or "float32", given.product)
  return plan.make(copy)
end

--- What pl.rnn would do for { cell =, batch =, heads =, head_dim =, dtype = (of Wx), product = (of the products),
-- device = (or chip = "A100", one that need not be here), backend =, plan = }: an object with the fields backend and
-- reason, which tostring explains and opts.plan accepts. Where the backend is fused it has `fused`, how the launch is
-- cut, and `details`, what that comes to. `plan` forces fields of the former: { scope =, blocks =, ... }; what is not
-- possible is an error that names the limit.
function rnn.rnn_plan(given) return checked("pl.rnn_plan", pcall(make_plan, given)) end
declared.options(rnn.rnn, arguments.options)
declared.options(rnn.rnn_plan, plan.options)

return rnn
