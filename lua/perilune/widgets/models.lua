-- The widgets, one row each: view, traits with their kinds and defaults, and what the traits owe each other. The names
-- are those of ipywidgets' model specification (jupyterwidgetmodels), in which a model is called as the class and
-- "Model", and a view as the class and "View" where the row names no other.
local kinds = require "perilune.widgets.kinds"
local rules = require "perilune.widgets.rules"

-- A module's version is a range in semver's notation, to which JupyterLab and Voilà look for the greatest version that
-- the front end has; the classic notebook ignores it. ipywidgets 7 has base 1.2 and controls 1.5, ipywidgets 8 has 2.0
-- of both. A plain version would mean "^" that version and load in one of the two only. What their models call
-- differently is sent under both names (`also`), and models of styles that only 8 has are not used.
local BASE <const> = { module = "@jupyter-widgets/base", version = "^1.2.0 || ^2.0.0" }
local CONTROLS <const> = { module = "@jupyter-widgets/controls", version = "^1.5.0 || ^2.0.0" }
local OUTPUT <const> = { module = "@jupyter-widgets/output", version = "^1.0.0" }

local boolean, string, integer, number = kinds.boolean, kinds.string, kinds.integer, kinds.number
local optional, list, one_of = kinds.optional, kinds.list, kinds.one_of

local status = { "success", "info", "warning", "danger", "" }
local bar_style, button_style = one_of(status), one_of { "primary", table.unpack(status) }
local orientation = one_of { "horizontal", "vertical" }

--- The rows. `world` is what kinds.reference needs.
return function(world)
  local function reference(name) return kinds.reference(name, world) end

  -- Groups of traits: rows of name, kind, default. Further fields: also = names under which older or newer front ends
  -- know the trait; also_wire[name] = its form there; here = true keeps it from the front end.
  local function joined(...)
    local rows = {}
    for _, group in ipairs { ... } do table.move(group, 1, #group, #rows + 1, rows) end
    return rows
  end

  local dom = { { "layout", reference "Layout" }, { "_dom_classes", list(string, "strings"), {} } }

  local function styled(style) return joined(dom, { { "style", reference(style) } }) end

  local function described(style)
    return joined(styled(style or "DescriptionStyle"), {
      { "description", string, "" },
      { "description_allow_html", boolean, false },
      { "tooltip", optional(string), nil, also = { "description_tooltip" } },
    })
  end

  local function input(style) return joined(described(style), { { "disabled", boolean, false } }) end

  local function bounds(kind, low, high, step)
    return { { "min", kind, low }, { "max", kind, high }, { "step", kind, step } }
  end

  local function slider(format)
    return joined(input "SliderStyle", {
      { "orientation", orientation, "horizontal" }, { "readout", boolean, true }, { "readout_format", string, format },
      { "continuous_update", boolean, true },
      { "behavior", one_of { "drag-tap", "drag-snap", "tap", "drag", "snap" }, "drag-tap" },
    })
  end

  local int_bounds, float_bounds = bounds(integer, 0, 100, 1), bounds(number, 0.0, 100.0, 0.1)

  local field = joined(input(), { { "continuous_update", boolean, false } })
  local int_field = joined(field, { { "value", integer, 0 }, { "step", integer, 1 } })
  local float_field = joined(field, { { "value", number, 0.0 }, { "step", optional(number) } })

  local function progress(kind, low, high)
    return joined(described "ProgressStyle", {
      { "value", kind, low }, { "min", kind, low }, { "max", kind, high },
      { "bar_style", bar_style, "" }, { "orientation", orientation, "horizontal" },
    })
  end

  local text = { { "value", string, "" }, { "placeholder", string, "\u{200b}" } }
  local typed = joined(input(), text, { { "continuous_update", boolean, true } })

  local options = joined(input(), {
    { "options", kinds.options, {}, here = true }, { "_options_labels", list(string, "strings"), {} },
  })

  local selection = joined(options, {
    { "index", optional(kinds.index) }, { "value", optional(kinds.any), here = true },
    { "label", optional(string), here = true },
  })

  local selections = joined(options, {
    { "index", list(kinds.index, "numbers of options"), {} }, { "value", list(kinds.any, "values"), {}, here = true },
    { "label", list(string, "labels"), {}, here = true }, { "rows", integer, 5 },
  })

  local box = joined(dom, { { "children", list(reference(), "widgets"), {} }, { "box_style", bar_style, "" } })

  -- ipywidgets 7 has titles as an object whose keys are the pages' numbers.
  local function titles_by_number(titles)
    local object = {}
    for i, title in ipairs(titles) do object[tostring(i - 1)] = title end
    return object
  end

  local function pages(selected)
    return joined(box, {
      { "titles", list(string, "strings"), {}, also = { "_titles" }, also_wire = { _titles = titles_by_number } },
      { "selected_index", optional(kinds.index), selected },
    })
  end

  local button = {
    { "description", string, "" }, { "tooltip", string, "" }, { "disabled", boolean, false },
    { "icon", string, "" }, { "button_style", button_style, "" },
  }

  local flex = { "flex-start", "flex-end", "center", "space-between", "space-around", "space-evenly" }
  local whole = { "inherit", "initial", "unset" }
  local places = { "flex-start", "flex-end", "center", "baseline", "stretch" }
  local aligned = one_of(joined(places, whole))
  local spread = one_of(joined(flex, { "stretch" }, whole))
  local layout = {
    { "align_content", optional(spread) }, { "align_items", optional(aligned) },
    { "align_self", optional(one_of(joined({ "auto" }, places, whole))) },
    { "justify_content", optional(spread) }, { "justify_items", optional(spread) },
    { "visibility", optional(one_of(joined({ "visible", "hidden" }, whole))) },
    { "grid_auto_flow", optional(one_of(joined({ "column", "row", "row dense", "column dense" }, whole))) },
    { "object_fit", optional(one_of { "contain", "cover", "fill", "scale-down", "none" }) },
    { "border", optional(string), also = { "border_top", "border_right", "border_bottom", "border_left" } },
  }
  for name in ([[bottom display flex flex_flow grid_area grid_auto_columns grid_auto_rows grid_column grid_gap grid_row
      grid_template_areas grid_template_columns grid_template_rows height left margin max_height max_width min_height
      min_width object_position order overflow padding right top width]]):gmatch "%S+" do
    layout[#layout + 1] = { name, optional(string) }
  end

  -- A style or layout has a view, but none that is shown by itself.
  local function style(traits) return { view_of = BASE, view = "StyleView", hidden = true, traits = traits } end

  local width = { "description_width", string, "" }
  local rows = {
    Layout = { of = BASE, hidden = true, traits = layout },
    DescriptionStyle = style { width },
    SliderStyle = style { width, { "handle_color", optional(kinds.color) } },
    ProgressStyle = style { width, { "bar_color", optional(kinds.color) } },
    ButtonStyle = style { { "button_color", optional(kinds.color) }, { "font_weight", string, "" } },
    ToggleButtonsStyle = style { width, { "button_width", string, "" }, { "font_weight", string, "" } },

    IntSlider = { rule = rules.bounded, traits = joined({ { "value", integer, 0 } }, int_bounds, slider "d") },
    FloatSlider = { rule = rules.bounded, traits = joined({ { "value", number, 0.0 } }, float_bounds, slider ".2f") },
    FloatLogSlider = { rule = rules.logarithmic, traits = joined({ { "value", number, 1.0 }, { "base", number, 10.0 } },
      bounds(number, 0.0, 4.0, 0.1), slider ".3g") },
    IntRangeSlider = { rule = rules.range,
      traits = joined({ { "value", list(integer, "integers", 2) } }, int_bounds, slider "d") },
    FloatRangeSlider = { rule = rules.range,
      traits = joined({ { "value", list(number, "numbers", 2) } }, float_bounds, slider ".2f") },

    IntText = { traits = int_field },
    FloatText = { traits = float_field },
    BoundedIntText = { view = "IntTextView", rule = rules.bounded,
      traits = joined(int_field, { { "min", integer, 0 }, { "max", integer, 100 } }) },
    BoundedFloatText = { view = "FloatTextView", rule = rules.bounded,
      traits = joined(float_field, { { "min", number, 0.0 }, { "max", number, 100.0 } }) },

    IntProgress = { view = "ProgressView", rule = rules.bounded, traits = progress(integer, 0, 100) },
    FloatProgress = { view = "ProgressView", rule = rules.bounded, traits = progress(number, 0.0, 100.0) },

    Text = { traits = typed },
    Password = { traits = typed },
    Textarea = { traits = joined(typed, { { "rows", optional(integer) } }) },
    Label = { traits = joined(described(), text) },
    HTML = { traits = joined(described(), text) },
    HTMLMath = { traits = joined(described(), text) },

    Checkbox = { traits = joined(input(), { { "value", boolean, false }, { "indent", boolean, true } }) },
    Valid = { traits = joined(input(), { { "value", boolean, false }, { "readout", string, "Invalid" } }) },
    ToggleButton = { traits = joined(styled "DescriptionStyle", button, { { "value", boolean, false } }) },
    Button = { traits = joined(styled "ButtonStyle", button) },

    Dropdown = { rule = rules.selection, traits = selection },
    RadioButtons = { rule = rules.selection, traits = selection },
    Select = { rule = rules.selection, traits = joined(selection, { { "rows", integer, 5 } }) },
    SelectMultiple = { rule = rules.selections, traits = selections },
    ToggleButtons = { rule = rules.selection, traits = joined(selection, {
      { "style", reference "ToggleButtonsStyle" }, { "button_style", button_style, "" },
      { "icons", list(string, "strings"), {} }, { "tooltips", list(string, "strings"), {} },
    }) },

    Play = { rule = rules.bounded, traits = joined(input(), int_bounds, {
      { "value", integer, 0 }, { "interval", integer, 100 }, { "show_repeat", boolean, true },
      { "playing", boolean, false, also = { "_playing" } }, { "repeat", boolean, false, also = { "_repeat" } },
    }) },
    ColorPicker = { traits = joined(input(), { { "value", kinds.color, "black" }, { "concise", boolean, false } }) },
    Image = { traits = joined(dom, {
      { "value", kinds.bytes, "" }, { "format", string, "png" },
      { "width", kinds.size, "" }, { "height", kinds.size, "" },
    }) },
    Output = { of = OUTPUT, traits = joined(dom, { { "msg_id", string, "" }, { "outputs", kinds.outputs, {} } }) },

    Box = { traits = box },
    HBox = { traits = box },
    VBox = { traits = box },
    GridBox = { traits = box },
    Tab = { traits = pages(1) },
    Accordion = { traits = pages(nil) },
  }
  for _, row in pairs(rows) do row.of = row.of or CONTROLS end
  return rows
end
