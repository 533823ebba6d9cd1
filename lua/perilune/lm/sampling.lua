-- Text drawn from a language model: shown while it is drawn, and how fast that is.
local pl = require "perilune"
local Language = require "perilune.lm.model"
local nn = pl.nn

local sampling = {}

--- The ids of a prompt [1,T]. Without one, the end of a document, a new line, or the vocabulary's first token.
function sampling.prompt(tokenizer, prompt)
  if prompt and prompt ~= "" then return tokenizer:encode(prompt):reshape { 1, -1 } end
  local id = tokenizer.end_of_document
  for i, piece in ipairs(tokenizer.pieces) do
    if not id and piece == "\n" then id = i end
  end
  return pl.tensor({ { id or 1 } }, { dtype = "int64" })
end

-- Draws `count` tokens behind each row of ids, by option.temperature, top_k and top_p. Returns the tokens per second.
local function draw(model, ids, count, option, on_token)
  local _, rate = nn.generate(model.net, ids, {
    count = count, temperature = option.temperature, top_k = option.top_k, top_p = option.top_p, on_token = on_token,
  })
  return rate
end

--- Draws `count` tokens behind the ids of a prompt [1,T], by option.temperature, top_k and top_p, and calls write(text)
-- with each. Returns the tokens per second, nil for one.
function sampling.stream(model, tokenizer, ids, count, option, write)
  return draw(model, ids, count, option, function(drawn)
    write(tokenizer.pieces[drawn[1]] or "") -- a padded vocabulary has more ids
  end)
end

--- Tokens per second of `rows` texts that are drawn together, by the same options, `count` tokens of each.
function sampling.rate(model, rows, count, option)
  return draw(model, pl.ones { rows, 1, dtype = "int64" }, count, option)
end

--- The model of a run's folder, with the parameters of its checkpoint, in evaluation mode. option: that of the run.
function sampling.load(path, option, vocabulary)
  local _ <close> = pl.scope()
  local saved, own = pl.checkpoint.tensors(path), {}
  if not saved then error(("there is no checkpoint '%s' yet"):format(path), 0) end
  local model = Language(option, math.max(option.vocabulary or 0, vocabulary))
  for name in pairs(model.net:state_dict()) do own[name] = saved["model.net." .. name] end
  model.net:load_state_dict(own)
  return model:eval()
end

return sampling
