-- Widgets for the front end of ipywidgets 6: the same objects, other messages.
local core = require "perilune.core"
local new_front_end = require "widgets.front_end"

describe("widgets for ipywidgets 6", function()
  local front, widgets

  before_each(function()
    front = new_front_end(true)
    widgets = front.widgets
  end)

  local function sent()
    local list = {}
    for i, message in ipairs(front.take()) do list[i] = message.data end
    return list
  end

  local function sync(w, state) front.comm_of(w).hear({ method = "backbone", sync_data = state }, {}) end

  it("lie open in comm_open, in the module of that time", function()
    local state = front.comm_of(widgets.IntSlider { value = 3 }).opened
    assert.are.same({ 3, "IntSliderModel", "jupyter-js-widgets", "~2.1.4", "jupyter-js-widgets", "~2.1.4" },
      { state.value, state._model_name, state._model_module, state._model_module_version, state._view_module,
        state._view_module_version })
    local range = front.comm_of(widgets.IntRangeSlider()).opened
    assert.are.same({ "IntSliderModel", "IntSliderView", true }, { range._model_name, range._view_name, range._range })
    for name, make in pairs(widgets) do
      local opened = front.comm_of(make()).opened
      assert.is_string(opened._model_name, name)
      assert.are.equal("jupyter-js-widgets", opened._view_module)
    end
  end)

  it("send updates, take what comes back, and do not echo it", function()
    local slider, seen = widgets.IntSlider { max = 10 }, nil
    slider:observe(function(change) seen = change.new end, "value")
    front.take()
    slider.value = 3
    assert.are.same({ { method = "update", state = { value = 3 } } }, sent())
    sync(slider, { value = 7 })
    assert.are.same({ 7, 7, {} }, { seen, slider.value, sent() })
    sync(slider, { value = 70 })
    assert.are.same({ { method = "update", state = { value = 10 } } }, sent())
    front.comm_of(slider).hear({ method = "backbone", sync_data = 5 }, {})
    front.comm_of(slider).hear({ method = "request_state" }, {})
    local whole = sent()[1]
    assert.are.same({ "update", 10, "IntSliderModel" }, { whole.method, whole.state.value, whole.state._model_name })
  end)

  it("select by labels", function()
    local dropdown = widgets.Dropdown { options = { "a", { "the b", 2 } } }
    local state = front.comm_of(dropdown).opened
    assert.are.same({ "a", nil }, { state.value, state.index })
    sync(dropdown, { value = "the b" })
    assert.are.same({ 2, 2 }, { dropdown.index, dropdown.value })
    front.take()
    dropdown.index = 1
    assert.are.same({ { method = "update", state = { value = "a" } } }, sent())
    local several = widgets.SelectMultiple { options = { "a", "b", "c" } }
    sync(several, { value = { "c", "a" } })
    assert.are.same({ 3, 1 }, several.index)
  end)

  it("hold pictures as base64, and are shown by a message", function()
    local image = widgets.Image { value = "abc" }
    assert.are.equal("YWJj", front.comm_of(image).opened._b64value)
    assert.is_nil(next(front.comm_of(image).buffers))
    front.take()
    local bundle = getmetatable(image).__mime(image)
    assert.are.equal(front.widget.id_of(image), bundle["application/vnd.jupyter.widget-view+json"].model_id)
    assert.are.same({ { method = "display" } }, sent())
  end)

  it("learn of a front end that comes later", function()
    front = new_front_end()
    assert.is_nil(front.comm_of(front.widgets.Label()).opened._model_name)
    local answer
    front.targets["jupyter.widget.version"] { send = function(_, data) answer = data end }
    assert.are.same({ version = "~2.1.4" }, answer)
    assert.are.equal("LabelModel", front.comm_of(front.widgets.Label()).opened._model_name)
    assert.is_nil(core.comm_refused["jupyter.widget.version"])
  end)
end)
