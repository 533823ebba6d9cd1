-- The grid of a sweep: from words of the command line to the options of every run.
local grid = {}

grid.most = 100000 -- runs: more of them are a slip of the hand

-- The integers of "1..5"; nil and what was expected where it is an empty range, or one of other numbers; nil for words
-- that are no range.
local function range(text)
  local from, to = text:match "^([%w+.-]-)%.%.([%w+-][%w+.-]*)$"
  if not (tonumber(from) and tonumber(to)) then return end
  local first, last = math.tointeger(tonumber(from)), math.tointeger(tonumber(to))
  if not (first and last) then return nil, "ranges of integers, such as 1..5" end
  if first > last then return nil, "ranges that go up, such as 1..5" end
  if last - first >= grid.most then return nil, ("ranges of at most %d integers"):format(grid.most) end
  local list = {}
  for i = first, last do list[#list + 1] = tostring(i) end
  return list
end

--- The values of "a,b,1..3", each once, as texts. An error is one line, without a place.
function grid.values(name, text)
  local list, known = {}, {}
  for item in (text .. ","):gmatch "([^,]*)," do
    local several, expected = range(item)
    if item == "" then expected = "values separated by commas, or ranges such as 1..5" end
    if expected then error(("option --%s: expected %s, got '%s'"):format(name, expected, text), 0) end
    for _, value in ipairs(several or { item }) do
      if known[value] then error(("option --%s: the value %s is there twice"):format(name, value), 0) end
      known[value], list[#list + 1] = true, value
    end
  end
  return list
end

--- Reads the words after the experiment's name: { own = the words of the sweep's own options (flags[name] is true for
-- those without a value, false for those with one), sbatch = { { name, value or nil }, .. } from --slurm-NAME, axes =
-- { { name, values }, .. } of the grid, rest = the words after -- }. An option of the grid without a value is a flag,
-- switched on.
function grid.read(words, flags)
  local read, known = { own = {}, sbatch = {}, axes = {}, rest = {} }, {}
  local i = 1
  while i <= #words do
    local word = words[i]
    if word == "--" then
      table.move(words, i + 1, #words, 1, read.rest)
      break
    end
    local name, value = word:match "^%-%-([^=]+)=(.*)$"
    name = name or word:match "^%-%-([^=]+)$"
    if not name then error(("unexpected '%s'; --help explains the command"):format(word), 0) end
    if not value and flags[name] ~= true and words[i + 1] and not words[i + 1]:match "^%-%-" then
      i = i + 1
      value = words[i]
    end
    local slurm = name:match "^slurm%-(.+)$"
    if known[name] then error(("option --%s is there twice"):format(name), 0) end
    known[name] = true
    if flags[name] ~= nil then
      read.own[#read.own + 1] = value and ("--%s=%s"):format(name, value) or word
    elseif slurm then
      read.sbatch[#read.sbatch + 1] = { slurm, value }
    else
      read.axes[#read.axes + 1] = { name, grid.values(name, value or "true") }
    end
    i = i + 1
  end
  return read
end

--- Every combination of the axes' values, the last axis turning fastest: a list of { name = value }.
function grid.product(axes)
  local count = 1
  for _, axis in ipairs(axes) do
    count = count * #axis[2]
    if count > grid.most then error(("the options make more than %d runs"):format(grid.most), 0) end
  end
  local runs = { {} }
  for _, axis in ipairs(axes) do
    local longer = {}
    for _, run in ipairs(runs) do
      for _, value in ipairs(axis[2]) do
        local copy = { [axis[1]] = value }
        for name, text in pairs(run) do copy[name] = text end
        longer[#longer + 1] = copy
      end
    end
    runs = longer
  end
  return runs
end

return grid
