-- The stack of what stands still: its frames over all coroutines that wait for each other, their variables, and code
-- that sees these.
local core = require "perilune.core"
local sources = require "perilune.debugger.sources"
local values = require "perilune.debugger.values"

-- Cells may give other values to these names.
local getinfo, getlocal, setlocal = debug.getinfo, debug.getlocal, debug.setlocal
local getupvalue, setupvalue = debug.getupvalue, debug.setupvalue
local error, ipairs, load, next, rawequal, rawset, select, setmetatable, type = error, ipairs, load, next,
   rawequal, rawset, select, setmetatable, type
local sub, format, unpack, sort, array = string.sub, string.format, table.unpack, table.sort, core.json_array
local globals = _G

local frames = {}

local given   -- by host/bind/debugger.c
local initial -- globals that were there before any cell

--- Must be called before all else, and before cells run.
function frames.open(functions)
  given, initial = functions, {}
  for name, value in next, globals do initial[name] = value end
end

-- The stack ---------------------------------------------------------------------------------------------------------

-- Numbers of frames go on from one stand-still to the next, so that an old one is not taken for another.
local stack, first = nil, 1
local FRAMES_MAX <const> = 1000

--- Forgets the stack, of which something ran since.
function frames.release()
  if stack then first, stack = first + #stack, nil end
end

local function name_of(info)
  if info.what == "main" then return sources.name(info.source) end
  return info.name or format("function <%s:%d>", info.short_src, info.linedefined)
end

-- The innermost frames of Lua functions, `most` of them.
local function read_stack(most)
  local list = {}
  for _, thread in ipairs(given.states()) do
    local level, info = 0, getinfo(thread, 0, "Slnf")
    while info and #list < most do
      if info.what ~= "C" then
        list[#list + 1] = { number = first + #list, thread = thread, level = level, name = name_of(info),
          line = info.currentline, source = info.source, path = sources.path(info.source), f = info.func }
      end
      level = level + 1
      info = getinfo(thread, level, "Slnf")
    end
  end
  return list
end

--- The frames of Lua functions, the innermost first, as { number, thread, level, name, line, source, path, f }; of a
--- recursion without end those that people may read.
function frames.all()
  stack = stack or read_stack(FRAMES_MAX)
  return stack
end

--- The first of them, where nothing stands still yet; nil where there is none.
function frames.top() return read_stack(1)[1] end

--- The frame with a number.
function frames.at(number)
  local frame = frames.all()[number - first + 1]
  if not frame then error(format("frameId: %d is no frame of what stands still", number), 0) end
  return frame
end

-- Variables ---------------------------------------------------------------------------------------------------------

-- Calls visit(name, index, value) for each local that is alive; of several with one name the last counts.
local function visit_locals(frame, visit)
  local i, name, value = 1, getlocal(frame.thread, frame.level, 1)
  while name do
    if sub(name, 1, 1) ~= "(" then visit(name, i, value) end
    i = i + 1
    name, value = getlocal(frame.thread, frame.level, i)
  end
end

local function visit_upvalues(frame, visit)
  local i, name, value = 1, getupvalue(frame.f, 1)
  while name do
    if name ~= "" then visit(name, i, value) end
    i = i + 1
    name, value = getupvalue(frame.f, i)
  end
end

-- Where a name is found: { get, set }; nil where the code would take it for a global.
local function find_variable(frame, wanted)
  local found
  visit_upvalues(frame, function(name, i)
    if name ~= wanted then return end
    found = { get = function() return select(2, getupvalue(frame.f, i)) end,
      set = function(value) setupvalue(frame.f, i, value) end }
  end)
  visit_locals(frame, function(name, i)
    if name ~= wanted then return end
    found = { get = function() return select(2, getlocal(frame.thread, frame.level, i)) end,
      set = function(value) setlocal(frame.thread, frame.level, i, value) end }
  end)
  return found
end

-- The table of the frame's global variables.
local function globals_of(frame)
  local variable = frame and find_variable(frame, "_ENV")
  return variable and variable.get() or globals
end

local function varargs_of(frame)
  local list, count, name, value = {}, 0, getlocal(frame.thread, frame.level, -1)
  while name do
    count = count + 1
    list[count] = value
    name, value = getlocal(frame.thread, frame.level, -count - 1)
  end
  return list, count
end

local function locals_list(frame)
  return function(add)
    local order, value_of = {}, {}
    visit_locals(frame, function(name, _, value)
      if not value_of[name] then order[#order + 1] = name end
      value_of[name] = { value }
    end)
    for _, name in ipairs(order) do add(name, value_of[name][1], name) end
    local varargs, count = varargs_of(frame)
    for i = 1, count do add(format("(vararg %d)", i), varargs[i], format("(select(%d, ...))", i)) end
  end
end

local function upvalues_list(frame)
  return function(add)
    visit_upvalues(frame, function(name, _, value)
      if name ~= "_ENV" then add(name, value, name) end
    end)
  end
end

--- Adds the global variables that cells have made or changed, in order.
function frames.visit_globals(add)
  local order = {}
  for name, value in next, globals do
    if type(name) == "string" and not rawequal(initial[name], value) then order[#order + 1] = name end
  end
  sort(order)
  for _, name in ipairs(order) do add(name, globals[name], name) end
end

local function setter(frame)
  return function(name, value)
    local variable = find_variable(frame, name)
    if variable then variable.set(value) end
    return variable ~= nil
  end
end

local function set_global(name, value)
  rawset(globals, name, value)
  return true
end

--- The Scopes of a frame. JupyterLab knows the global one by its name.
function frames.scopes(frame)
  local list = array {}
  local function add(name, hint, visit, set)
    list[#list + 1] = { name = name, presentationHint = hint, expensive = false,
      variablesReference = values.list(visit, set) }
  end
  add("Locals", "locals", locals_list(frame), setter(frame))
  local captured = false
  visit_upvalues(frame, function(name) captured = captured or name ~= "_ENV" end)
  if captured then add("Upvalues", nil, upvalues_list(frame), setter(frame)) end
  add("Globals", nil, frames.visit_globals, set_global)
  return list
end

-- Code --------------------------------------------------------------------------------------------------------------

-- What code evaluated in a frame has for global variables: the frame's own variables, then its globals.
local function environment(frame)
  local outer = globals_of(frame)
  if not frame then return outer end
  return setmetatable({}, {
    __index = function(_, name)
      local variable = find_variable(frame, name)
      if variable then return variable.get() end
      return outer[name]
    end,
    __newindex = function(_, name, value)
      local variable = find_variable(frame, name)
      if variable then variable.set(value) else outer[name] = value end
    end,
  })
end

--- The values of an expression list, or nothing for statements, as code in the frame (nil: outside all) would see and
--- change its variables.
function frames.evaluate(frame, code)
  local env = environment(frame)
  local f = load("return " .. code, "=expression", "t", env)
  local problem
  if not f then f, problem = load(code, "=expression", "t", env) end
  if not f then error(problem, 0) end
  if not frame then return f() end
  local varargs, count = varargs_of(frame)
  return f(unpack(varargs, 1, count))
end

--- Gives a global variable of the frame a value.
function frames.set_global(frame, name, value) globals_of(frame)[name] = value end

return frames
