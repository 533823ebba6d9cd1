-- The debugger of the Jupyter kernel: answers to the requests of the Debug Adapter Protocol and to those that Jupyter
-- adds (debugInfo, dumpCell, inspectVariables, richInspectVariables, copyToGlobals), and the decision where to stop.
-- host/bind/debugger.c calls it in a coroutine of its own, by `open` and the functions that it returns. To know another
-- request: one function in `requests`; what it returns is the response's body, what it raises is why there is none.
local core = require "perilune.core"
local breakpoints = require "perilune.debugger.breakpoints"
local frames = require "perilune.debugger.frames"
local sources = require "perilune.debugger.sources"
local values = require "perilune.debugger.values"

-- Cells may give other values to these names.
local error, ipairs, next, pack, rawequal, type, traceback = error, ipairs, next, table.pack, rawequal, type,
  debug.traceback
local format, match, sub, concat, sort = string.format, string.match, string.sub, table.concat, table.sort
local loaded, searchpath, package, to_integer, getinfo = package.loaded, package.searchpath, package, math.tointeger,
  debug.getinfo
local array, null = core.json_array, core.null

-- Lua has one thread; its coroutines are parts of one stack.
local THREAD <const> = 1
-- The program's own code, through which steps pass.
local OWN <const> = match(getinfo(1, "S").source, "^(@.*/)perilune/debugger/")

local given           -- by host/bind/debugger.c
local started = false -- a front end debugs
local stopped         -- what stands still, as the body of its event; nil while nothing does
local failure         -- { text, caught, trace }, where it stands still for an error
local stepping = "step"

-- Arguments ---------------------------------------------------------------------------------------------------------

local function with_article(kind) return (kind == "integer" and "an " or "a ") .. kind end

-- An argument that may be missing, as it is when it is null.
local function optional(arguments, name, kind)
  local value = arguments[name]
  if value == nil or rawequal(value, null) then return nil end
  if kind == "integer" then
    local whole = type(value) == "number" and to_integer(value)
    if whole then return whole end
  elseif type(value) == kind then
    return value
  end
  error(format("%s: expected %s, got %s", name, with_article(kind), type(value)), 0)
end

local function required(arguments, name, kind)
  local value = optional(arguments, name, kind)
  if value == nil then error(format("%s: expected %s, got nothing", name, with_article(kind)), 0) end
  return value
end

local function path_argument(arguments) return required(required(arguments, "source", "table"), "path", "string") end

-- The frame that is meant; nil for none.
local function frame_argument(arguments, name)
  local number = optional(arguments, name, "integer")
  return number and frames.at(number)
end

-- Where it stops ----------------------------------------------------------------------------------------------------

local functions = {}

local function stop(reason, more)
  frames.release()
  stopped = { reason = reason, threadId = THREAD, allThreadsStopped = true }
  for name, value in next, more or {} do stopped[name] = value end
  given.tell("stopped", stopped)
  return true
end

--- What runs has come to a line with a breakpoint, or in which a step ends: whether it is to stand still.
function functions.line(source, line, step)
  local path = sources.path(source)
  if not path then return false end
  local numbers = breakpoints.reached(path, line)
  if numbers then return stop("breakpoint", { hitBreakpointIds = numbers }) end
  return step and sub(source, 1, #OWN) ~= OWN and stop(stepping)
end

local function describe(value)
  if type(value) == "string" then return value end
  return values.text(value)
end

--- An error is on its way: whether it is to stand still where that was raised.
function functions.failed(value, caught)
  local top = frames.top()
  if not top then return false end
  failure = { text = describe(value), caught = caught, trace = traceback(top.thread) }
  return stop("exception", { text = failure.text, description = "Paused on an error" })
end

--- What stood still goes on.
function functions.resumed()
  stopped, failure = nil, nil
  frames.release()
  values.release()
  given.tell("continued", { threadId = THREAD, allThreadsContinued = true })
end

--- A cell begins to run, while a front end debugs.
function functions.cell(name, code) sources.ran(name, code) end

functions.close = sources.close

-- Requests ----------------------------------------------------------------------------------------------------------

local requests = {}
local anytime <const> = { initialize = true, debugInfo = true, inspectVariables = true, richInspectVariables = true,
  variables = true, modules = true, disconnect = true }

function requests.initialize()
  started = true
  given.start(true)
  return {
    supportsConfigurationDoneRequest = true, supportsConditionalBreakpoints = true,
    supportsHitConditionalBreakpoints = true, supportsLogPoints = true, supportsEvaluateForHovers = true,
    supportsSetVariable = true, supportsExceptionInfoRequest = true, supportsTerminateRequest = true,
    supportsModulesRequest = true, supportsDelayedStackTraceLoading = true,
    exceptionBreakpointFilters = array {
      { filter = "raised", label = "Raised Errors", default = false },
      { filter = "uncaught", label = "Uncaught Errors", default = false },
    },
  }
end

function requests.attach()
  given.tell("initialized", {})
  given.tell("thread", { reason = "started", threadId = THREAD })
  return {}
end

function requests.configurationDone() return {} end

function requests.debugInfo()
  return { isStarted = started, hashMethod = "Murmur2", hashSeed = sources.seed, tmpFilePrefix = sources.prefix,
    tmpFileSuffix = sources.suffix, breakpoints = breakpoints.all(), stoppedThreads = array { stopped and THREAD },
    richRendering = true, exceptionPaths = array { "Lua errors" }, copyToGlobals = true }
end

function requests.dumpCell(arguments) return { sourcePath = sources.dump(required(arguments, "code", "string")) } end

function requests.source(arguments)
  local path = path_argument(arguments)
  local text = sources.text(sources.canonical(path))
  if not text then error(format("source: '%s' cannot be read", path), 0) end
  return { content = text, mimeType = "text/x-lua" }
end

function requests.setBreakpoints(arguments)
  local path, asked = path_argument(arguments), optional(arguments, "breakpoints", "table") or {}
  return { breakpoints = breakpoints.set(path, asked) }
end

function requests.setExceptionBreakpoints(arguments)
  local raised, uncaught = false, false
  for _, filter in ipairs(required(arguments, "filters", "table")) do
    raised, uncaught = raised or filter == "raised", uncaught or filter == "uncaught"
  end
  given.catch(raised, uncaught)
  return {}
end

function requests.exceptionInfo()
  if not failure then error("exceptionInfo: no error is what stopped here", 0) end
  return { exceptionId = "Error", description = failure.text, breakMode = failure.caught and "always" or "unhandled",
    details = { message = failure.text, typeName = "Error", stackTrace = failure.trace } }
end

function requests.threads() return { threads = array { { id = THREAD, name = "Lua" } } } end

function requests.stackTrace(arguments)
  local all, list = stopped and frames.all() or {}, array {}
  local start, levels = optional(arguments, "startFrame", "integer") or 0, optional(arguments, "levels", "integer")
  for i = start + 1, levels and levels > 0 and start + levels or #all do
    local frame = all[i]
    if not frame then break end
    local path = frame.path and breakpoints.source(frame.path)
    list[#list + 1] = { id = frame.number, name = frame.name, line = frame.line, column = 1,
      source = { name = sources.name(frame.source), path = path },
      presentationHint = sub(frame.source, 1, #OWN) == OWN and "subtle" or "normal" }
  end
  return { stackFrames = list, totalFrames = #all }
end

function requests.scopes(arguments)
  return { scopes = frames.scopes(frames.at(required(arguments, "frameId", "integer"))) }
end

function requests.variables(arguments)
  return { variables = values.children(required(arguments, "variablesReference", "integer"),
    optional(arguments, "start", "integer"), optional(arguments, "count", "integer"),
    optional(arguments, "filter", "string")) }
end

function requests.inspectVariables()
  if not stopped then values.release() end
  local number = values.list(frames.visit_globals)
  return { variables = values.children(number) }
end

function requests.richInspectVariables(arguments)
  local name = required(arguments, "variableName", "string")
  local found = pack(frames.evaluate(frame_argument(arguments, "frameId"), name))
  return { data = given.bundle(found[1]) or {}, metadata = {} }
end

-- What evaluate and setVariable tell of a value.
local function result_of(value, expression)
  local variable = values.variable(nil, value, expression)
  values.hold(value)
  return variable
end

function requests.setVariable(arguments)
  local number, name = required(arguments, "variablesReference", "integer"), required(arguments, "name", "string")
  local value = pack(frames.evaluate(frames.top(), required(arguments, "value", "string")))[1]
  values.set(number, name, value)
  return result_of(value)
end

function requests.evaluate(arguments)
  local code = required(arguments, "expression", "string")
  if not stopped then values.release() end
  local found = pack(frames.evaluate(frame_argument(arguments, "frameId"), code))
  if found.n == 0 then return { result = "", variablesReference = 0 } end
  local body, texts = result_of(found[1], code), {}
  for i = 1, found.n do texts[i] = values.text(found[i], 1000) end
  body.result, body.value, body.evaluateName = concat(texts, ", "), nil, nil
  return body
end

function requests.copyToGlobals(arguments)
  local frame = frames.at(required(arguments, "srcFrameId", "integer"))
  local name, to = required(arguments, "srcVariableName", "string"), required(arguments, "dstVariableName", "string")
  frames.set_global(frame, to, (frames.evaluate(frame, name)))
  return {}
end

function requests.modules()
  local list = array {}
  for name in next, loaded do
    local path = type(name) == "string" and searchpath(name, package.path)
    if path then list[#list + 1] = { id = name, name = name, path = given.absolute(path) or path } end
  end
  sort(list, function(a, b) return a.name < b.name end)
  return { modules = list, totalModules = #list }
end

-- Going on ----------------------------------------------------------------------------------------------------------

local function go_on(how)
  if not stopped then error("nothing stands still", 0) end
  stepping = "step"
  given.go(how)
end

requests["continue"] = function()
  go_on "on"
  return { allThreadsContinued = true }
end

function requests.next()
  go_on "over"
  return {}
end

function requests.stepIn()
  go_on "in"
  return {}
end

function requests.stepOut()
  go_on "out"
  return {}
end

function requests.pause()
  if not stopped then
    stepping = "pause"
    given.go "pause"
  end
  return {}
end

--- Ends what stands still or runs, with the error "interrupted"; the session goes on.
function requests.terminate()
  given.interrupt()
  return {}
end

function requests.disconnect()
  started = false
  given.start(false)
  given.catch(false, false)
  breakpoints.clear()
  given.go "on"
  return {}
end

--- The body of the response to a request; raises why there is none.
function functions.answer(command, arguments)
  local request = requests[command]
  if not request then error(format("debug_request: there is no command '%s'", command), 0) end
  if not started and not anytime[command] then
    error(format("%s: the debugger is not started: send `initialize` first", command), 0)
  end
  return request(arguments)
end

return {
  open = function(c_functions)
    given = c_functions
    sources.open(given)
    frames.open(given)
    breakpoints.open(given)
    return functions
  end,
}
