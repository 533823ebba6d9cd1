-- Slurm's part in a sweep: one job array whose tasks are numbers of runs, and its queue. The job's name is the sweep's
-- own, so that the queue alone tells which tasks there are: nothing is written down that must be kept in step with it.
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local quoted = require("perilune.speed.process").quoted

local slurm = {}

--- Options of sbatch that are not for users to choose.
slurm.own = { array = true, chdir = true, ["job-name"] = true }

--- "1-3,5": numbers that go up, as --array takes them.
function slurm.ranges(numbers)
  local words, first = {}, nil
  for i, number in ipairs(numbers) do
    first = first or number
    if numbers[i + 1] ~= number + 1 then
      words[#words + 1] = first == number and tostring(number) or ("%d-%d"):format(first, number)
      first = nil
    end
  end
  return table.concat(words, ",")
end

local function name_of(sweep)
  local name = sweep.experiment:match("[^/]*$"):gsub("%.lua$", ""):gsub("[^%w_.-]", "-")
  return name .. "-" .. sweep.id
end

--- The script that sbatch takes. `most` tasks run at once, where it is given; `options` are { name, value or nil }.
function slurm.script(sweep, numbers, most, options)
  local lines = { "#!/bin/sh", "# Each task runs one run of the sweep in " .. sweep.path }
  local function option(name, value)
    lines[#lines + 1] = ("#SBATCH --%s%s"):format(name, value and ('="%s"'):format(value) or "")
  end
  option("job-name", name_of(sweep))
  option("array", slurm.ranges(numbers) .. (most and "%" .. most or ""))
  option("chdir", sweep.directory)
  option("output", sweep.path:gsub("%%", "%%%%") .. "/slurm/%A_%a.log")
  option "requeue" -- after the failure of a node; the run goes on from its checkpoint
  option("open-mode", "append")
  for _, pair in ipairs(options) do option(pair[1], pair[2]) end
  lines[#lines + 1] = ('exec %s sweep run %s "$SLURM_ARRAY_TASK_ID"\n')
    :format(quoted(core.program()), quoted(sweep.path))
  return table.concat(lines, "\n")
end

-- What the command prints; nil and why not.
local function ask(command)
  local output, errors, fine, _, status = core.filter(command, "")
  if fine then return output end
  local program = command:match "^%S+"
  if status == 127 then return nil, ("the program %s was not found; Slurm has it"):format(program) end
  return nil, ("%s: %s"):format(program, errors:match "^%s*(.-)%s*$")
end

--- Writes the script for these runs and submits it. Returns the job's number and the script's path, or nil and why not.
function slurm.submit(sweep, numbers, most, options)
  local path = sweep.path .. "/slurm/array.sh"
  experiment.make_folder(sweep.path .. "/slurm")
  core.write_file(path, slurm.script(sweep, numbers, most, options))
  local output, why_not = ask("sbatch --parsable " .. quoted(path))
  if not output then return nil, why_not end
  return output:match "^%d+", path
end

--- The tasks of the sweep that Slurm has, waiting or running: { [number of the run] = "PENDING", .. }; empty where
-- nothing was ever submitted. nil and why not, when Slurm does not answer.
function slurm.queue(sweep)
  local submitted <close> = io.open(sweep.path .. "/slurm/array.sh")
  if not submitted then return {} end
  local output, why_not = ask(("squeue --array --noheader --name=%s --format='%%K %%T'"):format(quoted(name_of(sweep))))
  if not output then return nil, why_not end
  local states = {}
  for number, state in output:gmatch "(%d+) (%S+)" do states[math.tointeger(tonumber(number))] = state end
  return states
end

return slurm
