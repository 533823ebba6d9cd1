-- A curve of any length in bounded space: as soon as there are too many points, neighbours are joined into means that
-- keep their least and greatest values.
local Curve = {}
Curve.__index = Curve

-- About as many as a picture has columns of pixels; even.
local points_max <const> = 300

-- Differences and means of such numbers are finite as well.
local function is_finite(y) return y >= -1e300 and y <= 1e300 end

local function new_point(x)
  return { x = x, y = 0, low = math.huge, high = -math.huge, values = 0, count = 0 }
end

--- A curve without points.
function Curve.new()
  return setmetatable({ points = {}, stride = 1, open = nil, last = nil }, Curve)
end

-- Joins each two neighbours. y is the mean of the `values` finite ones among the `count` values of a point.
local function halve(points)
  local half = {}
  for i = 1, #points, 2 do
    local a, b = points[i], points[i + 1]
    local values = a.values + b.values
    half[#half + 1] = {
      x = (a.x + b.x) / 2, y = values > 0 and (a.y * a.values + b.y * b.values) / values or 0,
      low = math.min(a.low, b.low), high = math.max(a.high, b.high), values = values, count = a.count + b.count,
    }
  end
  return half
end

--- Adds the point (x, y). A y that is not finite is a gap, or nothing where neighbours are joined.
function Curve:add(x, y)
  self.last = y
  local point = self.open or new_point(x)
  point.count = point.count + 1
  point.x = point.x + (x - point.x) / point.count
  if is_finite(y) then
    point.values = point.values + 1
    point.y = point.y + (y - point.y) / point.values
    point.low, point.high = math.min(point.low, y), math.max(point.high, y)
  end
  self.open = point
  if point.count < self.stride then return end
  self.points[#self.points + 1], self.open = point, nil
  if #self.points == points_max then
    self.points, self.stride = halve(self.points), self.stride * 2
  end
end

--- The last y in words.
function Curve:last_text()
  return self.last ~= self.last and "nan" or ("%.4g"):format(self.last)
end

--- Calls visit(point) for each point { x =, y =, low =, high = } in order, and visit(nil) for each gap.
function Curve:each(visit)
  for i = 1, #self.points + 1 do
    local point = self.points[i] or self.open
    if point then visit(point.values > 0 and point or nil) end
  end
end

return Curve
