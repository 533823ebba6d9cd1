-- pl.interact: widgets for the arguments of a function, which is called anew whenever one of them changes.
local at_caller = require("perilune.at_caller").of_program
local core = require "perilune.core"
local display = require "perilune.display"
local inspect = require "perilune.inspect"
local kinds = require "perilune.widgets.kinds"
local widget = require "perilune.widgets.widget"
local widgets = require "perilune.widgets"

-- ---- from an abbreviation to a widget ----

-- A number alone becomes a slider round it, as in ipywidgets.
local function bounds_round(value)
  if value == 0 then return 0, 1 end
  if value > 0 then return -value, 3 * value end
  return 3 * value, -value
end

local function are_whole(...)
  for i = 1, select("#", ...) do
    if math.type((select(i, ...))) ~= "integer" then return false end
  end
  return true
end

local function slider(whole, value, low, high, step, description)
  local make = whole and widgets.IntSlider or widgets.FloatSlider
  return make { value = value, min = low, max = high, step = step, description = description }
end

local function are_numbers(list)
  for _, item in ipairs(list) do
    if type(item) ~= "number" then return false end
  end
  return true
end

-- { low, high } and { low, high, step }: the value begins in the middle, on a step.
local function range(name, list)
  local low, high, step = table.unpack(list)
  if low > high or step and not (step > 0 and step <= high - low) then
    at_caller("interact: %s: expected { low, high } or { low, high, step }, got { %s }; "
      .. "a choice of numbers is widgets.Dropdown { options = { ... } }", name, table.concat(list, ", "))
  end
  local whole = are_whole(low, high, step or 1)
  local middle = whole and low + (high - low) // 2 or low + (high - low) / 2
  if step then middle = low + (middle - low) // step * step end
  return slider(whole, middle, low, high, step, name)
end

local by_type = {
  number = function(name, value)
    local low, high = bounds_round(value)
    return slider(are_whole(value), value, low, high, nil, name)
  end,
  boolean = function(name, value) return widgets.Checkbox { value = value, description = name } end,
  string = function(name, value) return widgets.Text { value = value, description = name } end,
  table = function(name, value)
    if (#value == 2 or #value == 3) and are_numbers(value) then return range(name, value) end
    if next(value) == nil then at_caller("interact: %s: expected values to choose from, got an empty table", name) end
    return widgets.Dropdown { options = value, description = name }
  end,
}

local function control(name, value)
  local class = widget.class_of(value)
  if class and class.by_name.value then
    if value.description == "" then value.description = name end
    return value
  end
  if not class and by_type[type(value)] and (type(value) ~= "table" or kinds.is_plain(value)) then
    return by_type[type(value)](name, value)
  end
  at_caller("interact: %s: expected a number, a boolean, a string, a table or a widget with a value, got %s", name,
    class and class.name or "a " .. type(value))
end

-- ---- how the function is called ----

-- The names of a function's parameters, by their places too.
local function parameters(f)
  local names, info = {}, debug.getinfo(f, "u")
  for i = 1, info.nparams do
    local name = debug.getlocal(f, i)
    if name then names[i], names[name] = name, i end
  end
  return names
end

-- The names of the options: in the order of the parameters, which are returned, too, when each is one. A function of
-- one parameter that is called otherwise, or of none, takes a table; then they are sorted.
local function ordered(f, options)
  local known, names, stranger = parameters(f), {}, nil
  for name in pairs(options) do
    if type(name) ~= "string" then
      at_caller("interact: options: expected names as keys, got %s", tostring(name))
    end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do stranger = stranger or not known[name] and name end
  if not stranger then
    table.sort(names, function(a, b) return known[a] < known[b] end)
    return names, known
  end
  if #known > 1 or options[known[1]] ~= nil then
    at_caller("interact: %s: expected a parameter of the function, which are %s", stranger, table.concat(known, ", "))
  end
  return names
end

local function call(f, names, known, controls)
  local arguments = {}
  for _, name in ipairs(names) do arguments[known and known[name] or name] = controls[name].value end
  if known then return f(table.unpack(arguments, 1, #known)) end
  return f(arguments)
end

-- Shows the results as a cell would.
local function show(...)
  if select("#", ...) == 0 or select("#", ...) == 1 and ... == nil then return end
  local bundle = inspect.bundle(...)
  if bundle then display.bundle(bundle) end
end

-- What interact returns: to be called as the function, and nothing to show in itself.
local Interaction = {
  __name = "perilune.interaction",
  __call = function(interaction, ...) return interaction.f(...) end,
  __mime = function() return {} end,
}
Interaction.__index = Interaction

--- interact(f, { name = abbreviation, ... }): shows a widget for each name and, below them, what f prints, shows and
-- returns; f is called anew on each change. A number becomes a slider round it, { low, high [, step] } a slider of that
-- range, a boolean a checkbox, a string a text field, a list of values or a table from labels to values a dropdown; a
-- widget stands for itself. A function whose parameters have the names gets the values as arguments; one without
-- parameters, or with one that has none of the names, a table of them. Returns an object to be called as f, with the
-- fields f, controls (by name), output and box.
return function(f, options)
  if type(f) ~= "function" then at_caller("interact: f: expected a function, got a %s", type(f)) end
  if type(options) ~= "table" then
    at_caller("interact: options: expected a table from names to values, got a %s", type(options))
  end
  local names, known = ordered(f, options)
  local controls, list = {}, {}
  for i, name in ipairs(names) do
    controls[name] = control(name, options[name])
    list[i] = controls[name]
  end
  local output = widgets.Output()
  list[#list + 1] = output
  local box = widgets.VBox { children = list, _dom_classes = { "widget-interact" } }
  local function update()
    output:capture(function()
      display.clear { wait = true }
      show(call(f, names, known, controls))
    end)
  end
  for _, name in ipairs(names) do controls[name]:observe(update, "value") end
  if core.message_id() then box:show() end
  update()
  return setmetatable({ f = f, controls = controls, output = output, box = box }, Interaction)
end
