-- Breakpoints of lines: which there are, whether their lines can be stopped at, and whether one that is reached stops.
local active_lines = require "perilune.debugger.lines"
local frames = require "perilune.debugger.frames"
local sources = require "perilune.debugger.sources"
local values = require "perilune.debugger.values"
local core = require "perilune.core"

-- Cells may give other values to these names.
local ipairs, next, pcall, print, select, tonumber, tostring, type = ipairs, next, pcall, print, select, tonumber,
  tostring, type
local match, gsub, sub, format, sort, concat = string.match, string.gsub, string.sub, string.format, table.sort,
  table.concat
local stderr, write, array = io.stderr, getmetatable(io.stderr).__index.write, core.json_array

local breakpoints = {}

-- path -> { source = as the front end calls it, points = { { id, line, hits, condition, hitCondition, logMessage } } }
local by_path, last = {}, 0
local given -- by host/bind/debugger.c

function breakpoints.open(functions) given = functions end

-- Tells the hook which lines are worth a question.
local function mark_lines()
  local lines = {}
  for _, file in next, by_path do
    for _, point in ipairs(file.points) do lines[#lines + 1] = point.line end
  end
  given.mark(lines)
end

-- hitCondition: N or == N, > N, >= N, < N, <= N, % N.
local compare = {
  ["=="] = function(hits, n) return hits == n end,
  [">"] = function(hits, n) return hits > n end,
  [">="] = function(hits, n) return hits >= n end,
  ["<"] = function(hits, n) return hits < n end,
  ["<="] = function(hits, n) return hits <= n end,
  ["%"] = function(hits, n) return n > 0 and hits % n == 0 end,
}

local function parse_hits(text)
  local operator, number = match(text, "^%s*([=<>%%]*)%s*(%d+)%s*$")
  if operator == "" or operator == "=" then operator = "==" end
  return compare[operator], tonumber(number)
end

local function text_of(point, name)
  local value = point[name]
  return type(value) == "string" and match(value, "%S") and value or nil
end

-- The first line from `line` on that can be stopped at.
local function next_line(lines, line)
  local found
  for candidate in next, lines do
    if candidate >= line and (not found or candidate < found) then found = candidate end
  end
  return found
end

-- The Breakpoint of the protocol for one that is asked for; it is added to `points` where it can be hit.
local function place(path, lines, problem, asked, points)
  local line = type(asked) == "table" and tonumber(asked.line)
  local answer = { verified = false, line = line or 0, source = { path = path } }
  last = last + 1
  answer.id = last
  local hits = line and text_of(asked, "hitCondition")
  local found = line and lines and next_line(lines, line)
  if not line then
    answer.message = "line: expected a number"
  elseif not lines then
    answer.message = problem
  elseif not found then
    answer.message = format("there is no code at line %d or below", line)
  elseif hits and not parse_hits(hits) then
    answer.message = format("hitCondition: expected a number, or one behind ==, >, >=, <, <= or %%; got '%s'", hits)
  else
    answer.verified, answer.line = true, found
    points[#points + 1] = { id = last, line = found, hits = 0, hitCondition = hits,
      condition = text_of(asked, "condition"), logMessage = text_of(asked, "logMessage") }
  end
  return answer
end

--- Replaces the breakpoints of a source by those that are asked for; returns the protocol's answers in this order.
function breakpoints.set(source, asked)
  local path = sources.canonical(source)
  local points, answers = {}, array {}
  local f, problem = sources.load(path)
  local lines = f and active_lines(f)
  for i, one in ipairs(asked) do answers[i] = place(source, lines, problem, one, points) end
  by_path[path] = #points > 0 and { source = source, points = points } or nil
  mark_lines()
  return answers
end

function breakpoints.clear()
  by_path = {}
  mark_lines()
end

--- What debugInfo tells: the breakpoints by source.
function breakpoints.all()
  local list = array {}
  for _, file in next, by_path do
    local points = array {}
    for i, point in ipairs(file.points) do
      points[i] = { line = point.line, condition = point.condition, hitCondition = point.hitCondition,
        logMessage = point.logMessage }
    end
    list[#list + 1] = { source = file.source, breakpoints = points }
  end
  sort(list, function(a, b) return a.source < b.source end)
  return list
end

--- What the front end calls the source with a path.
function breakpoints.source(path) return by_path[path] and by_path[path].source or path end

local function complain(what, text, problem)
  write(stderr, format("breakpoint: %s '%s': %s\n", what, text, tostring(problem)))
end

-- A condition that fails is told, and stops: nothing is passed over in silence.
local function holds(point)
  if not point.condition then return true end
  local ok, value = pcall(frames.evaluate, frames.top(), point.condition)
  if not ok then complain("condition", point.condition, value) end
  return not ok or value
end

local function hit(point)
  point.hits = point.hits + 1
  if not point.hitCondition then return true end
  local test, number = parse_hits(point.hitCondition)
  return test(point.hits, number)
end

-- Prints a message, in which {expression} stands for its values.
local function log(message)
  print((gsub(message, "%b{}", function(part)
    local function shown(ok, ...)
      local texts = {}
      for i = 1, select("#", ...) do
        local value = select(i, ...)
        texts[i] = type(value) == "string" and value or values.text(value)
      end
      return ok and concat(texts, ", ") or format("<%s>", texts[1])
    end
    return shown(pcall(frames.evaluate, frames.top(), sub(part, 2, -2)))
  end)))
end

--- Whether the breakpoints at a line stop what has reached it: a list of their numbers, nil where none does.
function breakpoints.reached(path, line)
  local file, numbers = by_path[path], array {}
  for _, point in ipairs(file and file.points or {}) do
    if point.line == line and holds(point) and hit(point) then
      if point.logMessage then log(point.logMessage) else numbers[#numbers + 1] = point.id end
    end
  end
  return numbers[1] and numbers
end

return breakpoints
