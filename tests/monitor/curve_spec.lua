-- Curves of a monitor: few points, whatever was added, and what they keep of it.
local Curve = require "perilune.monitor.curve"

local function points_of(curve)
  local points, gaps = {}, 0
  curve:each(function(point)
    if point then points[#points + 1] = point else gaps = gaps + 1 end
  end)
  return points, gaps
end

describe("a monitor's curve", function()
  it("keeps what is few as it is", function()
    local curve = Curve.new()
    for i = 1, 100 do curve:add(i, i * i) end
    local points = points_of(curve)
    assert.equal(100, #points)
    for i, point in ipairs(points) do
      assert.same({ i, i * i, i * i, i * i }, { point.x, point.y, point.low, point.high })
    end
  end)

  it("is bounded, and its points are the means and the range of their parts", function()
    local curve, all = Curve.new(), {}
    for i = 1, 12345 do
      all[i] = (i * 7919) % 1000
      curve:add(i, all[i])
    end
    local points = points_of(curve)
    assert.is_true(#points >= 150 and #points <= 300)
    local at = 0
    for _, point in ipairs(points) do
      local sum, steps, low, high = 0, 0, math.huge, -math.huge
      for i = at + 1, at + point.count do
        sum, steps, low, high = sum + all[i], steps + i, math.min(low, all[i]), math.max(high, all[i])
      end
      assert.is_true(math.abs(sum / point.count - point.y) < 1e-9)
      assert.is_true(math.abs(steps / point.count - point.x) < 1e-6)
      assert.same({ low, high }, { point.low, point.high })
      at = at + point.count
    end
    assert.equal(12345, at)
    assert.equal(all[12345], curve.last)
  end)

  it("has gaps where nothing is finite", function()
    local curve = Curve.new()
    for _, y in ipairs { 1, 0 / 0, 1 / 0, 2 } do curve:add(1, y) end
    local points, gaps = points_of(curve)
    assert.same({ 2, 2 }, { #points, gaps })
    for i = 5, 400 do curve:add(i, i % 2 == 0 and 1 or 0 / 0) end
    for _, point in ipairs((points_of(curve))) do assert.is_true(point.y >= 1 and point.y <= 2) end
  end)
end)
