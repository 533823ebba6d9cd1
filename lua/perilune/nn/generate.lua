-- nn.generate, and nn.sample on which it rests: symbols that follow a prompt, drawn one after another from a model that
-- carries its state.
local core = require "perilune.core"
local pl = require "perilune"
local declared = require "perilune.code.declared"
local check = require "perilune.nn.check"
local module = require "perilune.nn.module"
local sample = require "perilune.nn.sample"
local states = require "perilune.nn.state"

local who <const> = "nn.generate"

local known <const> = {
  count = check.none, temperature = 1, top_k = check.none, top_p = check.none, stop = check.none, on_token = check.none,
}

local function read_options(options)
  local option = check.options(who, options, known)
  check.integer(who, "count", option.count)
  sample.check(who, option)
  if option.stop ~= nil then check.integer(who, "stop", option.stop) end
  if option.on_token ~= nil then check.callable(who, "on_token", option.on_token) end
  return option
end

local function check_call(model, prompt)
  if not module.is_module(model) or not model.step then
    check.fail("%s: model: expected a module with a method step(ids [, state]), got %s", who,
      module.is_module(model) and getmetatable(model).__name or check.shown(model))
  end
  check.tensor(who, "prompt", prompt, 2)
  if not prompt.dtype:match "int" or prompt:numel() == 0 then
    check.fail("%s: prompt: expected integers, at least one row and one position, got %s %s", who,
      check.shape_text(prompt.shape), prompt.dtype)
  end
end

-- The logits [B,V] that follow the last position.
local function last_logits(model, ids, state)
  local logits, next_state = model:step(ids, state)
  return #logits.shape == 3 and logits:select(2, logits.shape[2]) or logits, next_state
end

-- Records two steps as graphs of a GPU, up to the scores that are drawn from: from the state of `carried` to another,
-- and from that one back into the first. Steps that cannot be repeated so, as those that read results, leave
-- carried.graphs false.
local function record(model, carried, option)
  local graphs, scores, other = {}, {}, nil
  local function step(turn)
    return function()
      local _ <close> = pl.scope()
      local logits, state = last_logits(model, carried.ids, turn == 1 and carried.state or other)
      scores[turn] = sample.scores(logits, option):keep()
      if turn == 2 then return states.assign(carried.state, state) end
      other = state
      states.map(other, function(t) t:keep() end)
    end
  end
  for turn = 1, 2 do
    local ok, graph = pcall(pl.cuda_graph, carried.ids.device, step(turn))
    if not ok then
      if graphs[1] then graphs[1]:close() end
      if not tostring(graph):match "cannot be recorded" then error(graph, 0) end
      carried.graphs = false
      return
    end
    graphs[turn] = graph
  end
  carried.graphs, carried.scores, carried.other, carried.turn = graphs, scores, other, 2
end

-- A step by one of the graphs. Returns the drawn ids as a list.
local function replay(carried, option)
  local _ <close> = pl.scope()
  carried.turn = 3 - carried.turn
  carried.graphs[carried.turn]:replay()
  carried.ids:copy_(sample.pick(carried.scores[carried.turn], option))
  return carried.ids:reshape({ -1 }):totable()
end

-- One step: the logits after the positions `carried.ids`, a draw from them, and both in `carried` in place of what was
-- there, which the scope drops. Returns the drawn ids as a list.
--
-- Small steps of a GPU take longer to ask for than to do. Once a step has left a state of the form that it began with,
-- all further ones are the same work on other numbers, and asked for by one call.
local function advance(model, carried, option)
  if carried.graphs then return replay(carried, option) end
  local _ <close> = pl.scope()
  states.map(carried, core.adopt)
  if carried.graphs == nil and carried.steady and carried.ids.device ~= "cpu" then record(model, carried, option) end
  if carried.graphs then
    replay(carried, option)
  else
    local logits, state = last_logits(model, carried.ids, carried.state)
    carried.steady = carried.ids.shape[2] == 1 and states.alike(carried.state, state)
    carried.ids, carried.state = sample.pick(sample.scores(logits, option), option), state
  end
  states.map(carried, core.retain)
  return carried.ids:reshape({ -1 }):totable()
end

-- Draws up to option.count ids for each row. Returns them as one list per row, and the tokens per second.
local function draw_rows(model, ids, option)
  local carried, rows, ended, left = { ids = ids }, {}, {}, ids.shape[1]
  local began, steps = nil, 0
  for row = 1, left do rows[row] = {} end
  while steps < option.count and left > 0 do
    local drawn = advance(model, carried, option)
    began, steps = began or pl.time(), steps + 1
    for row, id in ipairs(drawn) do
      if ended[row] then
        drawn[row] = option.stop
      elseif id == option.stop then
        ended[row], left = true, left - 1
      end
      rows[row][steps] = drawn[row]
    end
    if option.on_token then option.on_token(drawn) end
  end
  local seconds = pl.time() - began
  for _, graph in ipairs(carried.graphs or {}) do graph:close() end
  states.map(carried, core.adopt) -- by the scope of the call
  return rows, steps > 1 and #rows * (steps - 1) / seconds or nil
end

--- nn.generate(model, prompt, { count =, temperature = 1, top_k =, top_p =, stop =, on_token = }) -> ids, rate: `count`
-- symbols that follow each row of `prompt` [B,T] (integers, 1-based), drawn as nn.sample draws them; ids is int64
-- [B,T+count] on the prompt's device. A row that drew the id `stop` goes on with it, and where all did, ids is shorter.
-- on_token(list) is called after each step with the B ids it drew. rate: symbols per second of all rows from the first
-- drawn on, nil for one step. The model is one with a method step(ids [, state]) -> logits, state, as
-- nn.SequenceModel has; no gradients are recorded, and memory does not grow but for a state that does.
local function generate(model, prompt, options)
  check_call(model, prompt)
  local option = read_options(options)
  local _ <close> = pl.scope()
  local first = model:parameters()[1]
  local ids = prompt:to "int64"
  local rows, rate = pl.no_grad(draw_rows, model, first and ids:to(first.device):clone() or ids:clone(), option)
  local drawn = pl.tensor(rows, { dtype = "int64", device = prompt.device })
  return pl.cat({ ids, drawn }, 2):keep(), rate
end
declared.options(generate, known)

return { generate = generate, sample = sample.sample }
