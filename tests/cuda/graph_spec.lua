-- pl.cuda_graph: work of a GPU that is recorded and repeated, what cannot be recorded, and nn.generate, which rests on
-- it.
local pl = require "perilune"
local nn = pl.nn
local devices = require "tests.devices"
local message_of = require "tests.message_of"

it("pl.cuda_graph names what is wrong", function()
  assert.matches("cuda_graph: device: expected a GPU, whose work can be recorded; got cpu",
    message_of(pl.cuda_graph, "cpu", print))
  assert.matches("cuda_graph: f: expected a function, got no value", message_of(pl.cuda_graph, "cpu"))
end)

describe("pl.cuda_graph", function()
  if not devices.has("cuda", "pl.cuda_graph") then return end
  local device <const> = "cuda:0"

  local function live() return pl.memory()[device].live end

  it("does again what it recorded, on what its tensors hold by then", function()
    local _ <close> = pl.scope()
    local x, w = pl.randn { 3, 40, device = device }, pl.randn { 40, 40, device = device }
    local sum, y = pl.zeros { 3, 40, device = device }, nil
    local function step()
      local _ <close> = pl.scope()
      y = (pl.tanh(x:matmul(w)) * 2):keep()
      sum:add_(y)
    end
    step()
    sum:zero_()
    local graph <close> = pl.cuda_graph(device, step)
    assert.are.equal(0, sum:abs():max():item()) -- nothing was done yet
    local expected = pl.zeros_like(sum)
    for _ = 1, 3 do
      x:copy_(pl.randn { 3, 40 })
      graph:replay()
      local now = pl.tanh(x:matmul(w)) * 2
      expected = expected + now
      assert.are.equal(0, (y - now):abs():max():item())
    end
    assert.are.equal(0, (sum - expected):abs():max():item())
  end)

  it("keeps its memory apart from everybody else's, and gives it back", function()
    collectgarbage()
    local before = live()
    do
      local _ <close> = pl.scope()
      local x, y = pl.ones { 1000, device = device }, nil
      local function step()
        local _ <close> = pl.scope()
        y = (((x + 1) * 3 - 2) / 2):keep()
      end
      step()
      local graph = pl.cuda_graph(device, step)
      for _ = 1, 5 do
        local others = {}
        for i = 1, 50 do others[i] = pl.full({ 1000 }, -7, { device = device }) end
        graph:replay()
        assert.are.equal(2, y:min():item())
        for i = 1, 50 do assert.are.equal(-7, others[i]:max():item()) end
      end
      y:fill_(0) -- the graph writes there, also when nobody else knows of it any more
      y = nil -- luacheck: ignore
      collectgarbage()
      local other = pl.full({ 1000 }, 5, { device = device })
      graph:replay()
      assert.are.equal(5, other:min():item())
      graph:close()
      assert.matches("it is closed", message_of(graph.replay, graph))
    end
    collectgarbage()
    assert.are.equal(before, live())
  end)

  it("refuses what cannot be repeated, and all goes on", function()
    local _ <close> = pl.scope()
    local x = pl.ones { 4, device = device }
    local function refused(f) return message_of(pl.cuda_graph, device, f) end
    assert.matches("cuda_graph: a copy to the host cannot be recorded", refused(function() x:sum():item() end))
    assert.matches("cuda_graph: a copy from the host cannot be recorded",
      refused(function() pl.tensor({ 1, 2 }, { device = device }) end))
    assert.matches("cuda_graph: drawing random numbers cannot be recorded",
      refused(function() pl.rand_like(x) end))
    assert.matches("cuda_graph: a recording cannot be recorded",
      refused(function() pl.cuda_graph(device, function() end) end))
    assert.matches("cuda_graph: waiting for the GPU cannot be recorded",
      refused(function() pl.synchronize(device) end))
    assert.matches("own reason", refused(function() error "own reason" end))
    assert.are.equal(4, x:sum():item())
  end)

  it("repeats draws with the seed, whatever is drawn from", function()
    local _ <close> = pl.scope()
    pl.seed(6)
    local model = nn.SequenceModel { mixer = "gru", vocabulary = 30, width = 32 }:to(device):eval()
    local prompt = pl.randint(1, 30, { 3, 4 }, { dtype = "int64", device = device })
    for _, option in ipairs { { temperature = 0.7 }, { top_k = 5 }, { temperature = 1.3, top_k = 9, top_p = 0.8 } } do
      option.count = 12
      pl.seed(7)
      local got = nn.generate(model, prompt, option)
      pl.seed(7)
      local ids = prompt
      pl.no_grad(function()
        local logits, state = model:step(prompt)
        for i = 1, 12 do
          local drawn = nn.sample(logits:select(2, logits.shape[2]),
            { temperature = option.temperature, top_k = option.top_k, top_p = option.top_p })
          ids = pl.cat({ ids, drawn }, 2)
          if i < 12 then logits, state = model:step(drawn, state) end
        end
      end)
      assert.are.same(ids:totable(), got:totable())
    end
  end)

  for _, mixer in ipairs { "lstm", "slstm", "mlstm", "mamba", "transformer" } do
    it(("leaves what nn.generate draws as it is: %s"):format(mixer), function()
      local _ <close> = pl.scope()
      pl.seed(5)
      local model = nn.SequenceModel { mixer = mixer, vocabulary = 30, width = 32, heads = 2 }:to(device):eval()
      local prompt = pl.randint(1, 30, { 2, 4 }, { dtype = "int64", device = device })
      local got = nn.generate(model, prompt, { count = 20, temperature = 0 })
      local ids = prompt
      pl.no_grad(function()
        local logits, state = model:step(prompt)
        for i = 1, 20 do
          local best = logits:select(2, logits.shape[2]):argmax(2, true)
          ids = pl.cat({ ids, best }, 2)
          if i < 20 then logits, state = model:step(best, state) end
        end
      end)
      assert.are.same(ids:totable(), got:totable())
    end)
  end
end)
