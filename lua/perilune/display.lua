-- Rich output in a notebook; elsewhere its plain text. Every function shows something at once and returns a handle.
local at_caller = require("perilune.at_caller").of_program
local core = require "perilune.core"
local declared = require "perilune.code.declared"

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

-- What shows displays with an id inside Output widgets, once a program has loaded these.
local function inside() return package.loaded["perilune.widgets.inside"] end

local function send(message, bundle, id, metadata)
  local data = {}
  for mime, content in pairs(bundle) do data[mime] = content end
  data["text/plain"] = plain_text(bundle)
  local content = { data = data, metadata = metadata, transient = { display_id = id } }
  if id and inside() then
    if message == "display_data" and inside().show(content) then return end
    if message == "update_display_data" then inside().update(content) end
  end
  if not core.publish(message, content) then print(data["text/plain"]) end
end

local function expect(wanted, value, what)
  if type(value) ~= wanted then at_caller("%s: a %s is expected, got %s", what, wanted, type(value)) end
end

local known <const> = { id = true, metadata = true }

-- The options of `name`, checked; an id of true becomes one that nobody else has.
local function read_options(name, options)
  if options == nil then return {} end
  expect("table", options, name .. ": options")
  for option in pairs(options) do
    if not known[option] then at_caller("%s: unknown option '%s'; expected id, metadata", name, tostring(option)) end
  end
  local id, metadata = options.id, options.metadata
  if id == true then id = core.uuid() end
  if id then expect("string", id, name .. ": id") end
  if metadata ~= nil then expect("table", metadata, name .. ": metadata") end
  return { id = id or nil, metadata = metadata }
end

-- Defines display.KIND: wrap(content, name) makes a bundle of a content, or raises an error; `called` and `about` say
-- what a content is.
local function define(kind, called, about, wrap)
  local name = "display." .. kind
  local function bundle_of(content) return wrap(content, name) end
  display[kind] = function(content, options)
    local bundle, given = bundle_of(content), read_options(name, options)
    send("display_data", bundle, given.id, given.metadata)
    return setmetatable({ id = given.id, wrap = bundle_of }, Handle)
  end
  declared.options(display[kind], known)
  declared.document(display[kind], ("%s(%s [, { id = true or a name, metadata = { ... } }]) -> handle: shows %s. With "
    .. "an id, handle:update(%s) replaces it."):format(kind, called, about, called))
end

-- Replaces what the handle shows, also in a cell that ran earlier. `content` is of the kind the handle was made with.
function Handle:update(content)
  if not self.id then at_caller "update: this display was made without an id; give { id = true } to it" end
  send("update_display_data", self.wrap(content), self.id)
  return self
end

-- LaTeX with the signs by which front ends know where mathematics begins and ends: those in the text, or else "$$".
local function delimited(text)
  local has = text:find("$", 1, true) or text:find("\\[%(%[]") or text:find("\\begin%s*{")
  return has and text or "$$" .. text .. "$$"
end

--- element(text) -> text: an SVG document without what stands before its svg element: a page takes up the element, and
-- nbconvert gives up at a declaration of the encoding.
function display.element(text)
  local first = text:find "<svg[%s>/]"
  return first and text:sub(first) or text
end

-- Kinds of text and bytes: what they are called, what is said of them, and the bundle.
local KINDS = {
  png = { "bytes", "a PNG image, given as its file's bytes",
    function(bytes) return { ["image/png"] = bytes, ["text/plain"] = "<PNG image>" } end },
  svg = { "text", "an SVG image",
    function(text) return { ["image/svg+xml"] = display.element(text), ["text/plain"] = "<SVG image>" } end },
  html = { "text", "HTML", function(text) return { ["text/html"] = text, ["text/plain"] = "<HTML>" } end },
  markdown = { "text", "Markdown", function(text) return { ["text/markdown"] = text, ["text/plain"] = text } end },
  latex = { "text", "a formula of LaTeX; '$$' is put round one without delimiters",
    function(text) return { ["text/latex"] = delimited(text), ["text/plain"] = text } end },
  text = { "text", "plain text", function(text) return { ["text/plain"] = text } end },
}

for kind, row in pairs(KINDS) do
  define(kind, row[1], row[2], function(content, name)
    expect("string", content, name)
    return row[3](content)
  end)
end

define("json", "value", "a value that JSON can hold, as a tree to unfold", function(value, name)
  local ok, text = pcall(core.json_encode, value)
  if not ok then at_caller("%s: %s", name, text:match "%((.*)%)$" or text) end
  return { ["application/json"] = value, ["text/plain"] = text }
end)

define("vegalite", "specification", "a Vega-Lite 5 specification, a table", function(specification, name)
  expect("table", specification, name)
  return { [display.VEGALITE] = specification, ["text/plain"] = "<Vega-Lite figure>" }
end)

local forms <const> = "several forms of one thing, of which a front end takes the best it can: a table from MIME types "
  .. "to contents, which are strings (of images the bytes, or their base64) and for JSON any value"
define("bundle", "bundle", forms, function(bundle, name)
  expect("table", bundle, name)
  if next(bundle) == nil then at_caller("%s: MIME types with contents are expected, got an empty table", name) end
  for mime, content in pairs(bundle) do
    expect("string", mime, name .. ": MIME type")
    if not mime:find "json$" then expect("string", content, name .. ": " .. mime) end
  end
  return bundle
end)

-- Takes away what the cell has shown so far; with { wait = true } only when something new comes.
function display.clear(options)
  if inside() then inside().clear() end
  core.publish("clear_output", { wait = options ~= nil and options.wait == true })
end

return display
