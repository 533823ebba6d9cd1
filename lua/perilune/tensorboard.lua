-- pl.tensorboard: scalars in the event files that TensorBoard shows.
--
--   local writer <close> = pl.tensorboard "runs/gru"
--   for step = 1, 100 do writer:scalar("loss", 1 / step, step) end
--
-- A file is a row of records: the data's length (uint64), the length's checksum (uint32), the data, its checksum. The
-- data is a protocol buffer, an Event of TensorFlow's event.proto; what is written here of it are the fields
-- wall_time = 1, step = 2 and one of file_version = 3, summary = 5, session_log = 7.
local core = require "perilune.core"
local log_file = require "perilune.log_file"
local check = require "perilune.nn.check"

local tensorboard = {}

-- CRC-32C of each byte: the polynomial of Castagnoli, bits reversed.
local checksum_of = {}
for byte = 0, 255 do
  local crc = byte
  for _ = 1, 8 do crc = crc >> 1 ~ (crc & 1) * 0x82F63B78 end
  checksum_of[byte] = crc
end

-- The checksum of a text as the records have it: turned by 15 bits, plus a constant.
local function checksum(text)
  local crc = 0xFFFFFFFF
  for i = 1, #text do crc = crc >> 8 ~ checksum_of[(crc ~ text:byte(i)) & 0xFF] end
  crc = crc ~ 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
end

local function framed(data)
  local length = string.pack("<I8", #data)
  return length .. string.pack("<I4", checksum(length)) .. data .. string.pack("<I4", checksum(data))
end

local function varint(n)
  local bytes = {}
  while n > 0x7F do
    bytes[#bytes + 1] = string.char(n & 0x7F | 0x80)
    n = n >> 7
  end
  return table.concat(bytes) .. string.char(n)
end

-- Fields of a protocol buffer: a number before each says which it is and how it is written.
local function integer(field, value) return varint(field << 3) .. varint(value) end
local function double(field, value) return varint(field << 3 | 1) .. string.pack("<d", value) end
local function text(field, value) return varint(field << 3 | 2) .. varint(#value) .. value end
local function float(field, value) return varint(field << 3 | 5) .. string.pack("<f", value) end

local SESSION_STARTS <const> = integer(1, 1)

-- The first line of one of Linux's files about the running system.
local function told_by(path)
  local file <close> = assert(io.open(path))
  return file:read()
end

local Writer = {}
Writer.__index = Writer

local function write(self, step, what)
  local wall_time = self.opened_at + core.time() - self.opened_s
  self.file:write(framed(double(1, wall_time) .. integer(2, step) .. what))
end

--- Writes a number, which is kept as float32, under a tag ("evaluation/accuracy" stands in the group "evaluation"). It
-- is in the file afterwards; a full disk is an error that names the file.
function Writer:scalar(tag, value, step)
  check.kind("scalar", "tag", tag, "string")
  check.kind("scalar", "value", value, "number")
  step = check.integer("scalar", "step", step, 0)
  write(self, step, text(5, text(1, text(1, tag) .. float(2, value))))
end

--- Closes the file; a second time does nothing.
function Writer:close() self.file:close() end
Writer.__close = Writer.close

local opened = 0

--- A writer of scalars to a new file in `folder`, which is made where it is not there: writer.path. With `from_step`,
-- TensorBoard forgets what older files of the folder hold of that step and those behind it: a training that goes on
-- from a checkpoint writes them again.
function tensorboard.open(folder, from_step)
  check.kind("tensorboard", "folder", folder, "string")
  if from_step then from_step = check.integer("tensorboard", "from_step", from_step, 0) end
  core.make_directory(folder)
  local now, host = os.time(), told_by "/proc/sys/kernel/hostname"
  local path = ("%s/events.out.tfevents.%010d.%s.%s.%d"):format(folder, now, host,
    told_by("/proc/self/stat"):match "^%d+", opened)
  opened = opened + 1
  local self = setmetatable({
    file = log_file.open(path, "w"), path = path, opened_at = now, opened_s = core.time(),
  }, Writer)
  write(self, 0, text(3, "brain.Event:2"))
  if from_step then write(self, from_step, text(7, SESSION_STARTS)) end
  return self
end

return tensorboard
