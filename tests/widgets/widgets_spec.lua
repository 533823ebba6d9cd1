-- Widgets: the table of models, what traits accept, and the messages that keep two copies of a state the same.
local core = require "perilune.core"
local new_front_end = require "widgets.front_end"

describe("widgets", function()
  local front, widgets

  before_each(function()
    front = new_front_end()
    widgets = front.widgets
  end)

  local function raises(expected, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    assert.is_truthy(message:find(expected, 1, true), message)
    return message
  end

  -- Without what is the same in every message.
  local function states(sent, method)
    local list = {}
    for _, message in ipairs(sent) do
      if message.data and message.data.method == method then list[#list + 1] = message.data.state end
    end
    return list
  end

  it("open a comm each, with the whole state and the model's names", function()
    local slider = widgets.IntSlider { value = 3, max = 8, description = "n" }
    local c = front.comm_of(slider)
    assert.are.equal("jupyter.widget", c.target)
    assert.are.same({ version = "2.1.0" }, c.metadata)
    local state = c.opened.state
    assert.are.equal("IntSliderModel", state._model_name)
    assert.are.equal("IntSliderView", state._view_name)
    assert.are.equal("@jupyter-widgets/controls", state._model_module)
    assert.are.equal("^1.5.0 || ^2.0.0", state._model_module_version)
    assert.are.same({ 3, 0, 8, 1, "n", false, "horizontal", true, "d" },
      { state.value, state.min, state.max, state.step, state.description, state.disabled, state.orientation,
        state.readout, state.readout_format })
    assert.are.equal("IPY_MODEL_" .. front.widget.id_of(slider.layout), state.layout)
    assert.are.equal("IPY_MODEL_" .. front.widget.id_of(slider.style), state.style)
    assert.are.equal("SliderStyleModel", front.comm_of(slider.style).opened.state._model_name)
    assert.are.equal("@jupyter-widgets/base", front.comm_of(slider.layout).opened.state._model_module)
    assert.are.equal("[]", core.json_encode(c.opened.buffer_paths))
  end)

  it("can all be made without options, described as text, shown and closed", function()
    local count = 0
    for name, make in pairs(widgets) do
      local w = make()
      count = count + 1
      assert.is_truthy(tostring(w):find("^" .. name .. "{.*}$"), tostring(w))
      local state = front.comm_of(w).opened.state
      assert.are.equal(name .. "Model", state._model_name)
      core.json_encode(state)
      local bundle = getmetatable(w).__mime(w)
      local view = bundle["application/vnd.jupyter.widget-view+json"]
      if name:find "Style$" or name == "Layout" then
        assert.is_nil(view)
      else
        assert.are.same({ version_major = 2, version_minor = 0, model_id = front.widget.id_of(w) }, view)
      end
      assert.are.equal(tostring(w), bundle["text/plain"])
      w:close()
    end
    assert.is_true(count >= 40)
    assert.is_nil(next(front.comms))
  end)

  it("have one state for older and newer front ends", function()
    local tab = widgets.Tab { widgets.Label(), widgets.Label(), titles = { "a", "b" } }
    local state = front.comm_of(tab).opened.state
    assert.are.same({ "a", "b", { ["0"] = "a", ["1"] = "b" }, 0 },
      { state.titles[1], state.titles[2], state._titles, state.selected_index })
    local play = widgets.Play { playing = true }
    assert.is_true(front.comm_of(play).opened.state._playing)
    front.update(play, { _playing = false })
    assert.is_false(play.playing)
    assert.are.equal("1px", front.comm_of(widgets.Layout { border = "1px" }).opened.state.border_left)
    assert.are.equal("t", front.comm_of(widgets.Text { tooltip = "t" }).opened.state.description_tooltip)
  end)

  it("say what is wrong: the trait, what was expected, what came, and where", function()
    local slider = widgets.IntSlider()
    local message = raises("IntSlider: value: expected an integer, got \"3\"", function() slider.value = "3" end)
    assert.is_truthy(message:find "^[^:]*widgets_spec.lua:%d+: ", message)
    raises("expected an integer, got 2.5", function() slider.value = 2.5 end)
    raises("expected an integer, got null", function() slider.value = nil end)
    raises("IntSlider has no trait 'vlaue'; it has behavior, ", function() slider.vlaue = 1 end)
    raises("IntSlider has no trait 'vlaue'", widgets.IntSlider, { vlaue = 1 })
    raises("IntSlider: expected a table of options, got 5", widgets.IntSlider, 5)
    raises("min: expected a number of at most max, which is 100, got 200", function() slider.min = 200 end)
    raises("orientation: expected one of 'horizontal', 'vertical', got \"up\"", function()
      slider.orientation = "up"
    end)
    raises("FloatText: value: expected a finite number, got inf", widgets.FloatText, { value = math.huge })
    raises("FloatLogSlider: base: expected a number above 1", widgets.FloatLogSlider, { base = 1 })
    raises("IntRangeSlider: value: expected a list of 2 integers", widgets.IntRangeSlider, { value = { 1 } })
    raises("the smaller one first, got {3, 2}", widgets.IntRangeSlider, { value = { 3, 2 } })
    raises("HBox: children: expected a list of widgets", widgets.HBox, { "label" })
    raises("HBox: children: expected a list of widgets", widgets.HBox, { widgets.Layout() })
    raises("layout: expected a Layout, or a table of its options", widgets.Label, { layout = widgets.Label() })
    raises("Layout has no trait 'widht'", widgets.Label, { layout = { widht = "5px" } })
    raises("Layout: visibility: expected one of 'visible', 'hidden', 'inherit', 'initial', 'unset', or nil",
      widgets.Layout, { visibility = "seen" })
    raises("ColorPicker: value: expected a color", widgets.ColorPicker, { value = "#12" })
    raises("Dropdown: value: expected one of the options a, b, got \"c\"", widgets.Dropdown,
      { options = { "a", "b" }, value = "c" })
    raises("Dropdown: value: expected nil, as there are no options", widgets.Dropdown, { value = "c" })
    raises("Dropdown: index: expected a number from 1 to 2, got 3", widgets.Dropdown, { options = { 1, 2 }, index = 3 })
    raises("there is no widget 'Slider'; there are Accordion, BoundedFloatText", function() return widgets.Slider end)
    raises("IntSlider has no trait 'val'; it has behavior", function() return slider.val end)
    raises("IntSlider has no trait 'on_click'", function() slider:on_click(print) end)
    raises("observe: f: expected a function, got nil", slider.observe, slider)
    raises("IntSlider has no trait 'size'", slider.observe, slider, print, "size")
    raises("set: expected a table of traits, got 5", slider.set, slider, 5)
    raises("on_click: f: expected a function, got nil", function() widgets.Button():on_click() end)
    raises("capture: f: expected a function, got 3", function() widgets.Output():capture(3) end)
    local closed = widgets.Label { value = "a" }
    closed:close()
    raises('HBox: children: expected a list of widgets, got {Label{ value = "a" }, closed}', widgets.HBox, { closed })
    assert.are.equal(0, slider.value)
  end)

  it("send an update for what changed, and nothing for what did not", function()
    local slider = widgets.IntSlider { max = 10 }
    front.take()
    slider.value = 3
    slider.value = 3.0
    slider.value = 50
    slider:set { min = 20, max = 30 }
    assert.are.same({ { value = 3 }, { value = 10 }, { value = 20, min = 20, max = 30 } },
      states(front.take(), "update"))
    assert.are.equal(20, slider.value)
    local text = widgets.Text()
    front.take()
    text.tooltip = "t"
    text.tooltip = nil
    local sent = states(front.take(), "update")
    assert.are.same({ tooltip = "t", description_tooltip = "t" }, sent[1])
    assert.are.same({ tooltip = core.null, description_tooltip = core.null }, sent[2])
    assert.is_nil(text.tooltip)
  end)

  it("tell observers of changes from either side", function()
    local slider, heard = widgets.IntSlider { max = 10 }, {}
    local function hear(change)
      heard[#heard + 1] = ("%s %s %s %s"):format(change.name, change.old, change.new, change.owner == slider)
    end
    assert.are.equal(0, select("#", slider:observe(hear, "value"))) -- or a cell would show the slider once more
    slider:observe(function(change) heard[#heard + 1] = "any " .. change.name end)
    slider.value = 4
    slider.description = "d"
    front.update(slider, { value = 5 })
    slider:unobserve(hear)
    slider:set { min = 6 }
    assert.are.same({ "value 0 4 true", "any value", "any description", "value 4 5 true", "any value", "any value",
      "any min" }, heard)
  end)

  it("echo what arrives, and send back only what they made of it", function()
    local slider = widgets.IntSlider { max = 10 }
    front.take()
    front.update(slider, { value = 7, unknown = 1 })
    local sent = front.take()
    assert.are.same({ { value = 7 } }, states(sent, "echo_update"))
    assert.are.equal(1, #sent)
    front.update(slider, { value = 70 })
    sent = front.take()
    assert.are.same({ { value = 70 } }, states(sent, "echo_update"))
    assert.are.same({ { value = 10 } }, states(sent, "update"))
    assert.are.equal(10, slider.value)
    local float = widgets.FloatSlider()
    front.update(float, { value = 3 })
    assert.are.equal("float", math.type(float.value))
    raises("IntSlider: value: expected an integer, got \"x\"", front.update, slider, { value = "x" })
    assert.are.equal(10, slider.value)
  end)

  it("answer request_state with everything", function()
    local label = widgets.Label { value = "a" }
    front.take()
    front.comm_of(label).hear({ method = "request_state" }, {})
    local state = states(front.take(), "update")[1]
    assert.are.equal("a", state.value)
    assert.are.equal("LabelModel", state._model_name)
  end)

  it("answer request_states on the control comm with all that is open", function()
    local image, label = widgets.Image { value = "\0\xff" }, widgets.Label { value = "a" }
    widgets.Label():close()
    local control, answer = { on_message = function(c, f) c.hear = f end }, nil
    function control.send(_, data, buffers) answer = { data = data, buffers = buffers } end
    front.targets["jupyter.widget.control"](control)
    control.hear { method = "unknown" }
    assert.is_nil(answer)
    control.hear { method = "request_states" }
    assert.are.equal("update_states", answer.data.method)
    local ids = {}
    for id in pairs(answer.data.states) do ids[#ids + 1] = id end
    assert.are.equal(5, #ids) -- with two layouts and a style
    local one = answer.data.states[front.widget.id_of(label)]
    assert.are.same({ "LabelModel", "@jupyter-widgets/controls", "a" },
      { one.model_name, one.model_module, one.state.value })
    assert.are.equal(core.json_encode { { front.widget.id_of(image), "state", "value" } },
      core.json_encode(answer.data.buffer_paths))
    assert.are.same({ "\0\xff" }, answer.buffers)
  end)

  it("carry binary values in buffers", function()
    local image = widgets.Image { value = "\0\xff", format = "png", width = 30 }
    local c = front.comm_of(image)
    assert.are.same({ { "\0\xff" }, "30" }, { c.buffers, c.opened.state.width })
    assert.is_nil(c.opened.state.value)
    assert.are.equal('[["value"]]', core.json_encode(c.opened.buffer_paths))
    front.take()
    front.update(image, {}, { { "value" } }, { "new" })
    assert.are.equal("new", image.value)
    local echo = front.take()[1]
    assert.are.same({ "new" }, echo.buffers)
    assert.are.equal("echo_update", echo.data.method)
  end)

  it("select by value, label and number, which counts from 1 here and from 0 there", function()
    local dropdown = widgets.Dropdown { options = { one = 1, two = 2, nothing = false } }
    local state = front.comm_of(dropdown).opened.state
    assert.are.same({ "nothing", "one", "two" }, { table.unpack(state._options_labels) })
    assert.are.same({ 0, nil, nil }, { state.index, state.value, state.options })
    assert.are.same({ 1, false, "nothing" }, { dropdown.index, dropdown.value, dropdown.label })
    local seen
    dropdown:observe(function(change) seen = change.new end, "value")
    front.update(dropdown, { index = 2 })
    assert.are.same({ 2, 3, "two" }, { seen, dropdown.index, dropdown.label })
    front.take()
    dropdown.label = "one"
    assert.are.same({ { index = 1 } }, states(front.take(), "update"))
    dropdown.value = nil
    assert.are.same({ { index = core.null } }, states(front.take(), "update"))
    dropdown.value = false
    assert.are.equal(1, dropdown.index)
    dropdown.options = { "x", { "label of y", "y" } }
    assert.are.same({ 1, "x" }, { dropdown.index, dropdown.value })
    dropdown.value = "y"
    assert.are.equal("label of y", dropdown.label)
    local none = widgets.RadioButtons { options = { "a", "b" }, value = core.null }
    assert.is_nil(none.index)
  end)

  it("select several", function()
    local list = widgets.SelectMultiple { options = { "a", "b", "c" }, value = { "c", "a" } }
    assert.are.same({ 3, 1 }, list.index)
    assert.are.equal("[2, 0]", core.json_encode(front.comm_of(list).opened.state.index))
    front.update(list, { index = { 1 } })
    assert.are.same({ { "b" }, { "b" } }, { list.value, list.label })
    raises("value: expected a list of some of the options a, b, c, got \"d\"", function() list.value = { "d" } end)
  end)

  it("keep ranges in their bounds", function()
    local range = widgets.IntRangeSlider { min = 0, max = 10 }
    assert.are.same({ 2, 8 }, range.value)
    range.max = 5
    assert.are.same({ 2, 5 }, range.value)
    range.value = { -3, 4 }
    assert.are.same({ 0, 4 }, range.value)
    assert.are.same({ 25.0, 75.0 }, widgets.FloatRangeSlider().value)
    local log = widgets.FloatLogSlider { min = -3, max = 0 }
    log.value = 5
    assert.are.equal(1.0, log.value)
  end)

  it("take clicks and other messages", function()
    local button, heard = widgets.Button { description = "go" }, {}
    local function click(b) heard[#heard + 1] = b end
    button:on_click(click)
    button:on_message(function(_, content, buffers) heard[#heard + 1] = content.event .. #buffers end)
    front.comm_of(button).hear({ method = "custom", content = { event = "click" } }, {})
    button:click()
    front.comm_of(button).hear({ method = "custom", content = { event = "other" } }, { "b" })
    assert.are.same({ button, "click0", button, "other1" }, heard)
    front.take()
    button:send({ a = 1 }, { "bytes" })
    local sent = front.take()[1]
    assert.are.same({ { method = "custom", content = { a = 1 } }, { "bytes" } }, { sent.data, sent.buffers })
  end)

  it("are closed with the layout and style that were made for them, and then freed", function()
    local shared = widgets.Layout { width = "5px" }
    local label, other = widgets.Label(), widgets.Label { layout = shared }
    label:close()
    other:close()
    assert.are.same({ [front.widget.id_of(shared)] = front.comm_of(shared) }, front.comms)
    front.take()
    label.value = "still"
    label:send {}
    label:close()
    assert.are.equal("still", label.value)
    assert.are.same({ true }, { front.take()[1].closed }) -- closing twice is told to the comm, which knows
    assert.is_nil(getmetatable(label).__mime(label)["application/vnd.jupyter.widget-view+json"])
    local gone = setmetatable({ label }, { __mode = "v" })
    label = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(gone[1])
    local kept = setmetatable({ widgets.Label() }, { __mode = "v" })
    collectgarbage()
    assert.is_truthy(kept[1])
    local closed = widgets.Label()
    front.comm_of(closed).closed_by_front_end()
    assert.is_nil(front.widget.find(front.widget.id_of(closed)))
  end)

  it("close a layout of their own when they get another one", function()
    local label = widgets.Label()
    local before = front.comm_of(label.layout)
    label.layout = { width = "10px" }
    assert.are.equal("10px", label.layout.width)
    assert.is_false(before:is_open())
  end)

  it("complete their traits, methods and options", function()
    local complete = require "perilune.code.complete"
    _G.spec_widget, _G.spec_widgets = widgets.IntSlider(), widgets
    finally(function() _G.spec_widget, _G.spec_widgets = nil, nil end)
    local function offered(code)
      local list = {}
      for _, one in ipairs((complete.at(code, #code))) do list[#list + 1] = one.text end
      return table.concat(list, " ")
    end
    assert.are.equal("readout readout_format", offered "spec_widget.read")
    assert.are.equal("observe on_message", offered "spec_widget:o")
    assert.are.equal("min", offered "spec_widgets.IntSlider{ max = 1, mi")
    assert.are.equal("IntProgress IntRangeSlider IntSlider IntText", offered "spec_widgets.Int")
    assert.are.equal("width", offered "spec_widget.layout.wid")
    assert.are.equal("observe on_message", offered "local made = spec_widgets.IntSlider { max = 3 }\nmade:o")
  end)

  it("tell help what they are", function()
    local help = require "perilune.code.help"
    local said = help.of(widgets.IntSlider { max = 7 }, "slider", 0)["text/plain"]
    assert.matches("^an object of perilune.widgets.IntSlider\n", said)
    assert.matches("\ndisabled +false\n", said)
    assert.matches("\nmax +7\n", said)
    assert.matches("Methods: close, observe,", said)
    assert.matches("^table: %d+ keys", help.of(require "perilune", "pl", 0)["text/plain"])
  end)
end)
