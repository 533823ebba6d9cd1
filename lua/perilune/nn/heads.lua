-- What layers that compare the positions of a sequence share: features split into heads, and who sees whom.
local pl = require "perilune"
local check = require "perilune.nn.check"

local heads = {}

--- How many units each of the heads has; `size` must be a multiple of their number.
function heads.units(who, size, count)
  check.integer(who, "size", size)
  check.integer(who, "heads", count)
  if size % count ~= 0 then check.fail("%s: size: expected a multiple of the %d heads, got %d", who, count, size) end
  return size // count
end

--- x [B,T,H*D] -> [B,H,T,D], a view.
function heads.split(x, count)
  local shape = x.shape
  return x:reshape({ shape[1], shape[2], count, shape[3] // count }):transpose(2, 3)
end

--- x [B,H,T,D] -> [B,T,H*D].
function heads.join(x)
  local shape = x.shape
  return x:transpose(2, 3):reshape { shape[1], shape[3], shape[2] * shape[4] }
end

--- [T,T] bool: 1 where the column, the position that is looked at, lies after the row, the position that looks.
function heads.future(steps, device)
  local t = pl.arange(1, steps, { dtype = "int64", device = device })
  return pl.gt(t:unsqueeze(1), t:unsqueeze(2)):to("bool")
end

return heads
