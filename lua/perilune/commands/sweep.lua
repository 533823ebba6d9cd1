-- `perilune sweep`: a grid of options, each combination a run of an experiment, here or as a job array of Slurm's.

local folder = require "perilune.sweep.folder"
local grid = require "perilune.sweep.grid"
local options = require "perilune.options"
local slurm = require "perilune.sweep.slurm"
local summary = require "perilune.sweep.summary"
local work = require "perilune.sweep.work"

local declaration <const> = {
  usage = "perilune sweep EXPERIMENT.lua --OPTION V1,V2,.. [--jobs N | --slurm] [--out DIR] [-- WORDS]\n"
    .. "       perilune sweep status DIR",
  about = "Runs the experiment once for every combination of the options' values: words separated by commas, and\n"
    .. "ranges such as 1..5. An option without a value is a flag; WORDS go to every run as they are, lists among\n"
    .. "them. Each run has a folder in DIR/runs, which the experiment is given as --out, with options.json,\n"
    .. "log, what the experiment writes, and DONE or FAILED at the end. The same command again, or one with more\n"
    .. "values, runs what is not done; a run that was ended early is started again in its folder, to go on from its\n"
    .. "checkpoint. `status` says how far all is, prints the table and writes DIR/summary.jsonl and, where results\n"
    .. "name their metric, DIR/summary.svg.",
  { "jobs", "integer", minimum = 1, maximum = 1024, help = "runs at once [1; with --slurm as many as Slurm allows]" },
  { "slurm", "flag", help = "submits what is not done as one job array, and waits for nothing" },
  { "slurm-NAME", "string", help = "an option of sbatch for each run: --slurm-time 2:00:00 --slurm-gres gpu:1" },
  { "out", "string", help = "folder of the sweep [the experiment's name with -sweep]" },
}

local function counted(rows)
  local count, words = {}, {}
  for _, row in ipairs(rows) do count[row.state] = (count[row.state] or 0) + 1 end
  for _, state in ipairs { "done", "failed", "running", "queued", "interrupted", "missing" } do
    if count[state] then words[#words + 1] = ("%d %s"):format(count[state], state) end
  end
  return table.concat(words, ", ")
end

local function elapsed(seconds)
  local s = math.max(0, math.floor(seconds))
  return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60)
end

-- What a person wants to know of a run beyond its state; nil of those that are well or wait.
local function remark_of(row)
  local mark = row.mark
  if row.state == "failed" then return mark.reason end
  if row.state == "interrupted" then return ("began %s on %s"):format(mark.date, mark.host) end
  if row.state ~= "running" then return end
  return ("on %s for %s%s"):format(mark.host, elapsed(os.time() - (mark.time or os.time())),
    mark.slurm and ", task " .. mark.slurm or "")
end

-- f(...); what it complains of ends the command.
local function try(f, ...)
  local results = table.pack(pcall(f, ...))
  if not results[1] then options.fail("perilune: %s", options.reason(results[2])) end
  return table.unpack(results, 2, results.n)
end

-- The rows of the runs that were last asked for, and of those that are there anyway. `reasons` are of runs that this
-- sweep saw fail: where the disk is full there is no mark of it.
local function look(sweep, reasons)
  local queue, why_not = slurm.queue(sweep)
  if not queue then io.stderr:write("perilune: Slurm's queue is not known: ", why_not, "\n") end
  local asked, rows = {}, {}
  for _, number in ipairs(sweep.asked) do asked[number] = true end
  for number, row in ipairs(summary.look(sweep)) do
    if reasons[row.run] then row.state, row.mark = "failed", { reason = reasons[row.run] } end
    if queue and queue[number] and row.state ~= "done" and row.state ~= "running" then row.state = "queued" end
    if asked[number] or row.state == "done" or row.state == "running" or row.state == "queued" then
      rows[#rows + 1] = row
    end
  end
  return rows
end

-- Prints and writes how far a sweep is and what came out.
local function report(sweep, reasons)
  local rows = look(sweep, reasons)
  print(("%s: %s, %d runs: %s\n"):format(sweep.path, sweep.experiment, #rows, counted(rows)))
  print(summary.table(sweep, rows) .. "\n")
  for _, row in ipairs(rows) do
    local remark = remark_of(row)
    if remark then print(("%-11s  runs/%s  %s"):format(row.state, row.run.name, remark)) end
  end
  try(summary.write, sweep, rows)
  local picture, why_not = summary.draw(sweep, rows)
  print(picture and "plot: " .. picture or "no plot: " .. why_not)
end

local function status(words)
  if #words ~= 1 then options.fail("perilune: expected one folder\nusage: perilune sweep status DIR") end
  report(try(folder.open, words[1]), {})
end

-- What a task of the job array does: `perilune sweep run DIR NUMBER`.
local function run(words)
  local sweep = try(folder.open, words[1] or "")
  local chosen = sweep.runs[math.tointeger(tonumber(words[2]))]
  if #words ~= 2 or not chosen then
    options.fail("perilune: expected a folder and the number of one of its %d runs\n"
      .. "usage: perilune sweep run DIR NUMBER", #sweep.runs)
  end
  local failure = work.through(sweep, { chosen }, 1)[1]
  if failure then options.fail("perilune: %s failed: %s", chosen.path, failure.reason) end
end

local function submit(sweep, option, sbatch)
  local _ <close> = try(folder.hold, sweep.path)
  local queue, why_not = slurm.queue(sweep)
  if not queue then options.fail("perilune: %s", why_not) end
  local numbers, count = {}, { done = 0, running = 0, queued = 0 }
  for _, number in ipairs(sweep.asked) do
    local state = sweep.runs[number]:state()
    if state ~= "done" and state ~= "running" and queue[number] then state = "queued" end
    if count[state] then count[state] = count[state] + 1 else numbers[#numbers + 1] = number end
  end
  print(("%d runs: %d done, %d running, %d in the queue"):format(#sweep.asked, count.done, count.running, count.queued))
  if #numbers == 0 then return end
  local job, path = try(slurm.submit, sweep, numbers, option.jobs, sbatch)
  if not job then options.fail("perilune: %s", path) end
  print(("submitted %d as job %s (%s)"):format(#numbers, job, path))
  print(("perilune sweep status %s tells how far they are"):format(option.out))
end

-- Returns how many runs failed.
local function run_here(sweep, option)
  local missing, count = {}, #sweep.asked
  for _, number in ipairs(sweep.asked) do
    local chosen = sweep.runs[number]
    if chosen:state() ~= "done" then missing[#missing + 1] = chosen end
  end
  print(("%d runs in %s: %d are done, %d are to do"):format(count, option.out, count - #missing, #missing))
  local failures, reasons = work.through(sweep, missing, option.jobs or 1), {}
  for _, failure in ipairs(failures) do reasons[failure.run] = failure.reason end
  report(sweep, reasons)
  if #failures > 0 then io.stderr:write(("perilune: %d of %d runs failed\n"):format(#failures, #missing)) end
  return #failures
end

local function start(experiment, words)
  local flags = { jobs = false, slurm = true, out = false, help = true }
  local read = try(grid.read, words, flags)
  local option = options.read(declaration, read.own)
  for _, pair in ipairs(read.sbatch) do
    if not option.slurm then options.fail("option --slurm-%s: goes with --slurm", pair[1]) end
    if slurm.own[pair[1]] then options.fail("option --slurm-%s: this one is set by the sweep", pair[1]) end
  end
  local file <close> = io.open(experiment)
  if not file then options.fail("perilune: there is no experiment '%s'", experiment) end
  option.out = option.out or experiment:match("[^/]*$"):gsub("%.lua$", "") .. "-sweep"
  local sweep = try(folder.add, option.out, experiment, read.axes, read.rest)
  if not option.slurm then return run_here(sweep, option) end
  submit(sweep, option, read.sbatch)
  return 0
end

--- Runs the command with a list of arguments and returns how many runs failed; without one, with the global `arg`, as
-- the program's command, which leaves with status 1 when runs failed.
return function(arguments)
  local words = arguments or arg
  local first = words[1]
  if not first or first == "--help" or first == "-h" then options.read(declaration, { "--help" }) end
  if first:match "^%-" then
    options.fail("perilune: the name of an experiment comes first, got '%s'\nusage: %s", first, declaration.usage)
  end
  local rest = table.move(words, 2, #words, 1, {})
  local command = ({ status = status, run = run })[first]
  if command then return command(rest) end
  local failed = start(first, rest)
  if not arguments and failed > 0 then os.exit(1, true) end
  return failed
end
