-- Displays with an id inside an Output widget. Front ends put what is shown there into the widget, but leave out later
-- updates of it. So such a display is an Output of its own inside the widget, whose contents an update replaces.
local core = require "perilune.core"
local version1 = require "perilune.widgets.version1"

local inside = {}

local capture    -- the latest that has begun and not ended: { output =, message_id =, stale =, outer = }
local shown = {} -- display id -> the Outputs that show it
local within = setmetatable({}, { __mode = "k" }) -- Output -> a list of { id =, output = }, of those inside it

-- The capture whose code runs: an interrupt may have ended an earlier message without its inside.leave().
local function current() return capture and capture.message_id == core.message_id() and capture or nil end

local function outputs_of(content)
  local data = core.bundle(content.data)
  return core.json_array { { output_type = "display_data", data = data, metadata = content.metadata or {} } }
end

local function free(list)
  for _, entry in ipairs(list or {}) do
    local places = shown[entry.id]
    for i = #places, 1, -1 do
      if places[i] == entry.output then table.remove(places, i) end
    end
    if #places == 0 then shown[entry.id] = nil end
    entry.output:close()
  end
end

--- What is shown from here to inside.leave(), or to the end of the message whose code runs, is in the widget `output`.
function inside.enter(output)
  capture = { output = output, message_id = core.message_id(), stale = {}, outer = capture }
end

function inside.leave()
  local ended = capture
  capture = ended.outer
  free(ended.stale)
end

--- Shows the content of a display_data message that has an id inside the Output that captures, and returns true. Does
-- nothing where none does, or where the front end is one of ipywidgets 6, which heeds updates everywhere.
function inside.show(content)
  local now, id = current(), content.transient.display_id
  if not now or version1.is_spoken() then return end
  local output = inside.make { outputs = outputs_of(content) }
  within[now.output] = within[now.output] or {}
  table.insert(within[now.output], { id = id, output = output })
  shown[id] = shown[id] or {}
  table.insert(shown[id], output)
  output:show()
  return true
end

--- Heeds an update_display_data message inside Outputs.
function inside.update(content)
  local places = shown[content.transient.display_id]
  if not places then return end
  local outputs = outputs_of(content)
  for _, output in ipairs(places) do output.outputs = outputs end
end

--- What the capturing Output shows is taken away; perhaps only when something new comes, so that it is freed when the
-- capture ends.
function inside.clear()
  local now = current()
  if not now or not within[now.output] then return end
  table.move(within[now.output], 1, #within[now.output], #now.stale + 1, now.stale)
  within[now.output] = nil
end

--- Frees what is inside an Output that is closed.
function inside.close(output)
  free(within[output])
  within[output] = nil
end

return inside
