-- `perilune tune`: measures plans of fused recurrences ahead of their use, and carries what was measured elsewhere.

local cells = require "perilune.cells"
local core = require "perilune.core"
local fused = require "perilune.rnn.fused"
local options = require "perilune.options"
local probe = require "perilune.rnn.probe"
local progress = require "perilune.progress"
local records = require "perilune.rnn.records"
local tune = require "perilune.rnn.tune"
local tuned = require "perilune.rnn.tuned"

-- Those of the README's table.
local shapes <const> = {
  "1x12x64", "1x1x768", "16x12x64", "16x6x128", "16x3x256", "16x1x512", "16x1x768", "16x1x1024", "64x12x64",
  "64x1x768", "8x1x1536", "8x1x2048",
}
local dtypes <const> = { "float32", "bfloat16", "float16" }

local declaration <const> = {
  usage = "perilune tune [SHAPES] [OPTIONS]",
  about = "Measures how recurrences of these shapes (BATCHxHEADSxUNITS; without any, the sizes of the README's table)\n"
    .. "run best on a GPU, and remembers it for every program of this user. With --import or --export alone nothing\n"
    .. "is measured.",
  words = "shapes",
  { "cell", "list", default = { "lstm" }, help = "cells, of those that come with the program" },
  { "dtype", "string", default = "bfloat16", choices = dtypes, help = "type of the gate inputs" },
  { "product", "string", choices = dtypes, help = "type of the products, as autocast sets it [that of --dtype]" },
  { "device", "string", default = "cuda", help = "the GPU: cuda, cuda:1" },
  { "again", "flag", help = "also measures what is remembered" },
  { "import", "string", help = "first adds what another --export wrote to this file" },
  { "export", "string", help = "at last writes all that is remembered to this file" },
}

-- ---- sharing --------------------------------------------------------------------------------------------------------

-- Adds the records of a file, of each problem the newest, but for those that are no newer than what is here. Returns
-- whether all of them were records and could be kept.
local function import(path)
  local file <close> = options.attempt("import", function() return assert(io.open(path, "rb")) end)
  local content = options.attempt("import", function() return assert(file:read "a") end)
  local newest, new, older, refused = {}, {}, 0, 0
  tuned:scan(content, function(record, number, why_not)
    if not record then
      refused = refused + 1
      io.stderr:write(("%s:%d: refused: %s\n"):format(path, number, why_not))
      return
    end
    local key = tuned:key(record)
    local known = newest[key] or tuned:find(record)
    if known and known.date >= record.date then older = older + 1 else newest[key] = record end
  end)
  for _, record in pairs(newest) do new[#new + 1] = record end
  table.sort(new, function(a, b) return tuned:key(a) < tuned:key(b) end)
  local kept, why_not = tuned:add(new)
  if not kept then options.fail("option --import: %s", why_not) end
  print(("imported %d from %s; %d were not newer than what is here, %d were refused"):format(#new, path, older,
    refused))
  return refused == 0
end

local function export(path)
  local all = tuned:all()
  options.attempt("export", core.write_file, path, records.lines(all))
  print(("exported %d to %s"):format(#all, path))
end

-- ---- measuring ------------------------------------------------------------------------------------------------------

local function problems_of(option)
  local list = {}
  for _, name in ipairs(option.cell) do
    local cell = options.attempt("cell", function() return cells[name] end)
    for _, shape in ipairs(option.shapes or shapes) do
      local batch, heads, units = shape:match "^([1-9]%d*)x([1-9]%d*)x([1-9]%d*)$"
      if not batch then options.fail("shape '%s': expected BATCHxHEADSxUNITS, such as 16x12x64", shape) end
      list[#list + 1] = {
        cell = cell, batch = math.tointeger(batch), heads = math.tointeger(heads), head_dim = math.tointeger(units),
        dtype = option.dtype, product = option.product or option.dtype, device = option.device, shape = shape,
      }
    end
  end
  return list
end

local function chip_of(device)
  local chip = options.attempt("device", core.fused_chip, device)
  return chip or options.fail("option --device: expected a GPU, got '%s'", device)
end

local function in_words(plan)
  if plan.scope == "block" then return ("block, %d rows"):format(plan.rows) end
  return ("%s of %d, %d rows, %d groups"):format(plan.scope, plan.blocks, plan.rows, plan.groups)
end

-- Fields of `other` that are not as in `plan`.
local function difference(plan, other)
  local list = {}
  for name, value in pairs(other) do
    if plan[name] ~= value then list[#list + 1] = ("%s %s"):format(name, value) end
  end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or "the same"
end

-- The row of a problem: how it runs, or why it does not, or what went wrong.
local function measure(problem, chip, again)
  local row = { problem.cell.name .. " " .. problem.shape }
  local ok, found, why_not = pcall(function()
    local known = not again and tune.remembered(problem, chip)
    if known then return known end
    return tune.measured(problem, chip)
  end)
  if not ok then
    row.failure = tostring(found)
  elseif not found then
    row[2] = "not fused: it " .. why_not
  elseif found.chosen.failure then
    row.failure = tostring(found.chosen.failure)
  else
    local how, first = found.chosen, fused.ranked(problem, probe.scaled(chip), 1)[1]
    row[2], row[3], row[4] = in_words(found.plan), ("%.2f"):format(how.predicted_us), ("%.2f"):format(how.measured_us)
    row[5], row[6] = how.by, difference(found.plan, first.plan)
    row.forgotten = how.forgotten
  end
  return row
end

local columns <const> = "%-20s %-32s %9s %8s  %-10s  %s"

-- What a probe found, in words: times over those of the model.
local function scale_in_words(scale)
  local words = {}
  for _, name in ipairs(probe.names) do
    if scale[name] then words[#words + 1] = ("%s %.2f"):format(name, scale[name]) end
  end
  return #words > 0 and table.concat(words, ", ") or "none could be measured"
end

-- Returns whether everything was measured and is remembered.
local function measure_all(problems, chip, device, again)
  local rows, forgotten, failed = {}, nil, false
  if again then probe.measure(device, chip, tune.measure) end
  local probed = probe.scaled(chip, device, tune.measure)
  for i, bar in progress(1, #problems, "tune") do
    bar:message("%s %s", problems[i].cell.name, problems[i].shape)
    rows[i] = measure(problems[i], chip, again)
    forgotten = forgotten or rows[i].forgotten
  end
  print(columns:format("cell, B x N x D", "plan", "predicted", "measured", "", "the model's first choice"))
  for _, row in ipairs(rows) do
    if row.failure then
      failed = true
      io.stderr:write(row[1], ": ", row.failure, "\n")
    else
      print((columns:format(row[1], row[2], row[3] or "", row[4] or "", row[5] or "", row[6] or ""):gsub(" +$", "")))
    end
  end
  print "Times are microseconds of a step, forward and backward."
  print("Those predicted are the model's times, on this device: " .. scale_in_words(probed.scale))
  if forgotten then io.stderr:write("what was measured is not remembered: ", forgotten, "\n") end
  return not failed and not forgotten
end

--- Runs the command with a list of arguments (default: the global `arg`); leaves with status 1 when anything failed.
return function(arguments)
  local option = options.read(declaration, arguments)
  local measures = option.shapes or not (option.import or option.export)
  local problems, chip = problems_of(option), measures and chip_of(option.device)
  local fine = not option.import or import(option.import)
  if measures then fine = measure_all(problems, chip, option.device, option.again) and fine end
  if option.export then export(option.export) end
  if not fine then os.exit(1, true) end
end
