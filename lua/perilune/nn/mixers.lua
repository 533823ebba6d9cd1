-- nn.mixers: the ways of mixing the positions of a sequence, by the name under which nn.SequenceModel knows them. Each
-- is function(size, heads, option) -> module from [B,T,size] to [B,T,size]; option is that of the model. Add to it.
local attention = require "perilune.nn.attention"
local mamba = require "perilune.nn.mamba"
local mlstm = require "perilune.nn.mlstm"
local rnn = require "perilune.nn.rnn"

local mixers = {}

function mixers.transformer(size, heads, option)
  return attention.Attention(size, heads, { rotary = option.positions == "rotary", bias = option.bias })
end

function mixers.mamba(size, _, option) return mamba.Mamba(size, { state = option.state }) end

--- Mamba with eigenvalues in (-1, 1). Train it without weight decay, which pulls the step sizes back to where no
-- eigenvalue is near 1 or -1, so that what was learned does not last beyond the training length.
function mixers.mamba_negative(size, _, option) return mamba.Mamba(size, { state = option.state, negative = true }) end

function mixers.mlstm(size, heads) return mlstm.MLSTM(size, heads) end

local function recurrent(cell, forget_bias)
  return function(size, heads, option)
    return rnn.RNN { input_size = size, hidden_size = size, heads = heads, cell = cell, forget_bias = forget_bias,
                     backend = option.backend }
  end
end

mixers.elman, mixers.gru = recurrent "elman", recurrent "gru"
mixers.lstm, mixers.slstm = recurrent("lstm", 1), recurrent("slstm", 1)

return { mixers = mixers, recurrent = recurrent }
