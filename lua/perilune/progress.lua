-- pl.progress: how far a loop has come, as a bar in a terminal, a display that updates itself in a notebook, or a few
-- lines in a log.
--
--   for i, bar in pl.progress(1, steps, "train") do
--     bar:message("loss %.3f", loss)           -- shown beside the bar from its next drawing on
--   end
local core = require "perilune.core"
local escaped = require "perilune.markup".escaped
local write_line = require "perilune.terminal_line"

-- Seconds between two drawings. A log gets a line per quarter of the way, and one when this long passed without any.
local redraw_s <const> = { terminal = 0.1, kernel = 0.2, batch = 60 }
local width <const> = 24

local Bar = {}
Bar.__index = Bar

local function clock(seconds)
  if seconds ~= seconds or seconds >= 360000 then return "--:--" end
  local s = math.floor(seconds + 0.5)
  if s < 3600 then return ("%02d:%02d"):format(s // 60, s % 60) end
  return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60)
end

local function per_second(rate)
  if rate >= 1 or rate == 0 then return ("%.1f/s"):format(rate) end
  return ("%.1f s each"):format(1 / rate)
end

-- Number of steps finished, their share, and the words that follow the bar.
local function standing(self)
  local elapsed = core.time() - self.began_s
  local share = self.total > 0 and self.done / self.total or 1
  local rate = elapsed > 0 and self.done / elapsed or 0
  local left = rate > 0 and (self.total - self.done) / rate or math.huge
  local ahead = not self.closed and ", " .. clock(left) .. " left" or ""
  local words = ("%d/%d  %s%s, %s"):format(self.done, self.total, clock(elapsed), ahead, per_second(rate))
  if self.note then words = words .. "  " .. self.note end
  return share, words
end

local function line_of(self, full, empty)
  local share, words = standing(self)
  local filled = math.floor(share * width + 0.5)
  return ("%s%3d%% %s%s %s"):format(self.label and self.label .. " " or "", math.floor(share * 100),
    full:rep(filled), empty:rep(width - filled), words)
end

local function bundle_of(self)
  local share, words = standing(self)
  return {
    ["text/plain"] = line_of(self, "█", "░"),
    ["text/html"] = ('<div style="font-family:monospace">%s<progress value="%.4f" max="1" '
      .. 'style="width:16em;vertical-align:middle"></progress> %s</div>')
      :format(self.label and escaped(self.label) .. " " or "", share, escaped(words)),
  }
end

-- How each front end draws; `final` marks the last drawing of the loop.
local draw = {
  terminal = function(self, final) write_line(line_of(self, "█", "░"), final) end,
  kernel = function(self)
    if self.display then
      self.display:update(bundle_of(self))
    else
      self.display = require("perilune.display").bundle(bundle_of(self), { id = true })
    end
  end,
  batch = function(self)
    local share, words = standing(self)
    io.stderr:write(("%s%3d%% %s\n"):format(self.label and self.label .. " " or "", math.floor(share * 100), words))
    io.stderr:flush()
  end,
}

local function redraw(self, final)
  self.drawn_s, self.drawn_done = core.time(), self.done
  draw[self.frontend](self, final)
end

local function due(self)
  if core.time() - self.drawn_s >= redraw_s[self.frontend] then return true end
  local quarters = 4 * self.done // self.total
  return self.frontend == "batch" and quarters > 4 * self.drawn_done // self.total and quarters < 4
end

--- Sets the text beside the bar; further arguments as string.format's.
function Bar:message(text, ...)
  self.note = select("#", ...) > 0 and text:format(...) or tostring(text)
end

--- Draws the bar for the last time. A `for` loop calls it by itself, also when it is left early or by an error.
function Bar:close()
  if self.closed then return end
  self.closed = true
  if self.total > 0 then redraw(self, true) end
end
Bar.__close = Bar.close

local function advance(self, i)
  if i == nil then
    i = self.first
  else
    i = i + 1
    self.done = i - self.first
  end
  if i > self.last then return nil end
  if due(self) then redraw(self) end
  return i, self
end

local function integer(value, name)
  local whole = math.tointeger(value)
  if not whole then
    error(("progress: %s: expected an integer, got %s"):format(name, tostring(value)), 3)
  end
  return whole
end

--- Iterates i = first, .., last; each round gives i and the bar.
return function(first, last, label)
  local from, to = integer(first, "first"), integer(last, "last")
  if label ~= nil and type(label) ~= "string" then
    error(("progress: label: expected a string, got a %s"):format(type(label)), 2)
  end
  local now = core.time()
  local bar = setmetatable({
    first = from, last = to, total = math.max(to - from + 1, 0), done = 0, label = label, frontend = core.frontend(),
    began_s = now, drawn_s = now, drawn_done = 0,
  }, Bar)
  if bar.frontend ~= "batch" and bar.total > 0 then redraw(bar) end
  return advance, bar, nil, bar
end
