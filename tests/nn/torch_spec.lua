-- nn.from_torch and nn.to_torch, against plain loops over the equations in PyTorch's documentation, and against what
-- PyTorch 1.13 gave (golden/torch.safetensors: 2 layers, both directions, x and y, by the name of the cell).
local pl = require "perilune"
local nn = pl.nn
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"
local against = require "tests.nn.against"

local I <const>, H <const>, T <const> = 3, 4, 5
local gates <const> = { lstm = 4, gru = 3, elman = 1 }

local function weights(cell, layers, both)
  local w = {}
  for l = 0, layers - 1 do
    for _, end_of in ipairs(both and { "", "_reverse" } or { "" }) do
      local n, inputs = gates[cell] * H, l == 0 and I or H * (both and 2 or 1)
      for name, sizes in pairs { weight_ih = { n, inputs }, weight_hh = { n, H }, bias_ih = { n }, bias_hh = { n } } do
        sizes.dtype = "float64"
        w[("%s_l%d%s"):format(name, l, end_of)] = pl.randn(sizes)
      end
    end
  end
  return w
end

local function s(x) return 1 / (1 + math.exp(-x)) end
local function tanh(x) return 2 * s(2 * x) - 1 end

-- New h and c of unit d; a and b are the products and biases of the input and of h, in PyTorch's order.
local unit = {
  elman = function(a, b, d) return tanh(a[d] + b[d]) end,
  gru = function(a, b, d, h)
    local r, z = s(a[d] + b[d]), s(a[H + d] + b[H + d])
    return (1 - z) * tanh(a[2 * H + d] + r * b[2 * H + d]) + z * h
  end,
  lstm = function(a, b, d, _, c)
    local function gate(k) return a[k * H + d] + b[k * H + d] end
    c = s(gate(1)) * c + s(gate(0)) * tanh(gate(2))
    return s(gate(3)) * tanh(c), c
  end,
}

-- xs, a list of vectors, through one layer and direction.
local function one(cell, w, suffix, xs)
  local function of(name) return w[name .. suffix]:totable() end
  local h, c, ys, back = { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, {}, suffix:find "reverse"
  for t = back and #xs or 1, back and 1 or #xs, back and -1 or 1 do
    local a = against.linear(of "weight_ih", of "bias_ih", xs[t])
    local b, new = against.linear(of "weight_hh", of "bias_hh", h), {}
    for d = 1, H do new[d], c[d] = unit[cell](a, b, d, h[d], c[d]) end
    h, ys[t] = new, new
  end
  return ys
end

local function loops(cell, w, layers, both, xs)
  for l = 0, layers - 1 do
    local ys = one(cell, w, "_l" .. l, xs)
    local back = both and one(cell, w, "_l" .. l .. "_reverse", xs)
    xs = {}
    for t = 1, T do xs[t] = both and table.move(back[t], 1, H, H + 1, { table.unpack(ys[t]) }) or ys[t] end
  end
  return xs
end

describe("nn.from_torch", function()
  for cell in pairs(gates) do
    for _, both in ipairs { false, true } do
      local name = cell .. (both and ", bidirectional" or "")
      it("gives what PyTorch's equations do, and back, for " .. name, function()
        local w, x = weights(cell, 2, both), pl.randn { 1, T, I, dtype = "float64" }
        local m = nn.from_torch(w)
        near({ loops(cell, w, 2, both, x:totable()[1]) }, m(x):totable(), 1e-10)
        local path = os.tmpname() .. ".safetensors"
        pl.save(path, nn.to_torch(m, "rnn."))
        local again = nn.from_torch(path, "rnn.")
        os.remove(path)
        near(m(x):totable(), again(x):totable(), 0)
        local out = nn.to_torch(m)
        near({ loops(cell, out, 2, both, x:totable()[1]) }, m(x):totable(), 1e-10)
      end)
    end
  end

  for cell in pairs(gates) do
    it("gives what PyTorch itself gave for " .. cell, function()
      local stored = pl.load "tests/golden/torch.safetensors"
      local m = nn.from_torch(stored, cell .. ".")
      near(stored["y." .. cell]:totable(), m(stored["x." .. cell]):totable(), 1e-12)
    end)
  end

  it("names what is wrong", function()
    local w = weights("lstm", 1)
    assert.matches("nn.from_torch: tensors: 'weight_ih_l0' is missing", message_of(nn.from_torch, w, "rnn."))
    w.bias_hh_l0 = nil
    assert.matches("'bias_hh_l0' is missing", message_of(nn.from_torch, w))
    w.weight_hr_l0 = w.weight_hh_l0
    assert.matches("proj_size", message_of(nn.from_torch, w))
    local wide = nn.RNN { input_size = 2, hidden_size = 4, heads = 2 }
    assert.matches("expected 1 head, got 2", message_of(nn.to_torch, wide))
    assert.matches("got 'slstm'", message_of(nn.to_torch, nn.RNN { input_size = 2, hidden_size = 4, cell = "slstm" }))
  end)
end)
