-- Rich output in a notebook; elsewhere its plain text. Every function shows something at once and returns a handle.
local core = require "perilune.core"

-- VEGALITE is the MIME type of a Vega-Lite specification.
local display = { null = core.null, array = core.json_array, VEGALITE = "application/vnd.vegalite.v5+json" }

-- A handle prints nothing as the result of a cell.
local Handle = { __name = "perilune.display", __mime = function() return {} end }
Handle.__index = Handle

-- What is shown where only text can be: the bundle's own, or a line that names the types.
local function plain_text(bundle)
  if bundle["text/plain"] then return bundle["text/plain"] end
  local types = {}
  for mime in pairs(bundle) do types[#types + 1] = mime end
  table.sort(types)
  return "<" .. table.concat(types, ", ") .. ">"
end

local function send(message, bundle, id, metadata)
  local data = {}
  for mime, content in pairs(bundle) do data[mime] = content end
  data["text/plain"] = plain_text(bundle)
  local content = { data = data, metadata = metadata, transient = { display_id = id } }
  if not core.publish(message, content) then print(data["text/plain"]) end
end

local function display_id(options)
  local id = options and options.id
  if id == nil or id == true or id == false then return id and core.uuid() or nil end
  if type(id) ~= "string" then error("display: id must be true or a string, got " .. type(id), 3) end
  return id
end

local function show(bundle, options, wrap)
  local id = display_id(options)
  send("display_data", bundle, id, options and options.metadata)
  return setmetatable({ id = id, wrap = wrap }, Handle)
end

-- Replaces what the handle shows, also in a cell that ran earlier. `content` is of the kind the handle was made with.
function Handle:update(content)
  if not self.id then error("update: this display was made without an id; give { id = true } to it", 2) end
  send("update_display_data", self.wrap(content), self.id)
  return self
end

local function check_text(name, content)
  if type(content) ~= "string" then
    error(("display.%s: a string is expected, got %s"):format(name, type(content)), 3)
  end
end

-- LaTeX with the signs by which front ends know where mathematics begins and ends: those in the text, or else "$$".
local function delimited(text)
  local has = text:find("$", 1, true) or text:find("\\[%(%[]") or text:find("\\begin%s*{")
  return has and text or "$$" .. text .. "$$"
end

-- One function per kind of content: how it becomes a bundle.
local KINDS = {
  png = function(bytes) return { ["image/png"] = bytes, ["text/plain"] = "<PNG image>" } end,
  svg = function(text) return { ["image/svg+xml"] = text, ["text/plain"] = "<SVG image>" } end,
  html = function(text) return { ["text/html"] = text, ["text/plain"] = "<HTML>" } end,
  markdown = function(text) return { ["text/markdown"] = text, ["text/plain"] = text } end,
  latex = function(text) return { ["text/latex"] = delimited(text), ["text/plain"] = text } end,
  text = function(text) return { ["text/plain"] = text } end,
}

for name, wrap in pairs(KINDS) do
  local function checked(content)
    check_text(name, content)
    return wrap(content)
  end
  -- display.NAME(content [, { id = true | "your own", metadata = {...} }]) -> handle
  display[name] = function(content, options)
    check_text(name, content)
    return show(wrap(content), options, checked)
  end
end

local function wrap_json(value) return { ["application/json"] = value, ["text/plain"] = core.json_encode(value) } end

-- A value that JSON can hold, as a tree to unfold.
function display.json(value, options) return show(wrap_json(value), options, wrap_json) end

local function wrap_vegalite(specification)
  if type(specification) ~= "table" then
    error("display.vegalite: a table is expected, got " .. type(specification), 3)
  end
  return { [display.VEGALITE] = specification, ["text/plain"] = "<Vega-Lite figure>" }
end

-- A Vega-Lite 5 specification, as a table.
function display.vegalite(specification, options) return show(wrap_vegalite(specification), options, wrap_vegalite) end

local function wrap_bundle(bundle)
  if type(bundle) ~= "table" then
    error("display.bundle: a table from MIME types to contents is expected, got " .. type(bundle), 3)
  end
  return bundle
end

-- Several forms of one thing: { ["text/plain"] = ..., ["image/png"] = bytes or base64, ... }
function display.bundle(bundle, options) return show(wrap_bundle(bundle), options, wrap_bundle) end

-- Takes away what the cell has shown so far; with { wait = true } only when something new comes.
function display.clear(options) core.publish("clear_output", { wait = options ~= nil and options.wait == true }) end

return display
