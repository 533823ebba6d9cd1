-- Comparisons of numbers and nested tables for tests.

--- Fails unless both have the same form and all numbers agree within `tolerance`, relative to 1 or the greater.
local function near(expected, got, tolerance, path)
  path = path or "value"
  if type(expected) == "table" then
    assert(type(got) == "table", path .. ": expected a table, got " .. tostring(got))
    assert(#expected == #got, ("%s: expected %d entries, got %d"):format(path, #expected, #got))
    for i, value in ipairs(expected) do near(value, got[i], tolerance, ("%s[%d]"):format(path, i)) end
    return
  end
  local scale = math.max(1, math.abs(expected))
  assert(math.abs(expected - got) <= (tolerance or 1e-12) * scale,
    ("%s: expected %.15g, got %s"):format(path, expected, tostring(got)))
end

return near
