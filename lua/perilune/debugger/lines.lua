-- The lines at which a chunk can stop: those that any of its functions has an instruction for. Lua tells them of a
-- function that it has, and those inside a chunk exist only once it runs; its binary form has all (lundump.c of 5.4).
local dump, unpack, byte = string.dump, string.unpack, string.byte
local string_packsize = string.packsize

-- In front of the main function: "\27Lua", version, format, six bytes, sizes of three types, an integer, a number, and
-- the count of upvalues.
local HEADER <const> = 4 + 1 + 1 + 6 + 3 + string_packsize "jn" + 1
local INSTRUCTION_BYTES <const> = 4
-- Tags of constants; all others have no content.
local FLOAT <const>, INTEGER <const>, SHORT_STRING <const>, LONG_STRING <const> = 0x13, 0x03, 0x04, 0x14
local ABSOLUTE <const> = -128 -- stands in the list of lines for one that is in the list of absolute ones

-- Numbers have seven bits in each byte, the last of which has the eighth bit set.
local function read_number(code, at)
  local value = 0
  while true do
    local b = byte(code, at)
    at, value = at + 1, value << 7 | b & 127
    if b & 128 ~= 0 then return value, at end
  end
end

local function skip_string(code, at)
  local size, behind = read_number(code, at)
  return size == 0 and behind or behind + size - 1
end

local function skip_constants(code, at)
  local count
  count, at = read_number(code, at)
  for _ = 1, count do
    local tag = byte(code, at)
    at = at + 1
    if tag == FLOAT or tag == INTEGER then
      at = at + 8
    elseif tag == SHORT_STRING or tag == LONG_STRING then
      at = skip_string(code, at)
    end
  end
  return at
end

local function skip_names(code, at, numbers)
  local count
  count, at = read_number(code, at)
  for _ = 1, count do
    at = skip_string(code, at)
    for _ = 1, numbers do
      local _
      _, at = read_number(code, at)
    end
  end
  return at
end

-- Adds the lines of the function at `at`; returns where it ends.
local function read_function(code, at, lines)
  local defined, count, vararg, _
  at = skip_string(code, at) -- source
  defined, at = read_number(code, at)
  _, at = read_number(code, at)
  vararg = byte(code, at + 1) ~= 0
  count, at = read_number(code, at + 3)
  at = skip_constants(code, at + count * INSTRUCTION_BYTES)
  count, at = read_number(code, at)
  at = at + 3 * count -- upvalues
  count, at = read_number(code, at)
  for _ = 1, count do at = read_function(code, at, lines) end
  local steps, first = read_number(code, at)
  local absolute = {}
  at = first + steps
  count, at = read_number(code, at)
  for _ = 1, count do
    local instruction
    instruction, at = read_number(code, at)
    absolute[instruction], at = read_number(code, at)
  end
  local line = defined
  for i = 0, steps - 1 do
    local step = unpack("b", code, first + i)
    line = step == ABSOLUTE and absolute[i] or line + step
    if i > 0 or not vararg then lines[line] = true end -- a vararg function begins with an instruction of no line
  end
  at = skip_names(code, at, 2) -- locals
  return skip_names(code, at, 0) -- upvalues
end

--- The set of lines at which the function of a chunk, or one inside it, can stop.
return function(f)
  local lines = {}
  read_function(dump(f), HEADER + 1, lines)
  return lines
end
