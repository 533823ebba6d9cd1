-- nn.CausalConvolution against plain loops.
local pl = require "perilune"
local nn = pl.nn
local against = require "tests.nn.against"
local message_of = require "tests.message_of"

local function loops(p)
  local width, result = #p.weight, {}
  for b, rows in ipairs(p.x) do
    result[b] = {}
    for t = 1, #rows do
      result[b][t] = {}
      for c, bias in ipairs(p.bias) do
        local y = bias
        for back = 0, math.min(width, t) - 1 do y = y + p.weight[width - back][c] * rows[t - back][c] end
        result[b][t][c] = y
      end
    end
  end
  return result
end

describe("nn.CausalConvolution", function()
  for _, width in ipairs { 1, 4, 7 } do
    it("filters each feature over what came before, width " .. width, function()
      against.module(nn.CausalConvolution(3, width), pl.randn { 2, 5, 3 }, loops)
    end)
  end

  it("names what is wrong", function()
    assert.matches("width: expected an integer of at least 1, got 0", message_of(nn.CausalConvolution, 3, 0))
    assert.matches("x: expected a last dimension of 3, got shape %[1, 2, 4%]",
      message_of(nn.CausalConvolution(3, 2), pl.ones { 1, 2, 4 }))
  end)
end)
