-- pl.progress as a log sees it: the numbers it gives, the few lines it writes, and loops that end early.
local pl = require "perilune"
local message_of = require "tests.message_of"

-- What a piece of code writes from a program of its own, which a command's %s stands for.
local function written(command, code)
  local program = assert(os.getenv "PERILUNE", "PERILUNE must name the program")
  local script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write('local pl = require "perilune"\n', code)
  file:close()
  local pipe = assert(io.popen(command:format(program .. " " .. script)))
  local text = pipe:read "a"
  pipe:close()
  os.remove(script)
  return text
end

-- Lines that a piece of code writes to standard error when it is not a terminal.
local function lines_of(code)
  local lines = {}
  for line in written("%s 2>&1 </dev/null", code):gmatch "[^\n]*\n" do lines[#lines + 1] = line:sub(1, -2) end
  return lines
end

-- What a terminal of so many columns gets, by util-linux's script.
local function shown_in(columns, code)
  return written("script -qec 'stty cols " .. columns .. "; %s' /dev/null </dev/null", code)
end

describe("pl.progress", function()
  it("keeps to one line of a terminal", function()
    local code = [[for _, b in pl.progress(1, 3, "work") do b:message("loss %.1f and more", 0.5) pl.sleep(0.11) end]]
    for _, columns in ipairs { 40, 300 } do
      local most = 0
      for line in shown_in(columns, code):gmatch "\r([^\r\27]*)\27%[K" do most = math.max(most, utf8.len(line)) end
      if columns == 40 then
        assert.are.equal(39, most)
      else
        assert.is_true(most > 60 and most < 120, most)
      end
    end
  end)

  it("counts from first to last and hands out the bar", function()
    local lines = lines_of [[
      for i, bar in pl.progress(3, 6, "count") do bar:message("at %d", i) io.stdout:write(i, "\n") io.stdout:flush() end
      for _ in pl.progress(1, 0) do print "an empty range has no rounds" end]]
    local seen = {}
    for _, line in ipairs(lines) do seen[#seen + 1] = math.tointeger(tonumber(line)) end
    assert.are.same({ 3, 4, 5, 6 }, seen)
    assert.are.equal(8, #lines)
  end)

  it("writes few lines in a log, with label, message and rate", function()
    local lines = lines_of [[for i, bar in pl.progress(1, 100, "work") do bar:message("loss %.1f", i) end]]
    assert.are.equal(4, #lines)
    assert.matches("^work%s+25%% 25/100  00:00, 00:0%d left, .*/s  loss 25.0$", lines[1])
    assert.matches("^work%s+100%% 100/100  00:00, .*/s  loss 100.0$", lines[4])
  end)

  it("ends its display when the loop is left early or fails", function()
    local lines = lines_of [[
      for i in pl.progress(1, 10) do if i == 2 then break end end
      pcall(function() for i in pl.progress(1, 10) do if i == 2 then error("stop") end end end)]]
    assert.are.equal(2, #lines)
    for _, line in ipairs(lines) do assert.matches("10%% 1/10", line) end
  end)

  it("names what is wrong", function()
    assert.matches("last: expected an integer, got 1.5", message_of(pl.progress, 1, 1.5))
    assert.matches("first: expected an integer, got nil", message_of(pl.progress))
    assert.matches("label: expected a string, got a number", message_of(pl.progress, 1, 2, 3))
  end)
end)
