-- What help tells of a tensor's elements.
local core = require "perilune.core"

-- Cells may give other values to these names.
local format, max, sqrt, huge = string.format, math.max, math.sqrt, math.huge

-- Statistics look at no more elements than this, so that an answer comes at once; of a tensor that has more, at the
-- first ones.
local ELEMENTS_MAX <const> = 1 << 22

local function beginning(t)
  while t:numel() > ELEMENTS_MAX do
    local rows = t.shape[1]
    local kept = max(1, ELEMENTS_MAX // (t:numel() // rows))
    t = kept < rows and t:narrow(1, 1, kept) or t:select(1, 1)
  end
  return t
end

--- Rows { name, text } of what the elements of a tensor that are numbers come to.
return function(t)
  local scope <close> = core.scope() -- luacheck: ignore scope
  local x = beginning(t:detach())
  local seen, rows = x:numel(), {}
  if seen == 0 then return {} end
  x = x:to "float64"
  local lacking = core.ne(x, x)
  local nans = lacking:sum():item()
  local count = seen - nans
  local function without_nans(y, instead) return nans > 0 and core.where(lacking, instead, y) or y end
  if count > 0 then
    local mean = without_nans(x, 0):sum():item() / count
    local squares = without_nans(core.square(x - mean), 0):sum():item()
    rows = {
      { "mean", format("%.6g", mean) },
      { "std", count > 1 and format("%.6g", sqrt(squares / (count - 1))) or "nan" },
      { "min", format("%.6g", without_nans(x, huge):min():item()) },
      { "max", format("%.6g", without_nans(x, -huge):max():item()) },
    }
  end
  rows[#rows + 1] = { "NaN", format("%d", nans) }
  if seen < t:numel() then rows[#rows + 1] = { "of", format("the first %d of %d elements", seen, t:numel()) } end
  return rows
end
