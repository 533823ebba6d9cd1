-- Event files, decoded here by other means than those that wrote them.
local pl = require "perilune"
local message_of = require "tests.message_of"
local new_folder = require "tests.new_folder"

-- CRC-32C bit by bit, as TensorFlow masks it.
local function masked(text)
  local crc = 0xFFFFFFFF
  for byte in text:gmatch "." do
    crc = crc ~ byte:byte()
    for _ = 1, 8 do crc = crc % 2 == 1 and crc // 2 ~ 0x82F63B78 or crc // 2 end
  end
  crc = ~crc & 0xFFFFFFFF
  return (crc // 2 ^ 15 + crc % 2 ^ 15 * 2 ^ 17 + 0xA282EAD8) % 2 ^ 32
end

local function read_varint(data, at)
  local value, place = 0, 1
  repeat
    local byte = data:byte(at)
    value, place, at = value + byte % 128 * place, place * 128, at + 1
  until byte < 128
  return value, at
end

-- The fields of a protocol buffer by number; none comes twice here.
local function fields_of(data)
  local fields, at = {}, 1
  while at <= #data do
    local key, value
    key, at = read_varint(data, at)
    local kind = key % 8
    if kind == 0 then
      value, at = read_varint(data, at)
    elseif kind == 2 then
      local size
      size, at = read_varint(data, at)
      value, at = data:sub(at, at + size - 1), at + size
      assert(at <= #data + 1, "a field is longer than what holds it")
    else
      value, at = string.unpack(assert(({ [1] = "<d", [5] = "<f" })[kind]), data, at)
    end
    assert(fields[key // 8] == nil)
    fields[key // 8] = value
  end
  return fields
end

-- The events of a file: lists { "version", .. }, { "start", step }, { tag, value, step }; with the times of them all.
local function events_of(path)
  local file <close> = assert(io.open(path, "rb"))
  local content, at, events, times = file:read "a", 1, {}, {}
  while at <= #content do
    local size, size_sum = string.unpack("<I8I4", content, at)
    assert.equal(masked(content:sub(at, at + 7)), size_sum)
    local data = content:sub(at + 12, at + 11 + size)
    assert.equal(masked(data), (string.unpack("<I4", content, at + 12 + size)))
    at = at + 16 + size
    local event = fields_of(data)
    times[#times + 1] = event[1]
    if event[3] then
      events[#events + 1] = { "version", event[3] }
    elseif event[7] then
      assert.same({ 1 }, fields_of(event[7]))
      events[#events + 1] = { "start", event[2] }
    else
      local value = fields_of(fields_of(event[5])[1])
      events[#events + 1] = { value[1], value[2], event[2] }
    end
  end
  return events, times
end

local function float32(x) return (string.unpack("<f", string.pack("<f", x))) end

describe("tensorboard", function()
  local folder
  before_each(function() folder = new_folder() end)
  after_each(function() os.execute("rm -r " .. folder) end)

  local function files()
    local pipe <close>, list = assert(io.popen("ls " .. folder .. "/runs")), {}
    for name in pipe:lines() do list[#list + 1] = folder .. "/runs/" .. name end
    return list
  end

  it("knows the published checksum of a test text", function()
    -- CRC-32C of "123456789" is E3069283.
    assert.equal(((0xE3069283 >> 15 | 0xE3069283 << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF, masked "123456789")
  end)

  it("writes scalars that are in the file at once", function()
    local before = os.time()
    local writer <close> = pl.tensorboard(folder .. "/runs")
    assert.same({ writer.path }, files())
    assert.matches("/runs/events%.out%.tfevents%.%d%d%d%d%d%d%d%d%d%d%.[^/]+%.%d+%.%d+$", writer.path)
    local long, expected = ("a/"):rep(400), { { "version", "brain.Event:2" } }
    for i, value in ipairs { 0.1, -1e-40, 0, 3, 1 / 3, math.huge, 1e30 } do
      local step = i == 1 and 0 or 127 ^ (i - 1)
      writer:scalar(i == 2 and long or "loss", value, step)
      expected[i + 1] = { i == 2 and long or "loss", float32(value), math.tointeger(step) }
      assert.same(expected, (events_of(writer.path)))
    end
    writer:scalar("loss", 0 / 0, 1)
    local events, times = events_of(writer.path)
    assert.is_true(events[#events][2] ~= events[#events][2])
    for i, time in ipairs(times) do assert.is_true(time >= (times[i - 1] or before) and time <= os.time() + 2) end
    writer:close()
    writer:close()
  end)

  it("begins a file of its own each time, and says from which step on", function()
    local first <close> = pl.tensorboard(folder .. "/runs")
    local second <close> = pl.tensorboard(folder .. "/runs", 300)
    assert.is_true(first.path ~= second.path)
    assert.same({ { "version", "brain.Event:2" }, { "start", 300 } }, (events_of(second.path)))
  end)

  it("refuses what it cannot write", function()
    local writer <close> = pl.tensorboard(folder .. "/runs")
    assert.matches("scalar: tag: expected a string, got 3", message_of(writer.scalar, writer, 3, 1, 1))
    assert.matches("scalar: value: expected a number, got 'x'", message_of(writer.scalar, writer, "loss", "x", 1))
    assert.matches("scalar: step: expected an integer of at least 0, got %-1",
      message_of(writer.scalar, writer, "loss", 1, -1))
    assert.matches("tensorboard: folder: expected a string, got nothing", message_of(pl.tensorboard))
    assert.matches("/dev/full/x", message_of(pl.tensorboard, "/dev/full/x"))
    local open = io.open
    rawset(io, "open", function(path, mode) return open(path:find "tfevents" and "/dev/full" or path, mode) end)
    local whole, message = pcall(pl.tensorboard, folder .. "/runs")
    rawset(io, "open", open)
    assert.is_false(whole)
    assert.matches("cannot write '" .. folder:gsub("%p", "%%%0") .. "/runs/events.-': No space left on device", message)
  end)

  it("keeps what a killed program wrote", function()
    local script = ([[
      local writer = require("perilune").tensorboard(%q)
      writer:scalar("loss", 2, 1)
      os.execute "kill -9 $PPID"
      writer:scalar("loss", 3, 2)]]):format(folder .. "/runs")
    local file = assert(io.open(folder .. "/killed.lua", "w"))
    file:write(script)
    file:close()
    os.execute(("{ %s %s/killed.lua; } 2>/dev/null"):format(os.getenv "PERILUNE", folder))
    assert.same({ { "version", "brain.Event:2" }, { "loss", 2, 1 } }, (events_of(files()[1])))
  end)

  -- A training of `steps` steps, of which the last is killed by an error when it breaks.
  local function train(steps, breaks)
    pl.seed(3)
    local model = pl.nn.Linear(1, 1)
    return pl.train.loop {
      model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 0.1 }), steps = 10, progress = false, clip = 1,
      batch = function(step)
        if breaks and step == steps then error "killed" end
        return step <= steps and pl.full({ 4, 1 }, 1 + step % 2) or nil
      end,
      loss = function(m, x) return pl.nn.mse_loss(m(x), x * 2) end,
      evaluate = function(_, step) return { score = step / 3, name = "x" } end, evaluate_every = 2, log_every = 2,
      checkpoint = folder .. "/run.safetensors", tensorboard = folder .. "/runs",
    }
  end

  -- Step and value of each tag in a list of events.
  local function by_tag(events)
    local tags = {}
    for _, event in ipairs(events) do
      if event[3] then
        tags[event[1]] = tags[event[1]] or {}
        table.insert(tags[event[1]], { event[3], event[2] })
      end
    end
    return tags
  end

  it("takes what a training's records hold, and goes on in a new file", function()
    assert.is_false(pcall(train, 4, true))
    local history = train(10)
    assert.equal(2, history.resumed)
    local paths = files()
    assert.equal(2, #paths)
    local first, second = events_of(paths[1]), events_of(paths[2])
    assert.same({ { "start", 1 }, { "start", 3 } }, { first[2], second[2] })
    assert.same({ { 2, float32(2 / 3) } }, by_tag(first)["evaluation/score"])
    local tags, expected = by_tag(second), { ["evaluation/score"] = {} }
    for _, name in ipairs { "loss", "lr", "grad_norm", "ms" } do expected[name] = {} end
    for _, record in ipairs(history.steps) do
      if record.step % 2 == 0 then
        for _, name in ipairs { "loss", "lr", "grad_norm", "ms" } do
          table.insert(expected[name], { record.step, float32(record[name]) })
        end
        table.insert(expected["evaluation/score"], { record.step, float32(record.step / 3) })
      end
    end
    assert.equal(4, #expected.loss)
    assert.same(expected, tags)
  end)
end)
