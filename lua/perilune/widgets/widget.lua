-- Widgets as objects: state, observers, and the messages by which the front end's copy stays the same (the protocol of
-- jupyter-widgets, version 2.1). An open widget is kept until it is closed, for the front end may show it. In a script
-- nobody is there, and only the state lives.
local class = require "perilune.widgets.class"
local comm = require "perilune.comm"
local core = require "perilune.core"
local declared = require "perilune.code.declared"
local display = require "perilune.display"
local kinds = require "perilune.widgets.kinds"
local wire = require "perilune.widgets.wire"
local version1 = require "perilune.widgets.version1"
local at_caller = require("perilune.at_caller").of_program

local TARGET <const>, PROTOCOL <const> = "jupyter.widget", "2.1.0"
local VIEW <const> = "application/vnd.jupyter.widget-view+json"

local widget = {}

local parts = setmetatable({}, { __mode = "k" }) -- widget -> { class, state, comm, observers, handlers }
local open = {}                                  -- id -> widget

-- ---- for the other files of this folder ----

function widget.class_of(value) return type(value) == "table" and parts[value] and parts[value].class or nil end
function widget.id_of(w) return parts[w].comm.id end
function widget.find(id) return id and open[id] end

--- The open widgets by their ids: id, widget, class, state.
function widget.each()
  local id, w
  return function()
    id, w = next(open, id)
    if id then return id, w, parts[w].class, parts[w].state end
  end
end

--- Marks a widget as made for another one, with which it is closed.
function widget.own(w)
  parts[w].owned = true
  return w
end

local function disown(value)
  if type(value) == "table" and parts[value] and parts[value].owned then value:close() end
end

--- Raises an error where f, which was given to the method `what`, is no function.
function widget.check_function(f, what)
  if type(f) ~= "function" then at_caller("%s: f: expected a function, got %s", what, (class.shown(f))) end
end

local function copy(list) return table.move(list, 1, #list, 1, {}) end

--- Calls each of several functions, which may change the list.
function widget.call_all(list, ...)
  for _, f in ipairs(copy(list)) do f(...) end
end

-- ---- changes ----

local function send(self, method, message)
  local data, buffers = wire.data(message, method)
  if self.comm:is_open() then self.comm:send(data, buffers) end
end

-- Whether two values are the same to a front end: lists, by what they hold.
local function equal(a, b)
  if rawequal(a, b) then return true end
  if type(a) ~= "table" or type(b) ~= "table" or parts[a] or parts[b] then return a == b end
  for key, value in pairs(a) do
    if not equal(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function notify(self, changes)
  for _, change in ipairs(changes) do
    for _, observer in ipairs(copy(self.observers)) do
      if not observer.names or observer.names[change.name] then observer.f(change) end
    end
  end
end

-- Gives the traits in the set `names` the kept values, tells the front end what it does not know (when `arrived` it has
-- said these itself), then the observers.
local function change(w, names, kept, arrived)
  local self = parts[w]
  local old, new = self.state, class.settled(self.class, self.state, names, kept)
  local changes, news = {}, {}
  for _, trait in ipairs(self.class.traits) do
    local name = trait.name
    local known = old[name]
    if arrived and names[name] then known = kept[name] end
    if not equal(known, new[name]) and not trait.here then news[name] = true end
    if not equal(old[name], new[name]) and name:sub(1, 1) ~= "_" then
      changes[#changes + 1] = { name = name, old = old[name], new = new[name], owner = w }
    end
  end
  self.state = new
  if next(news) then send(self, "update", wire.of(self.class, new, news)) end
  for _, one in ipairs(changes) do disown(one.old) end
  notify(self, changes)
end

local function set(w, values)
  local c, names = parts[w].class, {}
  for name in pairs(values) do names[class.trait(c, name).name] = true end
  change(w, names, class.checked(c, names, values))
end

-- ---- what arrives ----

local receive = {}

local function hear(w, self, message, buffers)
  if type(message) ~= "table" then return end
  message = version1.read(self.state, message)
  local handler = receive[message.method]
  if handler then handler(w, self, message, buffers) end
end

-- ipywidgets 8 has its front ends wait with what they show for the echo of what they sent last.
function receive.update(w, self, data, buffers)
  if type(data.state) ~= "table" then return end
  local names, values, echo = {}, {}, wire.new()
  wire.put_buffers(data.state, data.buffer_paths, buffers)
  for name, value in pairs(data.state) do
    local trait = self.class.by_wire[name]
    if trait then
      names[trait.name], values[trait.name] = true, trait.kind.read(value)
      if trait.kind.binary then wire.add(echo, trait, value) else echo.state[name] = value end
    end
  end
  if not next(names) then return end
  if not version1.is_spoken() then send(self, "echo_update", echo) end
  change(w, names, class.checked(self.class, names, values), true)
end

function receive.request_state(_, self) send(self, "update", wire.of(self.class, self.state)) end

function receive.custom(w, self, data, buffers) widget.call_all(self.handlers, w, data.content, buffers) end

-- ---- what every widget can ----

-- They return nothing: a cell that ends with `slider:observe(f)` is not to show the slider once more.
local methods = {}
widget.methods = methods

--- Calls f(change) after each change of the named trait, of several (a list of names) or of any (nil), whoever made it.
-- change has name, old, new and owner, the widget.
function methods:observe(f, names)
  widget.check_function(f, "observe")
  local self_, wanted = parts[self], nil
  for _, name in ipairs(type(names) == "string" and { names } or names or {}) do
    wanted = wanted or {}
    wanted[class.trait(self_.class, name).name] = true
  end
  table.insert(self_.observers, { f = f, names = wanted })
end

--- Calls f no more.
function methods:unobserve(f)
  local observers = parts[self].observers
  for i = #observers, 1, -1 do
    if observers[i].f == f then table.remove(observers, i) end
  end
end

--- Gives several traits values at once, of which the front end learns in one message: set{ min = 10, max = 20 }.
function methods:set(values)
  if type(values) ~= "table" then at_caller("set: expected a table of traits, got %s", (class.shown(values))) end
  set(self, values)
end

--- Calls f(w, content, buffers) for each message of the front end that is about no trait.
function methods:on_message(f)
  widget.check_function(f, "on_message")
  table.insert(parts[self].handlers, f)
end

--- Sends such a message: a table, and binary strings beside it.
function methods:send(content, buffers)
  local channel = parts[self].comm
  if channel:is_open() then channel:send({ method = "custom", content = content }, buffers) end
end

--- Shows the widget now. As the last value of a cell it is shown without this.
function methods:show() display.bundle(getmetatable(self).__mime(self)) end

--- Takes the widget from the front end and frees it, with the layout and style that were made for it.
function methods:close()
  local self_ = parts[self]
  self_.comm:close()
  open[self_.comm.id] = nil
  for _, trait in ipairs(self_.class.traits) do disown(self_.state[trait.name]) end
end

-- ---- making them ----

local function to_text(w)
  local c, state, list = parts[w].class, parts[w].state, {}
  for _, name in ipairs(class.names(c)) do
    local trait, value = c.by_name[name], state[name]
    local tells = not trait.kind.complete and not trait.kind.binary and name ~= "children"
    if tells and (name == "value" or not equal(value, trait.default)) then
      list[#list + 1] = name .. " = " .. (class.shown(value))
    end
  end
  return (("%s{ %s }"):format(c.name, table.concat(list, ", ")):gsub("{  }", "{}"))
end

local function bundle(w)
  local self = parts[w]
  local shown = { ["text/plain"] = tostring(w) }
  if self.class.view and self.comm:is_open() then
    shown[VIEW] = { version_major = 2, version_minor = 0, model_id = self.comm.id }
    if version1.is_spoken() then
      self.comm:send { method = "display" }
      shown["text/plain"] = "" -- such a front end shows it as well as the widget
    end
  end
  return shown
end

-- Methods of the class `c`, which has `own` ones as well, and the names that completion offers.
local function metatable(c, own)
  local names = {}
  for _, name in ipairs(class.names(c)) do names[name] = "property" end
  for _, list in ipairs { methods, own } do
    for name in pairs(list) do names[name] = "function" end
  end
  return {
    __name = "perilune.widgets." .. c.name,
    __names = names,
    __index = declared.safe_index(function(w, name)
      return own[name] or methods[name] or parts[w].state[class.trait(c, name).name]
    end),
    __newindex = function(w, name, value)
      if value == nil then value = core.null end -- a table cannot hold nil
      set(w, { [name] = value })
    end,
    __tostring = function(w) return to_text(w) .. (open[widget.id_of(w)] and "" or ", closed") end,
    __mime = bundle,
  }
end

local function read_options(c, options)
  if options ~= nil and not kinds.is_plain(options) then
    at_caller("%s: expected a table of options, got %s", c.name, (class.shown(options)))
  end
  local names, values = {}, {}
  for name, value in pairs(options or {}) do
    if c.by_name.children and math.type(name) == "integer" then -- HBox{ a, b }
      name, value = "children", copy(options)
    end
    names[class.trait(c, name).name], values[name] = true, value
  end
  return names, values
end

--- A function that makes widgets of the class `c` from a table of options; `own` are methods of this class alone.
function widget.constructor(c, own)
  local meta = metatable(c, own or {})
  return declared.makes(function(options)
    local names, values = read_options(c, options)
    local state = class.settled(c, class.defaults(c), names, class.checked(c, names, values))
    local data, buffers = wire.data(wire.of(c, state))
    local self = { class = c, state = state, observers = {}, handlers = {} }
    self.comm = comm.open(TARGET, data, buffers, { version = PROTOCOL })
    local w = setmetatable({}, meta)
    parts[w], open[self.comm.id] = self, w
    self.comm:on_message(function(message, with) hear(w, self, message, with) end)
    self.comm:on_close(function() open[self.comm.id] = nil end)
    return w
  end, meta)
end

return widget
