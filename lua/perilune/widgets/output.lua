-- What an Output widget does beyond others. Front ends put messages of output into the widget whose msg_id is the id of
-- the message that caused them: while the widget captures, that is the message whose code runs.
local core = require "perilune.core"
local display = require "perilune.display"
local inside = require "perilune.widgets.inside"
local widget = require "perilune.widgets.widget"

local output = {}

local Release = { __close = function(capture)
  inside.leave()
  capture.widget.msg_id = ""
end }

--- Calls f(...) and returns its results; what it prints and shows, and an error that ends it, appears in the widget. In
-- a script it is only called.
function output:capture(f, ...)
  widget.check_function(f, "capture")
  local id = core.message_id()
  if not id then return f(...) end
  -- An interrupt may have ended an earlier capture before its release; its id tells it from an outer one of this code.
  if self.msg_id == id then return select(2, core.attempt(f, ...)) end
  self.msg_id = id
  inside.enter(self)
  local _ <close> = setmetatable({ widget = self }, Release)
  return select(2, core.attempt(f, ...))
end

--- Takes away what the widget shows; with { wait = true } only when something new comes.
function output:clear(options) self:capture(display.clear, options) end

--- Takes the widget from the front end and frees it, with what it shows.
function output:close()
  inside.close(self)
  widget.methods.close(self)
end

return output
