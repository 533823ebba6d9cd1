-- Measured recurrences against those of an earlier file: how much longer each setting takes now.
local records = require "perilune.speed.records"

local compare = {}

--- Pairs rows of the same setting: a list of { ratio = (ms now / ms then), now =, before = }, worst first, and how many
-- rows of `now` have no counterpart. A setting that `before` has of several devices is compared with the last one.
function compare.rows(now, before)
  local earlier, pairs_found, alone = {}, {}, 0
  for _, row in ipairs(before) do earlier[records.key(row)] = row end
  for _, row in ipairs(now) do
    local other = earlier[records.key(row)]
    if other then
      pairs_found[#pairs_found + 1] = { ratio = row.ms / other.ms, now = row, before = other }
    else
      alone = alone + 1
    end
  end
  table.sort(pairs_found, function(a, b) return a.ratio > b.ratio end)
  return pairs_found, alone
end

--- The comparison in lines; `path` is where the earlier rows are from.
function compare.text(now, before, path)
  local list, alone = compare.rows(now, before)
  local lines = { ("against %s, worst first; ms as median [p10, p90]"):format(path) }
  if #list > 0 then
    lines[2] = ("%6s %30s %30s  %s"):format("ratio", "now", "then", "setting")
  end
  local function times(row) return ("%.3f [%.3f, %.3f]"):format(row.ms, row.ms_p10, row.ms_p90) end
  for _, pair in ipairs(list) do
    lines[#lines + 1] = ("%6.3f %30s %30s  %s"):format(pair.ratio, times(pair.now), times(pair.before),
      records.key(pair.now))
  end
  if #list > 0 then
    lines[#lines + 1] = ("median ratio %.3f of %d settings"):format(list[(#list + 1) // 2].ratio, #list)
    lines[#lines + 1] = "measured then on " .. list[1].before.device_line
  end
  if alone > 0 then lines[#lines + 1] = ("%d settings are not in %s"):format(alone, path) end
  return table.concat(lines, "\n")
end

return compare
