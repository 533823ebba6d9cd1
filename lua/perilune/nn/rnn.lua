-- nn.RNN: layers of a recurrent cell with the dense input projection inside, in one or both directions of time.
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local initial = require "perilune.nn.initial"
local module = require "perilune.nn.module"

-- ---------------------------------------------------------------------------------------------------------------------
-- One layer in one direction

local Layer = module.class("nn.RNN.Layer")

local function find_cell(cell)
  if type(cell) == "string" then
    local ok, found = pcall(function() return pl.cells[cell] end)
    if not ok then check.fail("nn.RNN: cell: %s", (found:gsub("^[^\n]-:%d+: ", ""))) end
    return found
  end
  if not require("perilune.cell").is_cell(cell) then
    check.fail("nn.RNN: cell: expected a name or an object made by pl.cell, got a %s", type(cell))
  end
  return cell
end

-- Starts the bias of the gate f at `value` in all units.
local function set_forget_bias(self, value)
  local slot = 0 -- on the gate axis of the bias, which holds the gates that have one
  for i, gate in ipairs(self.cell.gates) do
    local has_bias = self.cell.parts[i].bias
    if has_bias then slot = slot + 1 end
    if gate == "f" and has_bias then
      pl.no_grad(function() self.bias:select(1, slot):fill_(value) end)
      return
    end
  end
  check.fail("nn.RNN: forget_bias: the cell '%s' has no gate 'f' with a bias", self.cell.name)
end

local function check_params(cell, values)
  for name, value in pairs(check.kind("nn.RNN", "params", values, "table")) do
    local found = false
    for _, one in ipairs(cell.params) do found = found or one == name end
    if not found then
      check.fail("nn.RNN: params: the cell '%s' declares no param '%s'", cell.name, tostring(name))
    end
    local low, high = value, value
    if type(value) == "table" then low, high = value[1], value[2] end
    if type(low) ~= "number" or type(high) ~= "number" then
      check.fail("nn.RNN: params.%s: expected a number or { low, high }, got %s", name, check.shown(value))
    end
  end
end

-- A param of a cell: it starts as told here, as the cell says, or as weights do.
local function param(cell, name, told, heads, dim)
  local start = told == nil and cell.starts[name] or told
  if type(start) == "table" then return initial.between({ heads, dim }, start[1], start[2]) end
  return start and initial.constant({ heads, dim }, start) or initial.uniform({ heads, dim }, 1 / math.sqrt(dim))
end

-- inputs: features of x; option: the options of nn.RNN, filled in.
function Layer:init(inputs, option)
  local cell, heads, dim = option.cell, option.heads, option.head_dim
  local gates, width = cell:count("input"), heads * dim
  self.cell, self.heads, self.dim, self.gates, self.inputs = cell, heads, dim, gates, inputs
  local recurrents, biases = cell:count("recurrent"), cell:count("bias")
  self.weight = initial.uniform({ gates * width, inputs }, 1 / math.sqrt(width))
  if recurrents > 0 then self.recurrent = initial.uniform({ recurrents, heads, dim, dim }, 1 / math.sqrt(dim)) end
  if biases > 0 then self.bias = initial.uniform({ biases, heads, dim }, 1 / math.sqrt(dim)) end
  check_params(cell, option.params)
  for _, name in ipairs(cell.params) do
    self["param_" .. name] = param(cell, name, option.params[name], heads, dim)
  end
  if option.forget_bias then set_forget_bias(self, check.number("nn.RNN", "forget_bias", option.forget_bias)) end
end

-- pl.rnn, whose complaints become nn.RNN's, at the user's line.
local function run(...)
  local results = table.pack(pcall(pl.rnn, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local complaint = type(results[2]) == "string" and results[2]:match("pl%.rnn: (.*)")
  if not complaint then error(results[2], 0) end
  check.fail("nn.RNN: %s", complaint)
end

-- x [B,T,inputs] -> h [B,T,N*D], last states [S,B,1,N,D].
function Layer:forward(x, states, lengths, option)
  local batch, steps = x.shape[1], x.shape[2]
  local params = {}
  for _, name in ipairs(self.cell.params) do params[name] = self["param_" .. name] end
  local wx = x:matmul(self.weight:t()):reshape { batch, steps, self.gates, self.heads, self.dim }
  local h, last = run(wx, self.recurrent, self.bias, {
    cell = self.cell, states = states, lengths = lengths, outputs = "h", params = next(params) and params or nil,
    backend = option.backend, plan = option.plan, dtype = option.dtype, forward_clip = option.forward_clip,
    recurrent_grad_cut = option.recurrent_grad_cut, recurrent_grad_clip = option.recurrent_grad_clip,
  })
  return h:reshape { batch, steps, self.heads * self.dim }, last
end

function Layer:extra()
  return ("%d -> %d x %d"):format(self.inputs, self.heads, self.dim)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Time reversed

-- Row numbers in [B*T] that reverse every batch row within its length and leave what lies beyond where it is. The map
-- is its own inverse.
local function reversal(batch, steps, lengths, device)
  local where = { dtype = "int64", device = device }
  local t = pl.arange(1, steps, 1, where):reshape { 1, steps }
  local row = (pl.arange(1, batch, 1, where):reshape { batch, 1 } - 1) * steps
  if not lengths then return (row + (steps + 1 - t)):reshape { batch * steps } end
  local length = pl.is_tensor(lengths) and lengths:to("int64"):to(device) or pl.tensor(lengths, where)
  length = length:reshape { batch, 1 }
  return (row + pl.where(pl.le(t, length), length + 1 - t, t)):reshape { batch * steps }
end

local function reordered(x, rows)
  local shape = x.shape
  return x:reshape { shape[1] * shape[2], shape[3] }:index_select(1, rows):reshape(shape)
end

-- ---------------------------------------------------------------------------------------------------------------------
-- The stack

local RNN = module.class("nn.RNN")

local known <const> = declared.options(RNN, {
  input_size = check.none, hidden_size = check.none, head_dim = check.none, heads = 1, cell = "lstm", layers = 1,
  bidirectional = false, dropout = 0, forget_bias = check.none, params = {}, backend = check.none, plan = check.none,
  dtype = check.none, recurrent_grad_cut = check.none, recurrent_grad_clip = check.none, forward_clip = check.none,
})

-- Hidden size and head size from the two of hidden_size, heads and head_dim that were given.
local function read_sizes(option)
  local heads = check.integer("nn.RNN", "heads", option.heads)
  if option.hidden_size == nil then
    option.head_dim = check.integer("nn.RNN", "head_dim", option.head_dim)
  else
    local hidden = check.integer("nn.RNN", "hidden_size", option.hidden_size)
    if hidden % heads ~= 0 then
      check.fail("nn.RNN: hidden_size: expected a multiple of the %d heads, got %d", heads, hidden)
    end
    if option.head_dim and check.integer("nn.RNN", "head_dim", option.head_dim) * heads ~= hidden then
      check.fail("nn.RNN: head_dim: expected %d (hidden_size / heads), got %s", hidden // heads,
        tostring(option.head_dim))
    end
    option.head_dim = hidden // heads
  end
  option.hidden_size = heads * option.head_dim
end

--- nn.RNN{ input_size =, hidden_size = or head_dim =, cell = "lstm", heads = 1, layers = 1, bidirectional = false,
-- dropout = 0 (between layers), forget_bias = (start of the bias of the gate f), params = { name = number or
-- { low, high }, with which a cell's param starts in place of what the cell declares }, and pl.rnn's backend, plan,
-- dtype, recurrent_grad_cut, recurrent_grad_clip, forward_clip }.
--
--   local output, last = rnn(x [, states [, lengths]])
--
-- x [B,T,input_size] -> output [B,T,hidden_size * directions] of the last layer, and the list of last states
-- [S,B,1,N,D]: one per layer, or with two directions layer 1 forward, layer 1 backward, layer 2 forward, ... `states`
-- is such a list of initial states (nil entries: the cell's own); `lengths` one length per row: beyond it the output
-- repeats each direction's last, and the backward direction starts at it. Weights start uniform within +-1/sqrt(size).
function RNN:init(options)
  local option = check.options("nn.RNN", options, known)
  self.input_size = check.integer("nn.RNN", "input_size", option.input_size)
  option.cell = find_cell(option.cell)
  read_sizes(option)
  check.number("nn.RNN", "dropout", option.dropout, 0, 1)
  self.layers, self.hidden_size = check.integer("nn.RNN", "layers", option.layers), option.hidden_size
  self.option, self.directions = option, option.bidirectional and 2 or 1
  for i = 1, self.layers do
    local inputs = i == 1 and self.input_size or self.hidden_size * self.directions
    self["layer" .. i] = Layer(inputs, option)
    if self.directions == 2 then self["layer" .. i .. "_backward"] = Layer(inputs, option) end
  end
end

-- `states` may hold a tensor, or nothing, at 1 .. layers * directions.
local function check_states(self, states)
  local count = self.layers * self.directions
  local list = ("a list of at most %d tensors, one per layer and direction"):format(count)
  if type(states) ~= "table" then check.fail("nn.RNN: states: expected %s, got %s", list, check.shown(states)) end
  for slot, tensor in pairs(states) do
    if math.type(slot) ~= "integer" or slot < 1 or slot > count then
      check.fail("nn.RNN: states: expected %s, got the key %s; the call is rnn(x [, states [, lengths]])", list,
        check.shown(slot))
    end
    check.tensor("nn.RNN", ("states[%d]"):format(slot), tensor)
  end
end

-- `lengths` is a list or a tensor of integers in 0 .. T, one per row of x; values on x's GPU are checked there.
local function check_lengths(lengths, x)
  local batch, steps = x.shape[1], x.shape[2]
  local expected = ("%d integers in 0..%d, one per row of x"):format(batch, steps)
  local list = lengths
  if pl.is_tensor(lengths) then
    if #lengths.shape ~= 1 or not lengths.dtype:match("^u?int") then
      check.fail("nn.RNN: lengths: expected %s, got %s %s", expected, check.shape_text(lengths.shape), lengths.dtype)
    end
    if x.device ~= "cpu" and lengths.device == x.device and lengths.shape[1] == batch then return end
    list = lengths:totable()
  elseif type(lengths) ~= "table" then
    check.fail("nn.RNN: lengths: expected %s, got %s", expected, check.shown(lengths))
  end
  for key in pairs(list) do
    if math.type(key) ~= "integer" or key < 1 or key > batch then
      check.fail("nn.RNN: lengths: expected %s, got the key %s", expected, check.shown(key))
    end
  end
  for row = 1, batch do
    local length = list[row]
    if type(length) ~= "number" or not math.tointeger(length) or length < 0 or length > steps then
      check.fail("nn.RNN: lengths[%d]: expected an integer in 0..%d, got %s", row, steps, check.shown(length))
    end
  end
end

local function check_call(self, x, states, lengths)
  check.tensor("nn.RNN", "x", x, 3, self.input_size)
  if x.shape[1] < 1 or x.shape[2] < 1 then
    check.fail("nn.RNN: x: expected at least one row and one time step, got shape %s", check.shape_text(x.shape))
  end
  if states ~= nil then check_states(self, states) end
  if lengths ~= nil then check_lengths(lengths, x) end
end

function RNN:forward(x, states, lengths, ...)
  if select("#", ...) > 0 then
    check.fail("nn.RNN: expected at most 3 arguments (x, states, lengths), got %d", 3 + select("#", ...))
  end
  check_call(self, x, states, lengths)
  local given, last, rows = states or {}, {}, nil
  if self.directions == 2 then rows = reversal(x.shape[1], x.shape[2], lengths, x.device) end
  for i = 1, self.layers do
    local slot = (i - 1) * self.directions + 1
    local y
    y, last[slot] = self["layer" .. i](x, given[slot], lengths, self.option)
    if rows then
      local back
      local layer = self["layer" .. i .. "_backward"]
      back, last[slot + 1] = layer(reordered(x, rows), given[slot + 1], lengths, self.option)
      y = pl.cat({ y, reordered(back, rows) }, 3)
    end
    if i < self.layers and self.training and self.option.dropout > 0 then y = pl.dropout(y, self.option.dropout) end
    x = y
  end
  return x, last
end

--- rnn:step(x [, states]): the call without lengths, so that the positions of x follow those that led to `states`.
function RNN:step(x, states)
  if self.directions == 2 then check.fail "nn.RNN: step: a bidirectional layer needs the whole sequence at once" end
  return self:forward(x, states)
end

function RNN:extra()
  return ("%s, %d -> %d"):format(self.option.cell.name, self.input_size, self.hidden_size * self.directions)
end

return { RNN = RNN }
