-- Works through runs of a sweep, several at once: on one machine, and in a task of Slurm's. A run is his who holds its
-- lock. Whoever finds it held goes on with others, and comes back to see how it ended.
local core = require "perilune.core"
local folder = require "perilune.sweep.folder"
local options = require "perilune.options"
local progress = require "perilune.progress"

local work = {}

-- Between two looks at the children, and at locks of others. A run that ends just before its sweep is killed, unseen,
-- gets no mark, and is started once more.
local LOOK_S <const>, HELD_S <const> = 0.01, 1

local signals <const> = {
  [1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE",
  [9] = "SIGKILL", [11] = "SIGSEGV", [13] = "SIGPIPE", [14] = "SIGALRM", [15] = "SIGTERM", [24] = "SIGXCPU",
}

-- The line of a log that says most: the error before the last traceback, or else the last line.
local function last_words(path)
  local most <const> = 16384
  local file <close> = io.open(path, "rb")
  if not file then return "" end
  file:seek("set", math.max(0, file:seek "end" - most))
  local text = file:read "a"
  local attempt = text:match ".*\n(== .-)$" or text
  local words = attempt:match "([^\n]*)\nstack traceback:" or attempt:match "([^\n]+)%s*$" or ""
  if words:match "^== " then return "" end -- it said nothing
  return (words:gsub("^perilune: ", ""):sub(1, 200))
end

local function reason_of(run, how, number)
  local reason = how == "exit" and "exit status " .. number
    or ("ended by signal %d (%s)"):format(number, signals[number] or "of no common name")
  local words = last_words(run:file "log")
  return words == "" and reason or reason .. ": " .. words
end

-- The command of a run: the program and its arguments.
local function words_of(sweep, run)
  local words = { core.program(), sweep.experiment }
  for _, name in ipairs(sweep.names) do
    local value = run.options[name]
    if value then words[#words + 1] = ("--%s=%s"):format(name, value) end
  end
  for _, word in ipairs(sweep.arguments) do words[#words + 1] = word end
  words[#words + 1] = "--out=" .. run.path
  return words
end

-- Under the lock: writes what comes before a run, and starts it. Returns what is known of the process.
local function start(sweep, run, lock, children, attempt)
  local words, host = words_of(sweep, run), folder.host()
  local job, task = os.getenv "SLURM_ARRAY_JOB_ID", os.getenv "SLURM_ARRAY_TASK_ID"
  run:mark("options.json", run.options)
  run:mark("started.json", { date = folder.now(), time = os.time(), host = host, attempt = attempt,
                             slurm = job and job .. "_" .. task or nil })
  os.remove(run:file "FAILED")
  assert(core.append_lines(run:file "log", ("== attempt %d, %s, on %s: %s\n"):format(attempt, folder.now(), host,
    table.concat(words, " "))))
  local process = children:start(words, sweep.directory, run:file "log", lock)
  return process, { run = run, lock = lock, attempt = attempt, began_s = core.time(), host = host }
end

-- Writes the mark of a run that has ended. Returns its outcome, "done" or "failed", and why it failed.
local function finish(active, how, number)
  local run = active.run
  local fine = how == "exit" and number == 0
  local mark = { date = folder.now(), seconds = core.time() - active.began_s, host = active.host,
                 attempt = active.attempt }
  if not fine then mark.reason = reason_of(run, how, number) end
  local marked, why_not = pcall(run.mark, run, fine and "DONE" or "FAILED", mark)
  if marked then return fine and "done" or "failed", mark.reason end
  return "failed", (mark.reason and mark.reason .. "; " or "") .. options.reason(why_not)
end

local Worker = {}
Worker.__index = Worker

-- Takes a run. Returns "held" by somebody else; "started"; or what somebody else has made of it since we began.
function Worker:begin(run)
  core.make_directory(run.path)
  local lock = core.lock(run:file "lock")
  if not lock then return "held" end
  local state, mark = run:state(true)
  if state == "done" or state == "failed" and mark.attempt ~= self.failed_before[run] then
    lock:close()
    return state, mark.reason
  end
  local started = folder.read(run:file "started.json")
  local number = (started and started.attempt or 0) + 1
  local begun, process, active = pcall(start, self.sweep, run, lock, self.children, number)
  if not begun then
    lock:close()
    error(process, 0)
  end
  self.active[process], self.running = active, self.running + 1
  return "started"
end

-- Starts what can be. Returns a run that needed no start, and its outcome.
function Worker:fill()
  if #self.held > 0 and core.time() - self.looked_s > HELD_S then
    table.move(self.held, 1, #self.held, #self.queue + 1, self.queue)
    self.held, self.looked_s = {}, core.time()
  end
  while self.running < self.jobs and #self.queue > 0 do
    local run = table.remove(self.queue, 1)
    local begun, outcome, reason = pcall(self.begin, self, run)
    if not begun then return run, "failed", options.reason(outcome) end -- a full disk is no reason to end the others
    if outcome == "held" then
      self.held[#self.held + 1] = run
    elseif outcome ~= "started" then
      return run, outcome, reason
    end
  end
end

-- Waits until one more run has ended. Returns it, its outcome and, if it failed, why.
function Worker:next()
  while true do
    local run, outcome, reason = self:fill()
    if run then return run, outcome, reason end
    local process, how, number = self.children:ended()
    if process then
      local active = self.active[process]
      self.active[process], self.running = nil, self.running - 1
      outcome, reason = finish(active, how, number)
      active.lock:close()
      return active.run, outcome, reason
    end
    core.sleep(LOOK_S)
  end
end

--- Works through the runs, at most `jobs` at once. Returns the failures: { { run =, reason = }, .. }. An interrupt ends
-- the runs that go on; their marks then tell that they began, and no more.
function work.through(sweep, runs, jobs)
  local children <close> = core.children(jobs)
  local worker = setmetatable({
    sweep = sweep, jobs = jobs, children = children, active = {}, running = 0, failed_before = {},
    queue = table.move(runs, 1, #runs, 1, {}), held = {}, looked_s = core.time(),
  }, Worker)
  for _, run in ipairs(runs) do
    local state, mark = run:state()
    if state == "failed" then worker.failed_before[run] = mark.attempt end
  end
  local failures = {}
  for _, bar in progress(1, #runs, "sweep") do
    local run, outcome, reason = worker:next()
    if outcome == "failed" then failures[#failures + 1] = { run = run, reason = reason } end
    bar:message("%s %s%s", run.name, outcome, #failures > 0 and (", %d failed so far"):format(#failures) or "")
  end
  return failures
end

return work
