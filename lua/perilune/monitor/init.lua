-- pl.monitor: curves of a training that grow while it runs. In a notebook one picture that is drawn anew in its place,
-- in a terminal a line, in a log a line now and then.
--
--   local monitor <close> = pl.monitor { logy = true }
--   for step = 1, steps do
--     ...
--     monitor:log(step, { loss = loss, grad_norm = norm })
--   end
--
-- `pl.train.loop` has it as the option `monitor`. However many steps there are, a curve keeps some hundred points:
-- means of neighbours, with the range of their values drawn as a band. Drawing takes at most a fiftieth of the time.
local core = require "perilune.core"
local check = require "perilune.nn.check"
local declared = require "perilune.code.declared"
local Curve = require "perilune.monitor.curve"
local write_line = require "perilune.terminal_line"

-- Seconds between two drawings.
local redraw_s <const> = { terminal = 0.1, kernel = 0.4, batch = 60 }
-- A drawing is followed by at least so many times its own duration without one.
local rest <const> = 50

local Monitor = { __name = "perilune.monitor" }
Monitor.__index = Monitor

local known <const> = { title = "", logy = false }

local function picture(self)
  return require "perilune.monitor.picture"(self.names, self.curves, self.logy)
end

--- The last step and the last value of every curve.
function Monitor:__tostring()
  local words = { self.title ~= "" and self.title or nil }
  words[#words + 1] = self.step and ("step %.14g"):format(self.step) or "no steps yet"
  for _, name in ipairs(self.names) do words[#words + 1] = name .. " " .. self.curves[name]:last_text() end
  return table.concat(words, "  ")
end

--- What a notebook shows of it as a result.
function Monitor:__mime()
  local bundle = { ["text/plain"] = tostring(self) }
  if #self.names > 0 then bundle["image/svg+xml"] = picture(self) end
  return bundle
end

-- How each front end draws; `final` marks the last drawing.
local draw = {
  terminal = function(self, final) write_line(tostring(self), final) end,
  kernel = function(self)
    if self.display then
      self.display:update(self:__mime())
    else
      self.display = require "perilune.display".bundle(self:__mime(), { id = true })
    end
  end,
  batch = function(self)
    io.stderr:write(tostring(self), "\n")
    io.stderr:flush()
  end,
}

local function redraw(self, final)
  local began_s = core.time()
  draw[self.frontend](self, final)
  self.pending, self.line_open = false, self.frontend == "terminal" and not final
  local now_s = core.time()
  self.next_s = now_s + math.max(redraw_s[self.frontend], rest * (now_s - began_s))
end

local function value_of(name, value)
  if core.is_tensor(value) then value = value:item() end
  if type(value) ~= "number" then
    check.fail("monitor: log: %s: expected a number or a tensor of one element, got %s", name, check.shown(value))
  end
  return value
end

--- Takes the values of a step, { loss = 0.5, .. }, without drawing.
function Monitor:add(step, values)
  if type(step) ~= "number" or step ~= step then
    check.fail("monitor: log: step: expected a number, got %s", check.shown(step))
  end
  if type(values) ~= "table" then
    check.fail("monitor: log: values: expected a table of numbers by name, got %s", check.shown(values))
  end
  local new = {}
  for name, value in pairs(values) do
    if type(name) ~= "string" then
      check.fail("monitor: log: values: expected names that are strings, got %s", check.shown(name))
    end
    local y = value_of(name, value)
    if not self.curves[name] then
      self.curves[name] = Curve.new()
      new[#new + 1] = name
    end
    self.curves[name]:add(step, y)
  end
  table.sort(new)
  table.move(new, 1, #new, #self.names + 1, self.names)
  self.step = step
end

--- Takes the values of a step, { loss = 0.5, .. }, and draws when it is time.
function Monitor:log(step, values)
  self:add(step, values)
  self.pending = true
  if core.time() >= self.next_s then redraw(self) end
end

--- Draws what was not drawn yet. A variable with <close> calls it by itself, also after an error.
function Monitor:close()
  if self.pending or self.line_open then redraw(self, true) end
end
Monitor.__close = Monitor.close

--- A monitor; options: title, logy (logarithmic y axes, on which values that are not above 0 are gaps).
local function monitor(options)
  local option = check.options("monitor", options, known)
  check.kind("monitor", "title", option.title, "string")
  local frontend = core.frontend()
  return setmetatable({
    title = option.title, logy = option.logy, frontend = frontend, names = {}, curves = {}, pending = false,
    line_open = false, next_s = frontend == "batch" and core.time() + redraw_s.batch or 0,
  }, Monitor)
end

declared.options(monitor, known)
return declared.makes(monitor, Monitor)
