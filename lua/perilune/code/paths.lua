-- Names of modules that require would find, and of files, that go on from what was typed.
local core = require "perilune.core"

-- Cells may give other values to these names.
local next, type, ipairs, open = next, type, ipairs, io.open
local sub, match, gsub, gmatch, find, len = string.sub, string.match, string.gsub, string.gmatch, string.find, utf8.len
local package, loaded, preload = package, package.loaded, package.preload

local paths = {}

local ENTRIES_MAX <const> = 10000 -- of one folder

local function entries(folder)
  return core.list_directory(folder == "" and "." or folder, ENTRIES_MAX) or {}
end

local function exists(path)
  local file <close> = open(path)
  return file ~= nil
end

-- Modules that one template of a search path, "DIR/?.lua", holds below the package `parent` ("" or "perilune.nn.").
local function offer_template(template, parent, offer)
  local folder, ending = match(template, "^(.-)%?([^?]*)$")
  if not folder or folder ~= "" and sub(folder, -1) ~= "/" then return end
  folder = folder .. gsub(parent, "%.", "/")
  for _, entry in ipairs(entries(folder)) do
    local name = match(entry, "^([%w_-]+)/$")
    if name then
      if exists(folder .. name .. "/init.lua") then offer(parent .. name, "module") end
    else
      name = match(entry, "^([%w_-]+)%.%w+$")
      if name and name .. ending == entry and name ~= "init" then offer(parent .. name, "module") end
    end
  end
end

--- Calls offer(name, "module") for modules whose names begin with `typed`, and perhaps for others: those that are
-- loaded or preloaded, and files on the search paths.
function paths.modules(typed, offer)
  for _, list in next, { loaded, preload } do
    for name in next, list do
      if type(name) == "string" and name ~= "_G" then offer(name, "module") end
    end
  end
  local parent = match(typed, "^(.*%.)") or ""
  for _, path in next, { package.path, package.cpath } do
    if type(path) == "string" then
      for template in gmatch(path, "[^;]+") do offer_template(template, parent, offer) end
    end
  end
end

--- Calls offer(name, "path") for the entries of the folder that `typed` is in; folders end with a "/". Returns the part
-- of `typed` that names the folder.
function paths.files(typed, offer)
  local folder = match(typed, "^(.*/)") or ""
  local hidden = sub(typed, #folder + 1, #folder + 1) == "."
  for _, entry in ipairs(entries(folder)) do
    local plain = len(entry) and not find(entry, "[%c\"'\\]")
    if plain and (hidden or sub(entry, 1, 1) ~= ".") then offer(entry, "path") end
  end
  return folder
end

return paths
