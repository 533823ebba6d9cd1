-- Plots: what reaches gnuplot, files that appear whole or not at all, and errors, with a real and a false gnuplot.
local plot = require "perilune.plot"
local message_of = require "tests.message_of"

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local folder

local function shell(command)
  assert(os.execute(command))
end

local function files_in(path)
  local names, pipe = {}, assert(io.popen("ls -A " .. path))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

-- An SVG's curve as the number of separate pieces and of points, from its path commands.
local function pieces_of(svg, colour)
  local pieces, points = 0, 0
  for path in svg:gmatch("<path stroke='" .. colour .. "'[^>]*d='([^']*)'") do
    for command in path:gmatch("[ML]") do
      if command == "M" then pieces = pieces + 1 end
      points = points + 1
    end
  end
  return pieces, points
end

local blue <const> = "rgb%(  0, 114, 178%)"

describe("a plot", function()
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    shell("mkdir " .. folder)
  end)

  after_each(function() shell("rm -r " .. folder) end)

  it("of every kind is a picture in a notebook", function()
    local figures = {
      plot.line { { x = { 1, 2, 4 }, y = { 1, 4, 2 }, label = "one" }, { y = { 3, 2, 1 } }, title = "t", logx = 2 },
      plot.scatter { { x = { 1, 2, 3 }, y = { 1, 4, 2 } }, xlabel = "x", ylabel = "y" },
      plot.bar { { x = { "a", "b" }, y = { 1, 4 }, label = "one" }, { y = { 2, 3 }, label = "two" } },
      plot.heatmap { { z = { { 1, 2, 3 }, { 4, 0 / 0, 6 } } } },
      plot.band { { y = { 1, 2 }, low = { 0, 1 }, high = { 2, 4 } }, logy = true },
    }
    for _, figure in ipairs(figures) do
      local bundle = figure:__mime()
      assert.matches("^<%?xml.*<svg.*</svg>%s*$", bundle["image/svg+xml"])
      assert.matches("^plot%.%a+: ", bundle["text/plain"])
    end
  end)

  it("saves SVG, PNG and PDF", function()
    local figure = plot.line { { y = { 1, 3, 2 } } }
    local starts = { svg = "<?xml", png = "\137PNG\r\n", pdf = "%PDF-" }
    for ending, start in pairs(starts) do
      local path = ("%s/it's a plot.%s"):format(folder, ending)
      figure:save(path)
      assert.are.equal(start, read(path):sub(1, #start))
    end
    assert.are.equal(3, #files_in(folder))
  end)

  it("interrupts a curve where a value is not a number", function()
    local whole = plot.line { { y = { 1, 2, 3, 2, 1, 2 } } }
    local split = plot.line { { y = { 1, 2, 0 / 0, 2, 1, math.huge } } }
    local pieces, points = pieces_of(whole:svg(), blue)
    local split_pieces, split_points = pieces_of(split:svg(), blue)
    assert.are.equal(pieces + 1, split_pieces)
    assert.are.equal(points - 2, split_points)
    assert.matches("<svg", plot.line { { y = { 0 / 0 } }, { y = {} } }:svg())
  end)

  it("shows text as it is, whatever gnuplot could read into it", function()
    local title = [[it's a_b^2 "{x}" $x @y `touch ]] .. folder .. [[/broken` %d \n]]
    local svg = plot.line { { y = { 1, 2 }, label = title }, title = title .. "\nsecond line", xlabel = title }:svg()
    local _, count = svg:gsub("it's a_b%^2 &quot;{x}&quot; %$x @y `touch ", "")
    if count == 0 then _, count = svg:gsub("it's a_b%^2 \"{x}\" %$x @y `touch ", "") end
    assert.are.equal(3, count)
    assert.matches("second line", svg)
    assert.are.same({}, files_in(folder))
  end)

  it("takes tensors", function()
    local pl = require "perilune"
    local x = pl.arange(1, 5)
    local from_tensors = plot.line { { x = x, y = x * x } }:svg()
    assert.are.equal(plot.line { { x = { 1, 2, 3, 4, 5 }, y = { 1, 4, 9, 16, 25 } } }:svg(), from_tensors)
    assert.matches("<svg", plot.heatmap { pl.randn { 3, 4 } }:svg())
  end)

  it("names what is wrong with the data", function()
    assert.matches("no series", message_of(plot.line, { title = "nothing" }))
    assert.matches("series 1.y is missing", message_of(plot.line, { { x = { 1 } } }))
    assert.matches("series 2.x has 1 values, expected 3",
      message_of(plot.line, { { y = { 1, 2, 3 } }, { x = { 1 }, y = { 1, 2, 3 } } }))
    assert.matches("series 1.y%[2%]: got a string, expected a number", message_of(plot.line, { { y = { 1, "2" } } }))
    assert.matches("series 1.y: got a number, expected a table or a tensor", message_of(plot.bar, { { y = 3 } }))
    assert.matches("series 1.high is missing", message_of(plot.band, { { y = { 1 }, low = { 0 } } }))
    assert.matches("series 1.z%[2%] has 1 values, expected 2",
      message_of(plot.heatmap, { { z = { { 1, 2 }, { 3 } } } }))
    assert.matches("plot_spec.lua:%d+: plot: no series", message_of(function() local f = plot.line {} return f end))
    local figure = plot.line { { y = { 1 } } }
    assert.matches("'path': got a.jpg, expected a name that ends in .svg, .png or .pdf",
      message_of(figure.save, figure, "a.jpg"))
  end)
end)

-- The figure is drawn by a perilune of its own whose PATH holds the gnuplot of the test.
describe("without a working gnuplot", function()
  local path_before <const> = os.getenv("PATH")

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    shell("mkdir " .. folder)
  end)

  after_each(function() shell("rm -r " .. folder) end)

  -- Output of a script that saves a figure to folder/figure.svg, with `path` as its PATH.
  local function save_with(path)
    local script = folder .. "/script.lua"
    local file = assert(io.open(script, "w"))
    file:write(([[
      local plot = require "perilune.plot"
      local ok, message = pcall(function() plot.line { { y = { 1, 2 } } }:save("%s/figure.svg") end)
      print(ok, message)
    ]]):format(folder))
    file:close()
    local pipe = assert(io.popen(("PATH=%s %s %s 2>&1"):format(path, os.getenv "PERILUNE", script)))
    local said = pipe:read("a")
    pipe:close()
    os.remove(script)
    return said
  end

  it("the error carries gnuplot's own words and no file is left", function()
    local fake = folder .. "/bin/gnuplot"
    shell("mkdir " .. folder .. "/bin")
    local file = assert(io.open(fake, "w"))
    file:write("#!/bin/sh\necho 'line 7: the terminal is on strike' >&2\nexit 3\n")
    file:close()
    shell("chmod +x " .. fake)
    local said = save_with(folder .. "/bin:" .. path_before)
    assert.matches("^false", said)
    assert.matches("gnuplot failed %(exit 3%): line 7: the terminal is on strike", said)
    assert.are.same({ "bin" }, files_in(folder))
  end)

  it("the error says that it is missing", function()
    local said = save_with(folder)
    assert.matches("^false.*the program gnuplot was not found", said)
    assert.are.same({}, files_in(folder))
  end)

  it("an unwritable place is an error", function()
    local figure = plot.line { { y = { 1, 2 } } }
    assert.matches("gnuplot failed.*cannot open file", message_of(figure.save, figure, folder .. "/no/such/figure.svg"))
  end)
end)
