-- pl.checkpoint: all that a training needs to go on as if it had never stopped, in one .safetensors file and the one
-- before it.
--
--   pl.checkpoint.save(path, { model = model, optimizer = optimizer }, { step = step })
--   local state = pl.checkpoint.load(path, { model = model, optimizer = optimizer })   -- nil where there is none
--
-- Tensors are called "model.1.weight" and so on; beside them are `random` (int64: seed and position of pl's random
-- numbers) and `state` (uint8: the state as JSON). math.random's numbers are not kept.
local core = require "perilune.core"
local pl = require "perilune"
local check = require "perilune.nn.check"

local checkpoint = {}

local SUFFIX <const> = ".safetensors"

-- The paths of damaged checkpoints that this process met: the next one takes the place of such a one, which must not
-- become the one before.
local damaged <const> = {}

-- Where the checkpoint before the last is.
local function before(path) return path:sub(1, -#SUFFIX - 1) .. ".before" .. SUFFIX end

local function check_parts(who, path, parts)
  check.kind(who, "path", path, "string")
  if path:sub(-#SUFFIX) ~= SUFFIX then
    check.fail("%s: path: expected a name ending in %s, got '%s'", who, SUFFIX, path)
  end
  check.kind(who, "parts", parts, "table")
  for name, part in pairs(parts) do
    local good = type(name) == "string" and type(part) == "table" and part.state_dict and part.load_state_dict
    if not good then
      check.fail("%s: parts: expected names and objects with state_dict and load_state_dict, got %s = %s", who,
        tostring(name), check.shown(part))
    end
  end
end

-- Not string.byte(1, -1) at once, which has no room for long texts.
local function text_to_tensor(text)
  local bytes = {}
  for i = 1, #text do bytes[i] = text:byte(i) end
  return pl.tensor(bytes, { dtype = "uint8" })
end

local function tensor_to_text(t)
  local bytes = t:totable()
  for i, byte in ipairs(bytes) do bytes[i] = string.char(byte) end
  return table.concat(bytes)
end

--- Writes a checkpoint to NAME.safetensors; the one that was there becomes NAME.before.safetensors, and stays whatever
-- happens meanwhile. `parts` are objects by name: modules, optimisers, a GradScaler. `state` is what JSON can hold: the
-- step, and what else the program keeps. An error names the file that cannot be written.
function checkpoint.save(path, parts, state)
  check_parts("checkpoint.save", path, parts)
  local _ <close> = pl.scope()
  local all = {
    random = pl.tensor({ core.random_state() }, { dtype = "int64" }),
    state = text_to_tensor(core.json_encode(state or {})),
  }
  for part, object in pairs(parts) do
    for name, tensor in pairs(object:state_dict()) do all[part .. "." .. name] = tensor end
  end
  if not damaged[path] then os.rename(path, before(path)) end -- there may be none yet
  pl.save(path, all)
  damaged[path] = nil
end

-- A whole checkpoint: its path, tensors, state and random numbers.
local function read(path)
  local all = pl.load(path)
  local random, state = all.random, all.state
  if not random or not state then error(("'%s' is no checkpoint: it lacks 'random' or 'state'"):format(path), 0) end
  all.random, all.state = nil, nil
  return { path = path, tensors = all, random = random:totable(), state = core.json_decode(tensor_to_text(state)) }
end

-- The tensors of a checkpoint by part and name.
local function of_parts(found, parts)
  local by_part = {}
  for part in pairs(parts) do by_part[part] = {} end
  for name, tensor in pairs(found.tensors) do
    local part, rest = name:match "^([^.]*)%.(.*)$"
    if not by_part[part] then
      error(("'%s' holds '%s', which is of none of the parts"):format(found.path, name), 0)
    end
    by_part[part][rest] = tensor
  end
  return by_part
end

local NO_SUCH_FILE <const> = 2 -- ENOENT

-- That a file is there, but cannot be read, is an error: a training would begin anew and write over it.
local function exists(path)
  local file <close>, message, number = io.open(path)
  if not file and number ~= NO_SUCH_FILE then error("cannot read " .. message, 0) end
  return file ~= nil
end

-- The last whole checkpoint, nil where there is none. A damaged file is told of on the standard error.
local function newest(path)
  local damage, found = nil, nil
  for _, name in ipairs { path, before(path) } do
    if not found and exists(name) then
      local whole, result = pcall(read, name)
      if whole then
        found = result
        if damage then io.stderr:write("warning: ", damage, "; going on from '", name, "'\n") end
      else
        damage, damaged[name] = damage or result, true
      end
    end
  end
  if not found and damage then error(damage, 0) end
  return found
end

--- Brings `parts` and the random numbers to where they were when `path` was saved, and returns the state; nil where
-- there is no checkpoint. A damaged file is told of on the standard error, and the one before it is taken; where there
-- is no whole one, or where it does not fit the parts, that is an error.
function checkpoint.load(path, parts)
  check_parts("checkpoint.load", path, parts)
  local _ <close> = pl.scope()
  local found = newest(path)
  if not found then return nil end
  local by_part = of_parts(found, parts)
  for part, object in pairs(parts) do object:load_state_dict(by_part[part]) end
  core.random_state(table.unpack(found.random))
  return found.state
end

--- The tensors of the checkpoint that `load` would take, by name; nil where there is none. Nothing else changes.
function checkpoint.tensors(path)
  check_parts("checkpoint.tensors", path, {})
  local found = newest(path)
  return found and found.tensors
end

return checkpoint
