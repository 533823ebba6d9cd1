-- Plots: what reaches gnuplot, files that appear whole or not at all, and errors, with a real and a false gnuplot.
local plot = require "perilune.plot"
local message_of = require "tests.message_of"
local new_folder = require "tests.new_folder"

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
  before_each(function() folder = new_folder() end)
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
      assert.matches("^<svg.*<g .*</svg>%s*$", bundle["image/svg+xml"])
      assert.is_nil(bundle["image/svg+xml"]:find "<g [^>]*>%s*</g>")
      assert.matches("^\x89PNG", bundle["image/png"])
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
    assert.matches("<svg", plot.line { { y = { 0 / 0 } }, { y = { 1 / 0, -1 / 0 } } }:svg())
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

  it("gives series that belong together one colour, and one kind of dashes", function()
    local looks = { y = { 1, 2, 3 }, colour = 1, dash = 2 }
    local svg = plot.line { { y = { 3, 2, 1 } }, looks }:svg()
    assert.are.equal(2, (pieces_of(svg, blue)))
    assert.is_nil(svg:find("213,  94,   0", 1, true)) -- the second colour
    assert.matches("stroke%-dasharray", svg)
    local layers = plot.line({ { y = { 3, 2, 1 } }, { y = { 1, 2, 3 }, colour = 3, dash = 1 } }):vegalite().layer
    assert.are.same({ "#0072B2", "#009E73" }, { layers[1].mark.color, layers[2].mark.color })
    assert.are.same(layers[1].mark.strokeDash, layers[2].mark.strokeDash)
    for _, kind in ipairs { "scatter", "bar" } do
      assert.matches("213,  94,   0", plot[kind]({ { y = { 1, 2 }, colour = 2 } }):svg(), 1, true)
      assert.matches("series 1: unknown field 'dash'", message_of(plot[kind], { { y = { 1 }, dash = 2 } }))
    end
    assert.matches("series 1.colour: expected an integer of at least 1, got 'red'",
      message_of(plot.line, { { y = { 1 }, colour = "red" } }))
  end)

  it("puts figures side by side, and their key in an empty place", function()
    local function one(i)
      return plot.line { { y = { 1, i }, label = "curve" }, title = "panel " .. i, logy = true, logx = 2 }
    end
    local figure = plot.panels { one(2), plot.bar { { y = { 1, 2 } } }, one(3), false, title = "All" }
    assert.are.same({ 760, 660 }, figure.size)
    local svg = figure:svg()
    for _, text in ipairs { "All", "panel 2", "panel 3" } do assert.matches(">" .. text, svg, 1, true) end
    assert.are.equal(1, select(2, svg:gsub(">curve<", "")))
    assert.matches(">panel 2", plot.panels { false, plot.heatmap { { { 1, 2 }, { 3, 4 } } }, one(2) }:svg(), 1, true)
    assert.matches("<svg", plot.panels { false, plot.heatmap { { { 1, 2 }, { 3, 4 } } }, false }:svg())
    assert.are.equal(2, select(2, plot.panels { one(2), one(3) }:svg():gsub(">curve<", "")))
    assert.matches("no figures", message_of(plot.panels, { false }))
    assert.matches("figure 2: expected what plot.line and its like return, or false, got 3",
      message_of(plot.panels, { one(2), 3 }))
    assert.matches("unknown option 'logx'; expected columns, size, title",
      message_of(plot.panels, { one(2), logx = 2 }))
    assert.matches("columns: expected an integer of at least 1, got 0",
      message_of(plot.panels, { one(2), columns = 0 }))
    assert.matches("unknown option 'columns'", message_of(plot.line, { { y = { 1 } }, columns = 2 }))
    assert.matches("expected a figure of one kind, got panels", message_of(figure.vegalite, figure))
  end)

  it("names what is wrong with the data", function()
    assert.matches("no series", message_of(plot.line, { title = "nothing" }))
    assert.matches("series 1.y is missing", message_of(plot.line, { { x = { 1 } } }))
    assert.matches("series 2.x: expected 3 values, got 1",
      message_of(plot.line, { { y = { 1, 2, 3 } }, { x = { 1 }, y = { 1, 2, 3 } } }))
    assert.matches("series 1.y%[2%]: expected a number, got '2'", message_of(plot.line, { { y = { 1, "2" } } }))
    assert.matches("series 1.y: expected a table or a tensor, got 3", message_of(plot.bar, { { y = 3 } }))
    assert.matches("series 1.high is missing", message_of(plot.band, { { y = { 1 }, low = { 0 } } }))
    assert.matches("series 1.z%[2%]: expected 2 values, got 1",
      message_of(plot.heatmap, { { z = { { 1, 2 }, { 3 } } } }))
    assert.matches("plot_spec.lua:%d+: plot: no series", message_of(function() local f = plot.line {} return f end))
    local figure = plot.line { { y = { 1 } } }
    assert.matches("path: expected a name that ends in .svg, .png or .pdf, got 'a.jpg'",
      message_of(figure.save, figure, "a.jpg"))
  end)
end)

describe("when a figure is made", function()
  local data <const> = { y = { 1, 2, 3 } }

  local function refused(kind, spec) return message_of(plot[kind], spec) end

  it("its data are checked", function()
    assert.matches("series 1.x%[2%]: expected a number, got 'two'",
      refused("line", { { x = { 1, "two" }, y = { 1, 2 } } }))
    assert.matches("series 1.x: expected 3 values, got 2", refused("scatter", { { x = { 1, 2 }, y = { 1, 2, 3 } } }))
    assert.matches("series 1.y: expected at least one value, got none", refused("line", { { y = {} } }))
    assert.matches("series 1.y: expected the values 1..%d, got the key ",
      refused("line", { { y = { 1, 2, [5] = 3 } } }))
    assert.matches("series 1.y%[1%]: expected a number, got a table", refused("line", { { y = { { 1 } } } }))
    assert.matches("series 1.x%[1%]: expected a number or a string, got a table",
      refused("bar", { { x = { {} }, y = { 1 } } }))
    assert.matches("series 2.y: expected 3 values, one per group, got 2", refused("bar", { data, { y = { 1, 2 } } }))
    assert.matches("series 1: unknown field 'lable'; expected colour, dash, label, x, y",
      refused("line", { { y = { 1 }, lable = "a" } }))
    assert.matches("series 1.label: expected a string, got a table", refused("line", { { y = { 1 }, label = {} } }))
    assert.matches("expected one matrix or { z = matrix } in the table, got 0", refused("heatmap", {}))
    assert.matches("series 1.z%[1%]: expected at least one value", refused("heatmap", { { z = { {} } } }))
    assert.matches("series 1.z%[2%]: expected a row of numbers, got 3", refused("heatmap", { { { 1 }, 3 } }))
    assert.matches("expected a table of series and options, got 3", refused("line", 3))
  end)

  it("its options are checked", function()
    local expected = {
      { "xlable", "x", "unknown option 'xlable'; expected interactive, legend, logx, logy, size, title" },
      { "title", {}, "title: expected a string, got a table" },
      { "logx", 1, "logx: expected true, false or a base above 1, got 1" },
      { "xrange", 3, "xrange: expected { low, high }, two different numbers, got 3" },
      { "xrange", { 5, 5 }, "xrange: expected { low, high }, two different numbers" },
      { "yrange", { "a", 2 }, "yrange: expected { low, high }, two different numbers" },
      { "size", { -1, 3 }, "size: expected { width, height } in pixels" },
      { "legend", "somewhere", "legend: expected false or a place, .*, got 'somewhere'" },
      { "xrange", { 10, 20 }, "xrange: no point lies within 10 to 20" },
    }
    for _, row in ipairs(expected) do assert.matches(row[3], refused("line", { data, [row[1]] = row[2] })) end
    assert.matches("yrange: expected numbers above 0 on a logarithmic axis, got 0",
      refused("line", { data, logy = true, yrange = { 0, 1 } }))
    assert.matches("unknown option 'logx'", refused("bar", { data, logx = true }))
    assert.matches("unknown option 'yrange'", refused("heatmap", { { { 1 } }, yrange = { 1, 2 } }))
  end)

  it("what changes later does not change it", function()
    local y = { 1, 2, 3 }
    local figure = plot.line { { y = y } }
    local before = figure:svg()
    y[2] = "two"
    assert.are.equal(before, figure:svg())
  end)

  it("values without a place on a logarithmic axis are gaps", function()
    local whole = plot.line { { y = { 1, 2, 3, 2, 1, 2 } }, logy = true }
    local split = plot.line { { y = { 1, 2, 0, 2, 1, -3 } }, logy = true }
    local pieces, points = pieces_of(whole:svg(), blue)
    local split_pieces, split_points = pieces_of(split:svg(), blue)
    assert.are.equal(pieces + 1, split_pieces)
    assert.are.equal(points - 2, split_points)
    for _, kind in ipairs { "line", "scatter", "bar" } do
      assert.matches("<svg", plot[kind]({ { y = { 0, -1 } }, logy = 2 }):svg())
    end
    assert.matches("<svg", plot.scatter({ { x = { 0, 1 }, y = { 1, 1 } }, logx = true }):svg())
    assert.matches("<svg", plot.band({ { y = { 1, 2 }, low = { 0, 1 }, high = { 2, 3 } }, logy = true }):svg())
  end)

  it("a logarithmic axis without two powers of ten on it has other labels", function()
    local function labels(y, options)
      local spec, found = options or {}, {}
      spec[1], spec.logy = { x = { 0, 1000 }, y = y }, spec.logy or true
      for label in plot.line(spec):svg():gmatch "<text>([%d.e+-]+)</text>" do found[#found + 1] = label end
      return " " .. table.concat(found, " ") .. " " -- those of y come first
    end
    assert.matches("^ 20 50 100 ", labels { 14, 150 })
    assert.matches("^ 0.015 0.02 0.025 0.03 0.035 0.04 0.045 ", labels { 0.0155, 0.044 })
    assert.matches("^ 1 10 100 ", labels { 1, 100 })
    assert.matches("^ 16 32 64 128 ", labels({ 14, 150 }, { logy = 2 }))
    assert.matches("^ 1 10 100 ", labels({ 14, 50 }, { yrange = { 1, 100 } }))
    assert.matches("^ 5 10 20 50 ", labels({ 14, 50 }, { yrange = { 5, 60 } }))
    assert.matches("^ 3 ", labels { 3, 3 })
  end)

  it("a logarithmic axis with many powers of ten on it is not marked between them", function()
    local function marks(y) return select(2, plot.line { { y = y }, logy = true }:svg():gsub("M[^M]+ L", "")) end
    assert.is_true(marks { 1, 1e3 } > marks { 1, 1e9 } + 9)
  end)
end)

describe("a Vega-Lite figure", function()
  local core = require "perilune.core"

  -- The specification as a front end reads it.
  local function specification(figure) return core.json_decode(core.json_encode(figure:vegalite())) end

  local function column(layer, name)
    local values = {}
    for i, row in ipairs(layer.data.values) do values[i] = row[name] end
    return values
  end

  it("comes beside the picture where the figure is interactive", function()
    local data <const> = { y = { 1, 2 } }
    local shown = plot.line({ data, interactive = true, title = "t", size = { 300, 200 } }):__mime()
    local vegalite = shown["application/vnd.vegalite.v5+json"]
    assert.matches("<svg", shown["image/svg+xml"])
    assert.are.equal("https://vega.github.io/schema/vega-lite/v5.json", vegalite["$schema"])
    assert.are.same({ "t", 300, 200 }, { vegalite.title, vegalite.width, vegalite.height })
    assert.is_nil(plot.line({ data }):__mime()["application/vnd.vegalite.v5+json"])
    assert.matches("interactive: expected true or false, got 1", message_of(plot.line, { data, interactive = 1 }))
  end)

  it("holds the figure's points, gaps included, and zooms", function()
    for _, kind in ipairs { "line", "scatter" } do
      local layers = specification(plot[kind] {
        { x = { 1, 2, 4 }, y = { 0.5, 0 / 0, 1 / 0 }, label = "one" }, { y = { 7 } } }).layer
      assert.are.same({ 1, 2, 4 }, column(layers[1], "x"))
      assert.are.same({ 0.5, core.null, core.null }, column(layers[1], "y"))
      assert.are.same({ { 1 }, { 7 } }, { column(layers[2], "x"), column(layers[2], "y") })
      assert.are.equal(kind == "line" and "line" or "point", layers[1].mark.type)
      assert.are.same({ "zoom", "scales" }, { layers[1].params[1].name, layers[1].params[1].bind })
    end
  end)

  it("has the figure's axes", function()
    local figure = plot.line { { x = { -1, 10, 100 }, y = { 1, 2, 3 } }, logx = true, logy = 2, xrange = { 1, 50 },
      yrange = { nil, 4 }, xlabel = "length", ylabel = "loss" }
    local layer = specification(figure).layer[1]
    assert.are.same({ core.null, 10, 100 }, column(layer, "x"))
    assert.are.same({ field = "x", type = "quantitative", title = "length",
      scale = { type = "log", zero = false, domainMin = 1, domainMax = 50 } }, layer.encoding.x)
    assert.are.same({ type = "log", base = 2, zero = false, domainMax = 4 }, layer.encoding.y.scale)
    local reversed = specification(plot.line { { y = { 1 } }, xrange = { 9, 0 } }).layer[1].encoding.x
    assert.are.same({ domainMin = 0, domainMax = 9, reverse = true, zero = false }, reversed.scale)
    assert.are.equal(core.null, reversed.title)
  end)

  it("has its legend and colours", function()
    local function colour(legend, i)
      local figure = plot.line { { y = { 1 }, label = "a" }, { y = { 1 } }, { y = { 2 }, label = "b" },
        legend = legend }
      local layer = specification(figure).layer[i]
      return layer.encoding.color, layer.mark.color, layer.transform
    end
    local first = colour("bottom left", 1)
    assert.are.same({ "series", "nominal" }, { first.field, first.type })
    assert.are.same({ "a", "b" }, { table.unpack(first.scale.domain) })
    assert.are.same({ "#0072B2", "#009E73" }, { table.unpack(first.scale.range) })
    assert.are.equal("bottom-left", first.legend.orient)
    assert.are.equal("right", colour(nil, 3).legend.orient)
    assert.are.equal("bottom", colour("outside bottom", 3).legend.orient)
    assert.are.equal(core.null, colour(false, 1).legend)
    assert.are.equal('"b"', select(3, colour(nil, 3))[1].calculate)
    assert.are.same({ n = 3, nil, "#D55E00", nil }, table.pack(colour(nil, 2)))
  end)

  it("draws bands, bars and matrices", function()
    local band = specification(plot.band {
      { x = { 3, 4 }, y = { 1, 2 }, low = { 0, 1 }, high = { 2, 4 } }, logy = true })
    local area, curve = band.layer[1], band.layer[2]
    assert.are.same({ "area", "line" }, { area.mark.type, curve.mark.type })
    assert.are.same({ nil, "circle", n = 2 }, table.pack(area.mark.point, curve.mark.point.shape))
    assert.are.same({ "low", "high" }, { area.encoding.y.field, area.encoding.y2.field })
    assert.are.same({ { core.null, 1 }, { 2, 4 }, { 1, 2 }, { 3, 4 } },
      { column(area, "low"), column(area, "high"), column(curve, "y"), column(curve, "x") })
    local bar = specification(plot.bar { { x = { "a", "b" }, y = { 1, 4 }, label = "one" }, { y = { 2, 3 } } })
    assert.are.same({ { 1, 2, 1, 2 }, { 1, 4, 2, 3 }, { "one", "one", "2", "2" } },
      { column(bar, "group"), column(bar, "y"), column(bar, "series") })
    assert.are.equal('["a", "b"][datum.value - 1]', bar.encoding.x.axis.labelExpr)
    local matrix = specification(plot.heatmap {
      { z = { { 1, 2 }, { 0 / 0, 4 } }, x = { "p", "q" }, label = "weight" } })
    assert.are.same({ { 1, 2, 1, 2 }, { 1, 1, 2, 2 }, { 1, 2, core.null, 4 } },
      { column(matrix, "x"), column(matrix, "y"), column(matrix, "z") })
    assert.are.equal("weight", matrix.encoding.color.title)
  end)
end)

-- The figure is drawn by a perilune of its own whose PATH holds the gnuplot of the test.
describe("without a working gnuplot", function()
  local path_before <const> = os.getenv("PATH")

  before_each(function() folder = new_folder() end)
  after_each(function() shell("rm -r " .. folder) end)

  -- Output of a script with `path` as its PATH.
  local function run_with(path, text)
    local script = folder .. "/script.lua"
    local file = assert(io.open(script, "w"))
    file:write(text)
    file:close()
    local pipe = assert(io.popen(("PATH=%s %s %s 2>&1"):format(path, os.getenv "PERILUNE", script)))
    local said = pipe:read("a")
    pipe:close()
    os.remove(script)
    return said
  end

  -- Output of a script that saves a figure to folder/figure.svg, with `path` as its PATH.
  local function save_with(path)
    return run_with(path, ([[
      local plot = require "perilune.plot"
      local ok, message = pcall(function() plot.line { { y = { 1, 2 } } }:save("%s/figure.svg") end)
      print(ok, message)
    ]]):format(folder))
  end

  -- Output of a script that shows a figure as a notebook does.
  local function show_with(path)
    return run_with(path, [[
      local figure = require "perilune.plot".line { { y = { 1, 2 } }, title = "Loss" }
      local ok, shown = pcall(getmetatable(figure).__mime, figure)
      print(ok, ok and shown["image/svg+xml"] == nil, ok and shown["text/plain"] or shown)
    ]])
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
    assert.matches("^false.*the terminal is on strike", show_with(folder .. "/bin:" .. path_before))
  end)

  it("the error says that it is missing", function()
    local said = save_with(folder)
    assert.matches("^false.*the program gnuplot was not found", said)
    assert.are.same({}, files_in(folder))
  end)

  it("a notebook shows text that says what is missing", function()
    assert.matches("^true\ttrue\tplot.line: Loss\nnot drawn: the program gnuplot was not found", show_with(folder))
  end)

  it("an unwritable place is an error", function()
    local figure = plot.line { { y = { 1, 2 } } }
    local path = folder .. "/no/such/figure.svg"
    assert.matches("plot_spec.lua:%d+: cannot create a file beside '" .. path .. "': No such file or directory",
      message_of(function()
        local saved = figure:save(path)
        return saved
      end))
  end)
end)
