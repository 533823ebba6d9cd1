-- Version 1 of the protocol, which the front end of ipywidgets 6 speaks; Debian 12's notebook has it. It has one module
-- of models, some of which do the work of several later ones; selections tell labels in place of numbers; state lies
-- open in the message, which is called otherwise on its way back; a widget is shown by a message of its own.
local core = require "perilune.core"

local version1 = {}

local MODULE <const>, VERSION <const> = "jupyter-js-widgets", "~2.1.4"

-- Classes whose model, view or state have other names there.
local renamed <const> = {
  IntProgress = { model = "ProgressModel" }, FloatProgress = { model = "ProgressModel" },
  BoundedIntText = { model = "IntTextModel" }, BoundedFloatText = { model = "FloatTextModel" },
  FloatLogSlider = { model = "FloatTextModel", view = "FloatTextView" },
  IntRangeSlider = { model = "IntSliderModel", view = "IntSliderView", range = true },
  FloatRangeSlider = { model = "FloatSliderModel", view = "FloatSliderView", range = true },
  Password = { model = "TextModel", view = "TextView" }, -- which shows what is typed
  GridBox = { model = "BoxModel", view = "BoxView" },
  DescriptionStyle = { model = "StyleModel" }, ToggleButtonsStyle = { model = "StyleModel" },
}

-- Such a front end asks for this when it meets a kernel.
local ASKS <const> = "jupyter.widget.version"

local spoken = core.comm_refused[ASKS] == true

--- Whether the front end speaks this version.
function version1.is_spoken() return spoken end

--- Has the front ends answered that come from now on; register is comm.register_target.
function version1.listen(register)
  register(ASKS, function(c)
    spoken = true
    c:send { version = VERSION }
  end)
end

local function rename_model(class, message)
  local names = renamed[class.name] or {}
  message._model_name = names.model or message._model_name
  message._view_name = names.view or message._view_name
  message._model_module, message._model_module_version = MODULE, VERSION
  message._view_module, message._view_module_version = MODULE, VERSION
  message._range = names.range
end

--- Makes a message of wire.lua, of the widget's `state`, one of this version.
function version1.rewrite(class, state, message)
  local told = message.state
  if told._model_name then rename_model(class, told) end
  if told.index ~= nil then told.index, told.value = nil, state.label or "" end
  for i, path in ipairs(message.paths) do told["_b64" .. path[1]] = core.base64(message.buffers[i]) end
  message.buffers, message.paths = {}, {}
  return message
end

--- The data of such a message: with the method, or open.
function version1.data(message, method)
  if not method then return message.state end
  return { method = method, state = message.state }
end

-- The number on the wire of a label.
local function number_of(options, label)
  for i, option in ipairs(options) do
    if option[1] == label then return i - 1 end
  end
end

--- What arrives as version 2 would have it.
function version1.read(state, data)
  if data.method ~= "backbone" or type(data.sync_data) ~= "table" then return data end
  local told, options = data.sync_data, state.options
  local label = options and told.value
  if type(label) == "string" then
    told.index = number_of(options, label)
  elseif type(label) == "table" then
    told.index = {}
    for i, one in ipairs(label) do told.index[i] = number_of(options, one) end
  end
  return { method = "update", state = told }
end

return version1
