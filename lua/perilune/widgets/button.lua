-- What a Button does beyond others.
local widget = require "perilune.widgets.widget"

local button = {}

local handlers = setmetatable({}, { __mode = "k" }) -- button -> list of functions

--- Calls f(button) for each click.
function button:on_click(f)
  widget.check_function(f, "on_click")
  if not handlers[self] then
    handlers[self] = {}
    self:on_message(function(_, content)
      if type(content) == "table" and content.event == "click" then self:click() end
    end)
  end
  table.insert(handlers[self], f)
end

--- Calls what on_click was given, as a click does.
function button:click() widget.call_all(handlers[self] or {}, self) end

return button
