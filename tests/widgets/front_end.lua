-- A front end for widgets in one process: it takes the place of perilune.comm, keeps what is sent, and sends as it is
-- told. Each call of the module gives a fresh perilune.widgets with a front end of its own; with `old` one of
-- ipywidgets 6, which has already asked for the kernel's version.
local core = require "perilune.core"

return function(old)
  local front = { sent = {}, comms = {}, targets = {} }
  local Comm = {}
  Comm.__index = Comm
  function Comm:on_message(f) self.hear = f end
  function Comm:on_close(f) self.closed_by_front_end = f end
  function Comm:is_open() return front.comms[self.id] == self end
  function Comm:send(data, buffers) table.insert(front.sent, { id = self.id, data = data, buffers = buffers }) end
  function Comm:close()
    table.insert(front.sent, { id = self.id, closed = true })
    front.comms[self.id] = nil
  end

  local count = 0
  local function open(target, data, buffers, metadata)
    count = count + 1
    local c = setmetatable({ id = "id" .. count, target = target, opened = data }, Comm)
    c.buffers, c.metadata = buffers, metadata
    front.comms[c.id] = c
    return c
  end

  local before = {}
  for name, module in pairs(package.loaded) do
    if name:find "^perilune%.widgets" or name == "perilune.comm" then before[name] = module end
  end
  for name in pairs(before) do package.loaded[name] = nil end
  package.loaded["perilune.comm"] = { open = open, register_target = function(name, f) front.targets[name] = f end }
  core.comm_refused["jupyter.widget.version"] = old
  front.widgets = require "perilune.widgets"
  front.interact = require "perilune.widgets.interact"
  front.widget = require "perilune.widgets.widget"
  core.comm_refused["jupyter.widget.version"] = nil
  for name in pairs(package.loaded) do
    if name:find "^perilune%.widgets" or name == "perilune.comm" then package.loaded[name] = before[name] end
  end

  --- The comm of a widget; its `opened` is the data it was opened with.
  function front.comm_of(w) return front.comms[front.widget.id_of(w)] end
  --- Sends state of a widget as a user's doing does.
  function front.update(w, state, paths, buffers)
    front.comm_of(w).hear({ method = "update", state = state, buffer_paths = paths or {} }, buffers or {})
  end
  --- What was sent since the last call: a list of { id, data, buffers, closed }.
  function front.take()
    local sent = front.sent
    front.sent = {}
    return sent
  end
  return front
end
