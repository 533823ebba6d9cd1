-- nn.from_torch and nn.to_torch: weights of PyTorch's nn.LSTM, nn.GRU and nn.RNN (tanh) in nn.RNN, and back.
local pl = require "perilune"
local check = require "perilune.nn.check"
local rnn = require "perilune.nn.rnn"

-- The gates of our cells in the order in which PyTorch stacks them in weight_ih and weight_hh. A gate in both has two
-- biases there and one, their sum, here; GRU's b_in and b_hn belong to different gates (n and g) and stay apart.
local stacked <const> = {
  lstm = { ih = { "i", "f", "z", "o" }, hh = { "i", "f", "z", "o" } },
  gru = { ih = { "r", "z", "n" }, hh = { "r", "z", "g" } },
  elman = { ih = { "g" }, hh = { "g" } },
}
local cell_of <const> = { [1] = "elman", [3] = "gru", [4] = "lstm" } -- by the number of gates

-- [G*H, ..] -> its G parts by the names of the gates.
local function by_gate(tensor, names, size)
  local parts = {}
  for i, name in ipairs(names) do parts[name] = tensor:narrow(1, (i - 1) * size + 1, size) end
  return parts
end

local function joined(parts, order)
  local list = {}
  for _, name in ipairs(order) do list[#list + 1] = parts[name] end
  return pl.cat(list, 1)
end

-- The tensor `name`, which must be there and have that shape.
local function fetch(tensors, name, ...)
  local tensor, shape = tensors[name], { ... }
  if tensor == nil then check.fail("nn.from_torch: tensors: '%s' is missing", name) end
  check.tensor("nn.from_torch", name, tensor)
  local got, expected = check.shape_text(tensor.shape), check.shape_text(shape)
  if #shape > 0 and got ~= expected then
    check.fail("nn.from_torch: %s: expected shape %s, got %s", name, expected, got)
  end
  return tensor
end

-- One layer and direction of PyTorch's as the parameters of ours, put into `state` under `path`.
local function convert(tensors, suffix, path, cell, size, inputs, biased, state)
  local names, order, count = stacked[cell], pl.cells[cell].gates, #stacked[cell].ih
  local function get(name, ...) return fetch(tensors, name .. suffix, count * size, ...) end
  local ih, hh = by_gate(get("weight_ih", inputs), names.ih, size), by_gate(get("weight_hh", size), names.hh, size)
  state[path .. ".weight"] = joined(ih, order)
  state[path .. ".recurrent"] = joined(hh, order):reshape { count, 1, size, size }
  local bias = {}
  if biased then
    bias = by_gate(get "bias_ih", names.ih, size)
    for name, part in pairs(by_gate(get "bias_hh", names.hh, size)) do
      bias[name] = bias[name] and bias[name] + part or part
    end
  end
  for _, name in ipairs(order) do bias[name] = bias[name] or pl.zeros_like((ih[name] or hh[name]):select(2, 1)) end
  state[path .. ".bias"] = joined(bias, order):reshape { #order, 1, size }
end

local function suffix_of(layer, direction)
  return ("_l%d%s"):format(layer - 1, direction == 2 and "_reverse" or "")
end

-- The tensors whose names begin with the prefix, without it.
local function below(tensors, prefix)
  local found = {}
  for name, tensor in pairs(tensors) do
    if name:sub(1, #prefix) == prefix then found[name:sub(#prefix + 1)] = tensor end
  end
  return found
end

--- nn.from_torch(tensors [, prefix]) -> nn.RNN: the weights of a PyTorch nn.LSTM, nn.GRU or nn.RNN with tanh, from the
-- path of a .safetensors file or a table { weight_ih_l0 = tensor, .. }; prefix ("encoder.rnn.") is what stands before
-- these names. The cell, sizes, layers and directions are read off the names and shapes, the type is that of the
-- weights. The weights of nn.RNN with relu look like those with tanh, which is taken; projections (proj_size)
-- are an error.
local function from_torch(given, prefix)
  if type(given) == "string" then given = pl.load(given) end
  check.kind("nn.from_torch", "tensors", given, "table")
  local tensors = below(given, check.kind("nn.from_torch", "prefix", prefix or "", "string"))
  if tensors.weight_hr_l0 then
    check.fail("nn.from_torch: weight_hr_l0: projections (proj_size) are not supported")
  end
  local first, hidden = fetch(tensors, "weight_ih_l0"), fetch(tensors, "weight_hh_l0")
  check.tensor("nn.from_torch", "weight_ih_l0", first, 2)
  local rows, size = table.unpack(check.tensor("nn.from_torch", "weight_hh_l0", hidden, 2).shape)
  local cell = rows % size == 0 and cell_of[rows // size]
  if not cell then
    check.fail("nn.from_torch: weight_hh_l0: expected [G H, H] with 1, 3 or 4 gates, got %s",
      check.shape_text(hidden.shape))
  end
  local layers, both = 1, tensors.weight_ih_l0_reverse ~= nil
  while tensors[("weight_ih_l%d"):format(layers)] do layers = layers + 1 end
  local m = rnn.RNN { input_size = first.shape[2], hidden_size = size, cell = cell, layers = layers,
                      bidirectional = both }
  pl.no_grad(function()
    local _ <close> = pl.scope()
    local state = {}
    for i = 1, layers do
      local inputs = i == 1 and m.input_size or size * m.directions
      for direction = 1, m.directions do
        convert(tensors, suffix_of(i, direction), ("layer%d%s"):format(i, direction == 2 and "_backward" or ""),
          cell, size, inputs, tensors.bias_ih_l0 ~= nil, state)
      end
    end
    m:to(first.dtype):to(first.device):load_state_dict(state)
  end)
  return m
end

--- nn.to_torch(rnn [, prefix]) -> table of tensors: what PyTorch's load_state_dict takes, for pl.save(path, ..). The
-- cell is lstm, gru or elman, with one head. A gate that has two biases in PyTorch has ours in bias_ih, 0 in bias_hh.
local function to_torch(m, prefix)
  if getmetatable(m) ~= rnn.RNN then check.fail("nn.to_torch: rnn: expected an nn.RNN, got %s", check.shown(m)) end
  prefix = check.kind("nn.to_torch", "prefix", prefix or "", "string")
  local cell, size = m.option.cell.name, m.hidden_size
  if not stacked[cell] or m.option.cell ~= pl.cells[cell] then
    check.fail("nn.to_torch: rnn: expected a cell that PyTorch has (lstm, gru, elman), got '%s'", cell)
  end
  if m.option.heads ~= 1 then check.fail("nn.to_torch: rnn: expected 1 head, got %d", m.option.heads) end
  local names, order, tensors = stacked[cell], pl.cells[cell].gates, {}
  local ih_order, hh_order, shared = {}, {}, {}
  for _, gate in ipairs(order) do
    for _, name in ipairs(names.ih) do if name == gate then ih_order[#ih_order + 1], shared[gate] = gate, true end end
    for _, name in ipairs(names.hh) do if name == gate then hh_order[#hh_order + 1] = gate end end
  end
  pl.no_grad(function()
    for i = 1, m.layers do
      for direction = 1, m.directions do
        local layer = m[("layer%d%s"):format(i, direction == 2 and "_backward" or "")]
        local suffix = suffix_of(i, direction)
        local bias = by_gate(layer.bias:detach():reshape { #order * size }, order, size)
        local none = {}
        for _, gate in ipairs(names.hh) do none[gate] = shared[gate] and pl.zeros_like(bias[gate]) or bias[gate] end
        local function put(name, parts, list) tensors[prefix .. name .. suffix] = joined(parts, list) end
        put("weight_ih", by_gate(layer.weight:detach(), ih_order, size), names.ih)
        put("weight_hh", by_gate(layer.recurrent:detach():reshape { #hh_order * size, size }, hh_order, size), names.hh)
        put("bias_ih", bias, names.ih)
        put("bias_hh", none, names.hh)
      end
    end
  end)
  return tensors
end

return { from_torch = from_torch, to_torch = to_torch }
