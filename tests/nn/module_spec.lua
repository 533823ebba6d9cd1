-- Modules: finding parameters, saving and loading, modes, types, scopes.
local pl = require "perilune"
local nn = pl.nn
local near = require("tests.tensor.check").near
local message_of = require "tests.message_of"

local Block = nn.class "Block"

function Block:init(n)
  self.first = nn.Linear(n, n)
  self.scale = nn.parameter(pl.ones { n })
  self.seen = nn.buffer(pl.zeros { n })
  self.note = "not a parameter"
  self.second = nn.Linear(n, n, { bias = false })
end

function Block:forward(x) return self.second(self.first(x) * self.scale) end

local function names(m)
  local list = {}
  for i, pair in ipairs(m:named_parameters()) do list[i] = pair[1] end
  return list
end

describe("a module", function()
  it("finds its parameters in the order of assignment", function()
    local m = Block(3)
    assert.are.same({ "first.weight", "first.bias", "scale", "second.weight" }, names(m))
    assert.are.equal(9 + 3 + 3 + 9, m:parameter_count())
    assert.are.equal(m.scale, m:parameters()[3])
    m.first = nn.Linear(3, 3, { bias = false })
    assert.are.same({ "first.weight", "scale", "second.weight" }, names(m))
  end)

  it("counts a shared parameter once", function()
    local m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    m[2].weight = m[1].weight
    assert.are.equal(3, #m:parameters())
    m:to("float64")
    assert.are.equal(m[1].weight, m[2].weight)
  end)

  it("saves and loads its state", function()
    local a, b = Block(3), Block(3)
    local x = pl.randn { 2, 3 }
    local name = os.tmpname()
    local path = name .. ".safetensors"
    pl.save(path, a:state_dict())
    b:load_state_dict(pl.load(path))
    os.remove(path)
    os.remove(name)
    near(a(x):totable(), b(x):totable(), 0)
    b.scale:detach():fill_(7)
    near({ 1, 1, 1 }, a.scale:totable(), 0)
  end)

  it("says what is missing, unexpected or of another shape, and then copies nothing", function()
    local m, state = Block(3), Block(3):state_dict()
    local before = m.first.weight:totable()
    state["first.bias"], state.extra, state.scale = nil, pl.zeros { 1 }, pl.zeros { 2, 2 }
    local message = message_of(m.load_state_dict, m, state)
    assert.matches("missing first.bias", message)
    assert.matches("unexpected extra", message)
    assert.matches("scale: expected shape %[3%], got %[2, 2%]", message)
    near(before, m.first.weight:totable(), 0)
    assert.matches("state: expected a table, got 3", message_of(m.load_state_dict, m, 3))
  end)

  it("changes its type, keeping values and gradients to come", function()
    local m = Block(2)
    local before = m.first.weight:totable()
    m:to("float64")
    assert.are.equal("float64", m.first.weight.dtype)
    assert.are.equal("float64", m.seen.dtype)
    near(before, m.first.weight:totable(), 0)
    m(pl.ones { 1, 2, dtype = "float64" }):sum():backward()
    assert.is_not_nil(m.first.weight.grad)
    assert.is_nil(m.seen.grad)
    m:zero_grad()
    assert.is_nil(m.first.weight.grad)
  end)

  it("passes its mode on to the modules inside", function()
    local m = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5)))
    assert.is_true(m[2][1].training)
    m:eval()
    assert.is_false(m[2][1].training)
    m:train()
    assert.is_true(m[2][1].training)
  end)

  it("outlives the scope it was made in", function()
    local m
    do
      local _ <close> = pl.scope()
      m = Block(3):to("float64")
    end
    assert.are.same({ 2, 3 }, m(pl.ones { 2, 3, dtype = "float64" }).shape)
  end)

  it("describes itself", function()
    local text = tostring(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)))
    assert.matches("nn.Sequential%(%) {\n  1: nn.Linear%(2 %-> 3%)\n  2: nn.Dropout%(0.5%)\n}", text)
    assert.matches("\n  1: pl.tanh\n  2: function\n  3: nn.Linear%(2 %-> 3%)\n",
      tostring(nn.Sequential(pl.tanh, function(x) return 2 * x end, nn.Linear(2, 3))))
    assert.matches("Nothing has no forward method", message_of(nn.class "Nothing" ()))
  end)
end)
