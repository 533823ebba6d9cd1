-- Widgets of a notebook: sliders, buttons and the like, whose state Lua code and the front end share.
--
--   local widgets = require "perilune.widgets"
--   local slider = widgets.IntSlider{ description = "layers", min = 1, max = 8, value = 2 }
--   slider:observe(function(change) print(change.new) end, "value")
--
-- widgets.NAME{ trait = value, ... } makes one. Reading a trait gives its present value; assigning one checks it and
-- tells the front end. Numbers of options and pages count from 1.
local at_caller = require("perilune.at_caller").of_program
local button = require "perilune.widgets.button"
local class = require "perilune.widgets.class"
local comm = require "perilune.comm"
local declared = require "perilune.code.declared"
local inside = require "perilune.widgets.inside"
local models = require "perilune.widgets.models"
local output = require "perilune.widgets.output"
local version1 = require "perilune.widgets.version1"
local widget = require "perilune.widgets.widget"
local wire = require "perilune.widgets.wire"

local widgets = {}

-- Methods that one class has and others have not.
local own <const> = { Button = button, Output = output }

local world = { class_of = widget.class_of, id_of = widget.id_of, find = widget.find }
function world.make(name, options) return widget.own(widgets[name](options)) end

for name, row in pairs(models(world)) do
  local c = class.new(name, row)
  local make, options, names = widget.constructor(c, own[name]), {}, class.names(c)
  for _, trait in ipairs(names) do options[trait] = true end
  declared.options(make, options)
  declared.document(make, ("%s{ ... } -> widget, with the traits %s"):format(name, table.concat(names, ", ")))
  widgets[name] = make
end

setmetatable(widgets, { __index = function(_, name)
  local names = {}
  for known in pairs(widgets) do names[#names + 1] = known end
  table.sort(names)
  at_caller("there is no widget '%s'; there are %s", tostring(name), table.concat(names, ", "))
end })

inside.make = widgets.Output
version1.listen(comm.register_target)

-- A front end that loads a page anew asks through a comm of this target for all there is.
comm.register_target("jupyter.widget.control", function(c)
  c:on_message(function(message)
    if type(message) ~= "table" or message.method ~= "request_states" then return end
    local states, all = {}, wire.new()
    for id, _, kind, state in widget.each() do
      local one = wire.of(kind, state)
      states[id] = { state = one.state, model_name = kind.model._model_name, model_module = kind.model._model_module,
        model_module_version = kind.model._model_module_version }
      for i, path in ipairs(one.paths) do
        table.insert(all.paths, { id, "state", table.unpack(path) })
        table.insert(all.buffers, one.buffers[i])
      end
    end
    local data, buffers = wire.data(all, "update_states")
    data.state, data.states = nil, states
    c:send(data, buffers)
  end)
end)

return widgets
