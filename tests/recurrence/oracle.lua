-- The cells of pl.cells as their papers write them, one unit at a time in plain Lua, and a double loop over time and
-- units that runs them: an oracle that knows nothing of expressions, programs and tensors.

local exp, sqrt = math.exp, math.sqrt

local function sigmoid(x) return 1 / (1 + exp(-x)) end
local function tanh(x) return 1 - 2 / (1 + exp(2 * x)) end
local function relu(x) return math.max(x, 0) end

local oracle = {}

-- What a cell's gates get: W x (x), R h' (r) and b, in the order of the gate axes, and the step of one unit:
-- step(x, r, b, s, k) -> new states, in order. x, r and b hold the parts by gate, s the states, k the params.
local cells = {}
oracle.cells = cells

cells.elman = {
  x = { "h" }, r = { "h" }, b = { "h" },
  step = function(x, r, b) return tanh(x.h + r.h + b.h) end,
}

cells.gru = {
  x = { "r", "z", "n" }, r = { "n", "r", "z" }, b = { "hn", "r", "z", "n" },
  step = function(x, r, b, s)
    local reset, z = sigmoid(x.r + r.r + b.r), sigmoid(x.z + r.z + b.z)
    return (1 - z) * tanh(x.n + b.n + reset * (r.n + b.hn)) + z * s[1]
  end,
}

local lstm_gates = { "i", "f", "z", "o" }
cells.lstm = {
  x = lstm_gates, r = lstm_gates, b = lstm_gates,
  step = function(x, r, b, s)
    local c = sigmoid(x.f + r.f + b.f) * s[2] + sigmoid(x.i + r.i + b.i) * tanh(x.z + r.z + b.z)
    return sigmoid(x.o + r.o + b.o) * tanh(c), c
  end,
}

-- With the stabiliser and the clamp of n of FlashRNN.
cells.slstm = {
  x = lstm_gates, r = lstm_gates, b = lstm_gates,
  step = function(x, r, b, s)
    local i, l = x.i + r.i + b.i, -math.log(1 + exp(-(x.f + r.f + b.f))) + s[4]
    local m = s[3] == 0 and i or math.max(i, l)
    local c = exp(l - m) * s[2] + exp(i - m) * tanh(x.z + r.z + b.z)
    local n = math.max(exp(l - m) * s[3] + exp(i - m), 1)
    return sigmoid(x.o + r.o + b.o) * c / n, c, n, m
  end,
}

cells.cfn = {
  x = { "theta", "eta", "x" }, r = { "theta", "eta" }, b = { "theta", "eta" },
  step = function(x, r, b, s)
    local theta, eta = sigmoid(r.theta + x.theta + b.theta), sigmoid(r.eta + x.eta + b.eta)
    return theta * tanh(s[1]) + eta * tanh(x.x)
  end,
}

cells.cifg = {
  x = { "i", "z", "o" }, r = { "i", "z", "o" }, b = { "i", "z", "o" }, k = { "pi", "po" },
  step = function(x, r, b, s, k)
    local i = sigmoid(x.i + r.i + k.pi * s[2] + b.i)
    local f = 1 - i
    local c = tanh(x.z + r.z + b.z) * i + s[2] * f
    return tanh(c) * sigmoid(x.o + r.o + k.po * c + b.o), c
  end,
}

cells.exponential_lstm = {
  x = lstm_gates, r = lstm_gates, b = lstm_gates,
  step = function(x, r, b, s)
    local i, f = exp(x.i + r.i + b.i), exp(x.f + r.f + b.f)
    local c, n = f * s[2] + i * tanh(x.z + r.z + b.z), f * s[3] + i
    return sigmoid(x.o + r.o + b.o) * (c / n), c, n
  end,
}

cells.indrnn = {
  x = { "x" }, r = {}, b = { "x" }, k = { "u" },
  step = function(x, _, b, s, k) return relu(x.x + k.u * s[1] + b.x) end,
}

cells.intersection_rnn = {
  x = { "x", "y", "h", "gy", "gh" }, r = { "y", "h", "gy", "gh" }, b = { "y", "h", "gy", "gh" },
  step = function(x, r, b, s)
    local y_in, h_in = relu(r.y + x.y + b.y), tanh(r.h + x.h + b.h)
    local gy, gh = sigmoid(r.gy + x.gy + b.gy), sigmoid(r.gh + x.gh + b.gh)
    return gh * s[1] + (1 - gh) * h_in, gy * x.x + (1 - gy) * y_in
  end,
}

cells.janet = {
  x = { "f", "z" }, r = { "f", "z" }, b = { "f", "z" },
  step = function(x, r, b, s)
    local f = r.f + x.f + b.f
    return sigmoid(f) * s[1] + (1 - sigmoid(f - 1)) * tanh(r.z + x.z + b.z)
  end,
}

cells.leaky_esn = {
  x = { "u" }, r = { "u" }, b = {},
  step = function(x, r, _, s) return (1 - 1 * 0.3) * s[1] + 0.3 * tanh(x.u + r.u) end,
}

cells.leaky_integrator = {
  x = { "u" }, r = { "u" }, b = {},
  step = function(x, r, _, s)
    local current = (1 - 0.2) * s[2] + 0.2 * (r.u + x.u)
    return relu(current), current
  end,
}

-- With the gate after the product with R.
cells.mgu = {
  x = { "f", "u" }, r = { "f", "u" }, b = { "f", "u" },
  step = function(x, r, b, s)
    local f = sigmoid(x.f + r.f + b.f)
    return (1 - f) * s[1] + f * tanh(x.u + f * r.u + b.u)
  end,
}

cells.mi_lstm = {
  x = lstm_gates, r = lstm_gates, b = lstm_gates,
  k = {
    "alpha_i", "beta1_i", "beta2_i", "alpha_f", "beta1_f", "beta2_f",
    "alpha_z", "beta1_z", "beta2_z", "alpha_o", "beta1_o", "beta2_o",
  },
  step = function(x, r, b, s, k)
    local g = {}
    for _, name in ipairs(lstm_gates) do
      local Wx, Uh = x[name], r[name]
      g[name] = k["alpha_" .. name] * Wx * Uh + k["beta1_" .. name] * Uh + k["beta2_" .. name] * Wx + b[name]
    end
    local c = sigmoid(g.f) * s[2] + sigmoid(g.i) * tanh(g.z)
    return sigmoid(g.o) * tanh(c), c
  end,
}

cells.peephole_lstm = {
  x = lstm_gates, r = lstm_gates, b = lstm_gates, k = { "pi", "pf", "po" },
  step = function(x, r, b, s, k)
    local i, f = sigmoid(x.i + r.i + k.pi * s[2] + b.i), sigmoid(x.f + r.f + k.pf * s[2] + b.f)
    local c = f * s[2] + i * tanh(x.z + r.z + b.z)
    return sigmoid(x.o + r.o + k.po * c + b.o) * tanh(c), c
  end,
}

cells.qrnn = {
  x = { "z", "f", "o" }, r = {}, b = {},
  step = function(x, _, _, s)
    local c = sigmoid(x.f) * s[2] + (1 - sigmoid(x.f)) * tanh(x.z)
    return sigmoid(x.o) * c, c
  end,
}

cells.rg_lru = {
  x = { "r", "i", "x" }, r = {}, b = { "r", "i" }, k = { "lambda" },
  step = function(x, _, b, s, k)
    local a = sigmoid(k.lambda) ^ (8 * sigmoid(x.r + b.r))
    return a * s[1] + sqrt(1 - a ^ 2) * (sigmoid(x.i + b.i) * x.x)
  end,
}

cells.sru = {
  x = { "f", "r", "u", "x" }, r = {}, b = { "f", "r" }, k = { "vf", "vr" },
  step = function(x, _, b, s, k)
    local f, reset = sigmoid(x.f + k.vf * s[2] + b.f), sigmoid(x.r + k.vr * s[2] + b.r)
    local c = f * s[2] + (1 - f) * x.u
    return reset * c + (1 - reset) * x.x, c
  end,
}

cells.ugrnn = {
  x = { "c", "g" }, r = { "c", "g" }, b = { "c", "g" },
  step = function(x, r, b, s)
    local c, g = tanh(r.c + x.c + b.c), sigmoid(r.g + x.g + b.g)
    return g * s[1] + (1 - g) * c
  end,
}

cells.unicornn = {
  x = { "u" }, r = {}, b = { "u" }, k = { "w", "c" },
  step = function(x, _, b, s, k)
    local z = s[2] - 0.1 * sigmoid(k.c) * (tanh(k.w * s[1] + x.u + b.u) + 1 * s[1])
    return s[1] + 0.1 * sigmoid(k.c) * z, z
  end,
}

--- States of all steps, nested tables [S][B][T][N][D], of cells[name] over given = { Wx [B][T][Gw][N][D],
-- R [Gr][N][D][D], b [Gb][N][D] or nil, states [S][B][1][N][D], params = { name = [N][D] } }, all nested tables.
function oracle.run(name, given)
  local cell, count, result = cells[name], #given.states, {}
  local B, T, N, D = #given.Wx, #given.Wx[1], #given.states[1][1][1], #given.states[1][1][1][1]
  for s = 1, count do
    result[s] = {}
    for i = 1, B do
      result[s][i] = {}
      for t = 1, T do
        result[s][i][t] = {}
        for n = 1, N do result[s][i][t][n] = {} end
      end
    end
  end
  local function before(s, i, t, n) -- the states of a head's units before step t
    return (t == 1 and given.states[s][i][1] or result[s][i][t - 1])[n]
  end
  for i = 1, B do
    for t = 1, T do
      for n = 1, N do
        for d = 1, D do
          local x, r, b, s, k = {}, {}, {}, {}, {}
          for g, gate in ipairs(cell.x) do x[gate] = given.Wx[i][t][g][n][d] end
          for g, gate in ipairs(cell.b) do b[gate] = given.b[g][n][d] end
          for g, gate in ipairs(cell.r) do
            r[gate] = 0
            for p = 1, D do r[gate] = r[gate] + given.R[g][n][d][p] * before(1, i, t, n)[p] end
          end
          for state = 1, count do s[state] = before(state, i, t, n)[d] end
          for _, param in ipairs(cell.k or {}) do k[param] = given.params[param][n][d] end
          local new = { cell.step(x, r, b, s, k) }
          for state = 1, count do result[state][i][t][n][d] = new[state] end
        end
      end
    end
  end
  return result
end

return oracle
