-- Comms: named channels over which Lua code and widgets of a notebook exchange data. Either side opens one for a target
-- that the other side knows. Handlers run between cells, as cells do; what they print belongs to the message that
-- called them. In a script there is nobody on the other side: messages go nowhere and none arrive.
local core = require "perilune.core"

local comm = {}

local targets = {} -- name -> handler of comms that the front end opens
local open = {} -- id -> comm

local Comm = { __name = "perilune.comm" }
Comm.__index = Comm

local function check(value, wanted, what, level)
  if type(value) ~= wanted then
    error(("%s: expected a %s, got %s"):format(what, wanted, type(value)), level + 1)
  end
end

local function check_handler(handler, what)
  if handler ~= nil then check(handler, "function", what .. ": handler", 3) end
end

-- When the front end opens a comm for the target `name`, handler(c, data, buffers, metadata) is called with it; an
-- error in it closes the comm. nil forgets the target.
function comm.register_target(name, handler)
  check(name, "string", "comm.register_target: name", 2)
  check_handler(handler, "comm.register_target")
  targets[name] = handler
end

-- Opens a comm for a target that the front end knows. `data` is a table with names as keys; `buffers` an array of
-- strings that travel beside it as they are; `metadata` a table for the message itself.
function comm.open(target, data, buffers, metadata)
  check(target, "string", "comm.open: target", 2)
  local c = setmetatable({ id = core.uuid(), target = target }, Comm)
  core.comm_send("comm_open", c.id, target, data, buffers, metadata)
  open[c.id] = c
  return c
end

-- handler(data, buffers, metadata) is called for each message; it takes the place of the one before. nil: for none.
function Comm:on_message(handler)
  check_handler(handler, "on_message")
  self.message_handler = handler
  return self
end

-- handler(data, buffers, metadata) is called when the front end closes the comm.
function Comm:on_close(handler)
  check_handler(handler, "on_close")
  self.close_handler = handler
  return self
end

-- Whether neither side has closed it.
function Comm:is_open() return open[self.id] == self end

-- Sends data, and binary buffers and metadata with it, to the front end.
function Comm:send(data, buffers, metadata)
  if not self:is_open() then error(("send: the comm for '%s' is closed"):format(self.target), 2) end
  core.comm_send("comm_msg", self.id, nil, data, buffers, metadata)
  return self
end

-- Tells the front end, whose side ends too. A comm that is closed stays so.
function Comm:close(data, buffers, metadata)
  if not self:is_open() then return end
  core.comm_send("comm_close", self.id, nil, data, buffers, metadata)
  open[self.id] = nil
end

-- The target, and whether the comm is closed.
Comm.__tostring = function(c) return ("comm for '%s'%s"):format(c.target, c:is_open() and "" or ", closed") end

-- ---- what arrives ----

local receive = {}

function receive.comm_open(id, target, ...)
  local handler = targets[target]
  if not handler then
    core.comm_refused[target] = true
    return core.comm_send("comm_close", id)
  end
  local c = setmetatable({ id = id, target = target }, Comm)
  open[id] = c -- host/bind/comm.c takes it out again when the handler fails
  handler(c, ...)
end

function receive.comm_msg(id, _, ...)
  local c = open[id] -- messages on their way to a comm that was closed meanwhile are nobody's
  if c and c.message_handler then c.message_handler(...) end
end

function receive.comm_close(id, _, ...)
  local c = open[id]
  open[id] = nil
  if c and c.close_handler then c.close_handler(...) end
end

core.comm_attach(function(message, ...) receive[message](...) end, open)

return comm
